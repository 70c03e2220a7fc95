"""The job: every record of every source at the collector, once, and let go of only then."""

from __future__ import annotations

from collections.abc import Callable

from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.service import Service, until

Install = Callable[..., Service]


def test_written_is_exported_is_received(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector).start()
    assert service.says("reading queues=2 log_groups=2 streams=0 firehose_endpoints=0 vpcs=4 vpcs_without_source=0")
    for _ in range(3):
        cloud.write(4000, per_delivery=250)
    until(lambda: collector.unique == cloud.written, lambda: (collector.unique, cloud.written, service.tail()))
    until(lambda: cloud.queued() == 0, "messages are left in a queue")
    assert collector.repeated() == {}
    assert service.metric("edfn_records_exported_total") == cloud.written
    assert collector.missing == collector.unknown == collector.errors == 0
    vpcs = {source.vpc.name: str(source.vpc.router) for source in cloud.sources}
    assert {collector.names[domain]: collector.exporters[domain] for domain in collector.names} == vpcs
    until(lambda: not cloud.in_hand(service.state), "cursors were not stored")
    assert service.stop() == 0, service.tail()
