"""The courier as the daemon runs it: a process, the protocol's literal lines on its pipes, and a socket to an agent."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edfn_agent.inputs.kinesis import courier
from edfn_agent.inputs.kinesis.courier import pack, read_frame

INITIALIZE = (
    '{"action":"initialize","shardId":"shardId-000000000001","sequenceNumber":"TRIM_HORIZON","subSequenceNumber":0}'
)
LEASE_LOST = '{"action":"leaseLost"}'
SHARD_ENDED = '{"action":"shardEnded"}'
SHUTDOWN_REQUESTED = '{"action":"shutdownRequested"}'


def records(*data: bytes, first: int = 100, behind: int = 0) -> str:
    each = [
        {
            "action": "record",
            "data": base64.b64encode(octets).decode(),
            "partitionKey": "k",
            "approximateArrivalTimestamp": 1768471200000,
            "sequenceNumber": str(first + number),
            "subSequenceNumber": 0,
        }
        for number, octets in enumerate(data)
    ]
    return json.dumps({"action": "processRecords", "records": each, "millisBehindLatest": behind})


def checkpointed(sequence: str | None, sub: int | None = 0, error: str | None = None) -> str:
    return json.dumps({"action": "checkpoint", "sequenceNumber": sequence, "subSequenceNumber": sub, "error": error})


class FakeAgent:
    """Listens where the agent would; the test says what it answers."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._listener.settimeout(10)
        self.connection: socket.socket | None = None

    def accept(self) -> None:
        self.connection, _ = self._listener.accept()
        self.connection.settimeout(10)
        self._file = self.connection.makefile("rb")

    def hear(self) -> tuple[dict[str, Any], bytes]:
        frame = read_frame(self._file.read)
        assert frame is not None
        return frame

    def say(self, header: dict[str, Any]) -> None:
        assert self.connection is not None
        self.connection.sendall(pack(header))

    def close(self) -> None:
        if self.connection is not None:
            self._file.close()
            self.connection.close()
        self._listener.close()


