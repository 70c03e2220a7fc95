"""Two worker processes: every record once, in domains of their own; one that dies is restarted."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edfn_agent import workers as module
from edfn_agent.workers import Workers
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


@contextmanager
def taken(port: int) -> Iterator[None]:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def test_a_port_that_is_taken(cloud: Cloud, collector: Collector, install: Install) -> None:
    """At the start it is a fault that is named; a worker that is restarted later does its work without it."""
    port = free_port(together=2)
    service = install(collector, workers=2, http={"listen": f"127.0.0.1:{port}"})
    with taken(port + 1):
        service.spawn()
        until(lambda: service.ended, service.tail)
    assert service.process is not None
    assert service.process.returncode == 1
    assert f"http.listen 127.0.0.1:{port + 1}: address already in use" in service.log
    assert not service.says("worker started")
    service.spawn()
    until(lambda: service.says("ready") == 2, service.tail)
    os.kill(pids(service)[1], signal.SIGKILL)
    until(lambda: service.says("worker died"), service.tail)
    with taken(port + 1):
        until(lambda: service.says("ready") == 3, service.tail)
        assert service.says("http.listen cannot be opened") == 2
    until(lambda: service.says(f"metrics and health url=http://127.0.0.1:{port + 1}/metrics") == 2, service.tail)
    assert service.get("/healthz", port + 1)[0] == 200
    assert service.stop() == 0, service.tail()


WORKER = """
import signal, sys, time
from pathlib import Path
from edfn_agent.workers import Parent, hear_signals
place = Path(sys.argv[1])
(place / "begun").touch()
while not (place / "go on").exists():
    time.sleep(0.02)
got = []
signal.signal(signal.SIGHUP, lambda *_: got.append("HUP"))
signal.signal(signal.SIGTERM, lambda *_: got.append("TERM"))
hear_signals()
parent = Parent()
parent.ready()
with (place / "lives").open("a") as file:
    file.write("x")
while "TERM" not in got:
    if sys.argv[2] == "lively":
        parent.alive()
    time.sleep(0.1)
(place / "got").write_text(" ".join(sorted(got)))
"""


@contextmanager
def running(folder: Path, kind: str) -> Iterator[Workers]:
    """One worker that is nothing but its signals and what it says to its parent."""
    workers = Workers(lambda _: [sys.executable, "-c", WORKER, str(folder), kind], 1, lambda: None)
    stop = threading.Event()
    thread = threading.Thread(target=workers.run, args=(stop,))
    thread.start()
    try:
        yield workers
    finally:
        stop.set()
        thread.join()
        workers.stop(20.0)


def test_a_signal_to_a_worker_that_has_no_handlers_yet(tmp_path: Path) -> None:
    """It would end it; it waits instead."""
    with running(tmp_path, "lively") as workers:
        until((tmp_path / "begun").exists)
        workers.signal(signal.SIGHUP)
        workers.signal(signal.SIGTERM)
        (tmp_path / "go on").touch()
        until((tmp_path / "got").exists)
    assert (tmp_path / "got").read_text() == "HUP TERM"


def test_a_worker_that_does_not_get_on_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT", 1.0)
    (tmp_path / "go on").touch()
    with running(tmp_path, "silent"):
        until(lambda: (tmp_path / "lives").exists() and len((tmp_path / "lives").read_text()) > 1)
