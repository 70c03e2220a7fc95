"""Reading one object: bounded memory, resumption, what is refused. Against a server that makes the octets up."""

from __future__ import annotations

import re
import threading
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from edfn_agent.delivery import Outcome
from edfn_agent.inputs.errors import ReadFailed
from edfn_agent.inputs.notifications import ObjectRef
from edfn_agent.inputs.objects import Gone, Objects
from edfn_agent.ops.metrics import Metrics
from tests.inputs.conftest import ACCOUNT, REGION, TestClock, client_of, sample

PATTERN = bytes(range(251)) * 1000


class Store:
    """One object of `size` octets; each answer ends after `most` of them."""

    def __init__(self) -> None:
        self.size, self.most, self.ranges, self.ignore_range = 0, 2**62, list[str](), False
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range", "")
                store.ranges.append(asked)
                start = int(re.findall(r"\d+", asked)[0]) if asked and not store.ignore_range else 0
                self.send_response(206 if start else 200)
                self.send_header("ETag", '"e"')
                self.send_header("Content-Length", str(store.size - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{store.size - 1}/{store.size}")
                self.end_headers()
                at, end = start, min(store.size, start + store.most)
                while at < end:
                    offset = at % len(PATTERN)
                    part = PATTERN[offset : offset + end - at]
                    try:
                        self.wfile.write(part)
                    except OSError:
                        return
                    at += len(part)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    threading.Thread(target=made.server.serve_forever, args=(0.02,), daemon=True).start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def abort() -> threading.Event:
    return threading.Event()


@pytest.fixture
def objects(store: Store, metrics: Metrics, clock: TestClock, abort: threading.Event) -> Objects:
    client = client_of(store.url, "s3")
    return Objects(lambda region: client, ACCOUNT, REGION, metrics, clock=clock, abort=abort)


REF = ObjectRef("bucket", "key")


def test_a_large_object_is_read_in_the_memory_of_a_few_chunks(store: Store, objects: Objects, metrics: Metrics) -> None:
    store.size, store.most = 64 * 2**20, 24 * 2**20
    opened = objects.open(REF)
    tracemalloc.start()
    try:
        position = 0
        for chunk in opened.chunks():
            offset = position % len(PATTERN)
            assert chunk[:100] == (PATTERN + PATTERN)[offset : offset + 100]  # nothing doubled, nothing missing
            position += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert position == store.size
    assert peak < 4 * 2**20
    assert len(store.ranges) == 3
    assert sample(metrics, "edfn_s3_reads_resumed_total") == 2
    assert sample(metrics, "edfn_bytes_read_total", input="s3") == store.size


def test_a_connection_that_gives_nothing_any_more_is_given_up(store: Store, objects: Objects) -> None:
    store.size, store.most = 2**20, 300_000
    opened = objects.open(REF)
    chunks = opened.chunks()
    next(chunks)
    store.most = 0
    with pytest.raises(ReadFailed) as failed:
        list(chunks)
    assert failed.value.outcome is Outcome.RETURNED
    assert re.search(r"read \d+ of 1048576 octets", failed.value.reason)
    assert len(store.ranges) == 5  # and not for ever


def test_a_range_that_is_not_honoured_is_no_continuation(store: Store, objects: Objects) -> None:
    store.size, store.most, store.ignore_range = 2**20, 300_000, True
    with pytest.raises(ReadFailed, match="not honoured"):
        list(objects.open(REF).chunks())


def test_a_stop_ends_the_reading(store: Store, objects: Objects, abort: threading.Event) -> None:
    store.size = 4 * 2**20
    chunks = objects.open(REF).chunks()
    next(chunks)
    abort.set()
    with pytest.raises(ReadFailed, match="the agent stops"):
        list(chunks)


class Refusing:
    """An S3 client that refuses by what is asked for."""

    def __init__(self, *codes: tuple[int, str]) -> None:
        self.codes, self.requests = list(codes), list[Any]()

    def get_object(self, **request: Any) -> Any:
        from botocore.exceptions import ClientError

        self.requests.append(request)
        if not self.codes:
            return {"Body": None, "ContentLength": 0}
        status, code = self.codes.pop(0)
        error: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}}}
        raise ClientError(error, "GetObject")


def opened_with(client: Refusing, ref: ObjectRef, metrics: Metrics, clock: TestClock) -> Any:
    objects = Objects(lambda _: client, ACCOUNT, REGION, metrics, clock=clock, abort=threading.Event())
    return objects.open(ref)


def test_the_other_reading_of_a_key_is_tried_before_a_404_is_believed(metrics: Metrics, clock: TestClock) -> None:
    client = Refusing((404, "NoSuchKey"))
    opened_with(client, ObjectRef("b", "year=1", spare_key="year%3D1"), metrics, clock)
    assert [request["Key"] for request in client.requests] == ["year=1", "year%3D1"]
    with pytest.raises(Gone):
        opened_with(Refusing((404, "NoSuchKey")), REF, metrics, clock)


def test_a_deleted_version_is_gone(metrics: Metrics, clock: TestClock) -> None:
    client = Refusing((404, "NoSuchKey"), (404, "NoSuchVersion"))
    with pytest.raises(Gone):
        opened_with(client, ObjectRef("b", "k", "v1", "abc"), metrics, clock)
    assert [request.get("VersionId") for request in client.requests] == [None, "v1"]


@pytest.mark.parametrize(
    ("status", "code", "tries"),
    [
        (404, "NoSuchBucket", 1),  # not "gone": a wrong endpoint says the same
        (403, "AccessDenied", 1),
        (503, "SlowDown", 4),
        (500, "InternalError", 4),
        (400, "ExpiredToken", 4),
    ],
)
def test_what_fails_is_returned_never_taken_for_gone(
    status: int, code: str, tries: int, metrics: Metrics, clock: TestClock
) -> None:
    client = Refusing(*[(status, code)] * 9)
    with pytest.raises(ReadFailed) as failed:
        opened_with(client, REF, metrics, clock)
    assert failed.value.outcome is Outcome.RETURNED
    assert f"account {ACCOUNT}" in failed.value.reason
    assert len(client.requests) == tries
