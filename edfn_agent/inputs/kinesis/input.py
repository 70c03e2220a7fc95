"""The Kinesis input: one daemon per enabled stream, all couriers at one socket.

In: the streams to read, a way into each stream's account, `submit` and `quarantine`. Out: Deliveries; health and
figures per stream and shard. Never: a problem of one stream that stops another, or the agent.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from edfn_agent.inputs.kinesis import java
from edfn_agent.inputs.kinesis.credentials import CredentialServer
from edfn_agent.inputs.kinesis.figures import StreamFigures
from edfn_agent.inputs.kinesis.properties import Timing
from edfn_agent.inputs.kinesis.server import Quarantine, Server, Submit
from edfn_agent.inputs.kinesis.stream import METRICS_LEVELS, Access, MetricsLevel, StreamError, StreamSettings
from edfn_agent.inputs.kinesis.supervisor import LOOK_EVERY, State, StreamHealth, Supervisor, Surroundings

log = logging.getLogger(__name__)

_SOCKET_PATH_LIMIT = 100
"""Octets. The kernel takes 107 (sun_path), and socket names need a few."""


class KinesisInput:
    """Safe to call from any thread. `start` and `reload` do not wait for AWS; `stop` waits for the daemons."""

    def __init__(
        self,
        streams: Sequence[StreamSettings],
        *,
        submit: Submit,
        quarantine: Quarantine,
        access: Callable[[StreamSettings], Access],
        state_directory: str | os.PathLike[str],
        metrics_level: MetricsLevel = "NONE",
        java_options: Sequence[str] = (),
        shutdown_grace: float = 10.0,
        endpoints: Mapping[str, str] | None = None,
        instance: str = "",
        timing: Timing | None = None,
        look_every: float = LOOK_EVERY,
    ) -> None:
        if metrics_level not in METRICS_LEVELS:
            raise StreamError(f"metrics_level {metrics_level!r}: {', '.join(METRICS_LEVELS)}")
        if instance and not re.fullmatch(r"[a-zA-Z0-9_-]+", instance):
            raise StreamError(f"instance {instance!r}: letters, digits, _ and -")
        self._wanted = {settings.key: settings for settings in streams}
        self._access = access
        self._state_directory = Path(state_directory).absolute() / "kinesis"
        self._metrics_level = metrics_level
        self._java_options = java_options
        self._shutdown_grace = shutdown_grace
        self._endpoints = dict(endpoints or {})
        self._instance = instance
        self._timing = timing or Timing()
        self._look_every = look_every
        self._submit, self._quarantine = submit, quarantine
        self._lock = threading.Lock()
        self._supervisors: dict[str, Supervisor] = {}
        self._figures: dict[str, StreamFigures] = {}
        self._around: Surroundings | None = None
        self._server: Server | None = None
        self._made_directory: Path | None = None
        self._problem = ""

    def start(self) -> None:
        """Without Java or its jars nothing is read, as health says; raises only when the state directory is no use."""
        with self._lock:
            try:
                installation = java.find()
            except java.Missing as missing:
                log.error("%s", missing)
                self._problem = str(missing)
                return
            for name, version in java.versions().items():
                log.info("kinesis: %s %s", name, version)
            directory = self._directory()
            socket_path = directory / self._socket_name()
            self._server = Server(socket_path, self._submit, self._quarantine, self._figures.get)
            self._server.start()
            credentials = CredentialServer()
            credentials.start()
            self._around = Surroundings(
                java=installation,
                credentials=credentials,
                directory=directory,
                locks=self._state_directory,
                socket_path=socket_path,
                worker_id=worker_id(self._state_directory),
                instance=self._instance,
                metrics_level=self._metrics_level,
                java_options=self._java_options,
                shutdown_grace=self._shutdown_grace,
                endpoints=self._endpoints,
                timing=self._timing,
                look_every=self._look_every,
            )
            self._bring_about()

    def reload(self, streams: Sequence[StreamSettings]) -> None:
        """Other streams, or other settings: what is as before goes on undisturbed. Waits for those that end."""
        with self._lock:
            self._wanted = {settings.key: settings for settings in streams}
            if self._around is not None:
                self._bring_about()

    def stop(self) -> None:
        """Batches under way are finished within the grace, leases handed over. The pipeline must still be running."""
        with self._lock:
            _stop(list(self._supervisors.values()))
            self._supervisors.clear()
            if self._server is not None:
                self._server.stop()
            if self._around is not None:
                self._around.credentials.stop()
            self._around = self._server = None
            if self._made_directory is not None:
                shutil.rmtree(self._made_directory, ignore_errors=True)
                self._made_directory = None

    def health(self) -> list[StreamHealth]:
        supervisors = dict(self._supervisors)
        found = []
        for key, settings in sorted(self._wanted.items()):
            if key in supervisors:
                found.append(supervisors[key].health())
            else:
                state = State.UNAVAILABLE if self._problem else State.STOPPED
                found.append(
                    StreamHealth(settings.arn, state, self._problem, time.time(), settings.application, None, (), 0, ())
                )
        return found

    def watched(self) -> list[tuple[StreamHealth, StreamFigures | None]]:
        """Health and figures side by side; a stream that was never begun has no figures."""
        return [(health, self._figures.get(StreamSettings(health.arn).key)) for health in self.health()]

    def seen(self, for_good: float) -> dict[str, str]:
        """What the reading itself tells of streams, by ARN: why one cannot be read, and has not been for `for_good`
        seconds; or nothing ("") of one that is being read. Streams of which neither can be said are not in it."""
        found = {}
        for health in self.health():
            if self._problem or (health.failed_for_good and time.time() - health.since >= for_good):
                found[health.arn] = self._problem or health.detail
            elif health.state is State.RUNNING:
                found[health.arn] = ""
        return found

    def figures(self) -> list[StreamFigures]:
        """Per stream, for metrics. A stream's figures go on over restarts and reloads of its settings."""
        return [self._figures[key] for key in sorted(self._figures)]

    def _bring_about(self) -> None:
        assert self._around is not None
        ending = [
            supervisor for key, supervisor in self._supervisors.items() if self._wanted.get(key) != supervisor.settings
        ]
        _stop(ending)
        for supervisor in ending:
            del self._supervisors[supervisor.settings.key]
        for key in set(self._figures) - set(self._wanted):
            del self._figures[key]
        for key, settings in self._wanted.items():
            if key in self._supervisors:
                continue
            figures = self._figures.setdefault(key, StreamFigures(settings.arn))
            self._supervisors[key] = Supervisor(settings, self._access(settings), figures, self._around)
            self._supervisors[key].start()

    def _directory(self) -> Path:
        """Where sockets and scripts go: the state directory, unless a socket's path were too long there, or had a space
        in it (the daemon splits its command at spaces)."""
        self._state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._state_directory.chmod(0o700)
        path = os.fsencode(self._state_directory / self._socket_name())
        if len(path) <= _SOCKET_PATH_LIMIT and not re.search(rb"\s", path):
            return self._state_directory
        self._made_directory = Path(tempfile.mkdtemp(prefix="edfn-kinesis-"))
        return self._made_directory

    def _socket_name(self) -> str:
        return f"couriers{'-' + self._instance if self._instance else ''}.sock"


def _stop(supervisors: Sequence[Supervisor]) -> None:
    """All at once: each may take its grace."""
    for supervisor in supervisors:
        supervisor.ask_to_stop()
    for supervisor in supervisors:
        supervisor.stop()


def worker_id(directory: Path) -> str:
    """The same at every start: KCL then resumes its own leases in seconds, instead of waiting minutes for others'.

    The host's name is in it, because a state directory that was copied to another machine must not bring its id along:
    two daemons with one id would take the shards from each other all the time.
    """
    path = directory / "installation"
    if not path.exists():
        own = directory / f"installation.{os.getpid()}"
        own.write_text(secrets.token_hex(6))
        with suppress(FileExistsError):
            os.link(own, path)  # whole at once: another process of this installation may start right now
        own.unlink()
    installation = path.read_text().strip()
    host = re.sub(r"[^a-zA-Z0-9_.-]", "-", socket.gethostname())[:60]
    return f"edfn-{host}-{installation}"
