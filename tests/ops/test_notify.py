"""Datagrams to systemd, literally, on path and abstract sockets; and that only progress feeds the watchdog."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from edfn_agent.ops.notify import Notifier, Watchdog
from edfn_agent.ops.progress import Progress


class Systemd:
    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self.sock.settimeout(5)
        self.address = address

    def heard(self) -> str:
        return self.sock.recv(4096).decode()

    def silent(self) -> bool:
        self.sock.setblocking(False)
        try:
            self.sock.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self.sock.settimeout(5)
        return False


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    made = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@edfn-test-{os.getpid()}")
    yield made
    made.sock.close()


def notifier(systemd, **environment):
    return Notifier({"NOTIFY_SOCKET": systemd.address, **environment}, monotonic_ns=lambda: 12_345_678_999)


def test_what_systemd_hears(systemd):
    told = notifier(systemd)
    told.ready("reading 3 queues\nof 2 accounts")
    assert systemd.heard() == "READY=1\nSTATUS=reading 3 queues of 2 accounts"
    told.status("lag 4 s")
    assert systemd.heard() == "STATUS=lag 4 s"
    told.reloading()
    assert systemd.heard() == "RELOADING=1\nMONOTONIC_USEC=12345678"
    told.ready()
    assert systemd.heard() == "READY=1"
    told.stopping(within=90.0, status="finishing what is in hand")
    assert systemd.heard() == "STOPPING=1\nEXTEND_TIMEOUT_USEC=90000000\nSTATUS=finishing what is in hand"
    told.alive()
    assert systemd.heard() == "WATCHDOG=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:9999"}])
def test_without_systemd_nothing_happens(environment):
    told = Notifier(environment)
    assert not told.is_heard
    told.ready()
    told.stopping()
    watchdog = Watchdog(told, lambda: True)
    watchdog.start()
    watchdog.close()


def test_a_socket_that_is_gone_harms_nobody(tmp_path):
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_a_systemd_that_does_not_read_holds_nobody_up(systemd):
    told = notifier(systemd)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        target = "\0" + systemd.address[1:] if systemd.address.startswith("@") else systemd.address
        with pytest.raises(BlockingIOError):
            while True:
                filler.sendto(b"x", target)
    told.ready()  # returns


def test_watchdog_time_is_for_the_process_it_names(systemd):
    here = str(os.getpid())
    assert notifier(systemd, WATCHDOG_USEC="120000000", WATCHDOG_PID=here).watchdog_seconds == 120.0
    assert notifier(systemd, WATCHDOG_USEC="120000000").watchdog_seconds == 120.0
    assert notifier(systemd, WATCHDOG_USEC="120000000", WATCHDOG_PID="1").watchdog_seconds is None
    assert notifier(systemd, WATCHDOG_USEC="many").watchdog_seconds is None
    assert notifier(systemd).watchdog_seconds is None


def test_the_watchdog_is_fed_by_progress_or_idleness_only(systemd, ticks):
    progress = Progress(patience=30.0, clock=ticks)
    watchdog = Watchdog(notifier(systemd, WATCHDOG_USEC="60000000"), progress.alive)
    assert watchdog.look()  # nothing in hand
    assert systemd.heard() == "WATCHDOG=1"
    progress.moved("exporter")
    progress.moved("queue-1")
    ticks.now += 30
    assert watchdog.look()
    assert systemd.heard() == "WATCHDOG=1"
    ticks.now += 1
    progress.idle("queue-1")
    assert progress.stuck() == {"exporter": 31.0}
    assert not watchdog.look()
    assert systemd.silent()
    progress.moved("exporter")
    assert watchdog.look()
    assert systemd.heard() == "WATCHDOG=1"
    progress.idle("exporter")
    ticks.now += 86_400  # a night without flows
    assert watchdog.look()
    progress.moved("kinesis")
    progress.gone("kinesis")
    ticks.now += 86_400
    assert progress.alive()


def test_who_cannot_say_is_not_alive(systemd, written):
    out = written()
    watchdog = Watchdog(notifier(systemd, WATCHDOG_USEC="60000000"), lambda: 1 / 0 > 0)
    assert not watchdog.look()
    assert systemd.silent()
    assert [line.split()[1] for line in out.lines()] == ["error", "error"]


def test_the_thread_feeds_and_tells_a_status_when_it_changes(systemd):
    looks = threading.Semaphore(0)

    def alive() -> bool:
        looks.release()
        return True

    told = notifier(systemd, WATCHDOG_USEC="60000000")
    watchdog = Watchdog(told, alive, status=lambda: "lag 4 s", each=0.01)
    watchdog.start()
    assert all(looks.acquire(timeout=5) for _ in range(3))
    watchdog.close()
    assert [systemd.heard() for _ in range(4)] == ["WATCHDOG=1", "STATUS=lag 4 s", "WATCHDOG=1", "WATCHDOG=1"]
