"""What the whole agent makes of a stream: records of other log groups, and a daemon in trouble."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edfn_agent.agent import Agent
from edfn_agent.config import load
from edfn_agent.delivery import Delivery, Origin, Outcome
from edfn_agent.inputs.kinesis.supervisor import State, StreamHealth
from edfn_agent.sources import _said

ARN = "arn:aws:kinesis:eu-west-1:111111111111:stream/shared"
FLOW = "2 111111111111 eni-0a1b2c3d4e5f60718 10.0.0.1 10.0.1.2 443 49152 6 10 840 1768471200 1768471260 ACCEPT OK"
TRAIL = '{"eventVersion":"1.08","eventSource":"ec2.amazonaws.com"}'


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    path = tmp_path / "edfn-agent.yaml"
    collector = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    collector.bind(("127.0.0.1", 0))
    port = collector.getsockname()[1]
    path.write_text(
        f"collectors: [udp://127.0.0.1:{port}]\naws: {{region: eu-west-1}}\nstate_directory: {tmp_path}/state\n"
    )
    agent = Agent(load(path))
    yield agent
    agent.stop()
    collector.close()


def envelope(group: str, *messages: str) -> bytes:
    events = [{"id": str(n), "timestamp": 1768471200000, "message": text} for n, text in enumerate(messages)]
    text = {"messageType": "DATA_MESSAGE", "owner": "111111111111", "logGroup": group, "logEvents": events}
    return gzip.compress(json.dumps(text).encode())


def deliver(agent: Agent, payload: bytes) -> tuple[Outcome, str]:
    settled: list[tuple[Outcome, str]] = []
    origin = Origin("kinesis", "shared", region="eu-west-1")
    agent._submit(Delivery(origin, "shared:1", lambda: [payload], lambda *how: settled.append(how)))
    agent._pipeline.flush()
    (how,) = settled
    return how


def skipped(agent: Agent, status: str) -> float:
    return float(agent.metrics.registry.get_sample_value("edfn_records_skipped_total", {"status": status}) or 0)


def test_a_log_group_without_flow_logs_is_counted_and_let_go(agent: Agent) -> None:
    assert deliver(agent, envelope("CloudTrail", TRAIL, TRAIL, TRAIL)) == (Outcome.ACKNOWLEDGED, "")
    assert skipped(agent, "other_log_group") == 3
    assert agent._state.quarantine.count() == 0
    malformed = agent.metrics.registry.get_sample_value("edfn_lines_malformed_total", {"input": "kinesis"})
    assert not malformed


def test_beside_flow_logs_in_one_record(agent: Agent) -> None:
    both = envelope("CloudTrail", TRAIL) + envelope("flows", FLOW, FLOW)
    assert deliver(agent, both) == (Outcome.ACKNOWLEDGED, "")
    assert skipped(agent, "other_log_group") == 1
    exported = agent.metrics.registry.get_sample_value(
        "edfn_records_exported_total", {"vpc_id": "unattributed", "exporter": str(_unattributed(agent))}
    )
    assert exported == 2


def test_what_may_be_a_flow_log_of_an_unknown_layout_is_kept(agent: Agent) -> None:
    outcome, reason = deliver(agent, envelope("odd", "10.0.0.1 10.0.0.2 17 840"))
    assert outcome is Outcome.QUARANTINED
    assert "name the layout" in reason
    assert skipped(agent, "other_log_group") == 0


def test_health_has_the_last_that_a_daemon_said_without_its_secrets() -> None:
    lines = ("WARN one: 1", "WARN two: 2", "ERROR three: token=abcdefgh", "at java.base/Thread.run")
    health = StreamHealth(ARN, State.RESTARTING, "the daemon ended: status 1", 0.0, "app", None, (), 3, lines)
    assert _said(health) == (
        "restarting: the daemon ended: status 1 "
        "(its daemon: WARN two: 2 | ERROR three: token=*** | at java.base/Thread.run)"
    )


def _unattributed(agent: Agent) -> object:
    families = {
        sample.labels["exporter"]
        for family in agent.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "edfn_records_exported_total"
    }
    (address,) = families
    return address
