"""What Firehose posts, and the limits AWS publishes for it.

In: the octets of a request's body. Out: the records in it, and the chunks of the deliveries they become; or a Refusal,
which is the status and the text of the answer. Never: input or output, or more octets than the limits allow.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Iterable, Iterator

# Firehose's published limits.
MAX_BODY = 64 * 1024 * 1024  # octets of a body before compression
MAX_RECORDS = 10_000
MAX_RECORD = 1_024_000  # octets of one record's data, decoded
MAX_ACCESS_KEY = 4096
MAX_ERROR_MESSAGE = 8192
ANSWER_WITHIN = 180.0  # seconds until Firehose gives up on a request


class Refusal(Exception):
    """An answer other than 200: its status and the text that Firehose shows."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def gunzip(octets: bytes, limit: int) -> bytes:
    """The content of one gzip member, or Refusal: a few kilobytes may claim to be gigabytes."""
    inflate = zlib.decompressobj(wbits=31)
    try:
        content = inflate.decompress(octets, limit + 1)
    except zlib.error:
        raise Refusal(400, "the body is not gzip, though Content-Encoding says so") from None
    if len(content) > limit:
        raise Refusal(413, f"the body is over the limit of {limit} octets when it is decompressed")
    if not inflate.eof:
        raise Refusal(400, "the compressed body ends in the middle")
    return content


def parse(body: bytes, request_id: str) -> list[bytes]:
    """The records of a body, decoded; Refusal if it is not what Firehose sends."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(content, dict) or not isinstance(content.get("records"), list):
        raise Refusal(400, "the body has no list of records")
    if content.get("requestId") != request_id:
        raise Refusal(400, "requestId in the body is not the one in the header")
    items = content["records"]
    if len(items) > MAX_RECORDS:
        raise Refusal(413, f"{len(items)} records are over the limit of {MAX_RECORDS}")
    records = []
    for number, item in enumerate(items):
        data = item.get("data") if isinstance(item, dict) else None
        if not isinstance(data, str):
            raise Refusal(400, f"record {number} has no data")
        try:
            record = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(400, f"the data of record {number} is not base64") from None
        if len(record) > MAX_RECORD:
            raise Refusal(413, f"record {number} has {len(record)} octets, over the limit of {MAX_RECORD}")
        records.append(record)
        items[number] = None  # its text is not needed any more
    return records


def by_shape(records: Iterable[bytes]) -> list[Callable[[], Iterator[bytes]]]:
    """Records as the octets of one or two deliveries: gzip members (subscriptions), and text, one record a line.

    A record that a flow log wrote may have no line end of its own: an object in S3 leaves that open, a record does not.
    """
    members = [record for record in records if record[:2] == b"\x1f\x8b"]
    texts = [record for record in records if record and record[:2] != b"\x1f\x8b"]

    def once(parts: list[bytes], end: bytes) -> Callable[[], Iterator[bytes]]:
        def chunks() -> Iterator[bytes]:
            parts.reverse()
            while parts:  # each record is let go as it is read
                part = parts.pop()
                yield part if not end or part.endswith(end) else part + end

        return chunks

    return [once(parts, end) for parts, end in ((members, b""), (texts, b"\n")) if parts]
