"""Templates: the layout of records, as it is announced on the wire and as NumPy sees it.

In: information elements with lengths. Out: template records and sets in octets (RFC 7011 section 3.4), a NumPy dtype
for records of fixed length, and `Records` from columns. Never: which templates were sent when, which is `exporting`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .elements import VARIABLE_LENGTH, InformationElement
from .errors import TemplateError

if TYPE_CHECKING:
    from .records import Column, Records

TEMPLATE_SET = 2
OPTIONS_TEMPLATE_SET = 3
FIRST_DATA_SET = 256


class Field:
    """An element at a length: its natural one unless told, 65535 for variable length."""

    __slots__ = ("element", "length")

    def __init__(self, element: InformationElement, length: int | None = None) -> None:
        self.element = element
        self.length = element.default_length if length is None else length
        if not is_length_of(element.data_type, self.length):
            raise TemplateError(f"{element.spec} cannot have a length of {self.length} octets")

    @property
    def is_variable(self) -> bool:
        return self.length == VARIABLE_LENGTH

    @property
    def wire(self) -> bytes:
        """The field specifier (RFC 7011 section 3.2): the top bit of the id says that an enterprise number follows."""
        if self.element.pen:
            return struct.pack(">HHI", self.element.id | 0x8000, self.length, self.element.pen)
        return struct.pack(">HH", self.element.id, self.length)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What one value is in a NumPy record. Integers of a length no machine has are octets, high octet first."""
        kind, length = self.element.data_type, self.length
        if kind.startswith(("unsigned", "dateTime")):
            return np.dtype(f">u{length}") if length in (1, 2, 4, 8) else np.dtype(("u1", (length,)))
        if kind.startswith("signed"):
            return np.dtype(f">i{length}") if length in (1, 2, 4, 8) else np.dtype(("u1", (length,)))
        if kind.startswith("float"):
            return np.dtype(f">f{length}")
        if kind == "ipv4Address":
            return np.dtype(">u4")
        if kind == "boolean":
            return np.dtype("u1")
        if kind == "string":
            return np.dtype(f"S{length}")  # NumPy drops the zeros that pad a string, which is what is wanted
        return np.dtype(("u1", (length,)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Field) and (self.element, self.length) == (other.element, other.length)

    def __hash__(self) -> int:
        return hash((self.element, self.length))

    def __repr__(self) -> str:
        return f"{self.element.spec}[{'variable' if self.is_variable else self.length}]"


def is_length_of(data_type: str, length: int) -> bool:
    """Whether a value may be this long. Numbers may be sent shorter than their type (RFC 7011 section 6.2)."""
    natural = InformationElement("any", 0, data_type).default_length
    if natural == VARIABLE_LENGTH:
        return 0 < length <= VARIABLE_LENGTH
    if "signed" in data_type:
        return 0 < length <= natural
    return length == natural or (data_type == "float64" and length == 4)


class Template:
    """A template: an id and fields. Elements stand for themselves at their natural length.

    `names` are the element names made unique (`x`, `x_2`, ...): keys of columns, of the dtype and of decoded records.
    """

    set_id = TEMPLATE_SET

    def __init__(self, id: int, fields: Iterable[Field | InformationElement]) -> None:
        self.id = id
        self.fields = tuple(field if isinstance(field, Field) else Field(field) for field in fields)
        if not FIRST_DATA_SET <= id <= 65535:
            raise TemplateError(f"template id {id} is not in 256..65535 (RFC 7011 section 3.4.1)")
        if not self.fields:
            raise TemplateError(f"template {id} has no fields")
        if len(self.fields) > 65535:
            raise TemplateError(f"template {id} has {len(self.fields)} fields, more than the 65535 a count can say")
        self.names = _unique_names(self.fields)

    @cached_property
    def min_record_length(self) -> int:
        """The shortest record: an empty value of variable length still is one octet (RFC 7011 section 7)."""
        return sum(1 if field.is_variable else field.length for field in self.fields)

    @cached_property
    def record_length(self) -> int | None:
        """The length of every record, or None when it varies."""
        return None if any(field.is_variable for field in self.fields) else self.min_record_length

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """One record as a packed NumPy structure in network order. Only for records of fixed length."""
        if self.record_length is None:
            raise TemplateError(f"template {self.id} has fields of variable length, so its records have no dtype")
        return fixed_dtype(self.names, self.fields)

    def wire(self) -> bytes:
        """The template record (RFC 7011 section 3.4.1)."""
        return struct.pack(">HH", self.id, len(self.fields)) + b"".join(field.wire for field in self.fields)

    def set_octets(self) -> bytes:
        """A whole template set with this template and nothing else: some collectors read only the first of several."""
        record = self.wire()
        if len(record) > 65535 - 4:
            raise TemplateError(f"template {self.id} takes {len(record)} octets, more than a set can hold")
        return struct.pack(">HH", self.set_id, 4 + len(record)) + record

    def records(self, columns: Mapping[str, Column], count: int | None = None) -> Records:
        """Columns laid out as data records; see `records.lay_out`."""
        from .records import lay_out

        return lay_out(self, columns, count)

    def _key(self) -> tuple[object, ...]:
        return (self.set_id, self.id, self.fields)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Template) and self._key() == other._key())

    def __hash__(self) -> int:
        return hash((self.set_id, self.id, len(self.fields)))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {', '.join(map(repr, self.fields))}>"


class OptionsTemplate(Template):
    """An options template: a template whose first fields, the scope, say what its records are about.

    `fields` holds all fields in the order of the record, the scope first (RFC 7011 section 3.4.2.2).
    """

    set_id = OPTIONS_TEMPLATE_SET

    def __init__(
        self,
        id: int,
        scope_fields: Iterable[Field | InformationElement],
        fields: Iterable[Field | InformationElement] = (),
    ) -> None:
        scope = tuple(scope_fields)
        if not scope:
            raise TemplateError(f"options template {id} has no scope field")
        super().__init__(id, (*scope, *fields))
        self.scope_count = len(scope)

    @property
    def scope_fields(self) -> tuple[Field, ...]:
        return self.fields[: self.scope_count]

    @property
    def option_fields(self) -> tuple[Field, ...]:
        return self.fields[self.scope_count :]

    def wire(self) -> bytes:
        head = struct.pack(">HHH", self.id, len(self.fields), self.scope_count)
        return head + b"".join(field.wire for field in self.fields)

    def _key(self) -> tuple[object, ...]:
        return (self.set_id, self.id, self.scope_count, self.fields)


def fixed_dtype(names: Iterable[str], fields: Iterable[Field]) -> np.dtype[Any]:
    """These fields of fixed length, packed."""
    return np.dtype([(name, field.dtype) for name, field in zip(names, fields, strict=True)])


def _unique_names(fields: tuple[Field, ...]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    used: dict[str, int] = {}
    for field in fields:
        name = plain = field.element.name
        while name in names:
            used[plain] = used.get(plain, 1) + 1
            name = f"{plain}_{used[plain]}"
        names[name] = None
    return tuple(names)
