"""The real MultiLangDaemon against real servers: every flow record that was put into the stream comes out.

The agent is a process (agent_process.py) that writes what it was delivered to a file before it lets go of it. What is
compared is flow record by flow record: none may be missing, and none may be there twice unless something was killed.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from edfn_agent.inputs.kinesis.input import worker_id
from edfn_agent.inputs.kinesis.stream import SessionAccess, StreamSettings, deregister

from .conftest import ACCOUNT, Sts, client, end, until

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("agent_process.py")
EVENTS = 50  # flow records in one Kinesis record


def flow(number: int) -> str:
    return (
        f"2 {ACCOUNT} eni-0a1b2c3d4e5f60718 10.0.0.1 10.0.1.2 443 49152 6 10 {number} 1768471200 1768471260 ACCEPT OK"
    )


def subscription_record(numbers: range) -> bytes:
    events = [{"id": str(number), "timestamp": 1768471200000, "message": flow(number)} for number in numbers]
    envelope = {
        "messageType": "DATA_MESSAGE",
        "owner": ACCOUNT,
        "logGroup": "flow-logs",
        "logStream": "eni-0a1b2c3d4e5f60718-all",
        "subscriptionFilters": ["edfn"],
        "logEvents": events,
    }
    return gzip.compress(json.dumps(envelope).encode(), 1)


class Stream:
    """A stream of a test, what was put into it, and the lease table made ready.

    KCL waits up to half a minute before it makes the leases of a new application; with the rows already there (as after
    any earlier run) it starts at once.
    """

    def __init__(self, name: str, shards: int, kinesis: str, dynamodb: str, account: str = ACCOUNT) -> None:
        self.name, self.account = name, account
        self.kinesis = client("kinesis", kinesis, account)
        self.dynamodb = client("dynamodb", dynamodb, account)
        self.put_flows = 0
        self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        self.active()

    def active(self) -> None:
        describe = self.kinesis.describe_stream_summary
        until(lambda: describe(StreamName=self.name)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")

    @property
    def arn(self) -> str:
        return f"arn:aws:kinesis:us-east-1:{self.account}:stream/{self.name}"

    def open_shards(self) -> list[dict[str, Any]]:
        shards = self.kinesis.list_shards(StreamName=self.name)["Shards"]
        return [each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]

    def put(self, flows: int) -> None:
        records = []
        for first in range(self.put_flows, self.put_flows + flows, EVENTS):
            data = subscription_record(range(first, first + EVENTS))
            records.append({"Data": data, "PartitionKey": str(first)})
        for first in range(0, len(records), 100):
            answer = self.kinesis.put_records(StreamName=self.name, Records=records[first : first + 100])
            assert answer["FailedRecordCount"] == 0
        self.put_flows += flows

    def prepare_leases(self, state: Path, application: str) -> None:
        (state / "kinesis").mkdir(parents=True, exist_ok=True)
        self.dynamodb.create_table(
            TableName=application,
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for shard in self.open_shards():
            hash_range = shard["HashKeyRange"]
            lease = {
                "leaseKey": {"S": shard["ShardId"]},
                "checkpoint": {"S": "TRIM_HORIZON"},
                "checkpointSubSequenceNumber": {"N": "0"},
                "leaseCounter": {"N": "0"},
                "ownerSwitchesSinceCheckpoint": {"N": "0"},
                "startingHashKey": {"S": hash_range["StartingHashKey"]},
                "endingHashKey": {"S": hash_range["EndingHashKey"]},
                "leaseOwner": {"S": worker_id(state / "kinesis")},
            }
            self.dynamodb.put_item(TableName=application, Item=lease)


class Agent:
    def __init__(self, directory: Path, out: Path, endpoints: dict[str, str], **task: Any) -> None:
        directory.mkdir(exist_ok=True)
        self.log = directory / "log"
        full = {"state": str(directory), "log": str(self.log), "out": str(out), "endpoints": endpoints, **task}
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(full)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def health(self) -> list[dict[str, Any]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return list(json.loads(self.process.stdout.readline()))

    def leases(self) -> list[str]:
        return [shard for stream in self.health() for shard in stream["shards"]]

    def daemon(self) -> int:
        return int(until(lambda: self.health()[0]["pid"]))

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)

    def clean_up(self) -> None:
        daemons = []
        if self.process.poll() is None:
            with suppress(ValueError, OSError):
                daemons = [each["pid"] for each in self.health() if each["pid"]]
        end(self.process)
        for daemon in daemons:
            with suppress(ProcessLookupError):
                os.killpg(daemon, signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "delivered"
    path.touch()
    return path


StartAgent = Callable[..., Agent]


@pytest.fixture
def start(tmp_path: Path, out: Path) -> Iterator[StartAgent]:
    agents: list[Agent] = []

    def start(name: str, endpoints: dict[str, str], **task: Any) -> Agent:
        agents.append(Agent(tmp_path / name, out, endpoints, **task))
        return agents[-1]

    yield start
    for agent in agents:
        agent.clean_up()


def couriers(daemon: int) -> list[int]:
    with suppress(FileNotFoundError):
        return [int(pid) for pid in Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()] or [
            int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _parent(entry) == daemon
        ]
    return []


def _parent(process: Path) -> int:
    with suppress(OSError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def delivered(out: Path) -> Counter[str]:
    return Counter(out.read_text().splitlines())


def lines(out: Path) -> int:
    return out.read_bytes().count(b"\n")


def arrived(out: Path, flows: int) -> bool:
    # Counting lines is cheap, and only when there are enough can all be there.
    return lines(out) >= flows and len(delivered(out)) >= flows


def compare(out: Path, flows: int) -> int:
    """Everything is there; returns how many are there more than once."""
    found = delivered(out)
    assert set(found) == {flow(number) for number in range(flows)}
    return sum(found.values()) - flows


def test_nothing_is_lost_whatever_is_killed(aws: str, sts: Sts, start: StartAgent, out: Path, tmp_path: Path) -> None:
    """4 shards, 20 000 flow records, another account's stream through a role with an external id."""
    other = "222222222222"
    endpoints = {"kinesis": aws, "dynamodb": aws, "cloudwatch": aws, "sts": sts.url}
    stream = Stream("killed", 4, aws, aws, other)
    stream.prepare_leases(tmp_path / "agent", "edfn-agent-killed")
    task = {
        "streams": [{"arn": stream.arn, "idle_time": 0.25}],
        "role": f"arn:aws:iam::{other}:role/edfn",
        "pause": 0.01,  # so that something is under way when something is killed
    }
    agent = start("agent", endpoints, **task)
    stream.put(8000)
    until(lambda: arrived(out, 8000))
    assert compare(out, 8000) == 0
    assert (sts.asked[0]["ExternalId"], sts.asked[0]["DurationSeconds"]) == ("external=id,with commas", "900")
    assert len(sts.asked) == 1

    daemon = agent.daemon()
    stream.put(4000)
    until(lambda: lines(out) > 8000)
    os.kill(couriers(daemon)[0], signal.SIGKILL)
    until(lambda: arrived(out, 12000))
    assert agent.daemon() != daemon

    so_far = lines(out)
    stream.put(4000)
    until(lambda: lines(out) > so_far)
    os.kill(agent.daemon(), signal.SIGKILL)
    until(lambda: arrived(out, 16000))

    so_far = lines(out)
    daemon = agent.daemon()
    stream.put(4000)
    until(lambda: lines(out) > so_far)
    agent.process.kill()
    until(lambda: not Path(f"/proc/{daemon}").exists(), 10, "the daemon outlives its agent")
    again = start("agent", endpoints, **task)
    until(lambda: arrived(out, 20000))
    repeats = compare(out, 20000)
    print(f"repeats after three kills: {repeats}")
    assert repeats <= 3 * 4000  # what was under way at each of them

    assert again.health()[0]["state"] == "running"
    assert again.stop() == 0
    assert compare(out, 20000) == repeats


