"""How far the inputs are: cursors, and keys of what was seen.

In: what was acknowledged. Out: the same, after a restart. Losing it costs duplicates.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from edfn_agent.state.database import Database

SEEN_LIMIT = 500_000
"""Most keys remembered per input: about 100 MB of disk with S3 keys, a day of 350 objects a minute."""


class Cursors:
    """How far each input has read: a JSON value by (input, key)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, input: str, key: str) -> Any:
        """None when there is none."""
        with self._database.read() as db:
            row = db.execute("SELECT value FROM cursor WHERE input = ? AND key = ?", (input, key)).fetchone()
        return json.loads(row[0]) if row else None

    def set(self, input: str, key: str, value: Any) -> None:
        self.set_many(input, {key: value})

    def set_many(self, input: str, values: Mapping[str, Any]) -> None:
        """All or none."""
        rows = [(input, key, json.dumps(value, separators=(",", ":"))) for key, value in values.items()]
        with self._database.write() as db:
            db.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)", rows)

    def delete(self, input: str, key: str) -> None:
        with self._database.write() as db:
            db.execute("DELETE FROM cursor WHERE input = ? AND key = ?", (input, key))

    def list(self, input: str) -> dict[str, Any]:
        with self._database.read() as db:
            rows = db.execute("SELECT key, value FROM cursor WHERE input = ? ORDER BY key", (input,)).fetchall()
        return {key: json.loads(value) for key, value in rows}


class Seen:
    """Keys that were worked on within a window of time: how a second announcement of one object is recognised."""

    def __init__(self, database: Database, limit: int = SEEN_LIMIT) -> None:
        self._database = database
        self._limit = limit
        self._until_pruning: dict[str, int] = {}

    def add(self, input: str, key: str, now: float, window: float) -> bool:
        """Remember `key`. True when it is new, that is not seen since `now - window`."""
        return bool(self.add_many(input, (key,), now, window))

    def add_many(self, input: str, keys: Iterable[str], now: float, window: float) -> set[str]:
        """Remember all of `keys` in one transaction; returns those that are new."""
        keys = list(dict.fromkeys(keys))
        with self._database.write() as db:
            new = {key for key in keys if not _was_seen(db, input, key, now - window)}
            db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", [(input, key, now) for key in keys])
            # Counting rows on every call would cost more than the call: prune after each hundredth of the limit.
            left = self._until_pruning.get(input, 0) - len(keys)
            if left <= 0:
                self._prune(db, input, now - window)
                left = max(1, self._limit // 100)
            self._until_pruning[input] = left
        return new

    def contains(self, input: str, key: str, now: float, window: float) -> bool:
        with self._database.read() as db:
            return _was_seen(db, input, key, now - window)

    def count(self, input: str) -> int:
        with self._database.read() as db:
            return int(db.execute("SELECT count(*) FROM seen WHERE input = ?", (input,)).fetchone()[0])

    def _prune(self, db: sqlite3.Connection, input: str, oldest: float) -> None:
        db.execute("DELETE FROM seen WHERE input = ? AND at < ?", (input, oldest))
        db.execute(
            "DELETE FROM seen WHERE (input, key) IN "
            "(SELECT input, key FROM seen WHERE input = ? ORDER BY at DESC LIMIT -1 OFFSET ?)",
            (input, self._limit),
        )


def _was_seen(db: sqlite3.Connection, input: str, key: str, oldest: float) -> bool:
    row = db.execute("SELECT at FROM seen WHERE input = ? AND key = ?", (input, key)).fetchone()
    return row is not None and row[0] >= oldest
