"""The agent's end of the socket, with couriers that are played, and one that is real."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edfn_agent.delivery import Delivery, Outcome
from edfn_agent.inputs.kinesis import courier, server
from edfn_agent.inputs.kinesis.courier import LENGTHS, pack, read_frame
from edfn_agent.inputs.kinesis.figures import StreamFigures
from edfn_agent.inputs.kinesis.server import Server

from .conftest import until

ARN = "arn:aws:kinesis:eu-west-1:111111111111:stream/flow-logs"


class Pipeline:
    """Holds what it is given until the test settles it."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.quarantined: list[tuple[str, str, bytes]] = []
        self.quarantine_full = False

    def submit(self, delivery: Delivery) -> None:
        if delivery.name.endswith("refuse"):
            raise RuntimeError("closed")
        self.deliveries.append(delivery)

    def quarantine(self, delivery: Delivery, reason: str, payload: bytes) -> None:
        if self.quarantine_full:
            raise OSError("it is full")
        self.quarantined.append((delivery.name, reason, payload))

    def settle(self, *outcomes: Outcome) -> None:
        for delivery, outcome in zip(self.deliveries, outcomes, strict=True):
            delivery.fail(outcome, f"{outcome.value} on purpose")
            delivery.release()
        self.deliveries.clear()


class PlayedCourier:
    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self._file = self.socket.makefile("rb")

    def say(self, header: dict[str, Any], body: bytes = b"") -> None:
        self.socket.sendall(pack(header, body))

    def hear(self) -> dict[str, Any] | None:
        frame = read_frame(self._file.read)
        return frame[0] if frame else None

    def hello(self, stream: str = "flow-logs") -> PlayedCourier:
        self.say({"is": "hello", "stream": stream, "shard": "shardId-000000000001", "pid": 4711})
        return self

    def records(self, *data: bytes, more: bool = False, **other: Any) -> None:
        header = {
            "is": "records",
            "sizes": [len(octets) for octets in data],
            "sequences": [str(100 + number) for number in range(len(data))],
            "subs": [0] * len(data),
            "more": more,
            "behind": 250,
        }
        self.say(header | other, b"".join(data))

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.fixture
def figures() -> StreamFigures:
    return StreamFigures(ARN)


@pytest.fixture
def listening(tmp_path: Path, pipeline: Pipeline, figures: StreamFigures) -> Iterator[Server]:
    path = tmp_path / "kinesis" / "couriers.sock"
    listening = Server(path, pipeline.submit, pipeline.quarantine, {"flow-logs": figures}.get)
    listening.start()
    yield listening
    listening.stop()


@pytest.fixture
def played(listening: Server) -> Iterator[PlayedCourier]:
    played = PlayedCourier(listening.path).hello()
    assert played.hear() == {"is": "ready"}
    yield played
    played.close()


