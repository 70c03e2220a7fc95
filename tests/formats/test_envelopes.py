"""JSON around log lines: subscription envelopes, Firehose records, and what is none of these."""

from __future__ import annotations

import base64
import gc
import gzip
import json
import tracemalloc

import pytest

from edfn_agent.delivery import Origin
from edfn_agent.formats import envelopes
from edfn_agent.formats.batch import Counts
from edfn_agent.formats.errors import CorruptInput, NotAFlowLog, OtherLogGroup, TruncatedInput
from edfn_agent.formats.layout import DEFAULT, Layout
from edfn_agent.formats.reader import Reader

LINE = "2 123456789012 eni-1 10.0.0.1 10.0.0.2 443 49152 6 10 %d 1700000000 1700000059 ACCEPT OK"

CONTROL = (
    '{"messageType":"CONTROL_MESSAGE","owner":"CloudwatchLogs","logGroup":"","logStream":"","subscriptionFilters":[],'
    '"logEvents":[{"id":"","timestamp":1680683189085,"message":"CWL CONTROL MESSAGE: Checking health of destination"}]}'
)


def envelope(*messages: object, group: str = "vpc-flow-logs", owner: str = "123456789012") -> str:
    events = [{"id": str(n), "timestamp": 1700000000000, "message": each} for n, each in enumerate(messages)]
    return json.dumps(
        {
            "messageType": "DATA_MESSAGE",
            "owner": owner,
            "logGroup": group,
            "logStream": "eni-1-all",
            "subscriptionFilters": ["all"],
            "logEvents": events,
        }
    )


def test_an_envelope_is_lines_of_its_log_group(read):
    got = read(
        gzip.compress(envelope(LINE % 1, LINE % 2).encode()), origin=Origin("kinesis", "stream", region="eu-west-1")
    )
    assert [row["bytes"] for row in got.rows] == [1, 2]
    (batch,) = got.batches
    assert batch.layout is DEFAULT
    expected = Origin("kinesis", "stream", account_id="123456789012", region="eu-west-1", log_group="vpc-flow-logs")
    assert batch.origin == expected
    assert got.reader.by_origin == {expected: Counts(flows=2)}


@pytest.mark.parametrize("between", ["", "\n", " \r\n\t", "\0"])
@pytest.mark.parametrize("chunk", [1, 3, 100, 1 << 20])
def test_envelopes_stand_back_to_back(read, between, chunk):
    text = between.join([envelope(LINE % 1), CONTROL, envelope(LINE % 2, LINE % 3), envelope()]) + between
    got = read(text.encode(), chunk=chunk)
    assert [row["bytes"] for row in got.rows] == [1, 2, 3]
    assert got.reader.control_messages == 1


def test_the_order_of_keys_is_free(read):
    text = '{"logEvents":[{"message":"%s"}],"logStream":"s","logGroup":"g","messageType":"DATA_MESSAGE","owner":"7"}'
    got = read((text % (LINE % 5)).encode())
    assert [(b.origin.account_id, b.origin.log_group, b.rows) for b in got.batches] == [("7", "g", 1)]


def test_a_gzip_member_per_envelope_and_gzip_around_them_all(read):
    members = b"".join(gzip.compress(envelope(LINE % n).encode()) for n in range(5))
    assert read(members).tally == Counts(flows=5)
    assert read(gzip.compress(members)).tally == Counts(flows=5)


def test_extracted_fields_are_ignored(read):
    event = {"id": "1", "message": LINE % 1, "extractedFields": {"bytes": "999", "whatever": "x"}}
    text = json.dumps({"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logEvents": [event]})
    assert [row["bytes"] for row in read(text.encode()).rows] == [1]


def test_an_event_without_a_message_is_malformed(read):
    events = [{"extractedFields": {}}, 7, {"message": LINE % 1}]
    text = json.dumps({"messageType": "DATA_MESSAGE", "owner": "1", "logGroup": "g", "logEvents": events})
    got = read(text.encode())
    assert got.tally == Counts(flows=1, malformed=2)
    assert {line.reason for line in got.bad} == {"an event without a message"}


def test_a_message_may_hold_several_lines_and_any_character(read):
    got = read(envelope(LINE % 1 + "\n" + LINE % 2 + "\r\n", (LINE % 3).replace("eni-1", "caffè\ud800")).encode())
    assert [row["bytes"] for row in got.rows] == [1, 2, 3]
    assert [row["interface-id"] for row in got.rows] == ["eni-1", "eni-1", "caffè?"]


