"""What a queue message says: which objects came, or that it is a test, somebody else's, or unreadable.

In: the body of an SQS message. Out: a `Notification`. Never: a call of AWS, a decision about the message (fate.py), an
exception for bad content.

Shapes, all of them possible in one queue:
  - the S3 event, version 2.x (only the major is compared, as AWS asks for), with several records in one message; the
    key is form-encoded there (`+` is a space). AWS S3 User Guide, "Event message structure".
  - the same wrapped by SNS (`Type: Notification`, the event as a string in `Message`), or delivered raw
  - EventBridge's "Object Created"; the key is plain there
  - `s3:TestEvent`, sent once when the notification is configured; wrapped or not
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import unquote_plus


class Shape(Enum):
    OBJECTS = "objects"
    TEST = "test"
    FOREIGN = "foreign"  # well-formed, and nothing the agent reads: another consumer's
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One object, as announced."""

    bucket: str  # a name, or the ARN of an access point: boto3 takes either
    key: str  # decoded
    version_id: str | None = None
    etag: str | None = None
    size: int | None = None
    sequencer: str | None = None
    region: str | None = None  # of the bucket
    event: str = ""
    spare_key: str | None = None
    """The key read the other way (S3 events encode it, EventBridge does not): tried before a 404 is believed."""

    @property
    def name(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    @property
    def identity(self) -> str:
        """What two announcements of the same writing of the same object have in common, and two writings have not."""
        # Sequencers are hexadecimal and compared padded: AWS may send them with and without leading zeros.
        parts = (self.version_id or "", (self.etag or "").lower(), (self.sequencer or "").upper().lstrip("0"))
        return "|".join((f"{self.bucket}/{self.key}", *parts))


@dataclass(frozen=True, slots=True)
class Notification:
    shape: Shape
    objects: tuple[ObjectRef, ...] = ()
    foreign: tuple[str, ...] = ()  # events in it that are not the agent's, by name
    reason: str = ""  # for UNREADABLE and FOREIGN


class _Unreadable(Exception):
    pass


_ACCESS_POINT = re.compile(
    r"arn:aws[\w-]*:(?:s3|s3-object-lambda|s3-outposts):[\w-]*:\d*:(?:accesspoint|outpost)[/:].+"
)
_WRAPS = 3  # SNS around EventBridge around ...: more than this is nothing AWS makes


def parse(body: str) -> Notification:
    """Read one message body."""
    try:
        objects, foreign, tests = [], [], 0
        for found in _events(_json(body), _WRAPS):
            if isinstance(found, ObjectRef):
                objects.append(found)
            elif found == _TEST:
                tests += 1
            else:
                foreign.append(found)
    except _Unreadable as error:
        return Notification(Shape.UNREADABLE, reason=str(error))
    if objects:
        return Notification(Shape.OBJECTS, tuple(objects), tuple(foreign))
    if foreign or not tests:
        return Notification(Shape.FOREIGN, (), tuple(foreign), "no record of an object created: " + ", ".join(foreign))
    return Notification(Shape.TEST)


_TEST = "s3:TestEvent"


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"not JSON: {error}") from None


def _events(message: Any, wraps: int) -> Iterator[ObjectRef | str]:
    """The objects in a message; for what is no object, the name of the event."""
    if not isinstance(message, dict):
        raise _Unreadable(f"JSON, but a {type(message).__name__} and no event")
    if message.get("Event") == _TEST:
        yield _TEST
    elif isinstance(message.get("Records"), list):
        for record in message["Records"]:
            yield _record(record)
    elif message.get("Type") == "Notification" and isinstance(message.get("Message"), str):
        if wraps == 0:
            raise _Unreadable("wrapped in SNS too many times")
        yield from _wrapped(message["Message"], message, wraps)
    elif "detail-type" in message:
        yield _eventbridge(message)
    else:
        yield str(message.get("Type") or message.get("source") or "a message of no known shape")


def _wrapped(text: str, envelope: dict[str, Any], wraps: int) -> Iterator[ObjectRef | str]:
    try:
        inner = _json(text)
    except _Unreadable:
        # A topic carries whatever people publish on it; only what calls itself an S3 notification must be one.
        if envelope.get("Subject") == "Amazon S3 Notification":
            raise
        yield f"SNS: {envelope.get('Subject') or 'text'}"
        return
    yield from _events(inner, wraps - 1)


def _record(record: Any) -> ObjectRef | str:
    if not isinstance(record, dict):
        raise _Unreadable("a record that is no JSON object")
    source, event = str(record.get("eventSource", "")), str(record.get("eventName", ""))
    if source != "aws:s3" or not event.removeprefix("s3:").startswith("ObjectCreated:"):
        return event or source or "a record without eventName"
    version = str(record.get("eventVersion", ""))
    if version.split(".")[0] != "2":
        raise _Unreadable(f"S3 event of version {version or 'unknown'}: 2.x is what is understood here")
    s3 = _dict(record, "s3")
    bucket, thing = _dict(s3, "bucket"), _dict(s3, "object")
    written = _text(thing, "key")
    key = unquote_plus(written)
    return ObjectRef(
        bucket=_bucket(bucket),
        key=key,
        version_id=_version(thing.get("versionId")),
        etag=_optional(thing.get("eTag")),
        size=_size(thing.get("size")),
        sequencer=_optional(thing.get("sequencer")),
        region=_optional(record.get("awsRegion")),
        event=event,
        spare_key=written if written != key else None,
    )


def _eventbridge(message: dict[str, Any]) -> ObjectRef | str:
    if message.get("source") != "aws.s3" or message.get("detail-type") != "Object Created":
        return f"{message.get('source')}: {message.get('detail-type')}"
    detail = _dict(message, "detail")
    thing = _dict(detail, "object")
    key = _text(thing, "key")
    decoded = unquote_plus(key)
    return ObjectRef(
        bucket=_bucket(_dict(detail, "bucket")),
        key=key,
        version_id=_version(thing.get("version-id")),
        etag=_optional(thing.get("etag")),
        size=_size(thing.get("size")),
        sequencer=_optional(thing.get("sequencer")),
        region=_optional(message.get("region")),
        event="Object Created",
        spare_key=decoded if decoded != key else None,
    )


def _dict(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    if not isinstance(value, dict):
        raise _Unreadable(f"an object was created, but there is no `{name}` in the event")
    return value


def _text(parent: dict[str, Any], name: str) -> str:
    value = parent.get(name)
    if not isinstance(value, str) or not value:
        raise _Unreadable(f"an object was created, but its `{name}` is not in the event")
    return value


def _bucket(bucket: dict[str, Any]) -> str:
    arn = bucket.get("arn")
    if isinstance(arn, str) and _ACCESS_POINT.fullmatch(arn):
        return arn
    return _text(bucket, "name")


def is_access_point(bucket: str) -> bool:
    return _ACCESS_POINT.fullmatch(bucket) is not None


def _optional(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _version(value: Any) -> str | None:
    return value if isinstance(value, str) and value not in ("", "null") else None


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
