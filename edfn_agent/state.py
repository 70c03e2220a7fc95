"""The agent's memory: one SQLite file in one directory, shared by the running agent, its workers and the commands.

In: exporter assignments, interface numbers, the last inventory, cursors, what was seen already, what is quarantined,
how much each exporter carried. Out: the same, after a restart. Never: flow records (except quarantined payloads),
secrets, anything whose loss would lose data. Losing the directory costs duplicates and new numbers.

Every failure is a `StateError` that says which file, what was tried and what to do; a transaction is whole or not there
at all, and the next call tries again from the start, so a disk that was full or read-only for a while needs no restart.

Two connections, because there are two prices. What a power cut must not take back is written with synchronous=FULL: a
number that was already on the wire, a payload whose message was deleted from its queue. What only costs duplicates
(cursors, what was seen) or is made again (the inventory, traffic counts) is written with synchronous=NORMAL, which in
WAL mode survives the death of the process, not that of the machine.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from edfn_agent import numbers

FILE_NAME = "state.sqlite3"
SCHEMA_VERSION = 1

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process. Transactions here take milliseconds; ten seconds means something is stuck."""

DOMAIN_NUMBERS = 2**24 - 1
"""A VPC's number is 1 .. 2**24-1: the low 24 bits of its observation domain, above them stands the worker's number."""

SEEN_LIMIT = 500_000
"""Most keys remembered per input: about 100 MB of disk with S3 keys, a day of 350 objects a minute."""

PAYLOAD_LIMIT = 16 * 2**20
"""Longest payload kept with a quarantined delivery: above what Kinesis (10 MiB) and Firehose (6 MiB) can hand over."""

QUARANTINE_LIMIT = 2**30
"""Octets of payload the quarantine takes in all. Beyond that it refuses, and the source keeps what it has."""

_SCHEMA = """
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('assignments', 0);
CREATE TABLE assignment (
    key TEXT PRIMARY KEY, domain INTEGER NOT NULL UNIQUE, address TEXT UNIQUE, origin TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE interface (key TEXT PRIMARY KEY, number INTEGER NOT NULL UNIQUE, name TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE snapshot (id INTEGER PRIMARY KEY CHECK (id = 1), at REAL NOT NULL, data BLOB NOT NULL);
CREATE TABLE cursor (
    input TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (input, key)) WITHOUT ROWID;
CREATE TABLE seen (input TEXT NOT NULL, key TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (input, key)) WITHOUT ROWID;
CREATE INDEX seen_by_time ON seen (input, at);
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT, input TEXT NOT NULL, source TEXT NOT NULL, name TEXT NOT NULL,
    reason TEXT NOT NULL, at REAL NOT NULL, size INTEGER, payload BLOB, detail TEXT NOT NULL,
    wanted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE traffic (key TEXT PRIMARY KEY, flows INTEGER NOT NULL, last REAL NOT NULL) WITHOUT ROWID;
"""


class StateError(Exception):
    """The state cannot be read or written now. Nothing was half done; the caller may go on without it or try again."""


class AssignmentConflict(StateError):
    """An exporter address that another VPC holds. The state itself is well."""


class State:
    """Everything kept in `directory` (made when absent, for its owner only). Safe to use from several threads."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.path = Path(directory) / FILE_NAME
        durable = _Connection(self.path, "FULL")
        quick = _Connection(self.path, "NORMAL")
        self._connections = (durable, quick)
        with durable.read():  # so that a directory that cannot be used is told at once, to the one who can say so
            pass
        self.assignments = Assignments(durable)
        self.interfaces = Interfaces(durable)
        self.quarantine = Quarantine(durable)
        self.snapshot = StoredSnapshots(quick)
        self.cursors = Cursors(quick)
        self.seen = Seen(quick)
        self.traffic = Traffic(quick)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one VPC (or `unattributed`) was given. The number stays for ever; an address can be released."""

    key: str
    domain: int
    address: IPv4Address | None
    origin: str  # configured | stored (by hand) | router | pool; "" without an address


