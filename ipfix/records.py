"""Records: data records of one template in octets, and how columns become them.

In: a template and one column a field. Out: `Records`, octets ready to be put into sets. Everything is done a column at
a time, so a million records cost no Python. Never: silent truncation; what does not fit is a named error.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ColumnError, ValueRangeError
from .templates import fixed_dtype
from .values import with_length

if TYPE_CHECKING:
    from .templates import Field, Template

_CHUNK = 4096  # records of variable length laid out in one step
_CHUNK_OCTETS = 1 << 22  # the most working memory of a step; one with a long value is halved until it fits
_NTP_EPOCH = 2_208_988_800  # seconds from 1900 to 1970 (RFC 7011 section 6.1.9)


class VariableColumn:
    """A dictionary-encoded column: record i has `values[codes[i]]`. Each distinct value is encoded once."""

    __slots__ = ("codes", "values")

    def __init__(self, codes: NDArray[Any], values: Sequence[bytes | str]) -> None:
        self.codes = np.asarray(codes)
        self.values = values
        if self.codes.ndim != 1 or self.codes.dtype.kind not in "ui":
            raise ColumnError(f"codes must be one-dimensional integers, not {self.codes.dtype}{self.codes.shape}")
        if self.codes.size and not 0 <= int(self.codes.min()) <= int(self.codes.max()) < len(values):
            raise ColumnError(f"a code is outside of 0..{len(values) - 1}, the values there are")

    @classmethod
    def of(cls, values: Sequence[Any]) -> VariableColumn:
        """A plain list, encoded here. Costs Python for every record; a column with codes does not."""
        distinct: dict[bytes | str, int] = {}
        for value in values:
            if not isinstance(value, (bytes, str)):
                raise ColumnError(f"strings and octets are bytes or text, not {type(value).__name__}")
        codes = np.fromiter((distinct.setdefault(value, len(distinct)) for value in values), np.int64, len(values))
        return cls(codes, tuple(distinct))

    def __len__(self) -> int:
        return len(self.codes)


Column: TypeAlias = ArrayLike | VariableColumn


class Records:
    """Data records of one template, back to back. Slices share the octets.

    A caller who fills `rows = np.empty(n, template.dtype)` wraps it as `Records(template, rows)`: no copy is made,
    so `rows` must not change before the records were packed.
    """

    __slots__ = ("count", "ends", "length", "octets", "template")

    template: Template
    octets: NDArray[np.uint8]
    count: int
    length: int | None  # of each record, None when it varies
    ends: NDArray[np.int64] | None  # where each record ends in `octets`, when the length varies

    def __init__(self, template: Template, rows: NDArray[Any], ends: NDArray[np.int64] | None = None) -> None:
        self.template = template
        self.length = template.record_length
        self.ends = ends
        if self.length is None:
            if ends is None or rows.dtype != np.uint8 or rows.ndim != 1:
                raise ColumnError(f"records of template {template.id} need octets and the end of each record")
            if int(ends[-1] if len(ends) else 0) != len(rows):
                raise ColumnError(f"the last record of template {template.id} does not end where the octets end")
            self.octets, self.count = rows, len(ends)
        else:
            right = rows.dtype is template.dtype or rows.dtype == template.dtype
            if ends is not None or rows.ndim != 1 or not right:
                raise ColumnError(f"rows of template {template.id} must have its dtype and one dimension")
            self.octets = np.ascontiguousarray(rows).view(np.uint8)
            self.count = len(rows)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, part: slice) -> Records:
        start, stop, step = part.indices(self.count)
        if step != 1:
            raise ColumnError("records are sliced in order, step 1")
        stop = max(start, stop)
        some = Records.__new__(Records)
        some.template, some.length, some.count = self.template, self.length, stop - start
        if self.ends is None:
            length = self.length or 0
            some.octets, some.ends = self.octets[start * length : stop * length], None
        else:
            first = int(self.ends[start - 1]) if start else 0
            some.ends = self.ends[start:stop] - first
            some.octets = self.octets[first : first + (int(some.ends[-1]) if some.count else 0)]
        return some

    def __repr__(self) -> str:
        return f"<{self.count} records of template {self.template.id}, {self.octets.size} octets>"


def lay_out(template: Template, columns: Mapping[str, Column], count: int | None = None) -> Records:
    """One column for each name of the template: an array, a list, or one scalar for all records.

    Numbers are integers (or floats) of any NumPy type that hold values which fit; addresses are integers (IPv4), arrays
    of octets (n, 16) or (n, 6), or text; times are integers as on the wire, or datetime64; booleans are bool. Strings
    and octetArrays are a `VariableColumn` or a list. `count` is needed only when every column is a scalar.
    """
    if columns.keys() != set(template.names):
        lacks = [name for name in template.names if name not in columns]
        surplus = [name for name in columns if name not in template.names]
        raise ColumnError(f"template {template.id}: columns lacking: {lacks}, columns not in it: {surplus}")
    fields = dict(zip(template.names, template.fields, strict=True))
    given = {name: _as_column(field, columns[name]) for name, field in fields.items()}
    count = _count(template, given, count)

    fixed = {name: field for name, field in fields.items() if not field.is_variable}
    all_fixed = len(fixed) == len(fields)
    rows = np.empty(count, template.dtype if all_fixed else fixed_dtype(fixed, fixed.values()))
    for name, field in fixed.items() if count else ():  # an empty list has no type to object to
        try:
            _fill(rows, name, field, given[name])
        except (ColumnError, ValueRangeError) as error:
            raise type(error)(f"template {template.id}, column {name}: {error}") from None
        except (TypeError, ValueError, OverflowError) as error:  # from NumPy or ipaddress, on what was handed over
            raise ColumnError(f"template {template.id}, column {name}: {error}") from error
    if all_fixed:
        return Records(template, rows)
    return _lay_out_variable(template, given, rows, count)


def _as_column(field: Field, column: Column) -> NDArray[Any] | VariableColumn:
    if isinstance(column, VariableColumn):
        return column
    if field.element.default_length != 65535:
        try:
            array = np.asarray(column)
            if (
                array.dtype.kind == "f"
                and not isinstance(column, np.ndarray)
                and "float" not in field.element.data_type
            ):
                # NumPy makes floats of a list with integers on both sides of 2^63; as objects they stay what they are.
                array = np.asarray(column, dtype=object)
            return array
        except (TypeError, ValueError, OverflowError) as error:
            raise ColumnError(f"column {field.element.name}: {error}") from error
    if isinstance(column, (bytes, str)):
        return np.asarray(column, dtype=object)  # an object, as NumPy's own strings would drop zeros at the end
    if isinstance(column, np.ndarray) and column.dtype.kind in "uSU":
        return column
    if isinstance(column, np.ndarray) and column.ndim == 1:
        return VariableColumn.of(column.tolist())
    if isinstance(column, Sequence):
        return VariableColumn.of(column)
    raise ColumnError(f"column {field.element.name} needs bytes, text or a VariableColumn, not {type(column).__name__}")


def _count(template: Template, columns: Mapping[str, NDArray[Any] | VariableColumn], count: int | None) -> int:
    for name, field in zip(template.names, template.fields, strict=True):
        column = columns[name]
        if isinstance(column, np.ndarray) and (column.ndim == 0 or (column.ndim == 1 and _is_row(field, column))):
            continue  # a scalar
        if count is None:
            count = len(column)
        elif count != len(column):
            raise ColumnError(f"template {template.id}: column {name} has {len(column)} records, others have {count}")
    if count is None:
        raise ColumnError(f"template {template.id}: every column is a scalar, so say how many records there are")
    return count


def _is_row(field: Field, column: NDArray[Any]) -> bool:
    """Whether this is one value in octets (an IPv6 address, say) and not one number a record."""
    return column.dtype == np.uint8 and field.element.data_type in ("ipv6Address", "macAddress", "octetArray")


def _fill(rows: NDArray[Any], name: str, field: Field, column: NDArray[Any] | VariableColumn) -> None:
    kind, length = field.element.data_type, field.length
    if isinstance(column, VariableColumn) or field.element.default_length == 65535:
        rows[name] = _fixed_octets(field, column)
    elif kind == "boolean":
        rows[name] = _booleans(column)
    elif kind.startswith("float"):
        rows[name] = _floats(column, length)
    elif kind == "ipv6Address" or kind == "macAddress" or (kind == "ipv4Address" and column.dtype.kind in "OUS"):
        octets = _addresses(column, kind, length)
        rows[name] = octets.view(">u4")[..., 0] if kind == "ipv4Address" else octets
    else:
        signed = kind.startswith("signed")
        if column.dtype.kind == "M":
            column = _times(column, kind)
        if length > 8 or column.dtype == object:
            rows[name] = _big_integers(column, length, signed).view(rows.dtype[name].base)
            return
        _check_integers(column, length, signed)
        if length in (1, 2, 4, 8):
            rows[name] = column
        else:  # reduced to a length no machine has: the low octets of the next larger one (RFC 7011 section 6.2)
            wide = np.ascontiguousarray(column, dtype=">i8" if signed else ">u8").reshape(column.shape)
            rows[name] = wide[..., np.newaxis].view(np.uint8)[..., 8 - length :]


def _check_integers(column: NDArray[Any], length: int, signed: bool) -> None:
    if column.dtype.kind not in "ui":
        raise ColumnError(f"needs integers, not {column.dtype}")
    low, high = (-(1 << 8 * length - 1), (1 << 8 * length - 1) - 1) if signed else (0, (1 << 8 * length) - 1)
    held = np.iinfo(column.dtype)
    if not column.size or (held.min >= low and held.max <= high):
        return  # every value of the column's own type fits
    least, most = int(column.min()), int(column.max())
    if least < low or most > high:
        raise ValueRangeError(f"{least if least < low else most} does not fit into {length} octets ({low}..{high})")


def _big_integers(column: NDArray[Any], length: int, signed: bool) -> NDArray[np.uint8]:
    """Python integers (unsigned256, or lists NumPy has no type for), one by one."""
    values = column.reshape(-1).tolist()
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ColumnError(f"needs integers, not {type(value).__name__}")
    try:
        octets = b"".join(value.to_bytes(length, "big", signed=signed) for value in values)
    except OverflowError:
        raise ValueRangeError(f"a value does not fit into {length} octets") from None
    shape = column.shape if length in (1, 2, 4, 8) else (*column.shape, length)
    kind = f"{'i' if signed else 'u'}{length}" if length in (1, 2, 4, 8) else "u1"
    return np.frombuffer(octets, f">{kind}").reshape(shape)


def _booleans(column: NDArray[Any]) -> NDArray[Any]:
    """True is 1 and false is 2 (RFC 7011 section 6.1.5)."""
    if column.dtype.kind == "b":
        return np.where(column, np.uint8(1), np.uint8(2))
    if column.dtype.kind not in "ui" or not np.isin(column, (1, 2)).all():
        raise ValueRangeError("a boolean is a bool, or 1 (true) or 2 (false)")
    return column


def _floats(column: NDArray[Any], length: int) -> NDArray[Any]:
    if column.dtype.kind not in "fui":
        raise ColumnError(f"needs floats, not {column.dtype}")
    with np.errstate(over="ignore"):
        fitted = column.astype(f">f{length}")
    if not (np.isfinite(fitted) | ~np.isfinite(column)).all():
        raise ValueRangeError(f"a value is too large for a float of {length} octets")
    return fitted


def _times(column: NDArray[Any], kind: str) -> NDArray[Any]:
    """datetime64 to what the wire has (RFC 7011 section 6.1.7 to 6.1.10)."""
    if np.isnat(column).any():
        raise ValueRangeError("not a time (NaT) cannot be sent")
    if kind == "dateTimeSeconds":
        return column.astype("M8[s]").astype(np.int64)
    if kind == "dateTimeMilliseconds":
        return column.astype("M8[ms]").astype(np.int64)
    if not kind.startswith("dateTime"):
        raise ColumnError(f"a {kind} is not a time")
    seconds, rest = np.divmod(column.astype("M8[ns]").astype(np.int64), 1_000_000_000)
    seconds += _NTP_EPOCH
    if seconds.size and not 0 <= int(seconds.min()) <= int(seconds.max()) <= 0xFFFFFFFF:
        raise ValueRangeError("a time is outside of 1900 to 2036, which is all the NTP format can say")
    fraction = (rest << 32) // 1_000_000_000
    if kind == "dateTimeMicroseconds":
        fraction &= ~0x7FF  # the 11 low bits say nothing (RFC 7011 section 6.1.9)
    result: NDArray[Any] = (seconds.astype(np.uint64) << np.uint64(32)) | fraction.astype(np.uint64)
    return result


def _addresses(column: NDArray[Any], kind: str, length: int) -> NDArray[np.uint8]:
    """Octets (n, length) from octets, from NumPy void of that length, or from text and ipaddress objects."""
    if column.dtype == np.uint8 and column.ndim and column.shape[-1] == length:
        return column
    if column.dtype.kind == "V" and column.dtype.itemsize == length:
        return np.ascontiguousarray(column).view(np.uint8).reshape(*column.shape, length)
    if column.dtype.kind not in "OUS":
        raise ColumnError(f"a {kind} needs octets (n, {length}) or text, not {column.dtype}{column.shape}")
    octets = b"".join(_address(value, kind, length) for value in column.reshape(-1).tolist())
    return np.frombuffer(octets, np.uint8).reshape(*column.shape, length)


def _address(value: object, kind: str, length: int) -> bytes:
    if isinstance(value, bytes) and len(value) == length:
        return value
    text = value.decode() if isinstance(value, bytes) else str(value)
    if kind == "macAddress":
        octets = bytes.fromhex(text.replace(":", "").replace("-", ""))
        if len(octets) != 6:
            raise ValueRangeError(f"{text!r} is not a MAC address")
        return octets
    return ipaddress.IPv4Address(text).packed if kind == "ipv4Address" else ipaddress.IPv6Address(text).packed


def _fixed_octets(field: Field, column: NDArray[Any] | VariableColumn) -> NDArray[Any]:
    """Strings and octetArrays at a fixed length. Strings are padded with zeros; octetArrays must have the length."""
    kind, length = field.element.data_type, field.length
    if field.element.default_length != 65535:
        raise ColumnError(f"a {kind} is not made of strings")
    if isinstance(column, np.ndarray) and column.dtype == np.uint8 and kind != "string":
        if not column.ndim or column.shape[-1] != length:
            raise ColumnError(f"needs octets (n, {length}), not {column.shape}")
        return column
    if isinstance(column, np.ndarray):
        column = _variable(column, column.size)
    table = bytearray()
    for value in column.values:
        octets = _octets(value)
        if len(octets) > length or (kind != "string" and len(octets) != length):
            raise ValueRangeError(f"{octets[:40]!r} has {len(octets)} octets where the template says {length}")
        table += octets.ljust(length, b"\0")
    values = np.frombuffer(bytes(table), f"S{length}" if kind == "string" else np.dtype(("u1", (length,))))
    chosen: NDArray[Any] = values[column.codes]
    return chosen


def _variable(column: NDArray[Any] | VariableColumn, count: int) -> VariableColumn:
    """Any form of a string column as a VariableColumn of `count` records."""
    if isinstance(column, VariableColumn):
        return column
    if column.ndim == 0:
        return VariableColumn(np.zeros(count, np.int64), [column.item()])
    if column.dtype.kind in "SU":
        values, codes = np.unique(column, return_inverse=True)
        return VariableColumn(codes.reshape(-1), values.tolist())
    if column.dtype == np.uint8:
        matrix = np.ascontiguousarray(column if column.ndim == 2 else np.broadcast_to(column, (count, column.size)))
        return VariableColumn.of([row.tobytes() for row in matrix])
    raise ColumnError(f"strings and octets are bytes or text, not {column.dtype}")


def _octets(value: bytes | str) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ColumnError(f"strings and octets are bytes or text, not {type(value).__name__}")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ValueRangeError(f"{value[:40]!r} cannot be written in UTF-8 (RFC 7011 section 6.1.6)") from None


class _Values:
    """A column of variable length, each distinct value encoded once behind its length (RFC 7011 section 7)."""

    __slots__ = ("codes", "octets", "sizes", "starts")

    def __init__(self, column: VariableColumn) -> None:
        octets = bytearray()
        sizes = []
        for value in map(_octets, column.values):
            if len(value) > 65535:
                raise ValueRangeError(f"a value of {len(value)} octets is longer than the 65535 a length can say")
            before = len(octets)
            octets += with_length(value)
            sizes.append(len(octets) - before)
        self.codes = column.codes
        self.octets = np.frombuffer(bytes(octets), np.uint8)
        self.sizes = np.array(sizes, np.int64)
        self.starts = np.cumsum(self.sizes) - self.sizes


def _lay_out_variable(
    template: Template, columns: Mapping[str, NDArray[Any] | VariableColumn], rows: NDArray[Any], count: int
) -> Records:
    """Records of different lengths, without Python for each; `rows` are their fixed fields."""
    pieces: list[slice | _Values] = []  # of a record: slices of its fixed octets, and values
    sizes = np.full(count, rows.dtype.itemsize, np.int64)
    at = 0
    for name, field in zip(template.names, template.fields, strict=True):
        if field.is_variable:
            try:
                values = _Values(_variable(columns[name], count))
            except (ColumnError, ValueRangeError) as error:
                raise type(error)(f"template {template.id}, column {name}: {error}") from None
            pieces.append(values)
            sizes += values.sizes[values.codes]
        else:
            last = pieces[-1] if pieces else None
            if isinstance(last, slice):
                pieces[-1] = slice(last.start, at + field.length)
            else:
                pieces.append(slice(at, at + field.length))
            at += field.length
    ends = np.cumsum(sizes)
    slack = rows.dtype.itemsize + max(int(piece.sizes.max(initial=0)) for piece in pieces if isinstance(piece, _Values))
    for piece in pieces:
        if isinstance(piece, _Values):
            piece.octets = np.append(piece.octets, np.zeros(slack, np.uint8))
    octets = np.empty((int(ends[-1]) if count else 0) + slack, np.uint8)
    fixed = rows.view(np.uint8).reshape(count, at) if at else np.empty((count, 0), np.uint8)
    todo = [slice(first, min(count, first + _CHUNK)) for first in range(0, count, _CHUNK)][::-1]
    while todo:
        chunk = todo.pop()
        middle = (chunk.start + chunk.stop) // 2
        if not _write(octets, ends[chunk] - sizes[chunk], fixed, pieces, chunk):
            todo += [slice(middle, chunk.stop), slice(chunk.start, middle)]
    return Records(template, octets[: octets.size - slack], ends)


def _write(
    octets: NDArray[np.uint8],
    starts: NDArray[np.int64],
    fixed: NDArray[np.uint8],
    pieces: Sequence[slice | _Values],
    chunk: slice,
) -> bool:
    """Writes a chunk of records, piece after piece, each as wide as the widest of the chunk.

    What a piece has too much lands where later pieces go and is overwritten by them, as they are written in order; only
    the very last one needs room behind it. False, and nothing done, when one long value would make that a detour.
    """
    count = len(starts)
    places = np.empty((count, len(pieces) + 1), np.int64)
    places[:, 0] = starts
    width = 1
    for number, piece in enumerate(pieces):
        sizes = piece.stop - piece.start if isinstance(piece, slice) else piece.sizes[piece.codes[chunk]]
        width = max(width, int(np.max(sizes)))
        np.add(places[:, number], sizes, out=places[:, number + 1])
    if count > 1 and count * len(pieces) * width > _CHUNK_OCTETS:
        return False
    wide = np.empty((count, len(pieces), width), np.uint8)
    items = _windows(wide, width, width).reshape(count, len(pieces))
    for number, piece in enumerate(pieces):
        if isinstance(piece, slice):
            wide[:, number, : piece.stop - piece.start] = fixed[chunk, piece]
        else:
            items[:, number] = _windows(piece.octets, width, 1)[piece.starts[piece.codes[chunk]]]
    _windows(octets, width, 1)[places[:, :-1].ravel()] = items.ravel()
    return True


def _windows(octets: NDArray[np.uint8], width: int, stride: int) -> NDArray[np.void]:
    """All runs of `width` octets, one beginning every `stride` octets: a view, each run one item."""
    count = (octets.size - width) // stride + 1
    return np.ndarray((count,), f"V{width}", octets.data, strides=(stride,))
