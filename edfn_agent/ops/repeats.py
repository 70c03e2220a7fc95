"""A fact that repeats is said at once, and then once an interval with how often.

In: entries of the log in the order they come, with the time. Out: the entries to write now. Kept: what was said in the
last interval, at most `MOST_FACTS` facts. Never: a fact that is not written at all; what is held back is counted in a
later line (`times`, `in_s`), at the latest when its place is needed or the log is closed.

Two entries are the same fact when level, event and all facts that are text are the same, passing numbers left aside:
"next try in 3 s" and "next try in 5 s" are one. Beside that, one event has `MOST_OF_AN_EVENT` different facts an
interval, so that a bucket nobody may read does not write a line for each of its objects.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

INTERVAL = 60.0
"""Seconds: as often as the transports say that a collector is down."""

MOST_FACTS = 1_000
"""About 1 kB each, so 1 MB at most."""

MOST_OF_AN_EVENT = 50

_PASSING = re.compile(  # what differs from line to line of one fact; never a part of an address, an account or a name
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|(?<=request id: )[\w+/=-]+|(?<=requestid: )[\w+/=-]+|(?<=host id: )[\w+/=-]+"
    r"|(?<![\w.:/-])[0-9]{1,9}(?:\.[0-9]+)?(?=$|[\s,;)]|(?:ms|s|%)\b)",
    re.I,
)
_PROSE = {"error", "reason", "why", "exception"}
"""Facts that are sentences. The others name a thing: bucket-1 is not bucket-2."""

Entry = dict[str, Any]


class Repeats:
    """Not safe for several threads at once: the log holds its lock around it."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._facts: OrderedDict[tuple[str, ...], _Fact] = OrderedDict()  # oldest first
        self._events: dict[tuple[str, ...], int] = {}  # facts of `_facts` that belong to an event

    def take(self, entry: Entry, now: float) -> list[Entry]:
        """What is to be written, now that this entry came."""
        if entry.get("level") == "debug":  # whoever asks for it wants to see it all
            return [entry]
        due = self.due(now)
        event = (str(entry.get("logger", "")), str(entry.get("level", "")), _alike(str(entry.get("event", ""))))
        key = event + _texts(entry)
        fact = self._facts.get(key)
        if fact is None and self._events.get(event, 0) >= MOST_OF_AN_EVENT:
            key = event
            fact = self._facts.get(key)
        if fact is not None:
            fact.count += 1
            fact.last = entry
            return due
        while len(self._facts) >= MOST_FACTS:
            due += self._forget(next(iter(self._facts)), now)
        self._facts[key] = _Fact(event, now, entry)
        self._events[event] = self._events.get(event, 0) + 1
        return [*due, entry]

    def due(self, now: float) -> list[Entry]:
        """Counts whose interval is over. A fact that did not come again is forgotten, and is news the next time."""
        written: list[Entry] = []
        while self._facts:
            key, fact = next(iter(self._facts.items()))
            if now - fact.since < self._interval:
                break
            written += self._forget(key, now)
            if fact.count:  # it goes on: the next line an interval from now
                self._facts[key] = _Fact(fact.event, now, fact.last)
                self._events[fact.event] = self._events.get(fact.event, 0) + 1
        return written

    def rest(self, now: float) -> list[Entry]:
        """Everything held back: the log is being closed."""
        return [entry for key in list(self._facts) for entry in self._forget(key, now)]

    def _forget(self, key: tuple[str, ...], now: float) -> list[Entry]:
        fact = self._facts.pop(key)
        left = self._events[fact.event] - 1
        if left:
            self._events[fact.event] = left
        else:
            del self._events[fact.event]
        if not fact.count:
            return []
        more = {"alike": True} if key == fact.event else {}
        return [{**fact.last, "times": fact.count, "in_s": round(now - fact.since), **more}]


class _Fact:
    __slots__ = ("count", "event", "last", "since")

    def __init__(self, event: tuple[str, ...], since: float, last: Entry) -> None:
        self.event = event
        self.since = since
        self.last = last
        self.count = 0  # since it was last written


def _texts(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The facts that are text, as one key."""
    key = []
    for name in sorted(entry):
        value = entry[name]
        if name in ("event", "level", "logger", "time") or value is None or isinstance(value, int | float):
            continue
        text = str(value)
        key.append(f"{name}={_alike(text) if name in _PROSE else text}"[:500])
    return ("",) if not key else tuple(key)


def _alike(text: str) -> str:
    return _PASSING.sub("#", text)
