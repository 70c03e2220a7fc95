"""What Amazon Data Firehose publishes about HTTP endpoints, line by line."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edfn_agent.delivery import Delivery, Outcome
from edfn_agent.formats.batch import FlowBatch
from edfn_agent.formats.layout import DEFAULT, Layout
from edfn_agent.formats.reader import Reader
from edfn_agent.inputs.firehose import EndpointError, EndpointSettings, FirehoseEndpoint

from .conftest import KEY, STREAM, Firehose, Pipeline, Serve, body_of, read_answer

LINE = b"2 123456789012 eni-0a 10.0.0.1 10.0.0.2 443 50000 6 10 8400 1700000000 1700000060 ACCEPT OK"
RECORD = json.dumps({"message": LINE.decode()}).encode()


def test_a_request_is_answered_as_published(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve()
    before = time.time() * 1000
    answer = firehose.post([RECORD, RECORD], "9a0c1c5e-0b6e-4e4b-a0a6-1d1d0f6a9f7e")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert "content-encoding" not in answer.headers
    assert int(answer.headers["content-length"]) > 0
    assert answer.body["requestId"] == "9a0c1c5e-0b6e-4e4b-a0a6-1d1d0f6a9f7e"
    assert before - 1 <= answer.body["timestamp"] <= time.time() * 1000 + 1
    assert set(answer.body) == {"requestId", "timestamp"}
    assert pipeline.read == [RECORD + b"\n" + RECORD + b"\n"]


def test_the_delivery_says_where_it_came_from(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve(layout_of=lambda arn: DEFAULT if arn == STREAM else Layout(("start",)))
    firehose.post([LINE])
    [delivery] = pipeline.deliveries
    assert (delivery.origin.input, delivery.origin.source, delivery.origin.region) == ("firehose", STREAM, "eu-west-1")
    assert delivery.origin.account_id is None  # the stream's account is not the flow log's
    assert delivery.layout is DEFAULT


def test_gzip_bodies_are_taken(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve()
    assert firehose.post([RECORD] * 500, compress=True).status == 200
    assert pipeline.read == [(RECORD + b"\n") * 500]


@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_records_with_and_without_a_line_end(serve: Serve, pipeline: Pipeline, ending: bytes) -> None:
    _, firehose = serve()
    assert firehose.post([LINE + ending, LINE + ending]).status == 200
    assert pipeline.read == [LINE + b"\n" + LINE + b"\n"]


def test_envelopes_of_a_subscription_stay_gzip_members(serve: Serve, pipeline: Pipeline) -> None:
    envelope = gzip.compress(b'{"messageType":"DATA_MESSAGE"}', mtime=0)
    _, firehose = serve()
    assert firehose.post([envelope, envelope]).status == 200
    assert pipeline.read == [envelope + envelope]


def test_one_answer_for_mixed_records_waits_for_both_deliveries(serve: Serve, pipeline: Pipeline) -> None:
    envelope = gzip.compress(b"{}", mtime=0)
    _, firehose = serve()
    assert firehose.post([LINE, envelope, LINE]).status == 200
    assert sorted(pipeline.read) == sorted([envelope, LINE + b"\n" + LINE + b"\n"])


def test_a_request_without_records_is_delivered(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve()
    assert firehose.post([]).status == 200
    assert pipeline.read == []


def test_200_leaves_only_after_the_acknowledgement(serve: Serve, pipeline: Pipeline) -> None:
    pipeline.hold = threading.Event()
    _, firehose = serve()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(firehose.post, [RECORD])
        assert pipeline.submitted.acquire(timeout=5)
        time.sleep(0.1)
        assert not answer.done()
        pipeline.hold.set()
        assert answer.result(5).status == 200


@pytest.mark.parametrize(
    ("outcome", "status", "text"),
    [
        (Outcome.RETURNED, 503, "not exported: the collector is away"),
        (Outcome.QUARANTINED, 413, "these records can never be read: the collector is away"),
    ],
)
def test_what_is_not_exported_is_not_acknowledged(
    serve: Serve, pipeline: Pipeline, outcome: Outcome, status: int, text: str
) -> None:
    pipeline.outcome, pipeline.reason = outcome, "the collector is away"
    _, firehose = serve()
    answer = firehose.post([RECORD], "an-id")
    assert (answer.status, answer.body["errorMessage"], answer.body["requestId"]) == (status, text, "an-id")


def test_what_became_of_each_request_is_counted(serve: Serve, pipeline: Pipeline) -> None:
    counted: list[str] = []
    _, firehose = serve(count=counted.append)
    firehose.post([RECORD])
    pipeline.outcome = Outcome.RETURNED
    firehose.post([RECORD])
    pipeline.outcome = Outcome.QUARANTINED
    firehose.post([RECORD])
    firehose.post_body(b"not json")
    firehose.key = "wrong"
    firehose.post([RECORD])
    assert counted == ["acknowledged", "returned", "malformed", "malformed", "refused"]


def test_a_failure_of_the_agent_is_not_an_acknowledgement(serve: Serve) -> None:
    def broken(delivery: object) -> None:
        raise RuntimeError("no room")

    _, firehose = serve(submit=broken)
    assert firehose.post([RECORD]).status == 503


def test_every_shape_of_record_is_read(serve: Serve) -> None:
    """Through the real reader: what a flow log writes, with and without line ends, and a subscription's envelopes."""
    reader, flows = Reader(), []
    envelope = {
        "messageType": "DATA_MESSAGE",
        "owner": "111111111111",
        "logGroup": "vpc-flow-logs",
        "logStream": "eni-0a-all",
        "subscriptionFilters": ["AllTraffic"],
        "logEvents": [{"id": str(number), "timestamp": 1700000000000, "message": LINE.decode()} for number in range(3)],
    }

    def submit(delivery: Delivery) -> None:
        batches: list[FlowBatch] = []
        reader.feed(delivery, batches.append)
        reader.flush(batches.append)
        for batch in batches:
            flows.append((batch.origin.account_id, batch.rows))
            batch.release()
        delivery.release()

    _, firehose = serve(submit=submit)
    member = gzip.compress(json.dumps(envelope).encode())
    for records in ([RECORD, RECORD], [RECORD + b"\n"], [LINE, LINE], [LINE + b"\n"], [member, member], [member, LINE]):
        assert firehose.post(records).status == 200
    assert flows == [
        (None, 2),
        (None, 1),
        (None, 2),
        (None, 1),
        *[("111111111111", rows) for rows in (6, 3)],
        (None, 1),
    ]