class Assignments:
    """Exporter addresses and domain numbers by VPC.

    A number starts from a checksum of the VPC's id, so two installations, or one that lost its state, nearly always
    agree on it; the table settles the rest. Rows are never deleted, therefore no number is given to a second VPC.
    """

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    @property
    def generation(self) -> int:
        """Another value after each change by whatever process. Cheap: a running agent asks every few seconds."""
        with self._connection.read() as db:
            return int(db.execute("SELECT value FROM counter WHERE name = 'assignments'").fetchone()[0])

    def list(self) -> list[Assignment]:
        with self._connection.read() as db:
            return _assignments(db)

    def get(self, key: str) -> Assignment | None:
        return next((each for each in self.list() if each.key == key), None)

    def change(
        self, decide: Callable[[Mapping[str, Assignment]], Mapping[str, tuple[IPv4Address | None, str]]]
    ) -> dict[str, Assignment]:
        """Read all, let `decide` say the new (address, origin) of some keys, write them: one transaction.

        `decide` may be called while other processes wait, so it only computes. Returns everything as it stands then.
        """
        with self._connection.write() as db:
            before = {each.key: each for each in _assignments(db)}
            wanted = decide(before)
            changed = {
                key: value
                for key, value in wanted.items()
                if key not in before or (before[key].address, before[key].origin) != value
            }
            if not changed:
                return before
            _check_addresses(before, changed)
            # Addresses may change hands between two keys: first all are let go, then all are taken.
            db.executemany("UPDATE assignment SET address = NULL WHERE key = ?", [(key,) for key in changed])
            used = {each.domain for each in before.values()}
            for key, (address, origin) in changed.items():
                if key in before:
                    domain = before[key].domain
                else:
                    domain = free_number(key, used)
                    used.add(domain)
                text = str(address) if address is not None else None
                db.execute("INSERT OR REPLACE INTO assignment VALUES (?, ?, ?, ?)", (key, domain, text, origin))
            db.execute("UPDATE counter SET value = value + 1 WHERE name = 'assignments'")
            return {each.key: each for each in _assignments(db)}

    def set(self, key: str, address: IPv4Address | None, origin: str) -> Assignment:
        """Give one key an address (its number comes with it). Raises AssignmentConflict if another key holds it."""
        return self.change(lambda _: {key: (address, origin if address is not None else "")})[key]

    def release(self, key: str) -> bool:
        """Take the address away; the number stays with the key. False when it had none."""
        had_one = False

        def decide(before: Mapping[str, Assignment]) -> Mapping[str, tuple[IPv4Address | None, str]]:
            nonlocal had_one
            had_one = key in before and before[key].address is not None
            return {key: (None, "")} if had_one else {}

        self.change(decide)
        return had_one


def _assignments(db: sqlite3.Connection) -> list[Assignment]:
    rows = db.execute("SELECT key, domain, address, origin FROM assignment ORDER BY key")
    return [
        Assignment(key, domain, IPv4Address(address) if address else None, origin)
        for key, domain, address, origin in rows
    ]


def _check_addresses(before: Mapping[str, Assignment], changed: Mapping[str, tuple[IPv4Address | None, str]]) -> None:
    holders = {each.address: each.key for each in before.values() if each.address and each.key not in changed}
    for key, (address, _) in changed.items():
        if address is None:
            continue
        if address in holders:
            raise AssignmentConflict(f"{address} is the exporter address of {holders[address]}; {key} needs another")
        holders[address] = key


def first_number(key: str) -> int:
    """Where the search for a free domain number of `key` starts: 1 .. 2**24-1."""
    return numbers.stable_number(key, DOMAIN_NUMBERS)


def free_number(key: str, used: set[int]) -> int:
    """A free domain number for `key`: 1 .. 2**24-1."""
    if len(used) >= DOMAIN_NUMBERS:
        raise StateError(f"all {DOMAIN_NUMBERS} domain numbers are given away; start with a new state directory")
    return numbers.free_number(key, DOMAIN_NUMBERS, used)


class Interfaces:
    """Interface numbers: unique over the agent and all its workers, never given to a second key."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def all(self) -> dict[str, tuple[int, str]]:
        """key -> (number, name)"""
        with self._connection.read() as db:
            return {key: (number, name) for key, number, name in db.execute("SELECT key, number, name FROM interface")}

    def allocate(self, names: Mapping[str, str]) -> dict[str, int]:
        """The number of every key, new ones in the order given; names are brought up to date. One transaction."""
        known = self.all()
        if all(key in known and known[key][1] == name for key, name in names.items()):
            return {key: known[key][0] for key in names}
        with self._connection.write() as db:
            rows = db.execute("SELECT key, number FROM interface")
            numbers: dict[str, int] = dict(rows.fetchall())
            last = max(numbers.values(), default=0)
            for key in names:
                if key not in numbers:
                    last += 1
                    if last >= 2**32:
                        raise StateError("all interface numbers are given away; start with a new state directory")
                    numbers[key] = last
            db.executemany(
                "INSERT INTO interface VALUES (?, ?, ?) "
                "ON CONFLICT (key) DO UPDATE SET name = excluded.name WHERE name <> excluded.name",
                [(key, numbers[key], name) for key, name in names.items()],
            )
        return {key: numbers[key] for key in names}


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    at: float  # Unix seconds
    data: Any  # JSON


class StoredSnapshots:
    """The last inventory, so that a start without network has one."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def save(self, data: Any, at: float) -> None:
        packed = zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 1)
        with self._connection.write() as db:
            db.execute("INSERT OR REPLACE INTO snapshot VALUES (1, ?, ?)", (at, packed))

    def load(self) -> StoredSnapshot | None:
        with self._connection.read() as db:
            row = db.execute("SELECT at, data FROM snapshot WHERE id = 1").fetchone()
        return StoredSnapshot(row[0], json.loads(zlib.decompress(row[1]))) if row else None

    def time(self) -> float | None:
        """When the stored inventory was taken; cheap, for a running agent that looks for a newer one."""
        with self._connection.read() as db:
            row = db.execute("SELECT at FROM snapshot WHERE id = 1").fetchone()
        return float(row[0]) if row else None


class Cursors:
    """How far each input has read: a JSON value by (input, key)."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def get(self, input: str, key: str) -> Any:
        """None when there is none."""
        with self._connection.read() as db:
            row = db.execute("SELECT value FROM cursor WHERE input = ? AND key = ?", (input, key)).fetchone()
        return json.loads(row[0]) if row else None

    def set(self, input: str, key: str, value: Any) -> None:
        self.set_many(input, {key: value})

    def set_many(self, input: str, values: Mapping[str, Any]) -> None:
        """All or none."""
        rows = [(input, key, json.dumps(value, separators=(",", ":"))) for key, value in values.items()]
        with self._connection.write() as db:
            db.executemany("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)", rows)

    def delete(self, input: str, key: str) -> None:
        with self._connection.write() as db:
            db.execute("DELETE FROM cursor WHERE input = ? AND key = ?", (input, key))

    def list(self, input: str) -> dict[str, Any]:
        with self._connection.read() as db:
            rows = db.execute("SELECT key, value FROM cursor WHERE input = ? ORDER BY key", (input,)).fetchall()
        return {key: json.loads(value) for key, value in rows}


class Seen:
    """Keys that were worked on within a window of time: how a second announcement of one object is recognised."""

    def __init__(self, connection: _Connection, limit: int = SEEN_LIMIT) -> None:
        self._connection = connection
        self._limit = limit
        self._until_pruning: dict[str, int] = {}

    def add(self, input: str, key: str, now: float, window: float) -> bool:
        """Remember `key`. True when it is new, that is not seen since `now - window`."""
        return bool(self.add_many(input, (key,), now, window))

    def add_many(self, input: str, keys: Iterable[str], now: float, window: float) -> set[str]:
        """Remember all of `keys` in one transaction; returns those that are new."""
        keys = list(dict.fromkeys(keys))
        with self._connection.write() as db:
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
        with self._connection.read() as db:
            return _was_seen(db, input, key, now - window)

    def count(self, input: str) -> int:
        with self._connection.read() as db:
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

    def __init__(self, connection: _Connection, payload_limit: int = PAYLOAD_LIMIT, limit: int = QUARANTINE_LIMIT):
        self._connection = connection
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
        with self._connection.write() as db:
            if kept is not None:
                held = db.execute("SELECT coalesce(sum(length(payload)), 0) FROM quarantine").fetchone()[0]
                if held + len(kept) > self._limit:
                    raise StateError(
                        f"quarantine in {self._connection.path} is full ({held} of {self._limit} octets): "
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
        with self._connection.read() as db:
            rows = db.execute(
                "SELECT id, input, source, name, reason, at, size, NULL, detail FROM quarantine ORDER BY id"
            ).fetchall()
        return [_quarantined(row) for row in rows]

    def get(self, id: int) -> Quarantined | None:
        with self._connection.read() as db:
            row = db.execute(
                "SELECT id, input, source, name, reason, at, size, payload, detail FROM quarantine WHERE id = ?", (id,)
            ).fetchone()
        return _quarantined(row) if row else None

    def request(self, id: int) -> bool:
        """Ask the running agent to hand it over again. False when there is no such entry."""
        with self._connection.write() as db:
            return db.execute("UPDATE quarantine SET wanted = 1 WHERE id = ?", (id,)).rowcount > 0

    def take_requests(self) -> tuple[int, ...]:
        """What was asked for since the last call."""
        with self._connection.read() as db:
            ids = tuple(id for (id,) in db.execute("SELECT id FROM quarantine WHERE wanted ORDER BY id"))
        if ids:
            with self._connection.write() as db:
                db.execute("UPDATE quarantine SET wanted = 0 WHERE wanted")
        return ids

    def failed_again(self, id: int, reason: str) -> None:
        with self._connection.write() as db:
            db.execute("UPDATE quarantine SET reason = ? WHERE id = ?", (reason, id))

    def remove(self, id: int) -> bool:
        with self._connection.write() as db:
            return db.execute("DELETE FROM quarantine WHERE id = ?", (id,)).rowcount > 0

    def count(self) -> int:
        with self._connection.read() as db:
            return int(db.execute("SELECT count(*) FROM quarantine").fetchone()[0])


def _quarantined(row: tuple[Any, ...]) -> Quarantined:
    id, input, source, name, reason, at, size, payload, detail = row
    return Quarantined(id, input, source, name, reason, at, size, payload, json.loads(detail))


class Traffic:
    """How many flows each exporter carried and when last, for `edfn-agent exporters`. Written now and then in bulk."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def add(self, counts: Mapping[str, tuple[int, float]]) -> None:
        """key -> (flows since the last call, Unix seconds of the newest)"""
        with self._connection.write() as db:
            db.executemany(
                "INSERT INTO traffic VALUES (?, ?, ?) ON CONFLICT (key) "
                "DO UPDATE SET flows = flows + excluded.flows, last = max(last, excluded.last)",
                [(key, flows, last) for key, (flows, last) in counts.items()],
            )

    def all(self) -> dict[str, tuple[int, float]]:
        with self._connection.read() as db:
            return {key: (flows, last) for key, flows, last in db.execute("SELECT key, flows, last FROM traffic")}


class _Connection:
    """One SQLite connection under a lock. After any failure it is opened anew at the next use."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self.path = path
        self._synchronous = synchronous
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._failures("read"):
            yield self._opened()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._failures("write"):
            db = self._opened()
            # IMMEDIATE: whoever reads in order to write waits here for the others, not in the middle (SQLITE_BUSY).
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            if self._db is not None:
                with suppress(sqlite3.Error):
                    self._db.close()
            self._db = None

    @contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise StateError(f"cannot {what} the state in {self.path}: {error}. {_next_step(error)}") from error

    def _opened(self) -> sqlite3.Connection:
        """The connection, opened anew when the file under it was removed or replaced."""
        if self._db is not None and self._identity() == self._file:
            return self._db
        self.close()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Quarantined payloads are other people's traffic: for the owner only. WAL and SHM files inherit the mode.
        # Only where it is not there: to close a file drops all POSIX locks that this process has on it, those of the
        # other connection too (sqlite.org/howtocorrupt.html, 2.2). Then the next command that ends takes itself for
        # the last one and removes the WAL under the running agent, which goes on writing into nothing.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute(f"PRAGMA synchronous = {self._synchronous}")
            _bring_up_to_date(db)
        except BaseException:
            db.close()
            raise
        self._db, self._file = db, self._identity()
        return db

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return (found.st_dev, found.st_ino)


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    if _version(db) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")  # two processes may start at once: the second finds it done
    try:
        version = _version(db)
        if version > SCHEMA_VERSION:
            raise StateError(
                f"the state has format {version}, this edfn-agent knows up to {SCHEMA_VERSION}: "
                "run the newer edfn-agent, or start with a new state directory"
            )
        if version < 1:
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _next_step(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, PermissionError) or code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY):
        return "Run the command as the agent's user, or give that user the directory (`state_directory`)"
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) == 28:
        return "Make room on that file system; nothing else is needed"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "Another process holds it for too long; see who with `fuser` on that file"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "The file is damaged: move it away to start anew (costs duplicates and new numbers, never data)"
    return "See that the directory (`state_directory`) is there and can be written"
