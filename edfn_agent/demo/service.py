"""The demo: the service itself, against an embedded AWS and an embedded collector, compared record for record.

In: how many flows. Out: what was written, exported and received, per VPC. The agent is the real one, in a process of
its own, with a configuration file like a user's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Hashable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from edfn_agent.collector import ExporterTally, Listener, Tally
from edfn_agent.demo.aws import EXTERNAL_ID, REGIONS, ROLE, EmbeddedAws, Source, environment
from edfn_agent.demo.kinesis import SERVICES, EmbeddedKinesis, free_port
from edfn_agent.demo.traffic import Written, branch
from ipfix import CollectingProcess, DecodingError, Message

ROUNDS = 4
"""Deliveries per VPC, half a second apart: they come while the agent runs, not before."""

PATIENCE = 45.0
"""Seconds to wait for the last record. It takes a few; Kinesis' client library ten to begin, more on a busy machine."""

AFTERWARDS = 2.0
"""Seconds in which what was exported comes in on loopback; what has not is lost."""


@dataclass(frozen=True, slots=True)
class Result:
    sources: list[Source]
    written: Mapping[str, Written]  # by VPC
    exported: int
    received: Tally
    agent_status: int

    def tally(self, source: Source) -> ExporterTally | None:
        address = str(source.vpc.router)
        return next((each for each in self.received.exporters.values() if each.exporter == address), None)


class _Losing(CollectingProcess):
    """Loses the first so many messages with flows, as a network may. Sequence numbers tell."""

    def __init__(self, lose: int) -> None:
        super().__init__()
        self._left = lose
        self._before = CollectingProcess()  # knows what would have come

    def receive(self, octets: bytes | bytearray | memoryview, session: Hashable = None) -> Message:
        if self._left:
            message = self._before.receive(octets, session)
            if any(not data.is_options for data in message.data):
                self._left -= 1
                raise DecodingError("lost on purpose")
        return super().receive(octets, session)


class Catcher:
    """A collector on loopback in a thread of its own."""

    def __init__(self, lose: int = 0) -> None:
        self.tally = Tally()
        self._listener = Listener("udp", "127.0.0.1", 0, _Losing(lose))
        self.port = self._listener.port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for received in self._listener.receive(self._stop.is_set, poll=0.05):
            self.tally.add(received)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()


def configuration(
    aws_url: str, collector_port: int, http_port: int, folder: Path, kinesis: EmbeddedKinesis | None = None
) -> str:
    """What a user would write, with the demo's addresses."""
    roles = "\n".join(
        f'    - {{arn: "{ROLE.format(account=account)}", external_id: {EXTERNAL_ID}}}'
        for account in ("111111111111", "222222222222")
    )
    urls = dict.fromkeys(("ec2", "sts", "s3", "sqs", "logs", "kinesis", "firehose", "iam", "sns", "events"), aws_url)
    streams = ""
    if kinesis is not None:
        urls |= dict.fromkeys(SERVICES, kinesis.url)
        streams = "  kinesis: {}\n"
    endpoints = ", ".join(f'{service}: "{url}"' for service, url in urls.items())
    return f"""\
collectors: ["udp://127.0.0.1:{collector_port}"]
ipfix:
  records_per_second: 50000
aws:
  region: us-east-1
  regions: [{", ".join(REGIONS)}]
  roles:
{roles}
  endpoints: {{{endpoints}}}
inputs:
  s3: {{}}
  cloudwatch_logs: {{interval: 1s, start_from: 10m}}
{streams}state_directory: {folder / "state"}
http: {{listen: "127.0.0.1:{http_port}"}}
shutdown_timeout: 15s
log: {{level: info}}
"""


def run(flows: int, folder: Path, say: Callable[[str], None], *, with_kinesis: bool = False, lose: int = 0) -> Result:
    """All of it. `flows` per VPC; the collector loses `lose` messages."""
    with ExitStack() as ending:
        catcher = Catcher(lose)
        ending.callback(catcher.close)
        aws = EmbeddedAws()
        ending.callback(aws.close)
        kinesis = None
        if with_kinesis:
            kinesis = EmbeddedKinesis(branch().account_id, branch().region, folder)
            ending.callback(kinesis.close)
            kinesis.make(folder / "state")
        sources = aws.seed(kinesis)
        say(f"embedded AWS with {len({s.vpc.account_id for s in sources})} accounts and {len(sources)} VPCs: {aws.url}")
        path = folder / "edfn-agent.yaml"
        http_port = free_port()
        path.write_text(configuration(aws.url, catcher.port, http_port, folder, kinesis))
        environ = {**os.environ, **environment()}
        command = [sys.executable, "-m", "edfn_agent.cli"]
        say(f"$ edfn-agent run-now -c {path}")
        subprocess.run([*command, "run-now", "-c", str(path)], env=environ, check=False)
        say(f"$ edfn-agent run -c {path}")
        agent = subprocess.Popen([*command, "run", "-c", str(path)], env=environ)
        try:
            written = _traffic(aws, sources, flows, agent)
            if kinesis is not None:
                say("everything is written; Kinesis comes last, as its Java daemon takes some seconds to begin")
            exported = _settle(catcher, written, http_port, agent)
        finally:
            agent.send_signal(signal.SIGTERM)
            status = agent.wait(30)
        return Result(sources, written, exported, catcher.tally, status)


def _traffic(aws: EmbeddedAws, sources: list[Source], flows: int, agent: subprocess.Popen[bytes]) -> dict[str, Written]:
    written = {source.vpc.vpc_id: Written() for source in sources}
    for number in range(ROUNDS):
        for source in sources:
            part = flows // ROUNDS + (flows % ROUNDS if number == 0 else 0)
            some = aws.deliver(source, part, number)
            total = written[source.vpc.vpc_id]
            for name in ("flows", "octets", "packets", "denied", "nodata", "skipdata"):
                setattr(total, name, getattr(total, name) + getattr(some, name))
        time.sleep(0.5)
        if agent.poll() is not None:
            break
    return written


def _settle(catcher: Catcher, written: Mapping[str, Written], http_port: int, agent: subprocess.Popen[bytes]) -> int:
    """Wait until everything has come, or for PATIENCE; how many records the agent says it exported."""
    expected = sum(each.flows for each in written.values())
    end = time.monotonic() + PATIENCE
    exported = 0
    while time.monotonic() < end and agent.poll() is None:
        if exported < expected:
            exported = _exported(http_port)
            if exported >= expected:
                end = min(end, time.monotonic() + AFTERWARDS)
        elif catcher.tally.flows >= expected:
            break
        time.sleep(0.2)
    return exported


def _exported(http_port: int) -> int:
    """The sum of edfn_records_exported_total."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{http_port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0
    return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("edfn_records_exported_total{")))
