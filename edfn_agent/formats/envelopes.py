"""JSON around log lines: subscription envelopes of CloudWatch Logs, and the objects that Firehose writes.

In come pieces of octets that begin with a JSON object or array; out go sections of text, one per envelope, with the
owner and log group it names. Objects may stand back to back, or with whitespace between them; their keys in any order.
`extractedFields` is ignored in favour of `message`: its keys are whatever somebody called them in a filter pattern.
What Firehose could not deliver stands in its error output as `rawData`: the record as it came, and it is read as such.

AWS: CloudWatch Logs User Guide, "Real-time processing of log data with subscriptions"; Firehose Developer Guide,
"Data delivery failure handling".
"""

from __future__ import annotations

import base64
import codecs
import json
import re
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edfn_agent.formats.containers import GZIP_MAGIC
from edfn_agent.formats.errors import CorruptInput, FormatError, TruncatedInput

MAX_OBJECT = 32 << 20
"""Characters of one object. CloudWatch Logs puts at most a few MiB of events in an envelope (it must fit a Kinesis
record of 1 MiB when compressed)."""

_BETWEEN = re.compile(r"[\s\x00]*")
_BETWEEN_IN_ARRAY = re.compile(r"[\s\x00,\[\]]*")
_NEARLY = 16  # an error so near to the end of what has been read may only be lack of the rest: `tru`, `\u00`, `-`


@dataclass(slots=True)
class Section:
    """The messages of one envelope (or of a run of bare objects), a line each."""

    text: bytes
    owner: str = ""
    group: str = ""
    without_message: int = 0


@dataclass(slots=True)
class Met:
    """What else stood there."""

    control_messages: int = 0
    undelivered: int = 0  # records in Firehose's error output whose rawData cannot be read
    envelopes: int = 0
    strange: int = 0
    strange_keys: list[str] = field(default_factory=list)  # of the first strange object


def sections(pieces: Iterable[bytes], met: Met) -> Iterator[Section]:
    """Read objects as they come. Raises TruncatedInput or CorruptInput after the sections before the fault."""
    decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
    text = ""
    enough = 0  # characters without which trying again is of no use
    between: re.Pattern[str] | None = None
    for piece in pieces:
        text += decode(piece)
        if len(text) < enough:
            continue
        if between is None:
            between = _BETWEEN_IN_ARRAY if text.lstrip("\ufeff \t\r\n\0").startswith("[") else _BETWEEN
            text = text.removeprefix("\ufeff")
        used, fault = yield from _objects(text, between, met)
        text = text[used:]
        if fault is None:
            enough = 0
            continue
        if not _may_be_incomplete(fault, used + len(text)):
            raise CorruptInput(f"JSON: {_said(fault)}")
        if len(text) > MAX_OBJECT:
            raise CorruptInput(f"JSON: an object of more than {MAX_OBJECT >> 20} Mi characters")
        enough = 2 * len(text)  # trying again after every piece would take time with the square of the size
    text += decode(b"", True)
    if text and between is not None:
        used, fault = yield from _objects(text, between, met)
        if fault is not None:
            if _may_be_incomplete(fault, len(text)):
                raise TruncatedInput("JSON: it ends in the middle of an object")
            raise CorruptInput(f"JSON: {_said(fault)}")


_decode_object = json.JSONDecoder().raw_decode


def _objects(text: str, between: re.Pattern[str], met: Met) -> Generator[Section, None, tuple[int, Exception | None]]:
    """The whole objects in a text; returns how much of it they were, and why the next one cannot be read."""
    lines: list[str] = []  # of bare objects
    fault: Exception | None = None
    at = between.match(text).end()  # type: ignore[union-attr]
    while at < len(text):
        if text[at] != "{":
            fault = json.JSONDecodeError("something that is no object", text, at)
            fault.pos = -1  # more text will not help
            break
        try:
            found, end = _decode_object(text, at)
        except (ValueError, RecursionError) as error:
            fault = error
            break
        at = between.match(text, end).end()  # type: ignore[union-attr]
        kind = found.get("messageType")
        message = found.get("message")
        if kind is None and type(message) is str:
            lines.append(message)
            continue
        events = found.get("logEvents") if kind != "CONTROL_MESSAGE" else None
        if type(events) is not list:
            events = found.get("events")  # what FilterLogEvents and GetLogEvents answer
        if kind == "CONTROL_MESSAGE":
            met.control_messages += 1
        elif type(events) is list:
            met.envelopes += 1
            if lines:
                yield Section(_encode(lines))
                lines = []
            yield _section(found, events)
        elif "rawData" in found and ("errorCode" in found or "attemptsMade" in found):
            if lines:
                yield Section(_encode(lines))
                lines = []
            yield from _undelivered(found["rawData"], met)
        else:
            if not met.strange:
                met.strange_keys = list(found)[:8]
            met.strange += 1
    if lines:
        yield Section(_encode(lines))
    return at, fault


def _section(envelope: dict[str, Any], events: list[Any]) -> Section:
    owner = envelope.get("owner")
    group = envelope.get("logGroup")
    try:
        text = _encode([event["message"] for event in events])
        without = 0
    except (KeyError, TypeError):
        messages = [event.get("message") if isinstance(event, dict) else None for event in events]
        lines = [message for message in messages if isinstance(message, str)]
        text = _encode(lines)
        without = len(events) - len(lines)
    return Section(text, owner if type(owner) is str else "", group if type(group) is str else "", without)


def _undelivered(raw: Any, met: Met) -> Iterator[Section]:
    """A record that Firehose could not deliver (base64): bare lines, messages, or an envelope in gzip members."""
    try:
        record = base64.b64decode(raw, validate=True)
        if record.startswith(GZIP_MAGIC):
            record = _inflated(record)
        if record.lstrip()[:1] == b"{":
            yield from sections([record], met)
            return
    except (TypeError, ValueError, zlib.error, FormatError):
        met.undelivered += 1
        return
    yield Section(record)


def _inflated(members: bytes) -> bytes:
    parts: list[bytes] = []
    while members:
        member = zlib.decompressobj(31)
        parts.append(member.decompress(members, MAX_OBJECT - sum(map(len, parts)) or 1))
        if not member.eof:
            raise CorruptInput(f"gzip: cut off, or more than {MAX_OBJECT >> 20} MiB in one record")
        members = member.unused_data
    return b"".join(parts)


def _encode(lines: list[str]) -> bytes:
    text = "\n".join(lines)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, written as an escape
        return text.encode("utf-8", "replace")


def _may_be_incomplete(fault: Exception, length: int) -> bool:
    if not isinstance(fault, json.JSONDecodeError) or fault.pos < 0:
        return False
    return fault.msg.startswith("Unterminated string") or fault.pos >= length - _NEARLY


def _said(fault: Exception) -> str:
    if isinstance(fault, json.JSONDecodeError):
        return fault.msg[:1].lower() + fault.msg[1:]
    return "nested too deeply" if isinstance(fault, RecursionError) else str(fault)
