"""What is in flow logs, added up: who talks most, what is rejected, and how much each VPC, interface and zone carries.

In: FlowBatches. Out: `Table`s, largest first, and traffic by time. Columns are added up with NumPy; there is no object
per record. Memory is bounded whatever the input: a table that grows over its capacity forgets its smallest keys and
remembers how much they could have been (`Table.uncertain`), so that every figure comes with its error bound.

Never: the same traffic counted once where two interfaces logged it. A flow between two instances is in the log of both,
and is here what it is there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from edfn_agent.formats.batch import AddressColumn, Dictionary, FlowBatch, StringColumn

U64 = NDArray[np.uint64]

_ENDS = ("srcaddr", "dstaddr", "srcport", "dstport", "protocol")
WANTED = frozenset((*_ENDS, "packets", "bytes", "start", "end", "action", "vpc-id", "interface-id", "az-id"))

BYTES, PACKETS, FLOWS = 0, 1, 2
MEASURES = ("bytes", "packets", "flows")

CAPACITY = 100_000  # keys a table keeps: 100,000 of the widest key are 7 MB
NAMES = 200_000  # VPCs, interfaces and zones told apart; more are counted together
_OTHERS = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table."""

    key: tuple[str, ...]
    bytes: int
    packets: int
    flows: int

    def measure(self, by: str) -> int:
        return {"bytes": self.bytes, "packets": self.packets, "flows": self.flows}[by]


@dataclass(frozen=True, slots=True)
class Table:
    """The largest of something."""

    name: str  # as in --format csv
    title: str
    columns: tuple[str, ...]
    by: str
    rows: tuple[Row, ...]
    keys: int  # how many different ones there were; at least, when some were forgotten
    total: int  # of everything, shown or not, in the measure of `by`
    uncertain: int  # no figure is more than this too small, and nothing that is missing is larger


