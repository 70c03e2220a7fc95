"""Keeps the daemon of one stream running, for as long as the stream is there and wanted.

In: one stream's settings, its account, where couriers are served. Out: a daemon process, started again with growing
pauses however it ended; a state with a reason for health. Never: two daemons with one worker id (a file lock, which the
process inherits, stands against that), a daemon for a stream that is not there.
"""

from __future__ import annotations

import fcntl
import logging
import os
import random
import shlex
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from edfn_agent.inputs.kinesis import courier, stream
from edfn_agent.inputs.kinesis.credentials import CredentialServer
from edfn_agent.inputs.kinesis.daemon import Daemon, command, environment, flags
from edfn_agent.inputs.kinesis.figures import StreamFigures
from edfn_agent.inputs.kinesis.java import Installation
from edfn_agent.inputs.kinesis.properties import LOGBACK, Timing, properties
from edfn_agent.inputs.kinesis.stream import Access, MetricsLevel, Standing, StreamSettings

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
STEADY = 60.0
"""Seconds with a lease after which a daemon counts as well again, and the pauses start from the first."""
LOOK_EVERY = 60.0
"""Seconds between two looks at the stream itself: is it there, is it the same one."""
HANDED_OVER = 3.0
"""Seconds after its last courier in which a daemon that was told to end gives up being the leader (it takes less than
one; while the lock of a leader that is gone has not run out, for minutes, no other agent takes up a lease). KCL 3.1.3
then waits for itself: for the whole grace, when a shard is read more often than once a second."""
AFTER_GRACE = 5.0
"""Seconds beyond the grace in which a daemon ends by itself."""
START_TIME = 120.0
"""Longest start-up seen, with an empty lease table. After that, a daemon without a lease just has none."""


class State(Enum):
    STOPPED = "stopped"
    WAITING = "waiting"  # another daemon of this installation has the lock
    STARTING = "starting"
    RUNNING = "running"  # holds at least one lease
    IDLE = "idle"  # well, and other agents hold every lease
    RESTARTING = "restarting"  # ended unasked; the pause before the next start
    GONE = "gone"  # no such stream
    DENIED = "denied"  # the account refuses, or its credentials are dead
    UNAVAILABLE = "unavailable"  # no Java, no jars, or AWS cannot be asked


