"""What was given away and must stay as it is: exporter addresses, domain numbers, interface numbers.

In: who needs one. Out: what it has, over restarts and for all processes of an installation. Never: a number given to a
second VPC or interface, not even when the first is gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from edfn_agent import numbers
from edfn_agent.state.database import Database, StateError

DOMAIN_NUMBERS = 2**24 - 1
"""A VPC's number is 1 .. 2**24-1: the low 24 bits of its observation domain, above them stands the worker's number."""


class AssignmentConflict(StateError):
    """An exporter address that another VPC holds. The state itself is well."""


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

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def generation(self) -> int:
        """Another value after each change by whatever process. Cheap: a running agent asks every few seconds."""
        with self._database.read() as db:
            return int(db.execute("SELECT value FROM counter WHERE name = 'assignments'").fetchone()[0])

    def list(self) -> list[Assignment]:
        with self._database.read() as db:
            return _assignments(db)

    def get(self, key: str) -> Assignment | None:
        return next((each for each in self.list() if each.key == key), None)

    def change(
        self, decide: Callable[[Mapping[str, Assignment]], Mapping[str, tuple[IPv4Address | None, str]]]
    ) -> dict[str, Assignment]:
        """Read all, let `decide` say the new (address, origin) of some keys, write them: one transaction.

        `decide` may be called while other processes wait, so it only computes. Returns everything as it stands then.
        """
        with self._database.write() as db:
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

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[str, tuple[int, str]]:
        """key -> (number, name)"""
        with self._database.read() as db:
            return {key: (number, name) for key, number, name in db.execute("SELECT key, number, name FROM interface")}

    def allocate(self, names: Mapping[str, str]) -> dict[str, int]:
        """The number of every key, new ones in the order given; names are brought up to date. One transaction."""
        known = self.all()
        if all(key in known and known[key][1] == name for key, name in names.items()):
            return {key: known[key][0] for key in names}
        with self._database.write() as db:
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
