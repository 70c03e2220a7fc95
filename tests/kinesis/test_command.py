"""`edfn-agent kinesis deregister` against moto."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result
from moto import mock_aws

from edfn_agent.cli import main

ACCOUNT = "123456789012"  # moto's own
ARN = f"arn:aws:kinesis:eu-west-1:{ACCOUNT}:stream/flow-logs"


@pytest.fixture
def kinesis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "EDFN_AGENT_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAX")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with mock_aws():
        kinesis = boto3.client("kinesis", region_name="eu-west-1")
        kinesis.create_stream(StreamName="flow-logs", ShardCount=1)
        for consumer in ("edfn-agent-flow-logs", "edfn-agent-flow-logs-20260301T120000", "another"):
            kinesis.register_stream_consumer(StreamARN=ARN, ConsumerName=consumer)
        yield kinesis


def consumers(kinesis: Any) -> set[str]:
    return {each["ConsumerName"] for each in kinesis.list_stream_consumers(StreamARN=ARN)["Consumers"]}


def run(*arguments: str) -> Result:
    from edfn_agent.commands.kinesis import kinesis

    assert main is not None
    return CliRunner().invoke(kinesis, ["deregister", *arguments])


def test_by_name(kinesis: Any) -> None:
    result = run("flow-logs", "--region", "eu-west-1")
    assert result.exit_code == 0
    assert result.output == (
        f"removed consumer edfn-agent-flow-logs from {ARN}\n"
        f"removed consumer edfn-agent-flow-logs-20260301T120000 from {ARN}\n"
    )
    assert consumers(kinesis) == {"another"}
    again = run(ARN)
    assert (again.exit_code, again.output) == (
        0,
        f"{ARN} has no consumer edfn-agent-flow-logs: nothing to remove\n",
    )


def test_of_another_application(kinesis: Any) -> None:
    assert run(ARN, "--application", "another").output == f"removed consumer another from {ARN}\n"
    assert consumers(kinesis) == {"edfn-agent-flow-logs", "edfn-agent-flow-logs-20260301T120000"}


def test_as_the_configuration_says(kinesis: Any, tmp_path: Path) -> None:
    file = tmp_path / "edfn-agent.yaml"
    file.write_text(
        "collectors: [udp://192.0.2.10:4739]\n"
        "aws: {region: eu-west-1}\n"
        f"inputs: {{kinesis: {{streams: [{{arn: '{ARN}', application_name: another}}]}}}}\n"
    )
    result = run("flow-logs", "-c", str(file))
    assert (result.exit_code, result.output) == (0, f"removed consumer another from {ARN}\n")
    elsewhere = ARN.replace(ACCOUNT, "999999999999")
    stranger = run(elsewhere, "-c", str(file))
    assert stranger.exit_code == 1
    assert "account 999999999999" in stranger.output


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["missing", "--region", "eu-west-1"], 1, "stream 'missing' is not in the configuration"),
        (["arn:aws:s3:::bucket"], 2, "is no ARN of a Kinesis data stream"),
        ([ARN, "--application", "a b"], 2, "application name 'a b'"),
        ([ARN.replace("flow-logs", "missing")], 1, "the consumer was not removed"),
        ([ARN, "-c", "/nowhere/edfn-agent.yaml"], 2, "/nowhere/edfn-agent.yaml"),
    ],
)
def test_what_cannot_be_done(kinesis: Any, arguments: list[str], status: int, text: str) -> None:
    result = run(*arguments)
    assert result.exit_code == status
    assert text in result.output
