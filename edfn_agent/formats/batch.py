"""FlowBatch: the records of one stretch of flow log as columns, whatever they were delivered in.

Every reader (text, Parquet, envelopes) ends in this shape, and everything behind `formats` starts from it. Columns are
NumPy arrays of one length; there is no object per record. A batch never mixes layouts, accounts or sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edfn_agent.delivery import Delivery, Origin
from edfn_agent.formats.layout import Layout


@dataclass(slots=True)
class Counts:
    """What a stretch of input held. Every line is counted once, so the parts add up to what was read."""

    flows: int = 0
    """Rows with log-status OK (or without the field) that carry an address."""
    nodata: int = 0
    skipdata: int = 0
    without_addresses: int = 0
    malformed: int = 0
    other_log_group: int = 0
    """Events in envelopes of a log group that holds no flow logs."""

    @property
    def readable(self) -> int:
        """Lines that are a flow log's."""
        return self.flows + self.nodata + self.skipdata + self.without_addresses

    def add(self, other: Counts) -> None:
        self.flows += other.flows
        self.nodata += other.nodata
        self.skipdata += other.skipdata
        self.without_addresses += other.without_addresses
        self.malformed += other.malformed
        self.other_log_group += other.other_log_group


class Dictionary:
    """The distinct values of a string column, as octets. Only grows; a reader starts a new one rather than shrink it.

    `values[code]` is the value; code 0 is always `b"-"` (absent). What is derived from values (a decoded name, an
    interface index) can be kept per code for as long as the Dictionary object lives.
    """

    __slots__ = ("__weakref__", "values")

    def __init__(self) -> None:
        self.values: list[bytes] = [b"-"]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(slots=True)
class IntColumn:
    """Integers, with what is absent (`-`, or null) as 0 and marked in `absent` (None: nothing is)."""

    values: NDArray[np.uint64]
    absent: NDArray[np.bool_] | None = None


@dataclass(slots=True)
class StringColumn:
    """Dictionary-encoded strings: the value of row i is `dictionary.values[codes[i]]`; code 0 is absent."""

    codes: NDArray[np.uint32]
    dictionary: Dictionary


@dataclass(slots=True)
class AddressColumn:
    """Addresses. `v4` (host order integers) counts in rows of family 4, `v6` (16 octets each) in rows of family 6.

    `family` is 4, 6, or 0 where the row has no address in this column. `v6` is None when no row is IPv6.
    """

    family: NDArray[np.uint8]
    v4: NDArray[np.uint32]
    v6: NDArray[np.uint8] | None = None  # shape (rows, 16)


Column = IntColumn | StringColumn | AddressColumn


@dataclass(slots=True)
class BadLine:
    """One line that was not read, for people: a sample of the first few is logged, all are counted."""

    source: str  # what a person calls the file, object or stream
    line: int  # 1-based; for Parquet and events the record's number
    reason: str
    text: str  # shortened, safe to print


@dataclass(slots=True)
class FlowBatch:
    """Flow rows only: NODATA, SKIPDATA and rows without addresses are counted and already gone.

    `deliveries` are those that have rows in it, each held once for this batch; whoever is done with the batch calls
    `release`. All addresses of a row are of one family. `columns` has every field of the layout that was asked for; a
    field that the layout lacks is not in it. Times are Unix milliseconds (`start`, `end`).
    """

    origin: Origin
    layout: Layout
    rows: int
    columns: Mapping[str, Column]
    family: NDArray[np.uint8]  # 4 or 6, per row
    counts: Counts = field(default_factory=Counts)
    bad_lines: Sequence[BadLine] = ()
    deliveries: Sequence[Delivery] = ()

    def release(self) -> None:
        """Every record of the batch has been handed over: let its deliveries go."""
        for delivery in self.deliveries:
            delivery.release()

    def integers(self, name: str) -> IntColumn | None:
        column = self.columns.get(name)
        return column if isinstance(column, IntColumn) else None

    def strings(self, name: str) -> StringColumn | None:
        column = self.columns.get(name)
        return column if isinstance(column, StringColumn) else None

    def addresses(self, name: str) -> AddressColumn | None:
        column = self.columns.get(name)
        return column if isinstance(column, AddressColumn) else None