class TopKeys:
    """Sums by key, of which the largest are wanted. A key is a row of unsigned integers.

    The pruning is Misra and Gries's and Manku and Motwani's: what is dropped at a time was at most `uncertain` up to
    then, so a key that comes back after it was dropped is too small by no more than the sum of those thresholds.
    """

    def __init__(self, width: int, by: int, capacity: int = CAPACITY) -> None:
        self._width = width
        self._by = by
        self._capacity = capacity
        self._keys: U64 = np.empty((0, width), np.uint64)
        self._sums: U64 = np.empty((0, 3), np.uint64)
        self._fresh: list[tuple[U64, U64]] = []
        self._fresh_rows = 0
        self.uncertain = 0
        self.total = 0
        self.forgotten = 0

    def add(self, keys: U64, sums: U64) -> None:
        if not len(keys):
            return
        keys, sums = add_up(keys, sums)
        self.total += int(sums[:, self._by].sum())
        self._fresh.append((keys, sums))
        self._fresh_rows += len(keys)
        if self._fresh_rows > self._capacity:
            self._settle()

    def _settle(self) -> None:
        if not self._fresh:
            return
        keys = np.concatenate([self._keys, *(part for part, _ in self._fresh)])
        sums = np.concatenate([self._sums, *(part for _, part in self._fresh)])
        self._fresh, self._fresh_rows = [], 0
        keys, sums = add_up(keys, sums)
        if len(keys) > self._capacity:
            # Half is dropped at a time, so that this is rare.
            order = np.argpartition(sums[:, self._by], len(keys) - self._capacity // 2)
            dropped, kept = order[: len(keys) - self._capacity // 2], order[len(keys) - self._capacity // 2 :]
            self.uncertain += int(sums[dropped, self._by].max())
            self.forgotten += len(dropped)
            keys, sums = keys[kept], sums[kept]
        self._keys, self._sums = keys, sums

    def __len__(self) -> int:
        self._settle()
        return len(self._keys)

    def largest(self, count: int) -> list[tuple[U64, U64]]:
        """Keys and sums, largest first; equal ones in the order of their keys, so that a report is repeatable."""
        self._settle()
        columns = [self._keys[:, i] for i in range(self._width - 1, -1, -1)]
        order = np.lexsort([*columns, np.iinfo(np.uint64).max - self._sums[:, self._by]])[:count]
        return [(self._keys[i], self._sums[i]) for i in order]


def add_up(keys: U64, sums: U64) -> tuple[U64, U64]:
    """One row for each different key, with the sums of its rows."""
    if not len(keys):
        return keys, sums
    varying = [keys[:, i] for i in range(keys.shape[1] - 1, -1, -1) if (keys[:, i] != keys[0, i]).any()]
    if not varying:
        return keys[:1], sums.sum(axis=0, keepdims=True, dtype=np.uint64)
    order = np.lexsort(varying)
    keys, sums = keys[order], sums[order]
    begins = np.flatnonzero(np.concatenate([[True], (keys[1:] != keys[:-1]).any(axis=1)]))
    return keys[begins], np.add.reduceat(sums, begins, axis=0)


class Names:
    """Numbers for the values of string columns, the same over all dictionaries."""

    def __init__(self, limit: int = NAMES) -> None:
        self._limit = limit
        self._numbers: dict[bytes, int] = {b"(others)": _OTHERS, b"-": 1}
        self._names: list[bytes] = [b"(others)", b"-"]
        self._known: WeakKeyDictionary[Dictionary, U64] = WeakKeyDictionary()

    def numbers(self, column: StringColumn | None, rows: int) -> U64:
        if column is None:
            return np.ones(rows, np.uint64)
        known = self._known.get(column.dictionary)
        values = column.dictionary.values
        if known is None or len(known) < len(values):
            begun = 0 if known is None else len(known)
            more = np.array([self._number(value) for value in values[begun:]], np.uint64)
            known = more if known is None else np.concatenate([known, more])
            self._known[column.dictionary] = known
        return known[column.codes]

    def _number(self, value: bytes) -> int:
        number = self._numbers.get(value)
        if number is None:
            if len(self._names) >= self._limit:
                return _OTHERS
            number = self._numbers[value] = len(self._names)
            self._names.append(value)
        return number

    def __getitem__(self, number: int) -> str:
        return self._names[number].decode("utf-8", "replace")


@dataclass
class Timeline:
    """Traffic by time: minutes, and coarser when there are too many of them."""

    width: int = 60_000  # milliseconds of one part
    parts: dict[int, list[int]] = field(default_factory=dict)  # start -> accepted bytes, rejected flows
    limit: int = 20_000

    def add(self, start: U64, sums: U64, rejected: NDArray[np.bool_]) -> None:
        known = start > 0
        keys = (start[known] // np.uint64(self.width) * np.uint64(self.width)).reshape(-1, 1)
        values = np.zeros((len(keys), 3), np.uint64)
        values[:, 0] = np.where(rejected[known], 0, sums[known, BYTES])
        values[:, 1] = rejected[known]
        for (key,), (octets, refused, _) in zip(*add_up(keys, values), strict=True):
            part = self.parts.setdefault(int(key), [0, 0])
            part[0] += int(octets)
            part[1] += int(refused)
        while len(self.parts) > self.limit:
            self.coarsen(self.width * 10)

    def coarsen(self, width: int) -> None:
        self.width, old, self.parts = width, self.parts, {}
        for start, (octets, refused) in old.items():
            part = self.parts.setdefault(start // width * width, [0, 0])
            part[0] += octets
            part[1] += refused

    def steps(self, count: int) -> list[tuple[int, int, int]]:
        """(start in ms, accepted bytes, rejected flows) in at most `count` equal steps, empty ones too."""
        if not self.parts:
            return []
        first, last = min(self.parts), max(self.parts)
        wide = -(-((last - first) // self.width + 1) // count) * self.width
        steps = [[first + i * wide, 0, 0] for i in range((last - first) // wide + 1)]
        for start, (octets, refused) in self.parts.items():
            step = steps[(start - first) // wide]
            step[1] += octets
            step[2] += refused
        return [(start, octets, refused) for start, octets, refused in steps]


class Report:
    """Feed it batches, then ask for its tables."""

    def __init__(self, by: str = "bytes", capacity: int = CAPACITY) -> None:
        self.by = by
        measure = MEASURES.index(by)
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.sums = [0, 0, 0]
        self.rejected_flows = 0
        self.timeline = Timeline()
        self._names = Names()
        self._talkers = TopKeys(3, measure, capacity)
        self._conversations = TopKeys(7, measure, capacity)
        # What is rejected has few packets and often no bytes: its flows are what counts.
        self._refused_ports = TopKeys(2, FLOWS, capacity)
        self._refused_sources = TopKeys(3, FLOWS, capacity)
        self._by_name = {field: TopKeys(1, measure, capacity) for field in ("vpc-id", "interface-id", "az-id")}

    def add(self, batch: FlowBatch) -> None:
        rows = batch.rows
        if not rows:
            return
        sums = np.ones((rows, 3), np.uint64)
        sums[:, BYTES] = _integers(batch, "bytes")
        sums[:, PACKETS] = _integers(batch, "packets")
        for i, total in enumerate(sums.sum(axis=0, dtype=np.uint64)):
            self.sums[i] += int(total)
        rejected = _rejected(batch.strings("action"), rows)
        self.rejected_flows += int(rejected.sum())
        source, target = _address(batch.addresses("srcaddr"), rows), _address(batch.addresses("dstaddr"), rows)
        port, protocol = _integers(batch, "dstport"), _integers(batch, "protocol")
        self._talkers.add(source, sums)
        # The family of both addresses is one: it is said once.
        # The lower port is the service's: otherwise every answer would be a conversation of its own.
        other = _integers(batch, "srcport")
        service = np.where((other > 0) & (other < port), other, port)
        ends = np.column_stack([source, target[:, 1:], service, protocol])
        self._conversations.add(ends, sums)
        if rejected.any():
            refused = sums[rejected]
            self._refused_ports.add(np.column_stack([protocol, port])[rejected], refused)
            self._refused_sources.add(source[rejected], refused)
        for name, table in self._by_name.items():
            table.add(self._names.numbers(batch.strings(name), rows).reshape(-1, 1), sums)
        self._when(batch, sums, rejected)

    def _when(self, batch: FlowBatch, sums: U64, rejected: NDArray[np.bool_]) -> None:
        start, end = _integers(batch, "start"), _integers(batch, "end")
        self.timeline.add(start, sums, rejected)
        if (known := start[start > 0]).size:
            first = int(known.min())
            self.first_ms = first if self.first_ms is None else min(self.first_ms, first)
        if (last := int(end.max(initial=0))) > 0:
            self.last_ms = last if self.last_ms is None else max(self.last_ms, last)

    def tables(self, count: int) -> list[Table]:
        """Every table, with at most so many rows."""

        def ends(key: Sequence[int]) -> tuple[str, ...]:
            family, from_high, from_low, to_high, to_low, port, protocol = (int(part) for part in key)
            source, target = _shown(family, from_high, from_low), _shown(family, to_high, to_low)
            return source, target, protocol_name(protocol), str(port)

        def address(key: Sequence[int]) -> tuple[str, ...]:
            return (_shown(*(int(part) for part in key)),)

        def refused_port(key: Sequence[int]) -> tuple[str, ...]:
            return protocol_name(int(key[0])), str(int(key[1]))

        def named(key: Sequence[int]) -> tuple[str, ...]:
            return (self._names[int(key[0])],)

        by = self.by
        made = [
            _table("talkers", "Top talkers", ("source",), by, self._talkers, count, address),
            _table(
                *("conversations", "Top conversations", ("source", "destination", "protocol", "port"), by),
                *(self._conversations, count, ends),
            ),
            _table(
                *("rejected_ports", "Rejected, by port", ("protocol", "port"), "flows"),
                *(self._refused_ports, count, refused_port),
            ),
            _table(
                *("rejected_sources", "Rejected, by source", ("source",), "flows"),
                *(self._refused_sources, count, address),
            ),
        ]
        titles = {"vpc-id": ("vpcs", "VPCs", "vpc"), "interface-id": ("interfaces", "Interfaces", "interface")}
        titles["az-id"] = ("zones", "Availability zones", "zone")
        for name, (short, title, column) in titles.items():
            made.append(_table(short, title, (column,), by, self._by_name[name], count, named))
        return made


def _table(
    name: str,
    title: str,
    columns: tuple[str, ...],
    by: str,
    top: TopKeys,
    count: int,
    show: Callable[[Sequence[int]], tuple[str, ...]],
) -> Table:
    rows = tuple(
        Row(show(key.tolist()), int(sums[BYTES]), int(sums[PACKETS]), int(sums[FLOWS]))
        for key, sums in top.largest(count)
    )
    return Table(name, title, columns, by, rows, len(top), top.total, top.uncertain)


def _integers(batch: FlowBatch, name: str) -> U64:
    column = batch.integers(name)
    return np.zeros(batch.rows, np.uint64) if column is None else column.values


def _rejected(column: StringColumn | None, rows: int) -> NDArray[np.bool_]:
    if column is None:
        return np.zeros(rows, np.bool_)
    codes = [code for code, value in enumerate(column.dictionary.values) if value == b"REJECT"]
    return np.isin(column.codes, codes)


def _address(column: AddressColumn | None, rows: int) -> U64:
    """Three integers for each row: the family, and the address in two halves."""
    key = np.zeros((rows, 3), np.uint64)
    if column is None:
        return key
    key[:, 0] = column.family
    if column.v6 is not None:
        halves = np.ascontiguousarray(column.v6).view(">u8").reshape(rows, 2)
        six = column.family == 6
        key[six, 1:] = halves[six]
    four = column.family == 4
    key[four, 2] = column.v4[four]
    return key


def _shown(family: int, high: int, low: int) -> str:
    if family == 4:
        return str(ipaddress.IPv4Address(low))
    if family == 6:
        return str(ipaddress.IPv6Address(high << 64 | low))
    return "-"


_PROTOCOLS = {1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 41: "ipv6", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp"}


def protocol_name(number: int) -> str:
    return _PROTOCOLS.get(number, str(number))