def test_only_the_agents_user_can_reach_the_socket(listening: Server) -> None:
    assert stat.S_IMODE(os.stat(listening.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(listening.path.parent).st_mode) == 0o700


def test_each_record_is_a_delivery_and_done_is_said_after_the_last(
    played: PlayedCourier, pipeline: Pipeline, figures: StreamFigures
) -> None:
    played.records(b"one", b"two")
    until(lambda: len(pipeline.deliveries) == 2)
    first, second = pipeline.deliveries
    assert (first.name, second.name) == (
        "flow-logs:shardId-000000000001:100",
        "flow-logs:shardId-000000000001:101",
    )
    assert (first.origin.input, first.origin.source, first.origin.region) == ("kinesis", ARN, "eu-west-1")
    assert first.origin.account_id is None  # what the records say, not whose stream it is
    assert [b"".join(each.chunks()) for each in (first, second)] == [b"one", b"two"]
    second.release()
    played.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        played.socket.recv(1)
    played.socket.settimeout(10)
    first.release()
    until(lambda: figures.leases()[0].batches == 1)
    (shard,) = figures.leases()
    assert (shard.records, shard.octets, shard.behind_ms, shard.outgoing) == (2, 6, 250, 0)
    played.say({"is": "checkpoint", "sequence": "101", "tries": 3})
    until(lambda: figures.checkpoints == 1)
    assert (shard.checkpoint, shard.checkpoint_retries) == ("101", 2)


def test_sub_sequences_are_in_the_name(played: PlayedCourier, pipeline: Pipeline) -> None:
    played.records(b"a", b"b", sequences=["100", "100"], subs=[0, 7])
    until(lambda: len(pipeline.deliveries) == 2)
    assert [each.name.split(":")[-1] for each in pipeline.deliveries] == ["100", "100.7"]
    pipeline.settle(Outcome.ACKNOWLEDGED, Outcome.ACKNOWLEDGED)
    assert played.hear() == {"is": "done"}


def test_portions_are_one_batch(played: PlayedCourier, pipeline: Pipeline) -> None:
    played.records(b"a", b"b", more=True)
    assert played.hear() == {"is": "more"}
    pipeline.settle(Outcome.ACKNOWLEDGED, Outcome.ACKNOWLEDGED)  # all that is there: but the batch is not complete
    played.records(b"c")
    until(lambda: pipeline.deliveries)
    pipeline.settle(Outcome.RETURNED)
    assert played.hear() == {"is": "refused", "count": 2, "reason": "returned on purpose"}


def test_an_empty_batch_is_answered_at_once(played: PlayedCourier) -> None:
    played.records()
    assert played.hear() == {"is": "done"}


def test_rubbish_is_quarantined_and_the_shard_goes_on(played: PlayedCourier, pipeline: Pipeline) -> None:
    played.records(b"good", b"rubbish", b"again")
    until(lambda: len(pipeline.deliveries) == 3)
    pipeline.settle(Outcome.ACKNOWLEDGED, Outcome.QUARANTINED, Outcome.DUPLICATE)
    assert played.hear() == {"is": "done"}
    assert pipeline.quarantined == [("flow-logs:shardId-000000000001:101", "quarantined on purpose", b"rubbish")]


def test_a_full_quarantine_leaves_the_record_in_the_stream(played: PlayedCourier, pipeline: Pipeline) -> None:
    pipeline.quarantine_full = True
    played.records(b"good", b"rubbish", b"good")
    until(lambda: len(pipeline.deliveries) == 3)
    pipeline.settle(Outcome.ACKNOWLEDGED, Outcome.QUARANTINED, Outcome.ACKNOWLEDGED)
    assert played.hear() == {
        "is": "refused",
        "count": 1,
        "reason": "flow-logs:shardId-000000000001:101 cannot be quarantined (quarantined on purpose): it is full",
    }


def test_the_first_returned_record_counts(played: PlayedCourier, pipeline: Pipeline) -> None:
    played.records(b"a", b"b", b"c", b"d")
    until(lambda: len(pipeline.deliveries) == 4)
    pipeline.deliveries.reverse()
    pipeline.settle(Outcome.RETURNED, Outcome.ACKNOWLEDGED, Outcome.RETURNED, Outcome.ACKNOWLEDGED)
    assert played.hear() == {"is": "refused", "count": 1, "reason": "returned on purpose"}


def test_a_pipeline_that_takes_nothing(played: PlayedCourier, figures: StreamFigures) -> None:
    played.records(b"a", sequences=["refuse"])
    answer = played.hear()
    assert answer is not None
    assert answer["is"] == "refused"
    assert answer["count"] == 0
    assert played.hear() is None
    until(lambda: figures.couriers_lost == 1)


def test_working_is_said_while_a_batch_waits(played: PlayedCourier, listening: Server, pipeline: Pipeline) -> None:
    played.records(b"a")
    until(lambda: pipeline.deliveries)
    for connection in list(listening._connections):
        connection.working()  # what the ticker does every ten seconds
    assert played.hear() == {"is": "working"}
    pipeline.settle(Outcome.ACKNOWLEDGED)
    assert played.hear() == {"is": "done"}


def test_a_courier_that_dies_is_counted_and_its_batch_settles_to_nobody(
    played: PlayedCourier, pipeline: Pipeline, figures: StreamFigures
) -> None:
    played.records(b"a")
    until(lambda: pipeline.deliveries)
    played.close()
    until(lambda: figures.couriers_lost == 1)
    assert figures.leases() == []
    pipeline.settle(Outcome.ACKNOWLEDGED)
    assert figures.records == 1


@pytest.mark.parametrize(
    ("why", "lost", "ended"), [("leaseLost", 1, 0), ("shardEnded", 0, 1), ("shutdownRequested", 0, 0)]
)
def test_an_end_that_was_announced_is_no_loss(
    played: PlayedCourier, figures: StreamFigures, why: str, lost: int, ended: int
) -> None:
    played.say({"is": "end", "why": why})
    played.close()
    until(lambda: not figures.leases())
    assert (figures.couriers_lost, figures.leases_lost, figures.shards_ended) == (0, lost, ended)


@pytest.mark.parametrize(
    "octets",
    [
        LENGTHS.pack(2**32 - 1, 0),
        LENGTHS.pack(2, 2**31),
        LENGTHS.pack(2, 0) + b"[]",
        LENGTHS.pack(2, 0) + b"{]",
        pack({"is": "records"}),
        pack({"is": "records", "sizes": [5], "sequences": ["1"], "subs": [0]}, b"four"),
        pack({"is": "records", "sizes": [5, -1], "sequences": ["1", "2"], "subs": [0, 0]}, b"four"),
        pack({"is": "records", "sizes": "x", "sequences": ["1"], "subs": [0]}, b"four"),
        pack({"is": "what"}),
        pack({"is": "hello"})[:-3],
    ],
)
def test_broken_frames_cost_their_connection_only(
    played: PlayedCourier, listening: Server, pipeline: Pipeline, octets: bytes
) -> None:
    played.socket.sendall(octets)
    with suppress(OSError):
        played.socket.shutdown(socket.SHUT_WR)
    answer = played.hear()
    assert answer is not None
    assert answer["is"] == "refused"
    assert pipeline.deliveries == []
    other = PlayedCourier(listening.path).hello()
    assert other.hear() == {"is": "ready"}
    other.close()


def test_a_stream_that_is_not_read_here(listening: Server) -> None:
    stranger = PlayedCourier(listening.path).hello("other")
    answer = stranger.hear()
    assert answer is not None
    assert answer["reason"] == "stream 'other' is not read by this agent"
    stranger.close()


def test_stop_ends_the_connections(played: PlayedCourier, listening: Server, figures: StreamFigures) -> None:
    listening.stop()
    assert played.hear() is None
    assert figures.couriers_lost == 0
    assert not listening.path.exists()


def test_a_courier_process_and_the_server_together(listening: Server, pipeline: Pipeline) -> None:
    command = [sys.executable, "-I", "-S", courier.__file__, str(listening.path), "flow-logs"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        data = [os.urandom(size) for size in (0, 1, 70_000, 1_500_000, 3)]
        lines = [
            {"action": "initialize", "shardId": "shardId-000000000001"},
            {
                "action": "processRecords",
                "records": [
                    {"data": base64.b64encode(octets).decode(), "sequenceNumber": str(number), "subSequenceNumber": 0}
                    for number, octets in enumerate(data)
                ],
                "millisBehindLatest": 0,
            },
        ]
        for line in lines:
            process.stdin.write(json.dumps(line) + "\n")
            process.stdin.flush()
        until(lambda: len(pipeline.deliveries) == 5)
        assert [b"".join(each.chunks()) for each in pipeline.deliveries] == data
        pipeline.settle(*[Outcome.ACKNOWLEDGED] * 5)
        said = []
        while not said or said[-1]["action"] != "checkpoint":
            line = process.stdout.readline()
            assert line, "the courier left"
            said += [json.loads(line)] if line.strip() else []
        assert said[-1]["sequenceNumber"] == "4"
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def test_no_place_for_the_socket(tmp_path: Path, pipeline: Pipeline) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(server.SocketError, match="state_directory"):
        Server(tmp_path / "file" / "s.sock", pipeline.submit, pipeline.quarantine, lambda _: None).start()


def test_how_far_a_stream_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the arrival of what has gone out; an idle shard by answers that were waited for."""
    now = 1_768_471_200.0
    monkeypatch.setattr("edfn_agent.inputs.kinesis.figures.time.time", lambda: now)
    figures = StreamFigures(ARN)
    one, two = figures.arrived("one", 1), figures.arrived("two", 2)
    one.received(5, 100, 3_600_000, 1_768_467_600_500)
    assert figures.exported_to is None, "nothing has gone out"
    one.settled(returned=False, seconds=1.0)
    assert one.exported_to == 1_768_467_600.5
    assert figures.exported_to is None, "of the other shard nothing is known"
    for passed in (0.0, 5.0, 0.01):
        now += passed
        two.received(0, 0, 250, None)
        two.settled(returned=False, seconds=0.0)
    assert two.exported_to == 1_768_471_199.75, "the last one was in store; nobody knows since when"
    assert figures.exported_to == 1_768_467_600.5
    one.received(5, 100, 0, 1_768_471_210_000)
    one.settled(returned=True, seconds=1.0)
    assert one.exported_to == 1_768_467_600.5, "some of it stays in the stream"
    figures.left(one, "leaseLost", True)
    assert figures.exported_to == two.exported_to
    figures.left(two, "leaseLost", True)
    assert figures.exported_to == two.exported_to, "as it was last known"