def test_a_quiet_restart_repeats_nothing(aws: str, start: StartAgent, out: Path, tmp_path: Path) -> None:
    """Rubbish in the stream is quarantined and not in the way; a dead courier is noticed without a record."""
    endpoints = {"kinesis": aws, "dynamodb": aws, "cloudwatch": aws}
    stream = Stream("quiet", 2, aws, aws)
    stream.prepare_leases(tmp_path / "agent", "edfn-quiet")
    task = {"streams": [{"arn": stream.arn, "idle_time": 0.25, "application_name": "edfn-quiet"}]}
    agent = start("agent", endpoints, **task)
    stream.put(500)
    stream.kinesis.put_record(StreamName=stream.name, Data=b"rubbish", PartitionKey="1")
    stream.put(500)
    until(lambda: arrived(out, 1001))
    until(lambda: agent.health()[0]["checkpoints"] >= 2)
    daemon = agent.daemon()
    os.kill(couriers(daemon)[0], signal.SIGKILL)
    until(lambda: agent.health()[0]["restarts"] == 1)
    until(lambda: len(agent.leases()) == 2)
    assert agent.stop() == 0
    agent = start("agent", endpoints, **task)
    stream.put(500)
    until(lambda: arrived(out, 1501))
    found = delivered(out)
    assert found.pop("quarantined rubbish") == 1
    assert set(found) == {flow(number) for number in range(1500)}
    assert set(found.values()) == {1}


