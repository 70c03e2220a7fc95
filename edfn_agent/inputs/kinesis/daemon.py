"""One MultiLangDaemon process: its command, its environment, its life, its log.

In: the Java installation, a properties file, the environment it may see. Out: a running process, in a process group of
its own, that cannot outlive the agent's thread that started it; its log, in the agent's log. Never: a restart (that is
`supervisor`), the agent's own secrets in its environment.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from edfn_agent.inputs.kinesis import launch
from edfn_agent.inputs.kinesis.java import Installation
from edfn_agent.inputs.kinesis.properties import LINE_MARK

log = logging.getLogger(__name__)

MAIN_CLASS = "software.amazon.kinesis.multilang.MultiLangDaemon"
HEAP = 128
HEAP_PER_SHARD = 64
"""Megabytes. A shard's prefetched answers of 10 MiB, and as base64 in a JSON line besides: four shards passed with 384
in all and ran out of memory with 256. It is a limit: what is used follows the traffic (docs/inputs-kinesis.md)."""
SHARDS_UNKNOWN = 4
_COLLECTOR = "-XX:+UseSerialGC"
MEASURED = ("-Xms16m", _COLLECTOR, "-XX:TieredStopAtLevel=1", "-Xss512k")
"""Flags that made the process smallest without making it slower: 145 MB idle, 225 MB without the first one."""
_COLLECTORS = ("-XX:+UseParallelGC", "-XX:+UseG1GC", "-XX:+UseZGC", "-XX:+UseShenandoahGC", "-XX:+UseEpsilonGC")
_HEAPS = ("-Xmx", "-XX:MaxHeapSize", "-XX:MaxRAMPercentage")

_PASSED = frozenset(
    {"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "JAVA_HOME", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
    | {"AWS_CA_BUNDLE", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_EC2_METADATA_DISABLED"}
)
_LEVELS = {
    "ERROR": logging.ERROR,
    "WARN": logging.WARNING,
    "INFO": logging.INFO,
    "DEBUG": logging.DEBUG,
    "TRACE": logging.DEBUG,
}
_EVENT_LINES = 40
"""Of one stack trace."""


def flags(shards: int | None, java_options: Sequence[str] = ()) -> list[str]:
    """JVM flags: the measured ones, the heap by the number of shards, and after them the user's, of which the last one
    of a kind counts."""
    own = list(MEASURED)
    if any(option.startswith(_COLLECTORS) for option in java_options):  # two are one too many for the JVM
        own.remove(_COLLECTOR)
    if not any(option.startswith(_HEAPS) for option in java_options):
        own.append(f"-Xmx{HEAP + HEAP_PER_SHARD * (shards or SHARDS_UNKNOWN)}m")
    # Out of memory, it must not linger: with status 3 the supervisor starts it again, and says why.
    return [*own, "-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData", *java_options]


def command(java: Installation, jvm_flags: Sequence[str], properties: Path, logback: Path) -> list[str]:
    files = ["--properties-file", str(properties), "--log-configuration", str(logback)]
    return [str(java.java), *jvm_flags, "-cp", java.class_path, MAIN_CLASS, *files]


def environment(
    own: Mapping[str, str], credentials: Mapping[str, str], region: str, endpoints: Mapping[str, str]
) -> dict[str, str]:
    """What Java and the couriers see: no AWS keys, no profile, nothing that the configuration was filled in from."""
    seen = {k: v for k, v in own.items() if k in _PASSED or k.startswith(("LC_", "AWS_ENDPOINT_URL"))}
    for service, url in endpoints.items():
        seen[f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}"] = url.replace("{region}", region)
    if any(name.lower() in ("http_proxy", "https_proxy") for name in seen):
        direct = [part for part in (seen.get("NO_PROXY") or seen.get("no_proxy") or "").split(",") if part]
        seen["NO_PROXY"] = seen["no_proxy"] = ",".join([*direct, "127.0.0.1"])
    # A profile of the agent's user must not mix in: SDK settings come from here or from nowhere.
    seen |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_REGION": region}
    return {**seen, **credentials}


class Daemon:
    """The process. Make it in a thread that lives as long as it should: the kernel kills it when that thread ends."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], lock: int) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=30)
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        self._process = subprocess.Popen(
            [*launcher, *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            pass_fds=(lock,),  # so that the lock lasts as long as the process, should it outlive the agent for a moment
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read_log, name=f"kinesis-log-{name}", daemon=True)
        self._reader.start()

    def ended(self) -> str | None:
        """How it ended, or None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        self._reader.join(1)  # its last words
        return describe_exit(status)

    def terminate(self) -> None:
        """Ask it, not its couriers, to finish the batches under way and hand its leases over."""
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """It and its couriers, now."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def wait(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _read_log(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        event: list[str] = []
        rest = b""
        while True:
            if event and not select.select([stream], [], [], 0.2)[0]:
                self._log(event)  # nothing more belongs to it
                event = []
            read = os.read(stream.fileno(), 65536)
            *lines, rest = (rest + read).split(b"\n")
            if not read and rest:
                lines.append(rest)
            for line in (raw.decode(errors="replace").rstrip() for raw in lines):
                if line.startswith(LINE_MARK) and event:
                    self._log(event)
                    event = []
                if line and len(event) < _EVENT_LINES:
                    event.append(line[:2000])
            if not read:
                break
            rest = rest[-65536:]
        if event:
            self._log(event)
        stream.close()

    def _log(self, event: list[str]) -> None:
        level, logger, text = logging.ERROR, "java", event[0]  # unmarked: the JVM itself speaks, and only of trouble
        if event[0].startswith(LINE_MARK):
            word, logger, text = event[0].removeprefix(LINE_MARK).split("|", 2)
            level = _LEVELS.get(word, logging.ERROR)
        self.tail.append(f"{logging.getLevelName(level)} {logger}: {text}")
        self.tail.extend(event[1:3])  # the cause's first lines; the rest is in the log
        log.log(level, "kinesis %s: %s: %s", self.name, logger, "\n".join([text, *event[1:]]))


def describe_exit(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    meanings = {
        0: "status 0: it gave up starting (credentials, a refused call, or leases of a newer KCL)",
        3: "status 3: out of memory; give it more with java_options",
        143: "status 143: told to end",
    }
    return meanings.get(status, f"status {status}")
