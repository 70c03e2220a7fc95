"""What a log group is called, and from when on it is read.

In: a name or ARN, and `start_from`, from the configuration or discovery. Out: `LogGroup`, milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_ARN = re.compile(r"arn:aws[\w-]*:logs:(?P<region>[\w-]+):(?P<account>\d{12}):log-group:(?P<name>[\w/.#-]+?)(?::\*)?")
_NAME = re.compile(r"[\w/.#-]{1,512}")
_BACK = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d|w)?")
_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, None: 1}


@dataclass(frozen=True, slots=True)
class LogGroup:
    account_id: str  # whose credentials read it
    region: str
    name: str

    @property
    def arn(self) -> str:
        """Without the `:*`: the label of metrics, the key of the state."""
        where = self.region
        partition = "aws-cn" if where.startswith("cn-") else "aws-us-gov" if where.startswith("us-gov-") else "aws"
        return f"arn:{partition}:logs:{where}:{self.account_id}:log-group:{self.name}"

    @classmethod
    def parse(cls, text: str, account_id: str | None = None, region: str | None = None) -> LogGroup:
        """Read an ARN, or a name with the account and region it is in. Raises ValueError."""
        arn = _ARN.fullmatch(text)
        if arn:
            return cls(account_id or arn["account"], arn["region"], arn["name"])
        if not _NAME.fullmatch(text):
            raise ValueError(f"{text!r} is neither the name nor the ARN of a log group")
        if account_id is None or region is None:
            raise ValueError(f"{text!r} does not say its account and region: give the ARN")
        return cls(account_id, region, text)


def start_time(start_from: str | datetime | timedelta, now: float) -> int:
    """`now`, a time (ISO 8601, UTC unless it says otherwise), or how far back (`1h`), in ms. Raises ValueError."""
    if isinstance(start_from, timedelta):
        return int((now - start_from.total_seconds()) * 1000)
    if isinstance(start_from, datetime):
        at = start_from if start_from.tzinfo is not None else start_from.replace(tzinfo=UTC)
        return int(at.timestamp() * 1000)
    text = start_from.strip()
    if text == "now":
        return int(now * 1000)
    back = _BACK.fullmatch(text)
    if back:
        return int((now - float(back[1]) * _UNIT[back[2]]) * 1000)
    try:
        return start_time(datetime.fromisoformat(text), now)
    except ValueError:
        raise ValueError(
            f"start_from {text!r} is neither `now`, nor a time (ISO 8601), nor how far back (1h)"
        ) from None