def test_each_group_has_its_own_layouts(read):
    layouts = {"pairs": [Layout.parse("srcaddr dstaddr")], "default": []}
    text = envelope("10.0.0.1 10.0.0.2", group="pairs") + envelope(LINE % 1, group="default")
    got = read(text.encode(), layouts_of=lambda origin: layouts[origin.log_group])
    assert {(batch.origin.log_group, batch.layout.names, batch.rows) for batch in got.batches} == {
        ("pairs", ("srcaddr", "dstaddr"), 1),
        ("default", DEFAULT.names, 1),
    }


def test_a_group_that_holds_no_flow_logs_is_recognised(read):
    other = envelope('{"eventVersion":"1.08"}', "more of that", group="CloudTrail")
    got = read(other.encode())
    assert isinstance(got.fault, OtherLogGroup)
    assert str(got.fault) == "log group CloudTrail: none of its 2 events is a flow log's"
    assert (got.tally, got.bad) == (Counts(other_log_group=2), [])
    for text in (other + envelope(LINE % 1), envelope(LINE % 1) + other):
        mixed = read(text.encode())
        assert (mixed.fault, mixed.bad) == (None, [])
        assert {origin.log_group: counts for origin, counts in mixed.reader.by_origin.items()} == {
            "CloudTrail": Counts(other_log_group=2),
            "vpc-flow-logs": Counts(flows=1),
        }
        counted = Counts()
        for batch in mixed.batches:
            counted.add(batch.counts)
        assert counted == mixed.tally == Counts(flows=1, other_log_group=2)


def test_a_group_of_flow_logs_is_not_taken_for_another_one(read):
    """What may be read some day, with the right layout, goes to the quarantine."""
    unknown = envelope("10.0.0.1 10.0.0.2 17", group="pairs")
    got = read(unknown.encode())
    assert (type(got.fault), got.tally) == (NotAFlowLog, Counts(malformed=1))
    assert "name the layout" in str(got.fault)
    known = read(envelope("rubbish").encode(), layouts_of=lambda origin: [DEFAULT])
    assert (type(known.fault), known.tally) == (NotAFlowLog, Counts(malformed=1))
    broken = read((envelope(LINE % 1) + envelope("cut off")).encode())
    assert (broken.fault, broken.tally) == (None, Counts(flows=1, malformed=1))


def test_a_control_message_alone_is_nothing_wrong(read):
    got = read(gzip.compress(CONTROL.encode()))
    assert (got.fault, got.tally, got.reader.control_messages) == (None, Counts(), 1)


@pytest.mark.parametrize("between", ["", "\n"])
def test_firehose_records_of_a_message_each(read, between):
    text = between.join(json.dumps({"message": LINE % n}) for n in range(100))
    for chunk in (10, 1 << 20):
        got = read(text.encode(), chunk=chunk)
        assert [row["bytes"] for row in got.rows] == list(range(100))
        assert {batch.origin for batch in got.batches} == {got.delivery.origin}


def test_the_answer_of_a_call_for_log_events(read):
    text = json.dumps({"events": [{"timestamp": 1, "message": LINE % 1}], "nextForwardToken": "f/1"}, indent=1)
    assert read(text.encode()).tally == Counts(flows=1)


def test_an_array_of_objects_is_read_one_by_one(read):
    text = "[" + ",\n".join(json.dumps({"message": LINE % n}) for n in range(5)) + "]\n"
    for chunk in (3, 1 << 20):
        assert read(text.encode(), chunk=chunk).tally == Counts(flows=5)


def undelivered(record: bytes) -> str:
    """As Firehose writes what it could not deliver."""
    return json.dumps(
        {
            "attemptsMade": 4,
            "arrivalTimestamp": 1700000000000,
            "errorCode": "HttpEndpoint.InvalidStatusCode",
            "errorMessage": "503",
            "rawData": base64.b64encode(record).decode(),
        }
    )


