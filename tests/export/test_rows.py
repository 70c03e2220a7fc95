"""Columns to records: the compiled layout and NumPy's are one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfn_agent.export import rows
from ipfix import IANA, Field, Template

NAMES = {
    "sourceIPv4Address": 4,
    "sourceIPv6Address": 16,
    "sourceTransportPort": 2,
    "protocolIdentifier": 1,
    "octetDeltaCount": 8,
    "ingressInterface": 4,
    "flowStartMilliseconds": 8,
    "tcpControlBits": 1,
}
compiled = pytest.mark.skipif(rows._lay is None, reason="the compiled layout could not be built here")


@contextlib.contextmanager
def without_compiled() -> Iterator[None]:
    kept, rows._lay = rows._lay, None
    try:
        yield
    finally:
        rows._lay = kept


@st.composite
def cases(draw: st.DrawFn) -> tuple[Template, dict[str, Any], Any, int]:
    names = draw(st.lists(st.sampled_from(sorted(NAMES)), min_size=1, max_size=len(NAMES), unique=True))
    template = Template(300, [Field(IANA.by_name(name), NAMES[name]) for name in names])
    count = draw(st.integers(1, 700))
    seed = np.random.default_rng(draw(st.integers(0, 2**32)))
    columns: dict[str, Any] = {}
    for name in names:
        length = NAMES[name]
        if length == 16:
            columns[name] = seed.integers(0, 256, (count, 16), dtype=np.uint8)
        else:
            values = seed.integers(0, 2 ** (8 * length) - 1, count, dtype=np.uint64, endpoint=True)
            kinds = [kind for kind in ("u1", "u2", "u4", "u8") if np.dtype(kind).itemsize >= length]
            columns[name] = values.astype(draw(st.sampled_from(kinds)))
    order = draw(st.sampled_from(["all", "some", "none"]))
    if order == "all":
        return template, columns, None, count
    total = count if order == "some" else 1
    return template, columns, seed.integers(0, count, total), total


@compiled
@given(cases())
def test_both_lay_out_the_same(case: tuple[Template, dict[str, Any], Any, int]) -> None:
    template, columns, wanted, total = case
    mine = rows.lay_out(template.dtype, columns, wanted, total)
    with without_compiled():
        theirs = rows.lay_out(template.dtype, columns, wanted, total)
    assert mine.tobytes() == theirs.tobytes()


STRINGS = st.lists(st.one_of(st.binary(max_size=40), st.binary(min_size=250, max_size=300)), min_size=1, max_size=6)


@compiled
@given(cases(), st.lists(STRINGS, min_size=1, max_size=4), st.integers(0, 2**32))
def test_both_put_the_same_strings_behind(
    case: tuple[Template, dict[str, Any], Any, int], strings: list[list[bytes]], seed: int
) -> None:
    fields, columns, wanted, total = case
    names = ["applicationName", "userName", "interfaceName", "VRFname"][: len(strings)]
    template = Template(301, [*fields.fields, *(IANA.by_name(name) for name in names)])
    count = len(next(iter(columns.values())))
    chance = np.random.default_rng(seed)
    texts = [(chance.integers(0, len(some), count).astype(np.uint32), rows.Values(some)) for some in strings]
    fixed = rows.lay_out(fields.dtype, columns, wanted, total)
    mine = rows.lay_out_variable(template, fixed, texts, wanted)
    with without_compiled():
        theirs = rows.lay_out_variable(template, fixed, texts, wanted)
    assert mine.octets.tobytes() == theirs.octets.tobytes()
    assert mine.ends is not None
    assert theirs.ends is not None
    assert mine.ends.tolist() == theirs.ends.tolist()


def test_a_string_that_no_length_can_say_is_cut_between_two_characters() -> None:
    values = rows.Values([b"x" * 65534 + "é".encode()])
    assert values.values == [b"x" * 65534]


@compiled
def test_a_string_that_is_not_there_is_refused() -> None:
    template = Template(300, [IANA.by_name("protocolIdentifier"), IANA.by_name("userName")])
    fixed = np.zeros(1, np.dtype([("protocolIdentifier", "u1")]))
    with pytest.raises(IndexError, match="value 1 of 1"):
        rows.lay_out_variable(template, fixed, [(np.array([1], np.uint32), rows.Values([b"a"]))], None)


@compiled
def test_a_row_that_is_not_there_is_refused() -> None:
    template = Template(300, [IANA.by_name("protocolIdentifier")])
    with pytest.raises(IndexError, match="row 3 of 3"):
        rows.lay_out(template.dtype, {"protocolIdentifier": np.zeros(3, np.uint8)}, np.array([0, 3]), 2)


def test_network_order() -> None:
    template = Template(300, [IANA.by_name("octetDeltaCount"), IANA.by_name("sourceTransportPort")])
    columns = {"octetDeltaCount": np.array([1, 258], np.uint64), "sourceTransportPort": np.array([443, 53], np.uint64)}
    made = rows.lay_out(template.dtype, columns, np.array([1, 0]), 2)
    assert made.tobytes() == bytes.fromhex("0000000000000102 0035 0000000000000001 01bb")
