"""Columns to records: the compiled layout and NumPy's are one."""

from __future__ import annotations

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
compiled = pytest.mark.skipif(rows._compiled is None, reason="the compiled layout could not be built here")


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
    mine = rows.lay_out(*case)
    kept, rows._compiled = rows._compiled, None
    try:
        theirs = rows.lay_out(*case)
    finally:
        rows._compiled = kept
    assert mine.tobytes() == theirs.tobytes()


@compiled
def test_a_row_that_is_not_there_is_refused() -> None:
    template = Template(300, [IANA.by_name("protocolIdentifier")])
    with pytest.raises(IndexError, match="row 3 of 3"):
        rows.lay_out(template, {"protocolIdentifier": np.zeros(3, np.uint8)}, np.array([0, 3]), 2)


def test_network_order() -> None:
    template = Template(300, [IANA.by_name("octetDeltaCount"), IANA.by_name("sourceTransportPort")])
    columns = {"octetDeltaCount": np.array([1, 258], np.uint64), "sourceTransportPort": np.array([443, 53], np.uint64)}
    made = rows.lay_out(template, columns, np.array([1, 0]), 2)
    assert made.tobytes() == bytes.fromhex("0000000000000102 0035 0000000000000001 01bb")