@pytest.mark.parametrize("between", ["", "\n"])
def test_what_firehose_could_not_deliver_is_read(read, between):
    member = gzip.compress(envelope(LINE % 4, LINE % 5).encode())
    records = [
        json.dumps({"message": LINE % 1}).encode(),
        f"{LINE % 2}\n{LINE % 3}\n".encode(),
        member,
        gzip.compress(CONTROL.encode()) + gzip.compress(envelope(LINE % 6).encode()),
    ]
    text = between.join(map(undelivered, records)) + json.dumps({"message": LINE % 7})
    for chunk in (10, 1 << 20):
        got = read(text.encode(), chunk=chunk)
        assert sorted(row["bytes"] for row in got.rows) == [1, 2, 3, 4, 5, 6, 7]
        assert (got.fault, got.reader.undelivered, got.reader.control_messages) == (None, 0, 1)


@pytest.mark.parametrize("raw", [b'{"m', b"\x1f\x8b\x08 damaged", gzip.compress(b"x" * 100)[:-9], None])
def test_what_firehose_could_not_deliver_and_nobody_can_read(read, raw):
    text = undelivered(raw) if raw is not None else '{"errorCode":"x","rawData":"%%%"}'
    got = read((text * 3).encode())
    assert isinstance(got.fault, NotAFlowLog)
    assert str(got.fault) == "error output of Firehose: 3 records whose rawData cannot be read"
    assert got.reader.undelivered == 3
    mixed = read((text + envelope(LINE % 1)).encode())
    assert (mixed.fault, mixed.reader.undelivered, mixed.tally) == (None, 1, Counts(flows=1))


def test_a_bomb_that_firehose_could_not_deliver(read, monkeypatch):
    monkeypatch.setattr(envelopes, "MAX_OBJECT", 1 << 16)
    got = read(undelivered(gzip.compress(b" " * (1 << 17))).encode())
    assert str(got.fault) == "error output of Firehose: 1 records whose rawData cannot be read"


@pytest.mark.parametrize("chunk", [1, 50, 1 << 20])
def test_json_that_ends_too_early(read, chunk):
    text = envelope(LINE % 1) + envelope(LINE % 2, LINE % 3)
    for end in range(len(envelope(LINE % 1)) + 1, len(text), 37):
        got = read(text[:end].encode(), chunk=chunk)
        assert isinstance(got.fault, TruncatedInput), end
        assert got.tally == Counts(flows=1)


@pytest.mark.parametrize(
    "junk",
    ['{"a" 1, "padding padding padding": 1}', "}", "junk", '{"a": nope, "padding padding": 1}', "[1]", "7"],
)
def test_json_that_is_broken(read, junk):
    got = read((envelope(LINE % 1) + junk + envelope(LINE % 2)).encode())
    assert isinstance(got.fault, CorruptInput)
    assert got.tally.flows == 1


def test_json_that_is_something_else(read):
    got = read(b'{"Records": [{"eventVersion": "2.1"}]}')
    assert isinstance(got.fault, NotAFlowLog)
    assert str(got.fault) == "JSON, but no log events (keys: 'Records')"
    assert str(read(b"[]").fault) == "JSON, but no log events"
    assert str(read(b"{}").fault) == "JSON, but no log events"
    assert str(read(b"[null]").fault) == "JSON: something that is no object"


def test_nesting_without_end(read):
    for text in (b'{"a":' * 100_000, b'{"a":' + b"[" * 100_000, b"[" * 100_000):
        assert isinstance(read(text).fault, CorruptInput | TruncatedInput | NotAFlowLog)


def test_a_number_without_end(read):
    assert isinstance(read(b'{"a":' + b"9" * 100_000 + b"}").fault, CorruptInput)


def test_many_envelopes_are_read_in_bounded_memory(make_delivery):
    one = envelope(*(LINE % n for n in range(100))).encode()
    reader = Reader(batch_rows=1000)
    delivery, _ = make_delivery(b"")
    delivery.chunks = lambda: (one * 20 for _ in range(20))
    gc.collect()
    tracemalloc.start()
    rows = 0

    def take(batch):
        nonlocal rows
        rows += batch.rows

    reader.feed(delivery, take)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 100 * 20 * 20
    assert peak < 12 << 20


def test_an_object_without_end_is_given_up(make_delivery, monkeypatch):
    monkeypatch.setattr(envelopes, "MAX_OBJECT", 1 << 20)
    reader = Reader()
    delivery, _ = make_delivery(b"")
    delivery.chunks = lambda: iter([b'{"message":"', *(b"x" * 100_000 for _ in range(100))])
    with pytest.raises(CorruptInput, match="an object of more than 1 Mi characters"):
        reader.feed(delivery, [].append)
