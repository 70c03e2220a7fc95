"""Batches whose records would take too much memory, in parts; and records that no message can hold, cut to fit.

A batch is bounded in rows, and a dictionary holds a long string once; as records of profile aws it stands in every row.
In: Flows, or Records. Out: the same, in pieces of bounded size. Never: a row lost.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edfn_agent.enrich import CodeTable, Flows
from edfn_agent.formats.batch import AddressColumn, Column, Dictionary, IntColumn, StringColumn
from ipfix import Field, Records
from ipfix.values import length_at, with_length

MOST_OCTETS = 32 << 20
"""Octets of strings in the records that are made at a time; real flow logs have 1 to 10 MiB in a batch."""

HEADERS = 20
"""Octets of a message that are not records: its header and the set's (RFC 7011 section 3)."""


class Parts:
    """Splits batches by what their strings take."""

    def __init__(self, most_octets: int = MOST_OCTETS) -> None:
        self._most = most_octets
        self._lengths = CodeTable(lambda value: len(value.encode()))
        self._known: weakref.WeakKeyDictionary[Dictionary, tuple[int, int]] = weakref.WeakKeyDictionary()

    def of(self, flows: Flows) -> Iterator[Flows]:
        columns = (*flows.batch.columns.values(), *flows.extras.values())
        strings = [column for column in columns if isinstance(column, StringColumn)]
        if flows.batch.rows * sum(self._longest(column.dictionary) for column in strings) <= self._most:
            yield flows  # however they are combined
            return
        octets = np.zeros(flows.batch.rows, np.int64)
        for column in strings:
            octets += self._lengths.take(column)
        ends = octets.cumsum()
        first = 0
        while first < len(ends):
            before = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + self._most, "right")))
            yield flows if last - first == len(ends) else _rows(flows, slice(first, last))
            first = last

    def _longest(self, dictionary: Dictionary) -> int:
        """Octets of its longest value. A dictionary only grows."""
        known, longest = self._known.get(dictionary, (0, 0))
        if known < len(dictionary):
            longest = max(longest, *map(len, dictionary.values[known:]))
            self._known[dictionary] = len(dictionary), longest
        return longest


def _rows(flows: Flows, part: slice) -> Flows:
    columns = {name: _of_column(column, part) for name, column in flows.batch.columns.items()}
    batch = replace(flows.batch, rows=part.stop - part.start, columns=columns, family=flows.batch.family[part])
    return replace(
        flows,
        batch=batch,
        exporter=flows.exporter[part],
        ingress=None if flows.ingress is None else flows.ingress[part],
        egress=None if flows.egress is None else flows.egress[part],
        direction=None if flows.direction is None else flows.direction[part],
        extras={name: StringColumn(column.codes[part], column.dictionary) for name, column in flows.extras.items()},
    )


def _of_column(column: Column, part: slice) -> Column:
    if isinstance(column, StringColumn):
        return StringColumn(column.codes[part], column.dictionary)
    if isinstance(column, AddressColumn):
        return AddressColumn(column.family[part], column.v4[part], None if column.v6 is None else column.v6[part])
    return IntColumn(column.values[part], None if column.absent is None else column.absent[part])


def fitted(records: Records, max_message_size: int) -> tuple[Records, int]:
    """These records, the longest strings of those that are too long cut until a message holds them; how many were."""
    if records.ends is None:
        return records, 0
    room = max_message_size - HEADERS
    lengths = np.diff(records.ends, prepend=0)
    long = np.flatnonzero(lengths > room).tolist()
    if not long:
        return records, 0
    octets = records.octets.tobytes()
    starts = (records.ends - lengths).tolist()
    pieces: list[bytes] = []
    done = 0
    for index in long:
        short = _cut(octets[starts[index] : starts[index] + int(lengths[index])], records.template.fields, room)
        lengths[index] = len(short)
        pieces += [octets[done : starts[index]], short]
        done = int(records.ends[index])
    pieces.append(octets[done:])
    return Records(records.template, np.frombuffer(b"".join(pieces), np.uint8), lengths.cumsum()), len(long)


def _cut(record: bytes, fields: tuple[Field, ...], room: int) -> bytes:
    """One record, every string of it at most as long as lets the whole fit. What is short stays whole."""
    parts: list[tuple[bytes, bool]] = []  # octets, and whether they are a string
    at = 0
    for field in fields:
        length = field.length
        if field.is_variable:
            at, length = length_at(record, at)
        parts.append((record[at : at + length], field.is_variable))
        at += length
    fixed = sum(len(octets) for octets, variable in parts if not variable)
    strings = np.array([len(octets) for octets, variable in parts if variable])
    shortest, longest = 0, int(strings.max())
    while shortest < longest:  # the largest cap with which it fits
        cap = (shortest + longest + 1) // 2
        shortest, longest = (cap, longest) if fixed + _wire(strings, cap) <= room else (shortest, cap - 1)
    return b"".join(_value(octets, shortest) if variable else octets for octets, variable in parts)


def _wire(strings: NDArray[np.int64], cap: int) -> int:
    cut = np.minimum(strings, cap)
    return int((cut + np.where(cut < 255, 1, 3)).sum())


def _value(octets: bytes, cap: int) -> bytes:
    """A value of variable length (RFC 7011 section 7), cut between two characters."""
    if len(octets) > cap:
        octets = octets[:cap].decode("utf-8", "ignore").encode()
    return with_length(octets)
