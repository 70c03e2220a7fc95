"""The columns that are being filled: what each word of a line is turned into, and the arrays the values go to.

In comes a layout and the names of the columns that somebody wants; out come preallocated arrays for a scanner (compiled
or plain Python, which share this module) and, when they are full, the columns of a FlowBatch. Nothing here reads text.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edfn_agent.formats.batch import AddressColumn, Column, Dictionary, IntColumn, StringColumn
from edfn_agent.formats.fields import BY_COLUMN, BY_NAME, FlowLogField, Kind
from edfn_agent.formats.layout import Layout

SCANNER = 2
"""Counts the changes of what a scanner is given and fills. A compiled one says what it was built for: one of another
version of the sources would write where nothing is."""

# What a scanner does with a word.
SKIP, INTEGER, TIME, ADDRESS, STRING = range(5)

# Why a scanner stopped.
END, FULL, HEADER, OTHER = range(4)
"""END: no complete line is left. FULL: the columns (or a dictionary) are. HEADER: a line begins with the name of a
field. OTHER: a line has the number of words of another layout that the caller knows."""

MAX_LINE = 65536
"""Octets of a line, without its newline. AWS's longest line (every field, every tag at its limit) is below 10,000."""

DICTIONARY_ENTRIES = 65536
DICTIONARY_OCTETS = 4 << 20
"""A dictionary that has more is replaced before the next row, which ends the batch: 16 string columns of an endlessly
varied log cost 16 * (4 MiB + what Python needs for the values), whatever the length of the log."""

MILLISECONDS_FROM = 10**11
"""Times from here on are milliseconds: as seconds they would be after the year 5138, as milliseconds they are after
March 1973."""

HEADER_WORDS = frozenset(name.encode() for name in (*BY_NAME, *BY_COLUMN))
"""A line whose first word is one of these may be a header line in mid-file."""

_JOBS = {Kind.ADDRESS: ADDRESS, Kind.STRING: STRING, Kind.TIME: TIME}


@dataclass(frozen=True, slots=True)
class Word:
    """What becomes of the words in one place of a line."""

    name: str
    job: int
    maximum: int = 0
    endpoint: bool = False  # srcaddr or dstaddr: a row without either is no flow
    status: bool = False  # log-status, which a scanner looks at even when it is skipped
    kept: bool = True  # False: checked, but not part of the batch


def words(layout: Layout, wanted: Collection[str] | None) -> tuple[Word, ...]:
    """The words of a line of this layout, left to right. What nobody wants is checked all the same, so that a line is
    malformed or not whoever reads it; a string cannot be malformed and is skipped."""
    return tuple(_word(field, wanted is None or field.name in wanted) for field in layout.fields)


def _word(field: FlowLogField, kept: bool) -> Word:
    job = _JOBS.get(field.kind, INTEGER)
    return Word(
        field.name,
        SKIP if job == STRING and not kept else job,
        field.kind.maximum if field.kind.is_integer else 0,
        endpoint=field.name in ("srcaddr", "dstaddr"),
        status=field.name == "log-status",
        kept=kept,
    )


class _Pool:
    """Arrays that were handed out, used again when nobody has them any more.

    A batch lives until it is sent, so a reader needs a set of arrays for each that is on its way; fresh memory would
    cost more than a tenth of reading (the kernel clears every page). What is lent and what is free is told by the
    reference count: a column is a view of one of these arrays and keeps it. At most `LENT` of a kind are remembered,
    which is 32 MiB with 16,384 rows.
    """

    LENT = 64

    def __init__(self) -> None:
        self._lent: dict[tuple[str, int], deque[NDArray[Any]]] = {}

    def take(self, kind: str, rows: int) -> NDArray[Any]:
        lent = self._lent.get((kind, rows))
        if lent:
            array = lent.popleft()  # atomic: readers of several threads may ask
            if sys.getrefcount(array) == 2:  # this variable, and the argument
                return array
            lent.appendleft(array)
        if kind == "v6":
            return np.empty((rows, 16), np.uint8)
        return np.empty(rows, kind)

    def give(self, kind: str, array: NDArray[Any]) -> None:
        """Nobody writes to it any more; views of it may be on their way."""
        key = (kind, len(array))
        if key not in self._lent:
            if len(self._lent) > 32:  # capacities come from a configuration, not from input: but be sure
                self._lent.clear()
            self._lent[key] = deque(maxlen=self.LENT)
        self._lent[key].append(array)


_pool = _Pool()

_OCTETS = {"u8": 8, "?": 1, "u1": 1, "u4": 4, "v6": 16}

_KINDS = {INTEGER: ("u8", "?"), TIME: ("u8", "?"), ADDRESS: ("u1", "u4", "v6"), STRING: ("u4",), SKIP: ()}


def _kinds(word: Word) -> tuple[str, ...]:
    return _KINDS[word.job] if word.kept else ()


class Columns:
    """Arrays with room for `capacity` rows, one set per word, handed out when they are full.

    `arrays[i]` are those of word i: values and absent; family, v4 and v6; codes; nothing for a word that is not kept.
    Before `open` and after `take` there are none: who waits for rows and has none needs no memory.
    """

    __slots__ = ("arrays", "capacity", "family", "octets_per_row", "words")

    def __init__(self, words: Sequence[Word], capacity: int) -> None:
        self.words = words
        self.capacity = capacity
        self.octets_per_row = 1 + sum(_OCTETS[kind] for word in words for kind in _kinds(word))
        self.family: NDArray[np.uint8] = _NO_ROWS
        self.arrays: list[tuple[NDArray[Any], ...]] = []

    def open(self) -> None:
        """Have arrays to fill."""
        rows = self.capacity
        self.family = _pool.take("u1", rows)
        self.arrays = [tuple(_pool.take(kind, rows) for kind in _kinds(word)) for word in self.words]

    def take(self, rows: int, dictionaries: Sequence[Dictionary | None]) -> tuple[dict[str, Column], NDArray[np.uint8]]:
        """The first `rows` rows as columns, and their families."""
        if not self.arrays:
            self.open()
        # A small batch gets copies, so that it does not hold the memory of a large one while it waits to be sent.
        small = rows * 2 < self.capacity

        def cut(array: NDArray[Any]) -> NDArray[Any]:
            return array[:rows].copy() if small else array[:rows]

        columns: dict[str, Column] = {}
        for word, arrays, dictionary in zip(self.words, self.arrays, dictionaries, strict=True):
            if not word.kept:
                continue
            if word.job == STRING:
                assert dictionary is not None
                columns[word.name] = StringColumn(cut(arrays[0]), dictionary)
            elif word.job == ADDRESS:
                family, v4, v6 = arrays
                any_v6 = bool((family[:rows] == 6).any())
                columns[word.name] = AddressColumn(cut(family), cut(v4), cut(v6) if any_v6 else None)
            else:
                values, absent = arrays
                columns[word.name] = IntColumn(cut(values), cut(absent) if absent[:rows].any() else None)
        family = cut(self.family)
        _pool.give("u1", self.family)
        for word, arrays in zip(self.words, self.arrays, strict=True):
            for kind, array in zip(_kinds(word), arrays, strict=True):
                _pool.give(kind, array)
        self.family = _NO_ROWS
        self.arrays = []
        return columns, family


_NO_ROWS: NDArray[np.uint8] = np.empty(0, np.uint8)
