"""What the tests of `formats` share: deliveries out of literals, and batches as plain Python values."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edfn_agent.delivery import Delivery, Origin, Outcome
from edfn_agent.formats import text
from edfn_agent.formats.batch import AddressColumn, BadLine, Counts, FlowBatch, IntColumn
from edfn_agent.formats.errors import FormatError
from edfn_agent.formats.reader import Reader

try:
    from edfn_agent.formats import _scan
except ImportError:
    _scan = None

ENGINES = [pytest.param(text.Scanner, id="python")]
if _scan is not None:
    ENGINES.append(pytest.param(_scan.Scanner, id="compiled"))

ORIGIN = Origin("files", "test")


@dataclass
class Read:
    """What came of a delivery, the pending rows included."""

    reader: Reader
    delivery: Delivery
    batches: list[FlowBatch]
    tally: Counts
    fault: FormatError | None
    settled: list[tuple[Outcome, str]] = field(default_factory=list)

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [row for batch in self.batches for row in rows_of(batch)]

    @property
    def bad(self) -> list[BadLine]:
        return [line for batch in self.batches for line in batch.bad_lines]


def rows_of(batch: FlowBatch) -> Iterator[dict[str, Any]]:
    """The rows of a batch as dictionaries; what is absent is None."""
    assert len(batch.family) == batch.rows
    for row in range(batch.rows):
        values: dict[str, Any] = {}
        for name, column in batch.columns.items():
            if isinstance(column, IntColumn):
                assert len(column.values) == batch.rows
                absent = column.absent is not None and bool(column.absent[row])
                values[name] = None if absent else int(column.values[row])
            elif isinstance(column, AddressColumn):
                family = int(column.family[row])
                if family == 0:
                    values[name] = None
                elif family == 4:
                    values[name] = str(ipaddress.IPv4Address(int(column.v4[row])))
                else:
                    assert column.v6 is not None
                    values[name] = str(ipaddress.IPv6Address(bytes(column.v6[row])))
                assert family in (0, int(batch.family[row]))
            else:
                code = int(column.codes[row])
                values[name] = column.dictionary.values[code].decode() if code else None
        yield values


def deliver(octets: bytes, chunk: int = 1 << 20, **more: Any) -> tuple[Delivery, list[tuple[Outcome, str]]]:
    settled: list[tuple[Outcome, str]] = []
    chunks = [octets[at : at + chunk] for at in range(0, len(octets), chunk)]
    origin = more.pop("origin", ORIGIN)
    name = more.pop("name", "a-file.log")
    return Delivery(origin, name, lambda: chunks, lambda *fate: settled.append(fate), **more), settled


def read_octets(octets: bytes, chunk: int = 1 << 20, layout: Any = None, origin: Origin = ORIGIN, **more: Any) -> Read:
    reader = Reader(**more)
    delivery, settled = deliver(octets, chunk, layout=layout, origin=origin)
    batches = []
    fault = None
    try:
        reader.feed(delivery, batches.append)
    except FormatError as error:
        fault = error
    tally = reader.tally
    reader.flush(batches.append)
    counted = Counts()
    for batch in batches:
        counted.add(batch.counts)
        assert (delivery in batch.deliveries) == (batch.rows > 0)
    assert counted == tally, "every line is counted once, on some batch"
    assert sum(batch.rows for batch in batches) == tally.flows
    assert reader.pending_rows == 0
    delivery.release()
    for batch in batches:
        batch.release()
    assert [outcome for outcome, _ in settled] == [Outcome.ACKNOWLEDGED], "settled once, when the last batch is done"
    return Read(reader, delivery, batches, tally, fault, settled)


@pytest.fixture
def read() -> Callable[..., Read]:
    return read_octets


@pytest.fixture
def make_delivery() -> Callable[..., tuple[Delivery, list[tuple[Outcome, str]]]]:
    return deliver


@pytest.fixture
def as_rows() -> Callable[[FlowBatch], list[dict[str, Any]]]:
    return lambda batch: list(rows_of(batch))


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> type[text.Scanner]:
    """The scanner, in plain Python and compiled."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=ENGINES)
def both_engines(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test of the reader with each scanner."""
    monkeypatch.setattr("edfn_agent.formats.reader.Scanner", request.param)


@pytest.fixture
def samples() -> Path:
    """Flow logs that other people published; they are not part of this repository."""
    path = Path(__file__).parents[3] / "shared" / "samples"
    if not path.is_dir():
        pytest.skip("the published samples are not here (../shared/samples)")
    return path
