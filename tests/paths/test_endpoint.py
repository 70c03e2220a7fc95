"""Firehose posts to the whole agent: tries again, sends the same again, a hundred at once, slowly, too much, with a
wrong key; and the agent is killed in the middle."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest

from edfn_agent.formats.layout import DEFAULT
from tests.firehose.conftest import Answer, Firehose, body_of

from .agent import Agent, Collector, compare, free_port, until
from .cloud import Cloud
from .shapes import REVERSED, Record, Traffic, messages

ACCESS_KEY = "a-key-of-twenty-and-more"
KILLS = 2
SHARDS, AT_ONCE = 8, 20
LARGEST_BODY = 64 * 1024 * 1024
LARGEST_RECORD = 1_024_000


class Posted:
    """A delivery stream that posts, with the flow log behind it, and the agent that is posted to."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.traffic, self.collector, self.vpc = Traffic(), Collector(), cloud.vpc("endpoint-alone")
        self.stream = cloud.delivery_stream("endpoint-alone", "failed-posts", "failed/", "https://flows.example.com/")
        cloud.flow_log(self.vpc, REVERSED, "kinesis-data-firehose", self.stream)
        (folder / "access-key").write_text(ACCESS_KEY + "\n")
        self.port = free_port()
        inputs = {"firehose": {"listen": f"127.0.0.1:{self.port}", "access_key_file": str(folder / "access-key")}}
        self.agent = Agent(folder, cloud, self.collector, inputs, free_port())

    def records(self, count: int) -> tuple[list[bytes], dict[int, Record]]:
        """Records of a request, and what is to come of them, by number."""
        before = self.traffic.number
        lines = self.traffic.lines("posted", self.vpc, REVERSED, count)
        expected = self.traffic.expected["posted"]
        wanted = {number: expected[number] for number in range(before + 1, self.traffic.number + 1)}
        return [messages([line]) for line in lines], wanted

    def firehose(self, key: str = ACCESS_KEY) -> Firehose:
        return Firehose("127.0.0.1", self.port, key=key)

    def answer(self, records: list[bytes], request_id: str | None = None, key: str = ACCESS_KEY) -> Answer:
        return self.firehose(key).post(list(records), request_id, X_Amz_Firehose_Source_Arn=self.stream)

    def post(self, records: list[bytes], request_id: str | None = None, key: str = ACCESS_KEY) -> int:
        return self.answer(records, request_id, key).status

    def arrived(self, wanted: dict[int, Record]) -> None:
        """At the collector: each once, and all of it right."""
        until(lambda: wanted.keys() <= self.collector.records.keys(), lambda: self.agent.log)
        compare(self.collector, wanted)


class Slow:
    """A request whose second half is long in coming."""

    def __init__(self, posted: Posted, records: list[bytes]) -> None:
        request_id = str(uuid.uuid4())
        body = body_of(request_id, records)
        firehose = posted.firehose()
        headers = firehose.headers(request_id, X_Amz_Firehose_Source_Arn=posted.stream)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.socket = socket.create_connection((firehose.host, firehose.port), 20)
        self.socket.sendall(f"POST / HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode())
        half = len(body) // 2
        self.socket.sendall(body[:half])
        self.rest = body[half:]

    def go_on(self) -> bytes:
        """Send the rest; the status."""
        self.socket.sendall(self.rest)
        status = self.socket.recv(4096).split(b" ")[1]
        self.socket.close()
        return status


@pytest.fixture(scope="module")
def posted(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Posted]:
    made = Posted(cloud, tmp_path_factory.mktemp("endpoint"))
    made.agent.start()
    yield made
    status = made.agent.stop()
    made.collector.close()
    assert status == 0, made.agent.log


def test_the_same_request_again_is_exported_once(posted: Posted) -> None:
    records, wanted = posted.records(20)
    assert posted.post(records, key="wrong") == 401
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: posted.post(records, "again"), range(4)))
    assert answers == [200] * 4
    assert posted.post(records, "again") == 200
    other, more = posted.records(5)
    assert posted.post(other, "other") == 200
    posted.arrived(wanted | more)
    assert posted.agent.metric("edfn_deliveries_total", 'input="firehose"', 'outcome="acknowledged"') == 2


