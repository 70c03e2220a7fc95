"""How an entry of the log looks: a line of text for people, or a JSON object.

In: one entry: event, level, logger, facts. Out: one line, always one, whatever is in the facts: a flow-log line or an
object key may hold anything, and must not be able to write a line of its own. Never: a decision what is written.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

Format = Literal["text", "json"]

LONGEST_FACT = 2_000
"""Characters. A KMS or policy fault of AWS takes some 500; a malformed line may take megabytes."""

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""sd-daemon(3): how a line on standard error tells journald its priority."""

_OWN = "edfn"


def render(entry: Mapping[str, Any], format: Format, now: float, *, journal: bool) -> str:
    """The line, without its end. The journal keeps time and priority itself."""
    level = str(entry.get("level", "info"))
    text = _json(entry, level, now) if format == "json" else _text(entry, level, None if journal else now)
    return f"<{PRIORITIES.get(level, 6)}>{text}" if journal else text


def exception_facts(error: BaseException, *, whole: bool) -> dict[str, str]:
    """What went wrong and where, in one line; whole tracebacks are for JSON, where line ends cost nothing."""
    facts = {"exception": f"{type(error).__name__}: {error}", "at": _places(error.__traceback__)}
    if whole:
        facts["traceback"] = "".join(traceback.format_exception(error))
    return {name: text for name, text in facts.items() if text}


def _json(entry: Mapping[str, Any], level: str, now: float) -> str:
    head = {"time": _time(now), "level": level, "logger": entry.get("logger"), "event": entry.get("event")}
    facts = {name: value for name, value in entry.items() if name not in head}
    return json.dumps(_cut({**head, **facts}), default=str)  # ASCII: whatever reads the log can read it


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return _short(value, 4 * LONGEST_FACT)
    if isinstance(value, Mapping):
        return {str(name): _cut(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_cut(each) for each in value]
    return value if not isinstance(value, float) or value - value == 0.0 else str(value)  # NaN is no JSON


def _text(entry: Mapping[str, Any], level: str, now: float | None) -> str:
    words = [] if now is None else [_time(now)]
    words += [f"{level:<7}", _printable(_short(str(entry.get("event", "")), LONGEST_FACT))]
    for name, value in entry.items():
        if name in ("event", "level", "time") or (name == "logger" and _is_own(str(value))):
            continue
        words.append(f"{_printable(str(name))}={_value(value)}")
    return " ".join(words)


def _is_own(logger: str) -> bool:
    return logger.startswith(_OWN)


def _value(value: Any) -> str:
    if isinstance(value, list):
        text = ",".join(map(str, value))
    elif isinstance(value, Mapping):
        text = json.dumps(value, default=str)
    else:
        text = str(value)
    text = _short(text, LONGEST_FACT)
    if text and not any(c.isspace() or c in "\"'=\\" or not c.isprintable() for c in text):
        return text
    return '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"


def _time(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _places(where: TracebackType | None) -> str:
    """file:line of the last few calls, innermost first."""
    frames = traceback.extract_tb(where)[-4:]
    return "<".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in reversed(frames))
