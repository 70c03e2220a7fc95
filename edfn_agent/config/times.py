"""Durations, times and cron lines, as people write them and as the agent keeps them.

In: the text that stands in the file (or a value of the final type). Out: seconds as a float, datetime, timedelta, a
cron line that APScheduler reads as cron would, or a ValueError that continues the sentence "'<what is written>' ...".
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema

# ---- durations ------------------------------------------------------------------------------------------------------

_UNITS = {"d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|m|h|d)?", re.ASCII)
_NO_DURATION = "is no duration: write 500ms, 30s, 5m, 1h, 1d, or plain seconds"


def parse_duration(value: object) -> float:
    """Seconds from `500ms`, `30s`, `5m`, `1h`, `1d` or plain seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not math.isfinite(value) or value < 0:
            raise ValueError(_NO_DURATION)
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(_NO_DURATION)
    return float(Decimal(match[1]) * _UNITS[match[2] or "s"])


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as the same number of seconds."""
    exact = Decimal(repr(float(seconds)))
    for unit, size in _UNITS.items():
        if exact and exact % size == 0:
            return f"{exact / size:.0f}{unit}"
    return f"{exact.normalize():f}s"


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d)?$"}]}),
]

# ---- times ----------------------------------------------------------------------------------------------------------


def parse_time(text: str) -> datetime:
    """ISO 8601; a time without an offset is UTC, as everything AWS writes is."""
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _start_from(value: object) -> object:
    if value == "now" or isinstance(value, (datetime, timedelta)):
        return value
    try:
        return timedelta(seconds=parse_duration(value))
    except (ValueError, OverflowError):
        pass
    try:
        return parse_time(str(value))
    except ValueError:
        raise ValueError("is neither `now`, nor a time like 2026-01-31T12:00:00Z, nor how far back, like 1h") from None


def _initial_position(value: object) -> object:
    if value in ("TRIM_HORIZON", "LATEST") or isinstance(value, datetime):
        return value
    try:
        return parse_time(str(value))
    except ValueError:
        raise ValueError("is neither TRIM_HORIZON, nor LATEST, nor a time like 2026-01-31T12:00:00Z") from None


_TEXT_SCHEMA = WithJsonSchema({"type": "string"})

StartFrom = Annotated[Literal["now"] | datetime | timedelta, BeforeValidator(_start_from), _TEXT_SCHEMA]
InitialPosition = Annotated[
    Literal["TRIM_HORIZON", "LATEST"] | datetime, BeforeValidator(_initial_position), _TEXT_SCHEMA
]

_CRON_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of month": "1 to 31",
    "month": "1 to 12, or jan to dec",
    "day of week": "0 to 7 from Sunday, or sun to sat",
}
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")


def parse_cron(value: object) -> str:
    """A five-field cron line, weekdays as names: cron counts them from Sunday, APScheduler from Monday."""
    from apscheduler.triggers.cron import CronTrigger  # 100 ms that only a configuration with a schedule pays

    fields = value.split() if isinstance(value, str) else []
    if len(fields) != 5:
        raise ValueError(f"has {len(fields)} fields; cron has five: {', '.join(_CRON_FIELDS)}; like */15 * * * *")
    line = " ".join([*fields[:4], ",".join(map(_weekdays, fields[4].split(",")))])
    for place, (name, range_) in enumerate(_CRON_FIELDS.items()):
        alone = ["*"] * 5
        alone[place] = line.split()[place]
        try:
            CronTrigger.from_crontab(" ".join(alone), "UTC")
        except ValueError:  # whose text quotes the field, and the field may be anything
            raise ValueError(f"is no cron line: the {name} is none ({range_})") from None
    return line


def _weekdays(part: str) -> str:
    match = re.fullmatch(r"(?:\*|([0-7])(?:-([0-7]))?)(?:/(\d+))?", part)
    first, last, step = match.groups() if match is not None else (None, None, None)
    if (first, step) == (None, None) or (step is not None and int(step) == 0):
        return part  # names, or something that APScheduler refuses
    if first is None:
        span = range(7)
    elif last is None and step is None:
        return _DAYS[int(first)]
    else:
        span = range(int(first), int(last or 6) + 1)
    days = list(dict.fromkeys(_DAYS[day] for day in span[:: int(step or 1)]))
    return ",".join(days) or part


def parse_timezone(value: object) -> str:
    from zoneinfo import ZoneInfo, available_timezones

    if value == "UTC":  # also where the machine has no time zone files
        return "UTC"
    try:
        return ZoneInfo(str(value)).key
    except (ValueError, OSError, KeyError):
        close = get_close_matches(str(value), available_timezones(), 1, 0.7)
        hint = f"; did you mean {close[0]}?" if close else "; use a name like UTC or Europe/Berlin"
        raise ValueError("is no time zone of this machine" + hint) from None


Cron = Annotated[str, BeforeValidator(parse_cron)]
TimeZone = Annotated[str, BeforeValidator(parse_timezone)]
