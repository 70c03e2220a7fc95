"""What goes in comes out: every abstract data type, every length it may have, through templates, messages and back."""

import doctest
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import ipfix
from ipfix import IANA, CollectingProcess, ExportingProcess, Field, InformationElement, OptionsTemplate, Template

UNIX, NTP = datetime(1970, 1, 1, tzinfo=UTC), datetime(1900, 1, 1, tzinfo=UTC)


def whole(bits: int, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


def moments(epoch: datetime, seconds: int, unit: str) -> st.SearchStrategy[datetime]:
    """Times the wire can hold, to the precision Python and the type share."""
    steps = {"s": 1, "ms": 1000, "us": 1_000_000}[unit]
    return st.integers(0, seconds * steps).map(lambda n: epoch + timedelta(microseconds=n * (1_000_000 // steps)))


@st.composite
def field_and_values(draw: st.DrawFn, id: int) -> tuple[Field, st.SearchStrategy[object]]:
    kind = draw(st.sampled_from(sorted({element.data_type for element in IANA} | {"signed8", "signed64", "float32"})))
    element = InformationElement(f"field{id}", id, kind, 32473)
    if "signed" in kind:
        length = draw(st.integers(1, element.default_length))
        return Field(element, length), whole(8 * length, kind.startswith("signed"))
    if kind.startswith("float"):
        length = draw(st.sampled_from([4, element.default_length]))
        return Field(element, length), st.floats(width=32 if length == 4 else 64, allow_nan=False)
    if kind == "string":
        length = draw(st.sampled_from([65535, 1, 7, 300]))
        # Zeros at the end of a fixed-length string are padding.
        text = st.text(max_size=400 if length == 65535 else length // 4 or 1).map(lambda s: s.rstrip("\0"))
        return Field(element, length), text.filter(lambda s: len(s.encode()) <= length)
    if element.default_length == 65535:
        length = draw(st.sampled_from([65535, 1, 7, 300]))
        size = {"max_size": 400} if length == 65535 else {"min_size": length, "max_size": length}
        return Field(element, length), st.binary(**size)
    values: dict[str, st.SearchStrategy[object]] = {
        "boolean": st.booleans(),
        "macAddress": st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":")),
        "ipv4Address": st.integers(0, (1 << 32) - 1).map(IPv4Address),
        "ipv6Address": st.integers(0, (1 << 128) - 1).map(IPv6Address),
        "dateTimeSeconds": moments(UNIX, (1 << 32) - 1, "s"),
        "dateTimeMilliseconds": moments(UNIX, 200_000_000_000, "ms"),
        "dateTimeMicroseconds": moments(NTP, (1 << 32) - 1, "us"),
        "dateTimeNanoseconds": moments(NTP, (1 << 32) - 1, "us"),
    }
    return Field(element), values[kind]


@st.composite
def tables(draw: st.DrawFn) -> tuple[Template, list[list[object]]]:
    fields = [draw(field_and_values(id)) for id in range(1, draw(st.integers(1, 6)) + 1)]
    count = draw(st.integers(0, 12))
    columns = [draw(st.lists(values, min_size=count, max_size=count)) for _, values in fields]
    scope = draw(st.integers(0, len(fields)))
    layout = [field for field, _ in fields]
    template = OptionsTemplate(999, layout[:scope], layout[scope:]) if scope else Template(999, layout)
    return template, columns


def as_column(field: Field, values: list[object]) -> object:
    if field.element.data_type.startswith("dateTime"):
        return np.array([value.replace(tzinfo=None) for value in values], "M8[us]")  # type: ignore[attr-defined]
    return values


@settings(deadline=None, max_examples=300)
@given(table=tables(), limit=st.integers(4000, 65535))
def test_every_type_and_length(table, limit):
    template, values = table
    columns = {
        name: as_column(field, column)
        for name, field, column in zip(template.names, template.fields, values, strict=True)
    }
    records = template.records(columns)
    exporter = ExportingProcess(max_message_size=limit)
    collector = CollectingProcess(IANA.extended(*(field.element for field in template.fields)))
    messages = [*exporter.announce(5, [template], [], now=0, export_time=0), *exporter.data(5, [records], 0)]

    found: list[dict[str, object]] = []
    for octets in messages:
        received = collector.receive(octets)
        assert (received.error, received.unknown, received.gap or 0) == (None, [], 0)
        for learnt in received.templates:
            assert learnt == template
        for data in received.data:
            found += data
            if template.record_length is not None:
                assert data.rows().tobytes() == data.octets
    rows = list(zip(*values, strict=True))
    assert found == [dict(zip(template.names, row, strict=True)) for row in rows]
    # 1 == True == 1.0 in Python, so the types are compared as well.
    assert [[type(value) for value in record.values()] for record in found] == [[type(v) for v in row] for row in rows]


def test_the_example_in_the_docstring():
    results = doctest.testmod(ipfix)
    assert results.attempted > 5
    assert results.failed == 0


def test_all_is_there_and_said():
    assert len(set(ipfix.__all__)) == len(ipfix.__all__)
    assert all(hasattr(ipfix, name) for name in ipfix.__all__)
