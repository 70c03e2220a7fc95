"""The real `edfn-agent`, as a process with a configuration file, and a collector that keeps every record."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from edfn_agent.collector import Listener
from edfn_agent.demo.aws import EXTERNAL_ID, ROLE, environment

from .cloud import BANK, HOME, REGION, SHOP, Cloud, drop_polls
from .shapes import Record

PATIENCE = 40.0
"""Seconds before what does not come is said to be missing."""

SERVICES = ("ec2", "sts", "s3", "sqs", "logs", "iam", "kinesis", "firehose", "sns", "events", "dynamodb", "kms")


def until(condition: Callable[[], Any], what: Callable[[], object] = lambda: "", seconds: float = PATIENCE) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited in vain: {what()}")
        time.sleep(0.03)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Collector:
    """UDP on loopback."""

    def __init__(self) -> None:
        self.records: dict[int, list[tuple[int, tuple[Any, ...]]]] = {}  # number -> (domain, the rest), each time
        self.names: dict[int, str] = {}
        self.errors = 0
        self._listener = Listener("udp", "127.0.0.1", 0)
        self.url = f"udp://127.0.0.1:{self._listener.port}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for received in self._listener.receive(self._stop.is_set, poll=0.05):
            message = received.message
            if message is None or message.error is not None or message.unknown:
                self.errors += 1
                continue
            for data in message.data:
                for record in data:
                    if data.is_options:
                        self.names.setdefault(message.domain, str(record.get("VRFname", "")))
                        self.names[message.domain] = str(record.get("VRFname", self.names[message.domain]))
                    else:
                        self._add(message.domain, record)

    def _add(self, domain: int, record: Any) -> None:
        def address(end: str) -> str:
            return str(record.get(f"{end}IPv4Address") or record.get(f"{end}IPv6Address"))

        def milliseconds(name: str) -> int:
            value = record[name]
            return int(value if isinstance(value, int) else round(value.timestamp() * 1000))

        number = int(record["octetDeltaCount"])
        names = ("sourceTransportPort", "destinationTransportPort", "protocolIdentifier", "packetDeltaCount")
        rest = (
            *(address("source"), address("destination")),
            *(record[name] for name in names),
            *(number, milliseconds("flowStartMilliseconds"), milliseconds("flowEndMilliseconds")),
            record.get("forwardingStatus"),
        )
        self.records.setdefault(number, []).append((domain, rest))

    def of(self, number: int) -> list[Record]:
        """The record of a number, as often as it came."""
        return [(self.names.get(domain, ""), *rest) for domain, rest in self.records.get(number, ())]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()


class Agent:
    """One installation."""

    def __init__(
        self,
        folder: Path,
        cloud: Cloud,
        collector: Collector,
        inputs: dict[str, Any],
        port: int,
        accounts: Sequence[str] = (HOME, SHOP, BANK),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.environ = {**environment(), **(environ or {})}
        self.path, self.log_path, self.port = folder / "edfn-agent.yaml", folder / "agent.log", port
        self.process: subprocess.Popen[bytes] | None = None
        roles = [{"arn": ROLE.format(account=each), "external_id": EXTERNAL_ID} for each in accounts]
        configuration = {
            "collectors": [collector.url],
            "aws": {
                "region": REGION,
                "regions": [REGION],
                "roles": roles,
                "endpoints": dict.fromkeys(SERVICES, cloud.url),
            },
            "inputs": inputs,
            "state_directory": str(folder / "state"),
            "http": {"listen": f"127.0.0.1:{port}"},
            "shutdown_timeout": "15s",
        }
        self.path.write_text(yaml.safe_dump(configuration))

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "edfn_agent.cli", *words, "-c", str(self.path)]

    @property
    def log(self) -> str:
        return self.log_path.read_text() if self.log_path.exists() else ""

    def start(self) -> Agent:
        before = self.log.count(" ready")
        with self.log_path.open("ab") as log:
            environ = {**os.environ, **self.environ}
            self.process = subprocess.Popen(self.command("run"), env=environ, stderr=log, stdout=log)
        until(lambda: self.log.count(" ready") > before or self.process.poll() is not None, lambda: self.log)
        assert self.process.poll() is None, self.log
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        drop_polls()

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        drop_polls()
        return self.process.wait(30)

    def run_now(self) -> tuple[int, dict[str, Any]]:
        environ = {**os.environ, **self.environ}
        done = subprocess.run(
            self.command("run-now", "--json"), env=environ, capture_output=True, text=True, timeout=60
        )
        return done.returncode, json.loads(done.stdout)

    def doctor(self) -> tuple[int, list[dict[str, Any]]]:
        environ = {**os.environ, **self.environ}
        command = self.command("doctor", "--json")
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def metric(self, name: str, *labels: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [line for line in lines if line.partition("{")[0] == name and all(each in line for each in labels)]
        return sum(float(line.rpartition(" ")[2]) for line in wanted)


def compare(collector: Collector, expected: dict[int, Record]) -> None:
    """Each record once, and all of it right."""
    wrong = {number: (collector.of(number), record) for number, record in expected.items()}
    assert not {number: pair for number, pair in wrong.items() if pair[0] != [pair[1]]}
