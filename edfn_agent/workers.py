"""Several worker processes under one parent, which does no work itself.

In: the command of a worker. Out: N running workers, restarted when they die, told of signals. Each worker has
observation domains and a UDP port of its own, so collectors can tell them apart. Never: reading, exporting, state.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

import structlog

log = structlog.get_logger("edfn.workers")

READY_FD = "EDFN_AGENT_READY_FD"
"""Names the descriptor on which a worker says that it has started."""

SHORT_LIFE = 60.0
"""Seconds. A worker that dies sooner is restarted after a pause that grows."""


STUCK = 60.0
"""Seconds without a look at the workers, which takes a fifth of one."""


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
        self._ready: set[int] = set()
        self._looked_at = time.monotonic()

    def run(self, stop: threading.Event, grace: float) -> int:
        """Until `stop`, then until the workers have ended. The exit status: 0 when all ended well."""
        while not stop.is_set():
            self._looked_at = time.monotonic()
            self._start_due()
            self._hear()
            self._bury()
        return self._stop(grace)

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
            environment = {**os.environ, READY_FD: str(write)}
            # systemd is spoken to by the parent only
            for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
                environment.pop(name, None)
            # in a group of its own: Ctrl-C is the parent's to pass on; a second signal would end a worker at once
            self._processes[worker] = subprocess.Popen(
                self._command(worker), env=environment, pass_fds=[write], process_group=0
            )
            os.close(write)
            self._pipes[worker] = read
            self._born[worker] = now
            log.info("worker started", worker=str(worker), pid=str(self._processes[worker].pid))  # text: no repeats

    def _hear(self) -> None:
        """Wait a little; note who is ready."""
        readable, _, _ = select.select(list(self._pipes.values()), [], [], 0.2)
        for worker, pipe in list(self._pipes.items()):
            if pipe in readable:
                if os.read(pipe, 16):
                    self._ready.add(worker)
                    if len(self._ready) == self._count:
                        self._on_ready()
                os.close(self._pipes.pop(worker))

    def _bury(self) -> None:
        for worker, process in list(self._processes.items()):
            status = process.poll()
            if status is None:
                continue
            del self._processes[worker]
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

    def _stop(self, grace: float) -> int:
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


def say_ready() -> None:
    """From a worker to its parent."""
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is not None:
        try:
            os.write(int(descriptor), b"ready\n")
            os.close(int(descriptor))
        except OSError as error:
            sys.stderr.write(f"the parent does not listen: {error}\n")