@dataclass(frozen=True, slots=True)
class StreamHealth:
    """What health shows of one stream. GONE and DENIED are failures for good: another source should take over."""

    arn: str
    state: State
    detail: str
    since: float  # Unix seconds
    application: str
    pid: int | None
    shards: tuple[str, ...]  # under lease here
    restarts: int
    last_lines: tuple[str, ...]  # of the daemon's log, newest last; empty while it is well

    @property
    def well(self) -> bool:
        return self.state in (State.STARTING, State.RUNNING, State.IDLE)

    @property
    def failed_for_good(self) -> bool:
        return self.state in (State.GONE, State.DENIED)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the supervisors of all streams share."""

    java: Installation
    credentials: CredentialServer
    directory: Path  # for properties and courier scripts; 0700, no spaces in its path
    locks: Path  # in the state directory, whatever the other one is
    socket_path: Path
    worker_id: str
    instance: str = ""  # tells the worker processes of one machine apart
    metrics_level: MetricsLevel = "NONE"
    java_options: Sequence[str] = ()
    shutdown_grace: float = 10.0
    endpoints: Mapping[str, str] = field(default_factory=dict)
    timing: Timing = field(default_factory=Timing)
    look_every: float = LOOK_EVERY


class Supervisor:
    def __init__(self, settings: StreamSettings, access: Access, figures: StreamFigures, around: Surroundings) -> None:
        self.settings = settings
        self.figures = figures
        self._access = access
        self._around = around
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._daemon: Daemon | None = None
        self._state, self._detail, self._since = State.STOPPED, "", time.time()
        self._application = settings.application
        self._last_lines: tuple[str, ...] = ()

    def start(self) -> None:
        # The daemon is started in this thread, and dies with it.
        self._thread = threading.Thread(target=self._run, name=f"kinesis-{self.settings.name}", daemon=True)
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._wake.set()

    def stop(self) -> None:
        """Returns when the daemon has ended: after its grace and a few seconds at the latest."""
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join()

    def health(self) -> StreamHealth:
        state, detail, daemon = self._state, self._detail, self._daemon
        shards = tuple(shard.name for shard in self.figures.leases())
        if state is State.STARTING and shards:
            state, detail = State.RUNNING, ""
        elif state is State.STARTING and time.time() - self._since > START_TIME:
            state, detail = State.IDLE, "no lease is held here: others have them all, or the daemon's log says why"
        return StreamHealth(
            arn=self.settings.arn,
            state=state,
            detail=detail,
            since=self._since,
            application=self._application,
            pid=daemon.pid if daemon is not None else None,
            shards=shards,
            restarts=self.figures.restarts,
            last_lines=() if state is State.RUNNING else tuple(daemon.tail if daemon else self._last_lines),
        )

    def _enter(self, state: State, detail: str = "") -> None:
        if (state, detail) != (self._state, self._detail):
            self._state, self._detail, self._since = state, detail, time.time()

    def _run(self) -> None:
        path = self._around.locks / f"{self._name()}.lock"
        try:
            with open(path, "a") as lock:
                while not self._wake.is_set() and not _try_lock(lock.fileno()):
                    if self._state is not State.WAITING:
                        log.warning("kinesis %s: another process holds %s", self.settings.name, path)
                    self._enter(State.WAITING, f"{path} is held by another process")
                    self._wake.wait(0.5)
                pauses = Pauses()
                while not self._wake.is_set():
                    try:
                        self._once(lock.fileno(), pauses)
                    except Exception as error:
                        log.exception("kinesis %s: daemon not started", self.settings.name)
                        self._enter(State.UNAVAILABLE, f"daemon not started: {error}")
                        self._wake.wait(pauses.next())
        except OSError as error:
            log.error("kinesis %s: %s", self.settings.name, error)
            self._enter(State.UNAVAILABLE, str(error))
            return
        self._enter(State.STOPPED)

    def _once(self, lock: int, pauses: Pauses) -> None:
        """One daemon, from the look at its stream to its end; returns when the next may be tried."""
        now = stream.standing(self.settings, self._access)
        if now.problem:
            self._report(now)
            self._wake.wait(min(self._around.look_every, pauses.next()))
            return
        application = stream.application_for(self.settings, now, self._access)
        if application != self.settings.application:
            log.warning(
                "kinesis %s: the stream is younger than table %s: it was made again. Its application is %s now; "
                "the tables of the former one can be deleted",
                self.settings.name,
                self.settings.application,
                application,
            )
        self._application = application
        self._enter(State.STARTING)
        self._daemon = daemon = self._launch(application, now, lock)
        started, lost = time.monotonic(), self.figures.couriers_lost
        log.info("kinesis %s: daemon %d started, application %s", self.settings.name, daemon.pid, application)
        end = self._watch(daemon, now)
        self._around.credentials.withdraw(self._name())
        self._last_lines = tuple(daemon.tail)
        self._daemon = None
        if end is None or self._wake.is_set():
            return
        self.figures.restarts += 1
        if time.monotonic() - started > STEADY and self.figures.couriers_lost - lost <= 1:
            pauses.reset()
        pause = pauses.next()
        name = self.settings.name
        log.error("kinesis %s: daemon %d ended (%s); started again in %.0f s", name, daemon.pid, end, pause)
        self._enter(State.RESTARTING, f"the daemon ended: {end}")
        self._wake.wait(pause)

    def _report(self, now: Standing) -> None:
        state = State.GONE if now.gone else State.DENIED if now.denied else State.UNAVAILABLE
        if (self._state, self._detail) != (state, now.problem):
            log.error("kinesis: %s", now.problem)
        self._enter(state, now.problem)

    def _watch(self, daemon: Daemon, begun: Standing) -> str | None:
        """Until it ends: how, or None when it was asked to."""
        lost = self.figures.couriers_lost
        alone_since: float | None = None
        looked = time.monotonic()
        while not self._wake.wait(0.2):
            end = daemon.ended()
            if end is not None:
                return end
            now = time.monotonic()
            if self.figures.couriers_lost > lost and not self.figures.leases():
                # It ends all its couriers when one is lost, and then waits its whole grace for the dead one.
                alone_since = alone_since or now
                if now - alone_since > 1:
                    daemon.kill()
                    return f"a courier was lost: {self.figures.last_loss}"
            else:
                alone_since = None
            if now - looked > self._around.look_every:
                looked = now
                present = stream.standing(self.settings, self._access)
                if present.gone or (present.created and begun.created and present.created != begun.created):
                    log.error("kinesis %s: the stream was deleted or made again: its daemon ends", self.settings.name)
                    self._end(daemon, grace=1.0)
                    return None
                if present.denied and not self.figures.leases():
                    # What is allowed to the daemon may be another thing; but it holds nothing, and says nothing.
                    log.error("kinesis %s: it is refused, and no lease is held: its daemon ends", self.settings.name)
                    self._end(daemon, grace=1.0)
                    return None
        self._end(daemon, self._around.shutdown_grace)
        return None

    def _end(self, daemon: Daemon, grace: float) -> None:
        daemon.terminate()
        deadline = time.monotonic() + grace + AFTER_GRACE
        left: float | None = None  # since when no courier is there
        while not daemon.wait(0.1):
            now = time.monotonic()
            left = None if self.figures.leases() else left or now
            if left is not None and now - left > HANDED_OVER:
                break
            if now > deadline:
                log.warning("kinesis %s: daemon %d did not end in its grace: killed", self.settings.name, daemon.pid)
                break
        daemon.kill()

    def _launch(self, application: str, now: Standing, lock: int) -> Daemon:
        around, name = self._around, self._name()
        arguments = [sys.executable, "-I", "-S", courier.__file__, str(around.socket_path), self.settings.key]
        script = _write(around.directory / f"{name}.courier", f"exec {shlex.join(arguments)}\n")
        text = properties(
            self.settings,
            application=application,
            worker_id=f"{around.worker_id}{'-' + around.instance if around.instance else ''}",
            executable=f"/bin/sh {script}",
            metrics_level=around.metrics_level,
            shutdown_grace=around.shutdown_grace,
            timing=around.timing,
        )
        settings_file = _write(around.directory / f"{name}.properties", text)
        logback = _write(around.directory / "logback.xml", LOGBACK)
        offered = around.credentials.offer(name, self._access.keys)
        return Daemon(
            self.settings.name,
            command(around.java, flags(now.shards, around.java_options), settings_file, logback),
            environment(os.environ, offered, self.settings.region, around.endpoints),
            lock,
        )

    def _name(self) -> str:
        return f"{self.settings.key}.{self._around.instance}" if self._around.instance else self.settings.key


class Pauses:
    """1, 2, 4 ... 60 seconds, each a little off so that many agents do not come at once."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self.reset()

    def reset(self) -> None:
        self._next = FIRST_PAUSE

    def next(self) -> float:
        pause, self._next = self._next, min(self._next * 2, LONGEST_PAUSE)
        return pause * (0.8 + 0.4 * self._chance())


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(path: Path, text: str) -> Path:
    """Whole or not at all, for the owner only."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    part.replace(path)
    return path