# --- replays ------------------------------------------------------------------------------------------------------


def test_an_acknowledged_request_that_comes_again_is_not_sent_twice(serve: Serve, pipeline: Pipeline) -> None:
    counted: list[str] = []
    _, firehose = serve(count=counted.append)
    for _ in range(3):
        answer = firehose.post([RECORD], "the-same")
        assert (answer.status, answer.body["requestId"]) == (200, "the-same")
    assert len(pipeline.read) == 1
    assert counted == ["acknowledged", "replay", "replay"]


def test_a_request_that_failed_is_sent_again(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve()
    pipeline.outcome = Outcome.RETURNED
    assert firehose.post([RECORD], "the-same").status == 503
    pipeline.outcome = Outcome.ACKNOWLEDGED
    assert firehose.post([RECORD], "the-same").status == 200
    assert len(pipeline.read) == 2


def test_a_retry_during_the_first_try_joins_it(serve: Serve, pipeline: Pipeline) -> None:
    pipeline.hold = threading.Event()
    _, firehose = serve(answer_within=0.3)
    first = firehose.post([RECORD], "the-same")
    assert (first.status, first.body["errorMessage"]) == (503, "not exported yet; the records are kept, try again")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(firehose.post, [RECORD], "the-same")
        time.sleep(0.05)
        pipeline.hold.set()
        assert second.result(5).status == 200
    assert len(pipeline.read) == 1


def test_the_window_of_replays_ends(serve: Serve, pipeline: Pipeline) -> None:
    now = [1000.0]
    _, firehose = serve(clock=lambda: now[0], replay_window=60.0)
    firehose.post([RECORD], "the-same")
    now[0] += 59
    firehose.post([RECORD], "the-same")
    assert len(pipeline.read) == 1
    now[0] += 2
    firehose.post([RECORD], "the-same")
    assert len(pipeline.read) == 2


def test_only_so_many_request_ids_are_kept(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve(replay_entries=3)
    for number in range(10):
        firehose.post([RECORD], f"id-{number}")
    firehose.post([RECORD], "id-0")
    assert len(pipeline.read) == 11


# --- strangers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x", KEY[:-1], "k\u00e9y"])
def test_the_access_key_is_asked_for(serve: Serve, pipeline: Pipeline, key: str | None) -> None:
    counted: list[str] = []
    _, firehose = serve(count=counted.append)
    firehose.key = key
    answer = firehose.post([RECORD])
    assert (answer.status, answer.body["errorMessage"]) == (401, "the access key is missing or wrong")
    assert pipeline.read == []
    assert counted == ["refused"]


def test_a_strangers_body_is_not_read(serve: Serve) -> None:
    """He is answered though not one octet of the 60 MiB he announces has come, and no memory is set aside for him."""
    endpoint, firehose = serve()
    with socket.create_connection((firehose.host, firehose.port), 5) as stranger:
        stranger.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 62914560\r\nExpect: 100-continue\r\n\r\n")
        answer = stranger.recv(4096)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"100 Continue" not in answer
    assert endpoint.reserve.free == endpoint.settings.memory


def test_a_key_can_be_changed_while_the_agent_runs(serve: Serve, key_file: Path) -> None:
    _, firehose = serve()
    key_file.write_text(f"{KEY}\nthe-new-one\n")
    assert firehose.post([RECORD]).status == 200
    firehose.key = "the-new-one"
    assert firehose.post([RECORD]).status == 200
    key_file.write_text("the-new-one\n\n")
    firehose.key = KEY
    assert firehose.post([RECORD]).status == 401


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1", b"PUT /x HTTP/1.1", b"DELETE / HTTP/1.0", b"NONSENSE"])
def test_other_requests_get_an_error_in_json(serve: Serve, request_line: bytes) -> None:
    _, firehose = serve()
    with socket.create_connection((firehose.host, firehose.port), 5) as stranger:
        stranger.sendall(request_line + b"\r\n\r\n")
        answer = stranger.makefile("rb").read()
    assert answer.split()[1] in (b"400", b"401")
    assert "errorMessage" in json.loads(answer.partition(b"\r\n\r\n")[2])


def test_get_with_the_key_is_told_to_post(serve: Serve) -> None:
    _, firehose = serve()
    connection = firehose.connect()
    connection.request("GET", "/", headers=firehose.headers("an-id"))
    assert read_answer(connection).status == 405


def test_a_header_without_end_is_cut_off(serve: Serve) -> None:
    _, firehose = serve()
    with socket.create_connection((firehose.host, firehose.port), 5) as stranger:
        stranger.sendall(b"POST / HTTP/1.1\r\n")
        with pytest.raises(OSError):
            for _ in range(500):
                stranger.sendall(b"X-Filler: " + b"x" * 4000 + b"\r\n")
                time.sleep(0.001)
            assert stranger.recv(100).startswith(b"HTTP/1.1 431")
            raise OSError


# --- limits -------------------------------------------------------------------------------------------------------


def test_a_body_over_the_limit_is_refused_by_its_length(serve: Serve) -> None:
    _, firehose = serve()
    connection = firehose.connect()
    connection.putrequest("POST", "/")
    for name, value in firehose.headers("an-id").items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(64 * 1024 * 1024 + 1))
    connection.endheaders()
    answer = read_answer(connection)
    assert answer.status == 413
    assert "over the limit" in answer.body["errorMessage"]


def test_a_bomb_is_not_inflated(serve: Serve) -> None:
    _, firehose = serve()
    bomb = gzip.compress(b" " * (65 * 1024 * 1024), 1)
    answer = firehose.post_body(bomb, Content_Encoding="gzip")
    assert (answer.status, len(bomb) < 1_000_000) == (413, True)
    assert "when it is decompressed" in answer.body["errorMessage"]


def test_a_record_over_the_limit(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve()
    assert firehose.post([b"x" * 1_024_000]).status == 200
    assert firehose.post([b"x" * 1_024_001]).status == 413
    assert len(pipeline.read) == 1


def test_too_many_records(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve()
    assert firehose.post([b"x"] * 10_000).status == 200
    assert firehose.post([b"x"] * 10_001).status == 413


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"not json", "the body is not JSON"),
        (b"[]", "the body has no list of records"),
        (b'{"requestId":"an-id","records":7}', "the body has no list of records"),
        (b'{"requestId":"another","records":[]}', "requestId in the body is not the one in the header"),
        (b'{"requestId":"an-id","records":[{"data":{"a":1}}]}', "record 0 has no data"),
        (b'{"requestId":"an-id","records":[{"data":"eHg="},{"data":"%%"}]}', "the data of record 1 is not base64"),
        (b'{"requestId":"an-id","records":[' + b"[" * 100_000, "the body is not JSON"),
    ],
)
def test_what_is_malformed_is_said(serve: Serve, pipeline: Pipeline, body: bytes, text: str) -> None:
    _, firehose = serve()
    answer = firehose.post_body(body)
    assert (answer.status, answer.body["errorMessage"]) == (400, text)
    assert pipeline.read == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Encoding": "br"}, 415),
        ({"Content_Encoding": "gzip"}, 400),
        ({"X_Amz_Firehose_Protocol_Version": "2.0"}, 400),
        ({"X_Amz_Firehose_Request_Id": ""}, 400),
        ({"X_Amz_Firehose_Request_Id": "x" * 129}, 400),
        ({"Transfer_Encoding": "gzip"}, 400),
    ],
)
def test_headers_that_are_not_as_published(serve: Serve, headers: dict[str, str], status: int) -> None:
    _, firehose = serve()
    assert firehose.post_body(body_of("an-id", [RECORD]), **headers).status == status


