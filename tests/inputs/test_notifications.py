"""Queue messages in, object references out: literally."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfn_agent.inputs.notifications import Notification, ObjectRef, Shape, parse

SAMPLES = Path("/work/shared/samples/notifications")

PUT = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "eu-central-1",
    "eventTime": "2026-11-21T10:05:12.345Z",
    "eventName": "ObjectCreated:Put",
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "flow-logs",
        "bucket": {"name": "central-logs", "arn": "arn:aws:s3:::central-logs"},
        "object": {
            "key": "AWSLogs/aws-account-id%3D123456789012/a+b.log.gz",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}
REF = ObjectRef(
    bucket="central-logs",
    key="AWSLogs/aws-account-id=123456789012/a b.log.gz",
    version_id="096fKKXTRTtl3on89fVO.nfljtsv6qko",
    etag="d41d8cd98f00b204e9800998ecf8427e",
    size=1024,
    sequencer="0055AED6DCD90281E5",
    region="eu-central-1",
    event="ObjectCreated:Put",
    spare_key="AWSLogs/aws-account-id%3D123456789012/a+b.log.gz",
)
TEST = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2014-10-13T15:57:02.089Z", "Bucket": "central-logs"}
EVENTBRIDGE = {
    "version": "0",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "region": "ca-central-1",
    "resources": ["arn:aws:s3:::central-logs"],
    "detail": {
        "version": "0",
        "bucket": {"name": "central-logs"},
        "object": {"key": "year=2026/a+b", "size": 5, "etag": "b194", "version-id": "IYV3p", "sequencer": "617f"},
        "reason": "PutObject",
    },
}


def records(*of: Any) -> str:
    return json.dumps({"Records": list(of)})


def sns(message: str, subject: str = "Amazon S3 Notification") -> str:
    # SNS writes its JSON with spaces before colons and line feeds.
    return json.dumps(
        {"Type": "Notification", "TopicArn": "arn:x", "Subject": subject, "Message": message},
        indent=2,
        separators=(",", " : "),
    )


def changed(**of: Any) -> dict[str, Any]:
    return PUT | of


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(records(PUT), Notification(Shape.OBJECTS, (REF,)), id="S3 event"),
        pytest.param(records(PUT, PUT), Notification(Shape.OBJECTS, (REF, REF)), id="several records"),
        pytest.param(sns(records(PUT)), Notification(Shape.OBJECTS, (REF,)), id="by SNS"),
        pytest.param(sns(sns(records(PUT))), Notification(Shape.OBJECTS, (REF,)), id="by SNS by SNS"),
        pytest.param(
            json.dumps(EVENTBRIDGE),
            Notification(
                Shape.OBJECTS,
                (
                    ObjectRef(
                        "central-logs",
                        "year=2026/a+b",
                        "IYV3p",
                        "b194",
                        5,
                        "617f",
                        "ca-central-1",
                        "Object Created",
                        "year=2026/a b",
                    ),
                ),
            ),
            id="EventBridge: the key is plain",
        ),
        pytest.param(json.dumps(TEST), Notification(Shape.TEST), id="test event"),
        pytest.param(sns(json.dumps(TEST)), Notification(Shape.TEST), id="test event by SNS"),
    ],
)
def test_shapes(body: str, expected: Notification) -> None:
    assert parse(body) == expected


@pytest.mark.parametrize(
    ("body", "events"),
    [
        (records(changed(eventName="ObjectRemoved:Delete")), ("ObjectRemoved:Delete",)),
        (records(changed(eventName="ObjectRestore:Completed", eventVersion="2.3")), ("ObjectRestore:Completed",)),
        (records(changed(eventSource="aws:ses", eventName="x")), ("x",)),
        (json.dumps(EVENTBRIDGE | {"detail-type": "Object Deleted"}), ("aws.s3: Object Deleted",)),
        (json.dumps(EVENTBRIDGE | {"source": "aws.ec2"}), ("aws.ec2: Object Created",)),
        (json.dumps({"order": 4711}), ("a message of no known shape",)),
        (sns("hello, world", "greetings"), ("SNS: greetings",)),
        (records(), ()),
    ],
)
def test_what_is_somebody_elses(body: str, events: tuple[str, ...]) -> None:
    found = parse(body)
    assert (found.shape, found.objects, found.foreign) == (Shape.FOREIGN, (), events)


def test_a_foreign_record_beside_an_object_is_kept_in_mind() -> None:
    found = parse(records(PUT, changed(eventName="ObjectRemoved:Delete")))
    assert found == Notification(Shape.OBJECTS, (REF,), ("ObjectRemoved:Delete",))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "not JSON"),
        ("PK\x03\x04", "not JSON"),
        ("[1, 2]", "a list and no event"),
        (records(changed(eventVersion="3.0")), "version 3.0"),
        (records({name: value for name, value in PUT.items() if name != "s3"}), "no `s3`"),
        (records(changed(s3={"bucket": {"name": "b"}, "object": {}})), "`key`"),
        (records("text"), "no JSON object"),
        (sns("hello"), "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_unreadable_says_why(body: str, reason: str) -> None:
    found = parse(body)
    assert found.shape is Shape.UNREADABLE
    assert reason in found.reason


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.6", "2.99"])
def test_only_the_major_of_the_version_counts(version: str) -> None:
    assert parse(records(changed(eventVersion=version))).objects == (REF,)


def test_an_access_point_is_taken_by_its_arn() -> None:
    point = "arn:aws:s3:us-west-2:123456789012:accesspoint/flow-logs"
    body = records(changed(s3={"bucket": {"name": "alias-s3alias", "arn": point}, "object": {"key": "k"}}))
    assert parse(body).objects[0].bucket == point


def test_identity_tells_writings_apart_and_announcements_not() -> None:
    by_event = ObjectRef("b", "k", None, "ABC", sequencer="0055AED6")
    by_eventbridge = ObjectRef("b", "k", None, "abc", sequencer="55aed6")
    assert by_event.identity == by_eventbridge.identity
    for other in (
        ObjectRef("b", "k", None, "abc", sequencer="55aed7"),
        ObjectRef("b", "k", None, "abd", sequencer="55aed6"),
        ObjectRef("b", "k2", None, "abc", sequencer="55aed6"),
        ObjectRef("b", "k", "v1", "abc", sequencer="55aed6"),
    ):
        assert other.identity != by_event.identity


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_message_raises(body: str) -> None:
    assert parse(body).shape in Shape


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
def test_samples() -> None:
    found = {path.name: parse(path.read_text()) for path in SAMPLES.iterdir()}
    assert found["s3-event-put.json"].objects[0].key == "HappyFace.jpg"
    assert found["s3-test-event.json"].shape is Shape.TEST
    assert found["sns-wrapped-s3-event-2015.json"].objects[0].key == "KDAX/734/20151228-200051-001-S"
    assert found["eventbridge-object-created.json"].objects[0].version_id == "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e"
