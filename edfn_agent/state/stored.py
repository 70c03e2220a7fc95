"""What is only written in bulk and read by people or at the start: the last inventory, flows per exporter.

Losing it costs a discovery, and figures.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edfn_agent.state.database import Database


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    at: float  # Unix seconds
    data: Any  # JSON


class StoredSnapshots:
    """The last inventory, so that a start without network has one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, data: Any, at: float) -> None:
        packed = zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 1)
        with self._database.write() as db:
            db.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?)", (at, packed))

    def load(self) -> StoredSnapshot | None:
        with self._database.read() as db:
            row = db.execute("SELECT at, data FROM snapshot WHERE id = 1").fetchone()
        return StoredSnapshot(row[0], json.loads(zlib.decompress(row[1]))) if row else None

    def time(self) -> float | None:
        """When the stored inventory was taken; cheap, for a running agent that looks for a newer one."""
        with self._database.read() as db:
            row = db.execute("SELECT at FROM snapshot WHERE id = 1").fetchone()
        return float(row[0]) if row else None


class Traffic:
    """How many flows each exporter carried and when last, for `edfn-agent exporters`. Written now and then in bulk."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, counts: Mapping[str, tuple[int, float]]) -> None:
        """key -> (flows since the last call, Unix seconds of the newest)"""
        with self._database.write() as db:
            db.executemany(
                "INSERT INTO traffic VALUES (?, ?, ?) ON CONFLICT (key) "
                "DO UPDATE SET flows = flows + excluded.flows, last = max(last, excluded.last)",
                [(key, flows, last) for key, (flows, last) in counts.items()],
            )

    def all(self) -> dict[str, tuple[int, float]]:
        with self._database.read() as db:
            return {key: (flows, last) for key, flows, last in db.execute("SELECT key, flows, last FROM traffic")}
