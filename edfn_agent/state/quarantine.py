"""What could not be read, with the reason, until a person looks at it.

In: a delivery that is given up, with its octets where the source does not keep them. Out: the list, and what
`edfn-agent quarantine retry` asks for. Never: an entry that makes room for another; a full quarantine refuses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edfn_agent.state.database import Database, StateError

PAYLOAD_LIMIT = 16 * 2**20
"""Longest payload kept with a quarantined delivery: above what Kinesis (10 MiB) and Firehose (6 MiB) can hand over."""

QUARANTINE_LIMIT = 2**30
"""Octets of payload the quarantine takes in all. Beyond that it refuses, and the source keeps what it has."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One delivery that cannot be read. `payload` is None where the source still has it (an S3 object)."""

    id: int
    input: str
    source: str
    name: str
    reason: str
    at: float
    size: int | None  # octets of the payload as it was delivered
    payload: bytes | None  # only from get()
    detail: Any

    @property
    def complete(self) -> bool:
        """Whether the payload is here in full (only meaningful after get())."""
        return self.payload is not None and len(self.payload) == self.size


class Quarantine:
    """What could not be read, with the reason, until a person looks at it."""

    def __init__(self, database: Database, payload_limit: int = PAYLOAD_LIMIT, limit: int = QUARANTINE_LIMIT):
        self._database = database
        self._payload_limit = payload_limit
        self._limit = limit

    def add(
        self,
        input: str,
        source: str,
        name: str,
        reason: str,
        at: float,
        payload: bytes | None = None,
        detail: Any = None,
    ) -> int:
        """Raises StateError when it is full: then the delivery belongs back to its source, not away."""
        kept = payload[: self._payload_limit] if payload is not None else None
        with self._database.write() as db:
            if kept is not None:
                held = db.execute("SELECT coalesce(sum(length(payload)), 0) FROM quarantine").fetchone()[0]
                if held + len(kept) > self._limit:
                    raise StateError(
                        f"quarantine in {self._database.path} is full ({held} of {self._limit} octets): "
                        "look at it with `edfn-agent quarantine list` and retry or remove entries"
                    )
            row = (input, source, name, reason, at, len(payload) if payload is not None else None, kept)
            cursor = db.execute(
                "INSERT INTO quarantine (input, source, name, reason, at, size, payload, detail) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, json.dumps(detail)),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def list(self) -> list[Quarantined]:
        """Oldest first, without payloads."""
        with self._database.read() as db:
            rows = db.execute(
                "SELECT id, input, source, name, reason, at, size, NULL, detail FROM quarantine ORDER BY id"
            ).fetchall()
        return [_quarantined(row) for row in rows]

    def get(self, id: int) -> Quarantined | None:
        with self._database.read() as db:
            row = db.execute(
                "SELECT id, input, source, name, reason, at, size, payload, detail FROM quarantine WHERE id = ?", (id,)
            ).fetchone()
        return _quarantined(row) if row else None

    def request(self, id: int) -> bool:
        """Ask the running agent to hand it over again. False when there is no such entry."""
        with self._database.write() as db:
            return db.execute("UPDATE quarantine SET wanted = 1 WHERE id = ?", (id,)).rowcount > 0

    def take_requests(self) -> tuple[int, ...]:
        """What was asked for since the last call."""
        with self._database.read() as db:
            ids = tuple(id for (id,) in db.execute("SELECT id FROM quarantine WHERE wanted ORDER BY id"))
        if ids:
            with self._database.write() as db:
                db.execute("UPDATE quarantine SET wanted = 0 WHERE wanted")
        return ids

    def failed_again(self, id: int, reason: str) -> None:
        with self._database.write() as db:
            db.execute("UPDATE quarantine SET reason = ? WHERE id = ?", (reason, id))

    def remove(self, id: int) -> bool:
        with self._database.write() as db:
            return db.execute("DELETE FROM quarantine WHERE id = ?", (id,)).rowcount > 0

    def count(self) -> int:
        with self._database.read() as db:
            return int(db.execute("SELECT count(*) FROM quarantine").fetchone()[0])


def _quarantined(row: tuple[Any, ...]) -> Quarantined:
    id, input, source, name, reason, at, size, payload, detail = row
    return Quarantined(id, input, source, name, reason, at, size, payload, json.loads(detail))