class Child:
    """The courier's process, seen from the daemon."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-I", "-S", courier.__file__, str(path), "flow-logs"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            if line.strip():
                return dict(json.loads(line))
        raise AssertionError(f"the courier said nothing more: {self.process.stderr.read()!r}")  # type: ignore[union-attr]

    def hang_up(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None

    def end(self) -> tuple[int, str]:
        """Its status and what it wrote to stderr; nothing more may be on stdout."""
        self.process.wait(20)
        out, error = self.process.communicate()
        assert out.strip() == b""
        return self.process.returncode, error.decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
def agent(path: Path) -> Iterator[FakeAgent]:
    agent = FakeAgent(path)
    yield agent
    agent.close()


@pytest.fixture
def child(path: Path, agent: FakeAgent) -> Iterator[Child]:
    child = Child(path)
    yield child
    child.process.kill()
    child.process.wait()
    for pipe in (child.process.stdin, child.process.stdout, child.process.stderr):
        if pipe is not None:
            pipe.close()


@pytest.fixture
def started(child: Child, agent: FakeAgent) -> Child:
    child.tell(INITIALIZE)
    agent.accept()
    assert agent.hear() == (
        {"is": "hello", "stream": "flow-logs", "shard": "shardId-000000000001", "pid": child.process.pid},
        b"",
    )
    agent.say({"is": "ready"})
    assert child.hear() == {"action": "status", "responseFor": "initialize"}
    return child


def test_a_batch_is_checkpointed_only_when_the_agent_says_it_is_done(started: Child, agent: FakeAgent) -> None:
    started.tell(records(b"one", b"\x1f\x8b two", b"", behind=1500))
    assert agent.hear() == (
        {
            "is": "records",
            "sizes": [3, 6, 0],
            "sequences": ["100", "101", "102"],
            "subs": [0, 0, 0],
            "more": False,
            "behind": 1500,
            "arrived": 1768471200000,
        },
        b"one\x1f\x8b two",
    )
    agent.say({"is": "working"})
    agent.say({"is": "working"})
    agent.say({"is": "done"})
    assert started.hear() == {"action": "checkpoint", "sequenceNumber": "102", "subSequenceNumber": 0}
    started.tell(checkpointed("102"))
    assert started.hear() == {"action": "status", "responseFor": "processRecords"}
    assert agent.hear() == ({"is": "checkpoint", "sequence": "102", "tries": 1}, b"")


def test_kpl_records_are_checkpointed_at_the_sub_sequence(started: Child, agent: FakeAgent) -> None:
    line = records(b"a", b"b").replace('"101", "subSequenceNumber": 0', '"100", "subSequenceNumber": 7')
    started.tell(line)
    assert agent.hear()[0]["subs"] == [0, 7]
    agent.say({"is": "done"})
    assert started.hear() == {"action": "checkpoint", "sequenceNumber": "100", "subSequenceNumber": 7}


def test_an_empty_batch_is_a_heartbeat_without_a_checkpoint(started: Child, agent: FakeAgent) -> None:
    started.tell(records(behind=3))
    assert agent.hear()[0]["behind"] == 3
    agent.say({"is": "done"})
    assert started.hear() == {"action": "status", "responseFor": "processRecords"}


def test_a_large_batch_goes_in_portions(started: Child, agent: FakeAgent) -> None:
    big = [bytes([65 + number]) * 700_000 for number in range(4)] + [b"x" * 3_000_000]
    thread = threading.Thread(target=started.tell, args=(records(*big),))
    thread.start()
    seen = []
    while True:
        header, body = agent.hear()
        assert len(body) <= courier.PORTION or len(header["sizes"]) == 1
        seen.append(body)
        if not header["more"]:
            break
        agent.say({"is": "more"})
    thread.join()
    assert b"".join(seen) == b"".join(big)
    agent.say({"is": "done"})
    assert started.hear()["sequenceNumber"] == "104"


def test_what_did_go_out_is_checkpointed_before_it_leaves(started: Child, agent: FakeAgent) -> None:
    started.tell(records(b"a", b"b", b"c"))
    agent.hear()
    agent.say({"is": "refused", "count": 2, "reason": "quarantine is full"})
    assert started.hear() == {"action": "checkpoint", "sequenceNumber": "101", "subSequenceNumber": 0}
    started.tell(checkpointed("101"))
    status, error = started.end()
    assert (status, error) == (1, "courier: 1 of 3 records did not go out: quarantine is full\n")


def test_a_refusal_of_all_checkpoints_nothing(started: Child, agent: FakeAgent) -> None:
    started.tell(records(b"a", b"b"))
    agent.hear()
    agent.say({"is": "refused", "count": 0, "reason": "stopping"})
    assert started.end() == (1, "courier: 2 of 2 records did not go out: stopping\n")


def test_the_agent_goes_in_mid_batch(started: Child, agent: FakeAgent) -> None:
    started.tell(records(b"a"))
    agent.hear()
    agent.close()
    assert started.end() == (1, "courier: the agent is gone\n")


def test_no_agent(tmp_path: Path) -> None:
    child = Child(tmp_path / "nobody.sock")
    child.tell(INITIALIZE)
    status, error = child.end()
    assert status == 1
    assert error.startswith("courier: the agent cannot be reached at ")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\xff\xff\xff\xff\x00\x00\x00\x00", "is over the limit"),
        (b"\x00\x00\x00\x02\x00\x00\x00\x00[]", "without a JSON object"),
        (b"\x00\x00\x00\x02\x00\x00\x00\x00{]", "cannot be read"),
        (pack({"is": "what"}), "the agent answers {'is': 'what'}"),
    ],
)
def test_broken_frames_from_the_agent(started: Child, agent: FakeAgent, answer: bytes, reason: str) -> None:
    started.tell(records(b"a"))
    agent.hear()
    assert agent.connection is not None
    agent.connection.sendall(answer)
    status, error = started.end()
    assert status == 1
    assert reason in error


def test_a_throttled_checkpoint_is_tried_again(started: Child, agent: FakeAgent) -> None:
    started.tell(records(b"a"))
    agent.hear()
    agent.say({"is": "done"})
    for _ in range(2):
        assert started.hear()["action"] == "checkpoint"
        started.tell(checkpointed("100", error="ThrottlingException"))
    assert started.hear()["action"] == "checkpoint"
    started.tell(checkpointed("100"))
    assert started.hear() == {"action": "status", "responseFor": "processRecords"}
    assert agent.hear()[0] == {"is": "checkpoint", "sequence": "100", "tries": 3}


@pytest.mark.parametrize("error", ["InvalidStateException", "IllegalArgumentException", "NullPointerException"])
def test_a_failed_checkpoint_ends_it(started: Child, agent: FakeAgent, error: str) -> None:
    started.tell(records(b"a"))
    agent.hear()
    agent.say({"is": "done"})
    started.hear()
    started.tell(checkpointed("100", error=error))
    assert started.end() == (1, f"courier: checkpoint at 100 failed, try 1: {error}\n")


def test_a_lease_lost_in_mid_batch_is_no_error(started: Child, agent: FakeAgent) -> None:
    started.tell(records(b"a"))
    agent.hear()
    agent.say({"is": "done"})
    started.hear()
    started.tell(checkpointed("100", error="ShutdownException"))
    assert started.hear() == {"action": "status", "responseFor": "processRecords"}
    started.tell(LEASE_LOST)
    assert started.hear() == {"action": "status", "responseFor": "leaseLost"}
    assert agent.hear()[0] == {"is": "end", "why": "leaseLost"}
    started.hang_up()
    assert started.end() == (0, "")


def test_the_end_of_a_shard_is_checkpointed(started: Child, agent: FakeAgent) -> None:
    started.tell(SHARD_ENDED)
    assert started.hear() == {"action": "checkpoint", "sequenceNumber": None, "subSequenceNumber": None}
    started.tell(checkpointed(None, None))
    assert started.hear() == {"action": "status", "responseFor": "shardEnded"}
    assert [agent.hear()[0]["is"] for _ in range(2)] == ["checkpoint", "end"]
    started.hang_up()
    assert started.end() == (0, "")


def test_a_shutdown_then_the_end_of_stdin(started: Child, agent: FakeAgent) -> None:
    started.tell(SHUTDOWN_REQUESTED)
    assert started.hear() == {"action": "status", "responseFor": "shutdownRequested"}
    assert agent.hear()[0] == {"is": "end", "why": "shutdownRequested"}
    started.hang_up()
    assert started.end() == (0, "")


def test_signals_for_its_group_do_not_end_it(started: Child, agent: FakeAgent) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(started.process.pid, number)
    started.tell(records(b"a"))
    agent.hear()
    agent.say({"is": "done"})
    assert started.hear()["action"] == "checkpoint"


def test_it_does_not_wait_for_the_agent_when_the_daemon_is_gone(started: Child, agent: FakeAgent) -> None:
    started.tell(records(b"a"))
    agent.hear()
    started.hang_up()
    assert started.end() == (1, "courier: the daemon is gone\n")


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"action":"dance"}', '{"action":"processRecords"}'])
def test_lines_that_are_none(started: Child, line: str) -> None:
    started.tell(line)
    status, error = started.end()
    assert status == 1
    assert error.startswith("courier: ")


def test_prints_do_not_reach_the_protocol(path: Path, tmp_path: Path) -> None:
    program = tmp_path / "noisy.py"
    program.write_text(
        "import importlib.util, os, sys\n"
        f"spec = importlib.util.spec_from_file_location('courier', {courier.__file__!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "class Noisy(module.Courier):\n"
        "    def run(self):\n"
        "        print('noise'); sys.stdout.flush(); os.write(1, b'more noise'); self._say({'action': 'status'})\n"
        "module.Courier = Noisy\n"
        "sys.exit(module.main(['nowhere', 'stream']))\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, stdin=subprocess.DEVNULL, timeout=20)
    assert done.stdout == b'\n{"action":"status"}\n'
    assert done.stderr == b"noise\nmore noise"
