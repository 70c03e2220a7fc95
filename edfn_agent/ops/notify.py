"""Tells systemd how the service is: ready, reloading, stopping, alive. The protocol of sd_notify(3), in plain Python.

In: what happens to the agent, and a callable that says whether it gets on. Out: datagrams on the socket that systemd
names in the environment; without one, nothing. Never: an exception, a wait for systemd, a sign of life that comes from
a mere timer: one that hangs would go on feeding the watchdog for ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

import structlog

log = structlog.get_logger("edfn.ops.notify")


class Notifier:
    """Safe to use from several threads. Make it early: the variables are read once."""

    def __init__(
        self, environment: Mapping[str, str] = os.environ, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog_seconds(environment) if self._address else None
        """How long systemd waits for a sign of life; None where it does not."""

    @property
    def is_heard(self) -> bool:
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """Started, or reloaded."""
        self._send("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(*_status(text))

    def reloading(self) -> None:
        """A reload begins; `ready` ends it. systemd tells it by the time from an earlier one."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self, within: float = 0.0, status: str = "") -> None:
        """A stop begins. `within`: seconds it may take, so that TimeoutStopSec does not cut `shutdown_timeout` off."""
        longer = [f"EXTEND_TIMEOUT_USEC={round(within * 1e6)}"] if within > 0 else []
        self._send("STOPPING=1", *longer, *_status(status))

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self._address is None or not lines:
            return
        with contextlib.suppress(OSError):  # systemd is not there, or does not keep up: the next one will do
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(1.0)
                sock.sendto("\n".join(lines).encode(), self._address)


class Watchdog:
    """Feeds systemd's watchdog while `alive()` says so. `alive` is asked in a thread of its own, and must not block."""

    def __init__(
        self,
        notifier: Notifier,
        alive: Callable[[], bool],
        *,
        status: Callable[[], str] | None = None,
        each: float | None = None,
    ) -> None:
        """`status`, where given, is told to systemd whenever it changes. `each`: seconds, else a third of WatchdogSec.

        A third, so that one late sign is no reason to be killed.
        """
        self._notifier, self._alive, self._status = notifier, alive, status
        wanted = notifier.watchdog_seconds
        self._each = each if each is not None else min(wanted / 3, 10.0) if wanted else 10.0
        self._said = ""
        self._was_alive = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        if self._notifier.is_heard:
            self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> bool:
        """One look, as the thread does it: whether it was alive."""
        try:
            alive = self._alive()
        except Exception:
            log.exception("whether the agent gets on could not be told")
            alive = False
        if alive:
            if self._notifier.watchdog_seconds:
                self._notifier.alive()
        elif self._was_alive:
            log.error("the agent does not get on; systemd starts it again if that lasts")
        self._was_alive = alive
        return alive

    def _run(self) -> None:
        while not self._stop.is_set():
            self.look()
            self._tell()
            self._stop.wait(self._each)

    def _tell(self) -> None:
        if self._status is None:
            return
        with contextlib.suppress(Exception):  # a line for people; the rest matters more
            text = self._status()
            if text != self._said:
                self._notifier.status(text)
                self._said = text


def _address(text: str) -> str | None:
    """`@name` is in the abstract name space. What is no Unix socket (vsock:) is for virtual machines, not services."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    """WATCHDOG_PID names the process that is meant: children inherit the variables (sd_watchdog_enabled(3))."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 else None


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []
