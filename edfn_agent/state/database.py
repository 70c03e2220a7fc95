"""The SQLite file under the state: opened, locked, brought up to date, and opened anew after any failure.

In: the path. Out: `read()` and `write()`, each a connection for one transaction that is whole or not there at all, and
`problem`, what is wrong with the state now. Every failure is a `StateError` that says which file, what was tried and
what to do; the next call tries again from the start, so a disk that was full or read-only for a while needs no restart.

A rollback journal (TRUNCATE), not the WAL, though a commit takes 0.7 ms instead of 0.04: the WAL's index is a file in
shared memory. Where a page of it cannot be had (a disk that fails, a file system that turns read-only) the kernel ends
the process with SIGBUS; it does not work over network file systems; and a WAL cannot be read where it cannot be
written. What is written often is therefore written in groups (inputs/sent.py). synchronous=FULL: a number that was on
the wire, or a payload whose message is deleted, survives a power cut.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SCHEMA_VERSION = 1

BUSY_TIMEOUT = 10.0
"""Seconds to wait for another process. Transactions here take milliseconds; ten seconds means something is stuck."""

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


class Database:
    """One connection under a lock. Safe to use from several threads; other processes may have the file open, too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._problems: dict[str, str] = {}  # by what was tried last and failed: read, write

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

    @property
    def problem(self) -> str:
        """Why the state did not work when it was last used; "" when it did."""
        return next(iter(self._problems.copy().values()), "")

    def try_again(self) -> None:
        """Write something that changes nothing, to see whether it can be done again. Raises StateError."""
        with self.write() as db:
            db.execute("UPDATE counter SET value = value")

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
            text = f"cannot {what} the state in {self.path}: {error}. {self._next_step(error)}"
            self._problems[what] = text
            raise StateError(text) from error
        self._problems.pop(what, None)

    def _opened(self) -> sqlite3.Connection:
        """The connection, opened anew when the file under it was removed or replaced."""
        if self._db is not None and self._identity() == self._file:
            return self._db
        self.close()
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Quarantined payloads are other people's traffic: for the owner only. The journal inherits the mode.
        # Only where it is not there: to close a file drops all POSIX locks that this process has on it
        # (sqlite.org/howtocorrupt.html, 2.2).
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = TRUNCATE")
            db.execute("PRAGMA synchronous = FULL")
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

    def _next_step(self, error: Exception) -> str:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if getattr(error, "errno", None) == errno.EROFS or self._is_mounted_read_only():
            return "Its file system is mounted for reading only; `dmesg` may say why. Nothing else is needed"
        if isinstance(error, PermissionError) or code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY):
            return "Run the command as the agent's user, or give that user the directory (`state_directory`)"
        if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) == errno.ENOSPC:
            return "Make room on that file system; nothing else is needed"
        if code == sqlite3.SQLITE_IOERR:
            return "The disk or its file system fails; `dmesg` may say why. Nothing else is needed"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return "Another process holds it for too long; see who with `fuser` on that file"
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return "The file is damaged: move it away to start anew (costs duplicates and new numbers, never data)"
        return "See that the directory (`state_directory`) is there and can be written"

    def _is_mounted_read_only(self) -> bool:
        try:
            return bool(os.statvfs(self.path.parent).f_flag & os.ST_RDONLY)
        except OSError:
            return False


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
