"""Type records (RFC 5610): what elements are, said on the wire, so that nobody needs to be taught them beforehand.

In: elements and what people should know of each. Out: options records that describe them, one an element. And back: a
record that somebody sent becomes the element it describes. Never: whether an element that is described so is believed,
which is the collecting process's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from .elements import IANA, InformationElement
from .templates import OptionsTemplate, Template

if TYPE_CHECKING:
    from .records import Column, Records
    from .values import Value

SCOPE = ("privateEnterpriseNumber", "informationElementId")
_NUMBERS = (
    *("informationElementDataType", "informationElementSemantics", "informationElementUnits"),
    *("informationElementRangeBegin", "informationElementRangeEnd"),
)
_STRINGS = ("informationElementName", "informationElementDescription")

DATA_TYPES = (
    *("octetArray", "unsigned8", "unsigned16", "unsigned32", "unsigned64", "signed8", "signed16", "signed32"),
    *("signed64", "float32", "float64", "boolean", "macAddress", "string", "dateTimeSeconds", "dateTimeMilliseconds"),
    *("dateTimeMicroseconds", "dateTimeNanoseconds", "ipv4Address", "ipv6Address", "basicList", "subTemplateList"),
    *("subTemplateMultiList", "unsigned256"),
)
"""Numbered from 0, as in IANA's registry of information element data types; so are the two that follow."""
SEMANTICS = (
    *("default", "quantity", "totalCounter", "deltaCounter", "identifier", "flags", "list", "snmpCounter", "snmpGauge"),
)
UNITS = (
    *("none", "bits", "octets", "packets", "flows", "seconds", "milliseconds", "microseconds", "nanoseconds"),
    *("4-octet words", "messages", "hops", "entries", "frames", "ports", "inferred"),
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,254}")
"""What is taken for a name: it will be shown on somebody's terminal, and be a key beside IANA's names."""


def type_template(id: int) -> OptionsTemplate:
    """The options template of type records (RFC 5610 section 3.9), all nine fields and strings of variable length:
    libfixbuf wants every one of them, and version 2.4.1 dies of strings of fixed length."""
    return OptionsTemplate(id, map(IANA.by_name, SCOPE), map(IANA.by_name, (*_NUMBERS, *_STRINGS)))


def type_records(template: OptionsTemplate, described: Mapping[InformationElement, str]) -> Records:
    """A record for each element, with its description for people."""
    elements = list(described)
    columns: dict[str, Column] = {
        "privateEnterpriseNumber": [element.pen for element in elements],
        "informationElementId": [element.id for element in elements],
        "informationElementDataType": [DATA_TYPES.index(element.data_type) for element in elements],
        "informationElementSemantics": [SEMANTICS.index(element.semantics) for element in elements],
        "informationElementUnits": [UNITS.index(element.units or "none") for element in elements],
        "informationElementRangeBegin": 0,  # both 0: any value of the type
        "informationElementRangeEnd": 0,
        "informationElementName": [element.name for element in elements],
        "informationElementDescription": list(described.values()),
    }
    return template.records(columns, len(elements))


def describes_elements(template: Template) -> bool:
    """Whether the records of this template are type records: options of a scope of exactly number and id."""
    return (
        isinstance(template, OptionsTemplate)
        and {field.element.name for field in template.scope_fields} == set(SCOPE)
        and {"informationElementDataType", "informationElementName"} <= set(template.names)
    )


def described_elements(records: Iterable[Mapping[str, Value]]) -> Iterable[InformationElement]:
    """The elements that type records describe. What is no description of an enterprise element is passed over."""
    for record in records:
        name = record["informationElementName"]
        pen, id = (record[part] for part in SCOPE)
        if not (isinstance(name, str) and _NAME.fullmatch(name) and isinstance(pen, int) and isinstance(id, int)):
            continue
        data_type = _word(DATA_TYPES, record["informationElementDataType"])
        if not pen or id > 0x7FFF or data_type is None:  # nobody but IANA says what IANA's elements are
            continue
        semantics = _word(SEMANTICS, record.get("informationElementSemantics")) or "default"
        units = _word(UNITS, record.get("informationElementUnits")) or "none"
        yield InformationElement(name, id, data_type, pen, semantics, "" if units == "none" else units)


def _word(words: tuple[str, ...], number: Value | None) -> str | None:
    return words[number] if isinstance(number, int) and number < len(words) else None
