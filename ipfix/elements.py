"""Information elements: what a field of a record means and which abstract data type it has.

In: names, or numbers read from a template. Out: `InformationElement`. The registry of IANA (RFC 7012) is a data file
beside this module, read on first use; enterprise elements are added by the caller. Never: octets, templates, values.
"""

from __future__ import annotations

import csv
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .errors import ElementError, UnknownElementError

VARIABLE_LENGTH = 65535
"""The field length that says: each value carries its own length (RFC 7011 section 7)."""

REVERSE_PEN = 29305
"""Enterprise number under which every IANA element means the other direction of a biflow (RFC 5103 section 6.1)."""

_NATURAL_LENGTHS = {  # RFC 7011 section 6.1; unsigned256 is RFC 9740's; the lists are RFC 6313's
    "unsigned8": 1,
    "unsigned16": 2,
    "unsigned32": 4,
    "unsigned64": 8,
    "unsigned256": 32,
    "signed8": 1,
    "signed16": 2,
    "signed32": 4,
    "signed64": 8,
    "float32": 4,
    "float64": 8,
    "boolean": 1,
    "macAddress": 6,
    "ipv4Address": 4,
    "ipv6Address": 16,
    "dateTimeSeconds": 4,
    "dateTimeMilliseconds": 8,
    "dateTimeMicroseconds": 8,
    "dateTimeNanoseconds": 8,
    "octetArray": VARIABLE_LENGTH,
    "string": VARIABLE_LENGTH,
    "basicList": VARIABLE_LENGTH,
    "subTemplateList": VARIABLE_LENGTH,
    "subTemplateMultiList": VARIABLE_LENGTH,
}

DATA_TYPES = frozenset(_NATURAL_LENGTHS)


@dataclass(frozen=True, slots=True)
class InformationElement:
    """One element. `pen` is the private enterprise number of who defined it, 0 for IANA."""

    name: str
    id: int
    data_type: str
    pen: int = 0
    semantics: str = "default"
    units: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ElementError(f"element {self.id} of enterprise {self.pen} has no name")
        if not 0 <= self.id <= 0x7FFF:  # 15 bits on the wire (RFC 7011 section 3.2)
            raise ElementError(f"element {self.name}: id {self.id} is not in 0..32767")
        if not 0 <= self.pen <= 0xFFFFFFFF:
            raise ElementError(f"element {self.name}: enterprise number {self.pen} is not in 0..4294967295")
        if self.data_type not in DATA_TYPES:
            raise ElementError(f"element {self.name}: unknown data type {self.data_type!r}")

    @property
    def default_length(self) -> int:
        """The natural length in octets; 65535 (variable) for strings, octetArrays and lists."""
        return _NATURAL_LENGTHS[self.data_type]

    @property
    def spec(self) -> str:
        """For people and logs: `octetDeltaCount(1)<unsigned64>`, `sparkle(32473/600)<string>`."""
        number = f"{self.pen}/{self.id}" if self.pen else str(self.id)
        return f"{self.name}({number})<{self.data_type}>"


class ElementRegistry:
    """Elements by name and by number. Looking up never adds anything, so strangers cannot make it grow."""

    def __init__(
        self,
        elements: Iterable[InformationElement] = (),
        *,
        load: Callable[[], Iterable[InformationElement]] | None = None,
    ) -> None:
        self._load = load
        self._names: dict[str, InformationElement] = {}
        self._numbers: dict[tuple[int, int], InformationElement] = {}
        for element in elements:
            self.add(element)

    def extended(self, *elements: InformationElement) -> ElementRegistry:
        """A copy of this registry with more elements in it: how enterprise elements are best brought in."""
        return ElementRegistry((*self, *elements))

    def add(self, element: InformationElement) -> InformationElement:
        """Adds an element; the same one twice is fine, another one under its name or number is not."""
        self._loaded()
        for known in (self._names.get(element.name), self._numbers.get((element.pen, element.id))):
            if known is not None and known != element:
                raise ElementError(f"{element.spec} is already {known.spec}")
        self._names[element.name] = self._numbers[element.pen, element.id] = element
        return element

    def get(self, name: str) -> InformationElement | None:
        """The element of this name, or None. `reverseX` is derived from `x` (RFC 5103 section 6.1)."""
        self._loaded()
        found = self._names.get(name)
        if found is None and name.startswith("reverse") and name[7:8].isupper():
            forward = self._names.get(name[7].lower() + name[8:])
            if forward is not None and not forward.pen:
                return _reverse(forward)
        return found

    def by_name(self, name: str) -> InformationElement:
        found = self.get(name)
        if found is None:
            raise UnknownElementError(f"no information element is called {name!r}")
        return found

    def by_id(self, id: int, pen: int = 0) -> InformationElement:
        """The element of this number. One that nobody defined is an octetArray called `element_PEN_ID`."""
        return self.defined(id, pen) or InformationElement(f"element_{pen}_{id}", id, "octetArray", pen)

    def defined(self, id: int, pen: int = 0) -> InformationElement | None:
        """The element of this number, or None when nobody defined it."""
        self._loaded()
        found = self._numbers.get((pen, id))
        if found is None and pen == REVERSE_PEN and (0, id) in self._numbers:
            return _reverse(self._numbers[0, id])
        return found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[InformationElement]:
        self._loaded()
        return iter(tuple(self._numbers.values()))

    def __len__(self) -> int:
        self._loaded()
        return len(self._numbers)

    def _loaded(self) -> None:
        if self._load is not None:
            load, self._load = self._load, None
            for element in load():
                self.add(element)


def _reverse(forward: InformationElement) -> InformationElement:
    name = "reverse" + forward.name[0].upper() + forward.name[1:]
    return InformationElement(name, forward.id, forward.data_type, REVERSE_PEN, forward.semantics, forward.units)


def _iana() -> Iterator[InformationElement]:
    text = (pkgutil.get_data(__package__, "iana-elements.csv") or b"").decode()
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    for row in csv.DictReader(lines):
        yield InformationElement(row["name"], int(row["id"]), row["type"], 0, row["semantics"], row["units"])


IANA = ElementRegistry(load=_iana)
"""The registry of IANA. To bring in enterprise elements without changing it for everybody: `IANA.extended(...)`."""
