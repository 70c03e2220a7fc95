"""The command `edfn-agent run` as a process: configured by a dictionary, watched by its log, metrics and health."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from edfn_agent.demo.aws import EXTERNAL_ID, REGIONS, ROLE, environment
from tests.service.aws import ACCOUNTS, Cloud, drop_polls
from tests.service.collector import Collector

PATIENCE = 60.0
"""Seconds before a test that waits in vain says so; nothing is measured with it."""

SERVICES = ("ec2", "sts", "s3", "sqs", "logs", "iam", "kinesis", "firehose", "sns", "events")


def until(condition: Callable[[], Any], what: object = "", seconds: float = PATIENCE) -> Any:
    """Wait for it; `what` (or what it returns) is said when it does not come."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what() if callable(what) else what}")
        time.sleep(0.02)
    return found


_ports = itertools.count(10_000 + os.getpid() % 80 * 100)


def free_port(together: int = 1) -> int:
    """The first of so many free ports in a row, below those that the kernel gives to whoever asks for any."""
    while True:
        first = next(_ports)
        with contextlib.ExitStack() as probes:
            try:
                for port in range(first, first + together):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        for _ in range(together - 1):
            next(_ports)
        return first


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


class Service:
    """One installation: a folder with configuration, state and log."""

    def __init__(self, folder: Path, cloud: Cloud, collectors: Sequence[Collector | dict[str, Any]], **changes: Any):
        self.folder, self.cloud = folder, cloud
        self.path, self.log_path = folder / "edfn-agent.yaml", folder / "agent.log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.configuration: dict[str, Any] = {}
        base = {
            "ipfix": {"records_per_second": 30000},
            "aws": {
                "region": REGIONS[0],
                "regions": list(REGIONS),
                "roles": [{"arn": ROLE.format(account=each), "external_id": EXTERNAL_ID} for each in ACCOUNTS],
                "endpoints": dict.fromkeys(SERVICES, cloud.url),
            },
            "inputs": {
                "s3": {"max_receives": 1000},
                "cloudwatch_logs": {"interval": "1s", "start_from": "10m", "overlap": "10m"},
            },
            "state_directory": str(folder / "state"),
            "http": {"listen": f"127.0.0.1:{self.port}"},
            "shutdown_timeout": "20s",
        }
        self.configure(**merged(base, {"collectors": [_collector(each) for each in collectors], **changes}))

    def configure(self, **changes: Any) -> None:
        self.configuration = merged(self.configuration, changes)
        self.path.write_text(yaml.safe_dump(self.configuration))

    @property
    def state(self) -> Path:
        return Path(self.configuration["state_directory"])

    # -- the process

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "edfn_agent.cli", *words, "-c", str(self.path)]

    def spawn(self) -> None:
        with self.log_path.open("ab") as log:
            environ = {**os.environ, **environment()}
            self.process = subprocess.Popen(self.command("run"), env=environ, stderr=log, stdout=log)

    def start(self) -> Service:
        """Until it says that it is ready."""
        before = self.says("ready")
        self.spawn()
        assert self.process is not None
        until(lambda: self.says("ready") > before or self.ended, self.tail)
        assert not self.ended, self.tail()
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """-9, and what it had asked of AWS is asked no more."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()
        drop_polls()

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM; the exit status."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(seconds)

    def reload(self, refused: bool = False) -> None:
        """SIGHUP, until it is carried out, or refused."""
        word = "configuration is refused" if refused else "configuration reloaded"
        before = self.says(word)
        self.signal(signal.SIGHUP)
        until(lambda: self.says(word) > before, self.tail)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, **environment(), "COLUMNS": "250"}
        return subprocess.run(self.command(*words), env=environ, capture_output=True, text=True, timeout=60)

    # -- what is seen from outside

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def says(self, words: str) -> int:
        """How many lines of the log have this message."""
        return len(re.findall(rf"^\S+ \w+ +.*(?<!\w){re.escape(words)}(?!\w)", self.log, re.MULTILINE))

    def tail(self) -> str:
        return self.log[-6000:]

    def get(self, page: str, port: int | None = None) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.port}{page}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self, port: int | None = None) -> dict[str, float]:
        """Sample with labels, as written -> value."""
        lines = self.get("/metrics", port)[1].splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def metric(self, name: str, *labels: str) -> float:
        """The sum of all samples of a metric whose labels contain these texts."""
        return sum(
            value
            for sample, value in self.metrics().items()
            if sample.partition("{")[0] == name and all(label in sample for label in labels)
        )

    def ready(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/readyz")[1])
        return found

    def memory(self) -> tuple[int, int]:
        """(resident octets, open descriptors)"""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * 4096, len(os.listdir(f"/proc/{self.pid}/fd"))


def _collector(each: Collector | dict[str, Any]) -> Any:
    return each.url if isinstance(each, Collector) else each


@contextlib.contextmanager
def installed(folder: Path, cloud: Cloud, *collectors: Collector | dict[str, Any], **changes: Any) -> Iterator[Service]:
    """A service that is not left running."""
    service = Service(folder, cloud, collectors, **changes)
    try:
        yield service
    finally:
        if service.process is not None and not service.ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(service.pid, signal.SIGCONT)
            service.signal(signal.SIGTERM)
            try:
                service.process.wait(5)
            except subprocess.TimeoutExpired:
                service.kill()
        drop_polls()
