"""Several worker processes under one parent, which does no work itself.

In: the command of a worker. Out: N running workers, restarted when they die or are stuck, told of signals. Each worker
has observation domains and a UDP port of its own, so collectors can tell them apart. Never: reading, exporting, state.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

log = structlog.get_logger("edfn.workers")

PARENT_FD = "EDFN_AGENT_PARENT_FD"
"""Names the descriptor on which a worker says that it has started, and that it gets on."""

_READY, _ALIVE = b"R", b"."

_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
"""What a worker hears of the parent. Held back until it has handlers: Python takes a while, and each would end it."""

SHORT_LIFE = 60.0
"""Seconds. A worker that dies sooner is restarted after a pause that grows."""

STUCK = 60.0
"""Seconds without a look at the workers, which takes a fifth of one."""

SILENT = 60.0
"""Seconds without a word from a worker, which has one every second while its loops get on (`Progress`)."""


class Workers:
    """Starts and watches the workers of one installation."""

    def __init__(self, command: Callable[[int], Sequence[str]], count: int, on_ready: Callable[[], None]) -> None:
        self._command = command
        self._count = count
        self._on_ready = on_ready
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._born: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._due: dict[int, float] = dict.fromkeys(range(count), 0.0)
        self._pipes: dict[int, int] = {}
        self._heard: dict[int, float] = {}
        self._ready: set[int] = set()
        self._looked_at = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            self._looked_at = time.monotonic()
            self._start_due()
            self._hear()
            self._end_the_stuck()
            self._bury()

    def signal(self, number: int) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(number)

    @property
    def looks_after(self) -> bool:
        """Whether the parent itself gets on with its work: a dead worker is restarted, not the service."""
        return time.monotonic() - self._looked_at < STUCK

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker, due in list(self._due.items()):
            if now < due:
                continue
            del self._due[worker]
            read, write = os.pipe()
            environment = {**os.environ, PARENT_FD: str(write)}
            # systemd is spoken to by the parent only
            for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
                environment.pop(name, None)
            with _held_back():
                # in a group of its own: Ctrl-C is the parent's to pass on; a second signal would end a worker at once
                self._processes[worker] = subprocess.Popen(
                    self._command(worker), env=environment, pass_fds=[write], process_group=0
                )
            os.close(write)
            self._pipes[worker] = read
            self._born[worker] = self._heard[worker] = now
            log.info("worker started", worker=str(worker), pid=str(self._processes[worker].pid))  # text: no repeats

    def _hear(self) -> None:
        """Wait a little; note who is ready, and who gets on."""
        readable, _, _ = select.select(list(self._pipes.values()), [], [], 0.2)
        for worker, pipe in list(self._pipes.items()):
            if pipe not in readable:
                continue
            said = os.read(pipe, 4096)
            if not said:
                os.close(self._pipes.pop(worker))
                continue
            self._heard[worker] = time.monotonic()
            if _READY in said:
                self._ready.add(worker)
                if len(self._ready) == self._count:
                    self._on_ready()

    def _end_the_stuck(self) -> None:
        for worker, process in self._processes.items():
            silent = time.monotonic() - self._heard[worker]
            if silent > SILENT and process.poll() is None:
                log.error("worker does not get on and is killed", worker=str(worker), silent_s=round(silent))
                self._heard[worker] = time.monotonic()
                process.kill()

    def _bury(self) -> None:
        for worker, process in list(self._processes.items()):
            status = process.poll()
            if status is None:
                continue
            del self._processes[worker]
            if worker in self._pipes:
                os.close(self._pipes.pop(worker))
            lived = time.monotonic() - self._born[worker]
            self._failures[worker] = 0 if lived >= SHORT_LIFE else self._failures.get(worker, 0) + 1
            pause = min(60.0, 2.0 ** self._failures[worker] - 1.0)
            self._due[worker] = time.monotonic() + pause
            log.error(
                "worker died and will be restarted",
                worker=str(worker),
                status=status,
                lived_s=round(lived),
                pause_s=pause,
            )

    def stop(self, grace: float) -> int:
        """End the workers, and wait for them. The exit status: 0 when all ended well."""
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        worst = 0
        for worker, process in self._processes.items():
            try:
                status = process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.error("worker did not stop in time and is killed", worker=str(worker))
                process.kill()
                status = process.wait()
            worst = max(worst, abs(status))
        for pipe in self._pipes.values():
            os.close(pipe)
        return 1 if worst else 0


class Parent:
    """What a worker says to its parent; without one, nothing."""

    def __init__(self) -> None:
        descriptor = os.environ.pop(PARENT_FD, None)
        self._descriptor = int(descriptor) if descriptor is not None else None
        if self._descriptor is not None:
            os.set_inheritable(self._descriptor, False)  # a Java daemon must not keep it open
            os.set_blocking(self._descriptor, False)

    def ready(self) -> None:
        self._say(_READY)

    def alive(self) -> None:
        self._say(_ALIVE)

    def _say(self, what: bytes) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, what)
        except BlockingIOError:
            pass  # the parent is slow; it has enough to read
        except OSError as error:
            log.error("the parent does not listen", error=str(error))
            self._descriptor = None


@contextmanager
def _held_back() -> Iterator[None]:
    """Who is started in here has the signals waiting until `hear_signals`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear_signals() -> None:
    """In a worker that has its handlers: take what waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
