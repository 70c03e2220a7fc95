"""Two worker processes: every record once, in domains of their own; one that dies is restarted."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.service import Service, free_port, until

Install = Callable[..., Service]
WORKER_SHIFT = 24


def pids(service: Service) -> dict[int, int]:
    """Worker -> pid, of the newest of each."""
    found = re.findall(r"worker started worker=(\d+) pid=(\d+)", service.log)
    return {int(worker): int(pid) for worker, pid in found}


def test_every_record_once(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector, workers=2, http={"listen": f"127.0.0.1:{free_port(together=2)}"})
    service.spawn()
    until(lambda: service.says("ready") == 2, service.tail)
    for _ in range(2):
        cloud.write(3000, per_delivery=50)
    until(lambda: collector.unique == cloud.written and cloud.queued() == 0, service.tail)
    assert collector.repeated() == {}
    assert {domain >> WORKER_SHIFT for domain in collector.domains} == {0, 1}
    assert collector.missing == collector.unknown == 0
    before = pids(service)
    os.kill(before[1], signal.SIGKILL)
    until(lambda: service.says("worker died and will be restarted"), service.tail)
    until(lambda: service.says("ready") == 3, service.tail)
    after = pids(service)
    assert after[0] == before[0]
    assert after[1] != before[1]
    cloud.write(2000, per_delivery=50)
    until(lambda: collector.unique == cloud.written, service.tail)
    assert service.stop() == 0, service.tail()
    assert not any(Path(f"/proc/{pid}").exists() for pid in after.values())


def test_workers_do_not_outlive_their_parent(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector, workers=2)
    service.spawn()
    until(lambda: service.says("ready") == 2, service.tail)
    workers = pids(service)
    service.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers.values()), service.tail)


def test_a_second_signal_ends_all_of_them(cloud: Cloud, install: Install) -> None:
    collector = Collector("tcp")
    collector.close()
    service = install(collector, workers=2, shutdown_timeout="10m")
    service.spawn()
    until(lambda: service.says("ready") == 2, service.tail)
    cloud.write(800, per_delivery=50)
    until(lambda: "Connection refused" in service.log, service.tail)
    service.signal(signal.SIGINT)
    until(lambda: service.says("stopping") == 2, service.tail)
    workers = pids(service)
    assert all(Path(f"/proc/{pid}").exists() for pid in workers.values())
    service.signal(signal.SIGINT)
    until(lambda: service.ended, service.tail)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers.values()), service.tail)
