"""Parquet to columns: the schema is the layout, row groups are read a stretch at a time.

In come the octets of a file, which are put aside (in memory while small, else in a temporary file), because Parquet is
read from its end. Out come the same columns as from text, with the same checks. AWS writes INT_32, INT_64 and strings,
null for a missing integer and `-` for a missing string; what other tools make of it (integers as strings or floats,
`None`, account ids as numbers) is read as well. A row is malformed for the same reasons as a line. Where Firehose has
converted `{"message": "2 1234 ..."}` as it came, there is a column of lines and no other: they come out as text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edfn_agent.formats.batch import AddressColumn, Column, Counts, Dictionary, IntColumn, StringColumn
from edfn_agent.formats.columns import (
    ADDRESS,
    DICTIONARY_ENTRIES,
    MILLISECONDS_FROM,
    SKIP,
    STRING,
    TIME,
    Word,
    words,
)
from edfn_agent.formats.errors import CorruptInput, MissingExtra, NotAFlowLog, TruncatedInput
from edfn_agent.formats.fields import BY_NAME
from edfn_agent.formats.layout import Layout
from edfn_agent.formats.text import Malformed, printable, read_address, read_integer

IN_MEMORY = 16 << 20
"""Octets of a file that are kept in memory; a larger one goes to a temporary file."""

LINES = "message"
"""The column of a file that Firehose made of a flow log's records without taking them apart."""

_BUFFER = 256 * 1024  # octets of a column that are read at a time
_ABSENT = frozenset((b"-", b"", b"None", b"null", b"nan", b"NaN"))  # of numbers and addresses written as strings

Bools = NDArray[np.bool_]


@dataclass(slots=True)
class Part:
    """Some rows of a file; `bad` has the first malformed ones as (record number, reason, text)."""

    layout: Layout
    rows: int
    columns: dict[str, Column]
    family: NDArray[np.uint8]
    counts: Counts
    bad: list[tuple[int, str, str]]