def test_a_hundred_at_once_beside_those_who_are_slow(posted: Posted) -> None:
    """Who is slow keeps nobody else waiting; who goes away in the middle leaves nothing."""
    requests = [posted.records(3) for _ in range(100)]
    late = [posted.records(3) for _ in range(20)]
    gone, _ = posted.records(2)
    before = set(posted.collector.records)
    slow = [Slow(posted, records) for records, _ in late]
    Slow(posted, gone).socket.close()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda request: posted.post(request[0]), requests))
    assert answers == [200] * 100
    with ThreadPoolExecutor(len(slow)) as pool:
        assert list(pool.map(Slow.go_on, slow)) == [b"200"] * len(slow)
    together = {number: record for _, wanted in (*requests, *late) for number, record in wanted.items()}
    posted.arrived(together)
    assert set(posted.collector.records) - before == together.keys()


def test_too_much_is_refused_for_good_and_says_why(posted: Posted) -> None:
    too_large = posted.answer([b"x" * (LARGEST_RECORD + 1)], "a-large-record")
    assert (too_large.status, too_large.body["requestId"]) == (413, "a-large-record")
    assert "over the limit" in too_large.body["errorMessage"]
    firehose = posted.firehose()
    spaces = firehose.post_body(b" " * (LARGEST_BODY + 1), "inflated", compress=True)
    assert (spaces.status, spaces.body["requestId"]) == (413, "inflated")
    records, wanted = posted.records(2)
    assert posted.post(records) == 200
    posted.arrived(wanted)


def test_what_can_never_be_read_is_refused_for_good(posted: Posted) -> None:
    before = set(posted.collector.records)
    assert posted.post([b"this is no flow log\n"], "nonsense") == 413
    [line, *_] = Traffic().lines("posted", posted.vpc, DEFAULT, 1)  # as many columns, another order
    assert posted.post([messages([line])], "another-format") == 413
    assert set(posted.collector.records) == before


def test_nothing_is_lost_by_kill_9(posted: Posted) -> None:
    acknowledged: set[int] = set()
    errors = posted.collector.errors
    lock, over = threading.Lock(), threading.Event()
    requests = [posted.records(AT_ONCE) for _ in range(120)]
    ids = itertools.count()

    def shard() -> None:
        """One shard of Firehose: a request is tried, with its id, until it is answered with 200."""
        while not over.is_set():
            with lock:
                number = next(ids)
            if number >= len(requests):
                return
            records, wanted = requests[number]
            while not over.wait(0.02):
                with contextlib.suppress(OSError, HTTPException, ValueError):
                    if posted.post(records, f"request-{number}") == 200:
                        with lock:
                            acknowledged.update(wanted)
                        break

    shards = [threading.Thread(target=shard) for _ in range(SHARDS)]
    for thread in shards:
        thread.start()
    try:
        for kill in range(KILLS):
            enough = (kill + 1) * 600
            until(lambda enough=enough: len(acknowledged) >= enough, lambda: posted.agent.log)
            posted.agent.kill()
            with lock:
                promised = set(acknowledged)
            until(lambda promised=promised: promised <= posted.collector.records.keys())
            posted.agent.start()
        wanted = {number: record for _, some in requests for number, record in some.items()}
        until(lambda: acknowledged == wanted.keys(), lambda: posted.agent.log)
    finally:
        over.set()
        for thread in shards:
            thread.join()
    until(lambda: wanted.keys() <= posted.collector.records.keys(), lambda: posted.agent.log)
    assert posted.collector.errors == errors == 0
    in_hand = SHARDS * AT_ONCE  # what a kill can cost in duplicates: the requests that were not answered
    repeated = sum(len(posted.collector.of(number)) - 1 for number in wanted)
    assert repeated <= KILLS * in_hand
    for number, record in wanted.items():
        assert set(posted.collector.of(number)) == {record}
