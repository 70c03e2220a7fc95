"""Firehose posts to the whole agent: tries again, sends the same again, and the agent is killed in the middle."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

from edfn_agent.formats.layout import DEFAULT
from tests.firehose.conftest import Firehose

from .agent import Agent, Collector, compare, free_port, until
from .cloud import Cloud
from .shapes import REVERSED, Traffic, messages

ACCESS_KEY = "a-key-of-twenty-and-more"
KILLS = 2


class Posted:
    """A delivery stream that posts, with the flow log behind it, and the agent that is posted to."""

    def __init__(self, cloud: Cloud, folder: Path, name: str) -> None:
        self.traffic, self.collector, self.vpc = Traffic(), Collector(), cloud.vpc(name)
        self.stream = cloud.delivery_stream(name, "failed-posts", "failed/", "https://flows.example.com/")
        cloud.flow_log(self.vpc, REVERSED, "kinesis-data-firehose", self.stream)
        (folder / "access-key").write_text(ACCESS_KEY + "\n")
        self.port = free_port()
        inputs = {"firehose": {"listen": f"127.0.0.1:{self.port}", "access_key_file": str(folder / "access-key")}}
        self.agent = Agent(folder, cloud, self.collector, inputs, free_port())

    def records(self, count: int) -> tuple[list[bytes], set[int]]:
        """Records of a request, and the numbers in them."""
        lines = self.traffic.lines("posted", self.vpc, REVERSED, count)
        return [messages([line]) for line in lines], set(
            range(self.traffic.number - count + 1, self.traffic.number + 1)
        )

    def post(self, records: list[bytes], request_id: str | None = None, key: str = ACCESS_KEY) -> int:
        firehose = Firehose("127.0.0.1", self.port, key=key)
        return firehose.post(list(records), request_id, X_Amz_Firehose_Source_Arn=self.stream).status


@pytest.fixture
def posted(cloud: Cloud, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Posted]:
    made = Posted(cloud, tmp_path, request.node.name)
    made.agent.start()
    yield made
    status = made.agent.stop()
    made.collector.close()
    assert status == 0, made.agent.log


def test_the_same_request_again_is_exported_once(posted: Posted) -> None:
    records, _ = posted.records(20)
    assert posted.post(records, key="wrong") == 401
    answers = []
    together = [threading.Thread(target=lambda: answers.append(posted.post(records, "again"))) for _ in range(4)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert answers == [200] * 4
    assert posted.post(records, "again") == 200
    other, _ = posted.records(5)
    assert posted.post(other, "other") == 200
    until(lambda: len(posted.collector.records) == 25, lambda: posted.agent.log)
    compare(posted.collector, posted.traffic.expected["posted"])
    assert posted.agent.metric("edfn_deliveries_total", 'input="firehose"', 'outcome="acknowledged"') == 2


def test_what_can_never_be_read_is_refused_for_good(posted: Posted) -> None:
    assert posted.post([b"this is no flow log\n"], "nonsense") == 413
    lines = posted.traffic.lines("posted", posted.vpc, DEFAULT, 1)  # as many columns, another order
    posted.traffic.expected.clear()
    assert posted.post([messages([lines[0]])], "another-format") == 413
    assert posted.collector.records == {}


def test_nothing_is_lost_by_kill_9(posted: Posted) -> None:
    acknowledged: set[int] = set()
    lock = threading.Lock()
    requests = [posted.records(15) for _ in range(160)]
    ids = itertools.count()

    def shard() -> None:
        """One shard of Firehose: a request is tried, with its id, until it is answered with 200."""
        while True:
            with lock:
                number = next(ids)
            if number >= len(requests):
                return
            records, numbers = requests[number]
            end = time.monotonic() + 30
            while time.monotonic() < end:
                try:
                    if posted.post(records, f"request-{number}") == 200:
                        with lock:
                            acknowledged.update(numbers)
                        break
                except (OSError, HTTPException, ValueError):
                    pass
                time.sleep(0.02)

    shards = [threading.Thread(target=shard) for _ in range(4)]
    for thread in shards:
        thread.start()
    for kill in range(KILLS):
        enough = (kill + 1) * 600
        until(lambda enough=enough: len(acknowledged) >= enough, lambda: posted.agent.log)
        posted.agent.kill()
        with lock:
            promised = set(acknowledged)
        until(lambda promised=promised: promised <= set(posted.collector.records), seconds=5)
        posted.agent.start()
    for thread in shards:
        thread.join(60)
    wanted = {number for _, numbers in requests for number in numbers}
    assert acknowledged == wanted
    until(lambda: wanted <= set(posted.collector.records), lambda: wanted - set(posted.collector.records))
    assert posted.collector.errors == 0
    in_hand = len(shards) * 15  # what a kill can cost in duplicates: the requests that were not answered
    repeated = sum(len(posted.collector.of(number)) - 1 for number in wanted)
    assert repeated <= KILLS * in_hand
    for number, record in posted.traffic.expected["posted"].items():
        assert set(posted.collector.of(number)) == {record}
