"""What becomes of a daemon: told by processes that only play Java, and by an AWS that says what the test wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from edfn_agent.inputs.kinesis import supervisor
from edfn_agent.inputs.kinesis.credentials import CredentialServer
from edfn_agent.inputs.kinesis.figures import StreamFigures
from edfn_agent.inputs.kinesis.java import Installation
from edfn_agent.inputs.kinesis.stream import Keys, StreamSettings
from edfn_agent.inputs.kinesis.supervisor import State, Supervisor, Surroundings

from .conftest import until

ARN = "arn:aws:kinesis:eu-west-1:111111111111:stream/flow-logs"
RUNS = "exec sleep 60"
DIES = "echo 'KCL|WARN|One|first'; echo 'KCL|ERROR|Two|last words'; exit 1"


class Aws:
    """DescribeStreamSummary and DescribeTable of the stream's account."""

    def __init__(self) -> None:
        self.error = ""
        self.asked = 0

    def keys(self) -> Keys:
        return Keys("a", "s", None, None)

    def client(self, service: str) -> Any:
        return self

    def describe_stream_summary(self, StreamName: str) -> dict[str, Any]:
        self.asked += 1
        self._refuse(self.error)
        about = {
            "StreamStatus": "ACTIVE",
            "OpenShardCount": 1,
            "StreamCreationTimestamp": datetime(2026, 1, 1, tzinfo=UTC),
        }
        return {"StreamDescriptionSummary": about}

    def describe_table(self, TableName: str) -> dict[str, Any]:
        self._refuse("ResourceNotFoundException")
        raise AssertionError

    def _refuse(self, code: str) -> None:
        if code:
            raise ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "Describe")


Start = Callable[..., Supervisor]


@pytest.fixture
def aws() -> Aws:
    return Aws()


@pytest.fixture
def start(tmp_path: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(supervisor, "AFTER_GRACE", 0.5)
    credentials = CredentialServer()
    credentials.start()
    with ExitStack() as ending:
        ending.callback(credentials.stop)

        def start(java: str) -> Supervisor:
            program = tmp_path / "java"
            if not program.exists():  # it may be running already
                program.write_text(f"#!/bin/sh\n{java}\n")
                program.chmod(0o700)
            around = Surroundings(
                Installation(program, "17", tmp_path),
                credentials,
                directory=tmp_path,
                locks=tmp_path,
                socket_path=tmp_path / "couriers.sock",
                worker_id="edfn-test",
                shutdown_grace=0.5,
                look_every=0.1,
            )
            made = Supervisor(StreamSettings(ARN), aws, StreamFigures(ARN), around)
            ending.callback(made.stop)
            made.start()
            return made

        yield start


def state(of: Supervisor, wanted: State) -> None:
    until(lambda: of.health().state is wanted, 20, f"{wanted}, not {of.health()}")


def gone(pid: int | None) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_daemon_that_keeps_dying_is_started_again_and_shows_its_last_words(start: Start) -> None:
    daemon = start(DIES)
    until(lambda: daemon.figures.restarts >= 4, 20)
    until(lambda: daemon.health().state is State.RESTARTING, 20)
    health = daemon.health()
    assert not health.well
    assert health.detail == "the daemon ended: status 1"
    assert health.last_lines == ("WARNING One: first", "ERROR Two: last words")
    daemon.stop()
    assert daemon.health().state is State.STOPPED


def test_a_stream_that_goes_ends_its_daemon(start: Start, aws: Aws) -> None:
    daemon = start(RUNS)
    pid = until(lambda: daemon.health().pid, 20)
    aws.error = "ResourceNotFoundException"
    state(daemon, State.GONE)
    assert daemon.health().failed_for_good
    assert gone(pid)
    aws.error = ""
    state(daemon, State.STARTING)


def test_refused_without_a_lease_is_refused_for_good(start: Start, aws: Aws) -> None:
    daemon = start(RUNS)
    pid = until(lambda: daemon.health().pid, 20)
    shard = daemon.figures.arrived("shardId-000000000000", 1)
    state(daemon, State.RUNNING)
    aws.error = "AccessDeniedException"
    asked = aws.asked
    until(lambda: aws.asked >= asked + 2, 20)
    assert daemon.health().pid == pid, "it is being read, whatever may not be described"
    daemon.figures.left(shard, "leaseLost", True)
    state(daemon, State.DENIED)
    assert gone(pid)
    assert "kinesis:DescribeStreamSummary is refused" in daemon.health().detail


def test_no_two_daemons_of_one_installation(start: Start) -> None:
    first, second = start(RUNS), start(RUNS)
    until(lambda: {first.health().state, second.health().state} == {State.STARTING, State.WAITING}, 20)
    running, waiting = (first, second) if second.health().state is State.WAITING else (second, first)
    assert waiting.health().pid is None
    assert "is held by another process" in waiting.health().detail
    running.stop()
    state(waiting, State.STARTING)


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException", "InternalFailure"])
def test_without_its_stream_no_daemon_is_started(start: Start, aws: Aws, code: str) -> None:
    aws.error = code
    wanted = {"ResourceNotFoundException": State.GONE, "AccessDeniedException": State.DENIED}
    daemon = start(DIES)
    state(daemon, wanted.get(code, State.UNAVAILABLE))
    assert daemon.figures.restarts == 0