def test_a_body_in_chunks_as_proxies_send_it(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve()
    body = body_of("an-id", [RECORD])
    connection = firehose.connect()
    parts = iter([body[:10], body[10:200], body[200:]])
    connection.request("POST", "/", parts, firehose.headers("an-id"), encode_chunked=True)
    assert read_answer(connection).status == 200
    assert pipeline.read == [RECORD + b"\n"]


def test_two_lengths_are_refused(serve: Serve) -> None:
    """A length and chunks at once is how a request is hidden in another one behind a proxy."""
    _, firehose = serve()
    head = "".join(f"{name}: {value}\r\n" for name, value in firehose.headers("an-id").items())
    with socket.create_connection((firehose.host, firehose.port), 5) as sender:
        sender.sendall(f"POST / HTTP/1.1\r\n{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        assert sender.recv(100).startswith(b"HTTP/1.1 400")


# --- time and load ------------------------------------------------------------------------------------------------


def test_a_slow_header_is_not_waited_for(serve: Serve) -> None:
    """Every octet comes in time; the whole does not."""
    _, firehose = serve(head_within=0.4)
    with socket.create_connection((firehose.host, firehose.port), 5) as sender:
        started = time.monotonic()
        with pytest.raises(OSError):
            for octet in b"POST / HTTP/1.1\r\nX-Slow: " + b"x" * 100:
                sender.sendall(bytes([octet]))
                time.sleep(0.05)
    assert time.monotonic() - started < 4


def test_a_slow_body_is_told_so(serve: Serve, pipeline: Pipeline) -> None:
    endpoint, firehose = serve(body_start=0.3, slowest=1 << 30)
    body = body_of("an-id", [RECORD])
    head = "".join(f"{name}: {value}\r\n" for name, value in firehose.headers("an-id").items())
    with socket.create_connection((firehose.host, firehose.port), 5) as sender:
        sender.sendall(f"POST / HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:20])
        assert sender.recv(100).startswith(b"HTTP/1.1 408")
    assert pipeline.read == []
    assert _soon(lambda: endpoint.reserve.free == endpoint.settings.memory)


def test_a_sender_that_goes_away_leaves_nothing(serve: Serve, pipeline: Pipeline) -> None:
    endpoint, firehose = serve()
    head = "".join(f"{name}: {value}\r\n" for name, value in firehose.headers("an-id").items())
    with socket.create_connection((firehose.host, firehose.port), 5) as sender:
        sender.sendall(f"POST / HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\n".encode() + b"{")
    assert _soon(lambda: endpoint.reserve.free == endpoint.settings.memory)
    assert pipeline.read == []


def test_one_connection_carries_many_requests(serve: Serve, pipeline: Pipeline) -> None:
    _, firehose = serve()
    connection = firehose.connect()
    for _ in range(5):
        assert firehose.post([RECORD], connection=connection).status == 200
    assert len(pipeline.read) == 5


def test_a_hundred_at_once(serve: Serve, pipeline: Pipeline) -> None:
    endpoint, firehose = serve(memory=256 * 1024 * 1024)  # room for one body of unknown size at a time
    ids = [str(uuid.uuid4()) for _ in range(100)]
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda i: firehose.post([f"{i}".encode()], i, compress=int(i[0], 16) < 8), ids))
    assert [answer.status for answer in answers] == [200] * 100
    assert [answer.body["requestId"] for answer in answers] == ids
    assert sorted(pipeline.read) == sorted(f"{i}\n".encode() for i in ids)
    assert endpoint.reserve.free == endpoint.settings.memory


def test_connections_over_the_cap_are_closed(serve: Serve) -> None:
    counted: list[str] = []
    endpoint, firehose = serve(connections=2, count=counted.append)
    held = [socket.create_connection((firehose.host, firehose.port), 5) for _ in range(2)]
    try:
        assert _soon(lambda: len(endpoint._server._open) == 2)  # type: ignore[union-attr]
        with pytest.raises(OSError):
            firehose.post([RECORD])
        assert counted == ["over_limit"]
    finally:
        for connection in held:
            connection.close()
    assert _soon(lambda: not endpoint._server._open)  # type: ignore[union-attr]
    assert firehose.post([RECORD]).status == 200


def test_stopping_answers_what_is_in_hand(serve: Serve, pipeline: Pipeline) -> None:
    pipeline.hold = threading.Event()
    endpoint, firehose = serve()
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(firehose.post, [RECORD])
        assert pipeline.submitted.acquire(timeout=5)
        stopped = pool.submit(endpoint.stop, 5.0)
        time.sleep(0.2)
        assert not stopped.done()
        pipeline.hold.set()
        assert answer.result(5).status == 200
        stopped.result(5)
    with pytest.raises(OSError):
        firehose.post([RECORD])


# --- where it may listen ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1"])
def test_plain_http_only_on_loopback(host: str, key_file: Path) -> None:
    with pytest.raises(EndpointError, match="is not loopback"):
        FirehoseEndpoint(EndpointSettings(host, 0, access_key_file=key_file), lambda delivery: None)


def test_an_empty_secret_file_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(EndpointError, match="no access key"):
        FirehoseEndpoint(EndpointSettings("127.0.0.1", 0, access_key_file=tmp_path / "empty"), lambda delivery: None)
    with pytest.raises(EndpointError, match="No such file"):
        FirehoseEndpoint(EndpointSettings("127.0.0.1", 0, access_key_file=tmp_path / "none"), lambda delivery: None)


def test_a_port_that_is_taken_is_said(serve: Serve, key_file: Path) -> None:
    _, firehose = serve()
    second = FirehoseEndpoint(EndpointSettings("127.0.0.1", firehose.port, access_key_file=key_file), lambda d: None)
    with pytest.raises(EndpointError, match="cannot listen on"):
        second.start()


def _soon(condition: object, within: float = 5.0) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


def test_the_example_of_aws(serve: Serve, pipeline: Pipeline) -> None:
    """The request that AWS prints for a delivery stream with Direct PUT."""
    _, firehose = serve()
    request_id = "ed4acda5-034f-9f42-bba1-f29aea6d7d8f"
    data = base64.b64encode(b"example record").decode()
    body = f'{{"requestId": "{request_id}", "timestamp": 1578090901599, "records": [{{"data": "{data}"}}]}}'
    assert firehose.post_body(body.encode(), request_id).status == 200
    assert isinstance(firehose, Firehose)
    assert pipeline.read == [b"example record\n"]