def parts(pieces: Iterator[bytes], wanted: Collection[str] | None, rows: int, shown: int) -> Iterator[Part | bytes]:
    """Read a file in parts of at most `rows` rows. At least one part comes out, be it without rows.

    Octets are lines of a file that has the lines themselves.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MissingExtra("reading Parquet needs pyarrow: pip install 'edfn-agent[parquet]'") from None

    with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
        _put_aside(pieces, file)
        try:
            source = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER)
            if _holds_lines(source.schema_arrow):
                yield b""
                for stretch in source.iter_batches(rows, columns=[LINES], use_threads=False):
                    yield b"\n".join(_text(line).rstrip(b"\r\n") for line in stretch.column(0).drop_null().to_pylist())
                return
            layout, places = _layout_of(source.schema_arrow)
            plan = words(layout, wanted)
            chosen = [
                (each, place) for each, place in zip(plan, places, strict=True) if each.job != SKIP or each.status
            ]
            names = [source.schema_arrow.names[place] for _, place in chosen]
            table = _Rows([word for word, _ in chosen], layout, shown)
            yield table.part({})
            if names:
                for stretch in source.iter_batches(rows, columns=names, use_threads=False):
                    yield table.part(dict(zip(stretch.schema.names, stretch.columns, strict=True)), names)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # pyarrow raises them all on damage
            raise CorruptInput(f"Parquet: {str(error).splitlines()[0] if str(error) else 'unreadable'}") from None


def _put_aside(pieces: Iterator[bytes], file: IO[bytes]) -> None:
    for piece in pieces:
        file.write(piece)
    size = file.tell()
    file.seek(max(0, size - 4))
    end = file.read(4)
    if end == b"PARE":
        raise NotAFlowLog("a Parquet file with an encrypted footer")
    if size < 12 or end != b"PAR1":
        raise TruncatedInput("Parquet: it ends before its footer")
    file.seek(0)


def _holds_lines(schema: Any) -> bool:
    import pyarrow.types as kinds

    if LINES not in schema.names or any(name.replace("_", "-").lower() in BY_NAME for name in schema.names):
        return False
    kind = schema.field(LINES).type
    return bool(kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_binary(kind))


def _layout_of(schema: Any) -> tuple[Layout, list[int]]:
    """The layout that a schema says, and which of its columns each field is."""
    import pyarrow.types as kinds

    found: dict[str, int] = {}
    for place, column in enumerate(schema):
        if not kinds.is_nested(column.type):
            found.setdefault(column.name.replace("_", "-").lower(), place)
    known = sum(1 for name in found if name in BY_NAME)
    if not known or (known < 2 and len(found) > 1):
        names = ", ".join(printable(name.encode("utf-8", "replace")) for name in schema.names[:6])
        raise NotAFlowLog(f"Parquet, but its columns are no flow-log fields ({names})")
    return Layout(tuple(found)), list(found.values())


class _Rows:
    """Turns stretches of Arrow columns into parts. Dictionaries live as long as the file, unless they grow too much."""

    def __init__(self, plan: list[Word], layout: Layout, shown: int) -> None:
        self._plan = plan
        self._layout = layout
        self._shown = shown
        self._number = 0  # of records read
        self._codes: dict[str, dict[bytes, int]] = {}
        self._dictionaries: dict[str, Dictionary] = {}

    def part(self, arrays: dict[str, Any], names: list[str] | None = None) -> Part:
        """The next stretch; the columns of `arrays` are those of the plan, called `names`."""
        in_order = [arrays[name] for name in names] if names else []
        rows = len(in_order[0]) if in_order else 0
        nothing: Bools = np.zeros(rows, np.bool_)
        faults: list[Bools] = []
        columns: dict[str, Column] = {}
        four, six, endpoint, nodata, skipdata = (nothing.copy() for _ in range(5))
        for word, array in zip(self._plan, in_order, strict=bool(names)):
            if word.job == STRING or word.status:
                column = self._strings(word, array)
                columns[word.name] = column
                faults.append(nothing)
                if word.status:
                    known = self._codes[word.name]
                    nodata = column.codes == known.get(b"NODATA", -1)
                    skipdata = column.codes == known.get(b"SKIPDATA", -1)
            elif word.job == ADDRESS:
                addresses, fault = _addresses(array)
                columns[word.name] = addresses
                faults.append(fault)
                four |= addresses.family == 4
                six |= addresses.family == 6
                if word.endpoint:
                    endpoint |= addresses.family != 0
            else:
                columns[word.name], fault = _integers(word, array)
                faults.append(fault)
        both = four & six
        malformed: Bools = np.logical_or.reduce([both, *faults]) if faults else both
        malformed &= ~(nodata | skipdata)
        rest = ~(malformed | nodata | skipdata)
        flows = rest & endpoint
        counts = Counts(
            flows=int(flows.sum()),
            nodata=int(nodata.sum()),
            skipdata=int(skipdata.sum()),
            without_addresses=int((rest & ~endpoint).sum()),
            malformed=int(malformed.sum()),
        )
        bad = [
            (
                self._number + row + 1,
                *self._explain([array.slice(row, 1) for array in in_order], [bool(f[row]) for f in faults]),
            )
            for row in np.flatnonzero(malformed)[: self._shown].tolist()
        ]
        self._shown -= len(bad)
        self._number += rows
        kept = {word.name: _rows_of(columns[word.name], flows) for word in self._plan if word.kept and in_order}
        return Part(self._layout, counts.flows, kept, np.where(six, 6, 4).astype(np.uint8)[flows], counts, bad)

    def _strings(self, word: Word, array: Any) -> StringColumn:
        codes = self._codes.get(word.name)
        if codes is None or len(codes) > DICTIONARY_ENTRIES:
            dictionary = self._dictionaries[word.name] = Dictionary()
            codes = self._codes[word.name] = {value: code for code, value in enumerate(dictionary.values)}
            codes[b""] = 0
        values = self._dictionaries[word.name].values
        distinct, places = _distinct(array, digits=12 if word.name.endswith("account-id") else 0)
        mapped = np.zeros(len(distinct) + 1, np.uint32)  # the last one is null
        for place, value in enumerate(distinct):
            code = codes.get(value)
            if code is None:
                code = codes[value] = len(values)
                values.append(value)
            mapped[place] = code
        return StringColumn(mapped[places], self._dictionaries[word.name])

    def _explain(self, values: list[Any], faulty: list[bool]) -> tuple[str, str]:
        texts = [next(iter(_distinct(value)[0]), b"-") for value in values]
        whole = printable(b" ".join(texts))
        for word, text, fault in zip(self._plan, texts, faulty, strict=True):
            if fault and word.job == ADDRESS:
                return f"{word.name}: {printable(text)} is not an address", whole
            if fault:
                try:
                    read_integer(word, text)
                except Malformed as error:
                    return str(error), whole
                return f"{word.name}: {printable(text)} is not a number", whole
        return "IPv4 and IPv6 addresses in one line", whole


def _text(value: Any) -> bytes:
    if value is None:
        return b"-"
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _distinct(array: Any, digits: int = 0) -> tuple[list[bytes], NDArray[np.int64]]:
    """The distinct values of a column as octets, and which one each row has (null: one past the last)."""
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if kinds.is_timestamp(array.type):
        array = array.cast(pa.timestamp(array.type.unit))  # as UTC: other zones need a database of them
    if kinds.is_temporal(array.type) and not kinds.is_interval(array.type):
        array = array.cast(pa.string())  # Python's times know no nanoseconds, and no year after 9999
    if kinds.is_large_string(array.type) or kinds.is_large_binary(array.type):
        array = array.cast(pa.large_binary())
    elif kinds.is_string(array.type):
        array = array.cast(pa.binary())
    encoded = array.dictionary_encode()
    distinct = [_text(value) for value in encoded.dictionary.to_pylist()]
    if digits and kinds.is_integer(array.type):  # an account id that lost its leading zeros
        distinct = [value.zfill(digits) for value in distinct]
    places = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False).astype(np.int64)
    return distinct, places


def _addresses(array: Any) -> tuple[AddressColumn, Bools]:
    distinct, places = _distinct(array)
    family = np.zeros(len(distinct) + 1, np.uint8)
    v4 = np.zeros(len(distinct) + 1, np.uint32)
    v6 = np.zeros((len(distinct) + 1, 16), np.uint8)
    fault = np.zeros(len(distinct) + 1, np.bool_)
    for place, value in enumerate(distinct):
        if value in _ABSENT:
            continue
        address = read_address(value)
        if address is None:
            fault[place] = True
        else:
            family[place] = address.version
            if address.version == 4:
                v4[place] = int(address)
            else:
                v6[place] = list(address.packed)
    any_v6 = bool((family == 6).any())
    return AddressColumn(family[places], v4[places], v6[places] if any_v6 else None), fault[places]


def _integers(word: Word, array: Any) -> tuple[IntColumn, Bools]:
    import pyarrow as pa
    import pyarrow.types as kinds

    kind = array.type
    if kinds.is_timestamp(kind):
        array = array.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    elif kinds.is_floating(kind):
        array = array.cast(pa.float64())
        numbers = array.fill_null(float("nan")).to_numpy(zero_copy_only=False)
        absent = np.isnan(numbers)
        numbers = np.where(absent, 0, numbers)
        fault = (numbers < 0) | (numbers > min(word.maximum, 2**53)) | (numbers != np.floor(numbers))
        return _in_range(word, np.where(fault, 0, numbers).astype(np.uint64), absent, fault)
    elif not kinds.is_integer(kind):
        return _integers_from_text(word, array)
    absent = array.is_null().to_numpy(zero_copy_only=False)
    numbers = array.fill_null(0).to_numpy(zero_copy_only=False)
    fault = numbers < 0
    return _in_range(word, np.where(fault, 0, numbers).astype(np.uint64), absent, fault)


def _in_range(word: Word, values: NDArray[np.uint64], absent: Bools, fault: Bools) -> tuple[IntColumn, Bools]:
    fault = fault | (values > np.uint64(word.maximum))
    if word.job == TIME:
        values = np.where(values < np.uint64(MILLISECONDS_FROM), values * np.uint64(1000), values)
    return IntColumn(values, absent), fault


def _integers_from_text(word: Word, array: Any) -> tuple[IntColumn, Bools]:
    distinct, places = _distinct(array)
    values = np.zeros(len(distinct) + 1, np.uint64)
    absent = np.zeros(len(distinct) + 1, np.bool_)
    fault = np.zeros(len(distinct) + 1, np.bool_)
    absent[-1] = True
    for place, value in enumerate(distinct):
        if value in _ABSENT:
            absent[place] = True
            continue
        try:
            values[place] = read_integer(word, value)
        except Malformed:
            fault[place] = True
    return IntColumn(values[places], absent[places]), fault[places]


def _rows_of(column: Column, flows: Bools) -> Column:
    """The rows that are flows."""
    if isinstance(column, StringColumn):
        return StringColumn(column.codes[flows], column.dictionary)
    if isinstance(column, AddressColumn):
        v6 = None
        family = column.family[flows]
        if column.v6 is not None and (family == 6).any():
            v6 = column.v6[flows]
        return AddressColumn(family, column.v4[flows], v6)
    absent = column.absent[flows] if column.absent is not None else None
    return IntColumn(column.values[flows], absent if absent is not None and absent.any() else None)