def test_split_and_merge_in_mid_stream(
    aws: str, kinesis_local: str, start: StartAgent, out: Path, tmp_path: Path
) -> None:
    endpoints = {"kinesis": kinesis_local, "dynamodb": aws, "cloudwatch": aws}
    stream = Stream("reshard", 2, kinesis_local, aws)
    stream.prepare_leases(tmp_path / "agent", "edfn-agent-reshard")
    start("agent", endpoints, streams=[{"arn": stream.arn, "idle_time": 0.25}])
    stream.put(2000)
    until(lambda: arrived(out, 1000))
    first = stream.open_shards()[0]
    low, high = (int(first["HashKeyRange"][key]) for key in ("StartingHashKey", "EndingHashKey"))
    stream.kinesis.split_shard(
        StreamName=stream.name, ShardToSplit=first["ShardId"], NewStartingHashKey=str((low + high) // 2)
    )
    stream.active()
    stream.put(2000)
    until(lambda: arrived(out, 4000))
    children = sorted(
        (each for each in stream.open_shards() if each.get("ParentShardId") == first["ShardId"]),
        key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]),
    )
    stream.kinesis.merge_shards(
        StreamName=stream.name, ShardToMerge=children[0]["ShardId"], AdjacentShardToMerge=children[1]["ShardId"]
    )
    stream.active()
    stream.put(2000)
    until(lambda: arrived(out, 6000))
    assert compare(out, 6000) == 0


def test_a_stream_that_is_made_again(
    aws: str, kinesis_local: str, start: StartAgent, out: Path, tmp_path: Path
) -> None:
    endpoints = {"kinesis": kinesis_local, "dynamodb": aws, "cloudwatch": aws}
    stream = Stream("again", 1, kinesis_local, aws)
    stream.prepare_leases(tmp_path / "agent", "edfn-agent-again")
    agent = start("agent", endpoints, streams=[{"arn": stream.arn, "idle_time": 0.25}])
    stream.put(500)
    until(lambda: arrived(out, 500))
    stream.kinesis.delete_stream(StreamName=stream.name)
    until(lambda: agent.health()[0]["state"] == "gone")
    assert "not there" in agent.health()[0]["detail"] or "deleted" in agent.health()[0]["detail"]
    again = Stream("again", 1, kinesis_local, aws)
    created = again.kinesis.describe_stream_summary(StreamName="again")["StreamDescriptionSummary"]
    application = f"edfn-agent-again-{created['StreamCreationTimestamp'].astimezone(UTC):%Y%m%dT%H%M%S}"
    again.prepare_leases(tmp_path / "agent", application)
    again.put_flows = 500
    again.put(500)
    until(lambda: arrived(out, 1000), 75)
    assert agent.health()[0]["application"] == application
    assert compare(out, 1000) == 0


def test_two_agents_share_a_stream(aws: str, start: StartAgent, out: Path, tmp_path: Path) -> None:
    endpoints = {"kinesis": aws, "dynamodb": aws, "cloudwatch": aws}
    stream = Stream("shared", 4, aws, aws)
    stream.prepare_leases(tmp_path / "first", "edfn-agent-shared")
    task: dict[str, Any] = {"streams": [{"arn": stream.arn, "idle_time": 0.25}], "failover": 3}
    first = start("first", endpoints, **task)
    stream.put(2000)
    until(lambda: arrived(out, 2000))
    second = start("second", endpoints, **task)
    until(lambda: second.health()[0]["last_lines"] or second.leases(), 20)
    stream.put(1000)
    until(lambda: arrived(out, 3000))
    assert first.stop() == 0
    until(lambda: len(second.leases()) == 4, 120)
    stream.put(1000)
    until(lambda: arrived(out, 4000))
    # Nothing was killed; but while both ran, KCL may have moved a lease, which repeats the batch under way.
    assert compare(out, 4000) <= 1000


def test_fan_out_and_the_consumer_it_leaves(
    aws: str, kinesis_local: str, start: StartAgent, out: Path, tmp_path: Path
) -> None:
    endpoints = {"kinesis": kinesis_local, "dynamodb": aws, "cloudwatch": aws}
    stream = Stream("fanned", 2, kinesis_local, aws)
    stream.prepare_leases(tmp_path / "agent", "edfn-agent-fanned")
    agent = start("agent", endpoints, streams=[{"arn": stream.arn, "enhanced_fan_out": True}])
    stream.put(2000)
    until(lambda: arrived(out, 2000))
    assert compare(out, 2000) == 0
    assert agent.stop() == 0
    consumers = stream.kinesis.list_stream_consumers(StreamARN=stream.arn)["Consumers"]
    assert [each["ConsumerName"] for each in consumers] == ["edfn-agent-fanned"]
    import boto3

    access = SessionAccess(boto3.Session(ACCOUNT, "x", region_name="us-east-1"), "us-east-1", endpoints)
    settings = StreamSettings(stream.arn)
    assert deregister(settings, access) == ["edfn-agent-fanned"]
    assert deregister(settings, access) == []
    until(lambda: stream.kinesis.list_stream_consumers(StreamARN=stream.arn)["Consumers"] == [])
