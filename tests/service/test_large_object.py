"""One large object through the whole service: in the memory of a small one, and by range where it breaks."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.inputs.faults import FaultProxy
from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.large_object import LargeObject, peak
from tests.service.service import SERVICES, Service, until

Install = Callable[..., Service]
RECORDS = 600_000
GROWTH = 64 << 20
"""Octets of memory that reading it may take, beyond what a small object has taken."""


def test_sixty_megabytes_in_seven_pieces(cloud: Cloud, install: Install) -> None:
    collector = Collector("tcp")
    with FaultProxy(cloud.url) as proxy:
        endpoints = dict.fromkeys(SERVICES, proxy.url)
        service = install(collector, aws={"endpoints": endpoints}, ipfix={"records_per_second": 0}).start()
        cloud.put(cloud.shop, 40_000)
        until(lambda: collector.unique == cloud.written, service.tail)
        before = peak(service.pid)
        large = LargeObject(cloud.shop, RECORDS, cloud.written + 1, int(time.time()), broken_after=9 << 20)
        cloud.written += RECORDS
        proxy.rules.append(large.rule)
        large.announce(cloud)
        until(lambda: collector.unique == cloud.written, lambda: (collector.unique, large.ranges, service.tail()), 120)
        until(lambda: cloud.queued() == 0, service.tail)
        assert large.size > 50 << 20
        assert collector.repeated() == {}
        assert len(large.ranges) == -(-large.size // (9 << 20))
        assert service.metric("edfn_s3_reads_resumed_total") == len(large.ranges) - 1
        assert peak(service.pid) - before < GROWTH, (before >> 20, peak(service.pid) >> 20)
        assert service.stop() == 0, service.tail()
    collector.close()
