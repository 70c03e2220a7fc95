"""The real MultiLangDaemon against real servers, in the whole agent: every flow record of a stream is exported.

What is compared is flow record by flow record at an IPFIX collector: none may be missing, and none may come twice
unless something was killed while it was on its way.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.service.collector import Collector

from .conftest import Sts, until
from .installation import Installation, Stream, command_of

pytestmark = pytest.mark.slow

OTHER = "222222222222"
PACKAGING = Path(__file__).parents[2] / "packaging"
Install = Callable[..., Installation]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector("tcp")
    yield collector
    collector.close()


@pytest.fixture
def install(tmp_path: Path, aws: str, collector: Collector) -> Iterator[Install]:
    """Makes installations in folders of their own; none is left running."""
    with ExitStack() as ending:

        def install(name: str, *streams: dict[str, Any], kinesis: str = aws, **changes: Any) -> Installation:
            made = Installation(tmp_path / name, aws, kinesis, collector, streams, changes)
            ending.callback(made.clean_up)
            return made

        yield install


def arrived(collector: Collector, stream: Stream) -> None:
    """All that was written has come, and the lease table says so: from here on nothing is under way."""
    until(lambda: collector.unique >= stream.written, 90, f"{stream.written} records")
    until(stream.checkpointed, what="checkpoints")
    assert collector.lost(stream.written) == 0


def under_way(collector: Collector, stream: Stream, flows: int) -> None:
    """Some of what is written now has come, and some has not."""
    before = collector.total
    stream.put(flows)
    until(lambda: collector.total > before, 90)


def test_nothing_is_lost_whatever_is_killed(
    aws: str, sts: Sts, install: Install, collector: Collector, tmp_path: Path
) -> None:
    """4 shards, 20 000 flow records, another account's stream through a role with an external id. At the end an orderly
    restart, which repeats nothing."""
    stream = Stream("killed", 4, aws, aws, OTHER, "edfn-killed")
    stream.prepare_leases(tmp_path / "agent" / "state")
    role = {"arn": f"arn:aws:iam::{OTHER}:role/edfn", "external_id": "external=id,with:all"}
    agent = install(
        "agent",
        {"arn": stream.arn, "idle_time": 0.25, "application_name": stream.application},
        aws={"roles": [role], "session_duration": "15m", "endpoints": {"sts": sts.url}},
        ipfix={"records_per_second": 4000},  # so that something is under way when something is killed
    ).start()
    stream.put(8000)
    arrived(collector, stream)
    assert collector.total == 8000
    assert (sts.asked[0]["ExternalId"], sts.asked[0]["DurationSeconds"]) == ("external=id,with:all", "900")
    assert len(sts.asked) == 1

    daemon = agent.daemon()
    under_way(collector, stream, 4000)
    os.kill(agent.couriers()[0], signal.SIGKILL)
    arrived(collector, stream)
    until(lambda: agent.daemon() != daemon)

    under_way(collector, stream, 4000)
    os.kill(agent.daemon(), signal.SIGKILL)
    arrived(collector, stream)

    daemon = agent.daemon()
    under_way(collector, stream, 4000)
    agent.kill()
    until(lambda: not Path(f"/proc/{daemon}").exists(), 10, "the daemon outlives its agent")
    agent.start()
    arrived(collector, stream)

    assert agent.states() == ["running"]
    assert agent.stop() == 0
    total = collector.total
    agent.start()
    stream.put(500)
    arrived(collector, stream)
    assert collector.total == total + 500
    repeated = collector.repeated()
    assert min(repeated, default=20000) > 8000, "only what was on its way at a kill"
    assert max(repeated.values(), default=1) == 1
    assert max(repeated, default=0) <= 20000


def test_split_and_merge_in_mid_stream(
    aws: str, kinesis_local: str, sts: Sts, install: Install, collector: Collector, tmp_path: Path
) -> None:
    """Beside it a stream that is read from a time on, by an application that never ran: KCL makes the leases itself.

    Both are in the agent's own account, and the only account of the configuration is another one.
    """
    timed = Stream("timed", 1, kinesis_local, aws)
    timed.written = 100_000
    timed.put(200)
    time.sleep(1.1)  # KCL counts whole seconds
    began = datetime.now(UTC).replace(microsecond=0)
    timed.put(300)
    stream = Stream("reshard", 2, kinesis_local, aws)
    stream.prepare_leases(tmp_path / "agent" / "state")
    agent = install(
        "agent",
        {"arn": stream.arn, "idle_time": 0.25},
        {"arn": timed.arn, "idle_time": 0.25, "initial_position": began.isoformat()},
        kinesis=kinesis_local,
        aws={"roles": [{"arn": f"arn:aws:iam::{OTHER}:role/edfn"}], "endpoints": {"sts": sts.url}},
    ).start()
    stream.put(2000)
    until(lambda: collector.unique >= 1000)
    first = stream.open_shards()[0]
    low, high = (int(first["HashKeyRange"][key]) for key in ("StartingHashKey", "EndingHashKey"))
    stream.kinesis.split_shard(
        StreamName=stream.name, ShardToSplit=first["ShardId"], NewStartingHashKey=str((low + high) // 2)
    )
    stream.active()
    stream.put(2000)
    until(lambda: collector.lost(4000) == 0)
    children = sorted(
        (each for each in stream.open_shards() if each.get("ParentShardId") == first["ShardId"]),
        key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]),
    )
    stream.kinesis.merge_shards(
        StreamName=stream.name, ShardToMerge=children[0]["ShardId"], AdjacentShardToMerge=children[1]["ShardId"]
    )
    stream.active()
    stream.put(2000)
    until(lambda: collector.lost(6000) == 0)
    until(lambda: collector.unique >= 6300, 90, "the stream that is read from a time on")
    until(lambda: timed.checkpointed() and stream.checkpointed())
    assert collector.received() == {*range(1, 6001), *range(100_201, 100_501)}
    assert collector.total == 6300
    assert agent.stop() == 0


def test_a_stream_that_is_made_again(
    aws: str, kinesis_local: str, install: Install, collector: Collector, tmp_path: Path
) -> None:
    stream = Stream("again", 1, kinesis_local, aws)
    state = tmp_path / "agent" / "state"
    stream.prepare_leases(state)
    agent = install("agent", {"arn": stream.arn, "idle_time": 0.25}, kinesis=kinesis_local).start()
    stream.put(500)
    arrived(collector, stream)
    stream.kinesis.delete_stream(StreamName=stream.name)
    until(lambda: agent.states() == ["gone"])
    assert "not there" in agent.troubles() or "deleted" in agent.troubles()
    again = Stream("again", 1, kinesis_local, aws)
    created = again.kinesis.describe_stream_summary(StreamName="again")["StreamDescriptionSummary"]
    again.application += f"-{created['StreamCreationTimestamp'].astimezone(UTC):%Y%m%dT%H%M%S}"
    again.prepare_leases(state)
    again.written = 500
    again.put(500)
    until(lambda: collector.lost(1000) == 0, 90)
    until(again.checkpointed)
    assert collector.total == 1000
    assert f"application {again.application}" in agent.log


def test_two_agents_share_a_stream(aws: str, install: Install, collector: Collector, tmp_path: Path) -> None:
    """Leases move when one is stopped. Nothing is killed; but while both run, KCL may move a lease from one to the
    other, and then what is under way at that moment comes again."""
    stream = Stream("shared", 4, aws, aws)
    stream.prepare_leases(tmp_path / "first" / "state")
    first = install("first", {"arn": stream.arn, "idle_time": 0.25})
    second = install("second", {"arn": stream.arn, "idle_time": 0.25}, worker_id=1)
    first.failover = second.failover = 3
    first.start()
    stream.put(2000)
    arrived(collector, stream)
    assert collector.total == 2000
    second.start()
    until(lambda: second.leases() or "idle" in second.states() or ("daemon" in second.log and second.daemons()), 30)
    stream.put(1000)
    arrived(collector, stream)
    assert first.stop() == 0
    until(lambda: second.leases() == 4, 120)
    before = collector.total
    stream.put(1000)
    arrived(collector, stream)
    assert collector.total - before == 1000
    assert all(2000 < number <= 3000 for number in collector.repeated())


@pytest.fixture
def packaged(tmp_path: Path, real_daemon: object) -> Path:
    """The libraries of the package edfn-agent-kinesis, unpacked."""
    environment = {**os.environ, "PYTHON": sys.executable}
    build = PACKAGING / "build-tree"
    built = subprocess.run(
        [build, "--kinesis", tmp_path / "tree"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (libraries,) = (tmp_path / "tree" / "usr" / "lib" / "edfn-agent" / "lib").glob("python3.*/site-packages")
    return libraries


def test_fan_out_and_the_consumer_it_leaves(
    aws: str, kinesis_local: str, packaged: Path, install: Install, collector: Collector, tmp_path: Path
) -> None:
    """With the jars of the package: all that the daemon needs is in it."""
    stream = Stream("fanned", 2, kinesis_local, aws)
    stream.prepare_leases(tmp_path / "agent" / "state")
    agent = install("agent", {"arn": stream.arn, "enhanced_fan_out": True}, kinesis=kinesis_local)
    agent.libraries = [packaged]
    agent.start()
    stream.put(2000)
    arrived(collector, stream)
    words = command_of(agent.daemon()).decode().split("\0")
    assert words[words.index("-cp") + 1] == f"{packaged}/amazon_kclpy/jars/*"
    assert collector.total == 2000
    assert agent.stop() == 0
    consumers = stream.kinesis.list_stream_consumers(StreamARN=stream.arn)["Consumers"]
    assert [each["ConsumerName"] for each in consumers] == ["edfn-agent-fanned"]
    done = agent.run("kinesis", "deregister", "fanned")
    assert done.stdout == f"removed consumer edfn-agent-fanned from {stream.arn}\n", done.stderr
    assert "nothing to remove" in agent.run("kinesis", "deregister", stream.arn).stdout
    until(lambda: stream.kinesis.list_stream_consumers(StreamARN=stream.arn)["Consumers"] == [])
