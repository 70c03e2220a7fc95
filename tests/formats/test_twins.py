"""The compiled scanner and its twin in plain Python say the same of any octets in any layout."""

from __future__ import annotations

import importlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edfn_agent.formats import text
from edfn_agent.formats.columns import END, FULL, MAX_LINE, Columns, words
from edfn_agent.formats.fields import FIELDS, Kind, field
from edfn_agent.formats.layout import Layout

_scan = pytest.importorskip("edfn_agent.formats._scan", reason="the compiled scanner was not built")

NAMES = [each.name for each in FIELDS] + ["a-new-field"]

_ODD_WORDS = (
    "- OK NODATA SKIPDATA NODATAX ACCEPT 0 1 255 256 65535 65536 00000080 12345678 123456789 1234567890123456 "
    "12345678901234567 9223372036854775807 9223372036854775808 12345678901234567890 1734194224 99999999999 "
    "100000000000 1.2.3.4 255.255.255.255 256.1.1.1 01.2.3.4 1.2.3 1.2.3.4.5 1..2.3 1.2.3. .1.2.3 1111.1.1.1 :: ::1 "
    "fe80::1%eth0 2001:db8::ff00:42:8329 ::ffff:1.2.3.4 1:2:3:4:5:6:7:8 1:2:3:4:5:6:7:: ::2:3:4:5:6:7:8 1::2::3 :1 1: "
    "12345:: 1:2:3:4:5:6:1.2.3.4 1:2:3:4:5:6:7:1.2.3.4 ::1.2.3.4 1.2.3.4:: ::g eni-0123456789abcdef0 srcaddr version x "
    "+1 1_0 -- abcdefgh abcdefghi abcdefghijklmnop abcdefghijklmnopq 2024-12-14T16:37:04.000Z 2024-12-14T "
    "é a\rb \r ٣ \x00 \x01x a\tb"
)
ODD_WORDS = _ODD_WORDS.split(" ")

octet = st.integers(0, 255)
ipv4 = st.tuples(octet, octet, octet, octet).map(lambda four: ".".join(map(str, four)))
ipv6 = st.ip_addresses(v=6).map(str)


def word_for(name: str) -> st.SearchStrategy[str]:
    kind = field(name).kind
    if name == "log-status":
        likely = st.sampled_from(["OK", "OK", "OK", "NODATA", "SKIPDATA", "-"])
    elif kind is Kind.ADDRESS:
        likely = st.one_of(ipv4, ipv4, ipv4, ipv6, st.just("-"))
    elif kind is Kind.STRING:
        likely = st.one_of(st.sampled_from(["-", "ACCEPT", "eni-0a1b2c3d4e5f60718"]), st.text("ab1-", min_size=1))
    else:
        likely = st.one_of(st.integers(0, kind.maximum).map(str), st.integers(0, 300).map(str), st.just("-"))
    return st.one_of(likely, likely, likely, likely, likely, likely, likely, st.sampled_from(ODD_WORDS))


@st.composite
def logs(draw: st.DrawFn) -> tuple[Layout, bytes]:
    """A layout, and lines that are more or less of it, with some damage."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=draw(st.sampled_from([2, 5, 16])), unique=True))
    if draw(st.booleans()):
        names = list(dict.fromkeys(["srcaddr", *names, "log-status"]))
    layout = Layout(tuple(names), timestamped=draw(st.integers(0, 4)) == 0)
    line = st.tuples(*(word_for(name) for name in names)).map(list)
    lines = []
    for found in draw(st.lists(line, max_size=12)):
        if layout.timestamped:
            found.insert(0, "2024-12-14T16:37:04.000Z")
        change = draw(st.integers(0, 30))
        if change == 0:
            found.append("x")
        elif change == 1:
            found.pop()
        elif change == 2:
            found = []
        elif change == 3:
            found = [draw(st.sampled_from(ODD_WORDS))] * draw(st.integers(1, 40))
        elif change == 4:
            found.append("y" * draw(st.sampled_from([MAX_LINE - 40, MAX_LINE, MAX_LINE + 1, 2 * MAX_LINE + 7])))
        elif change == 5:
            found.append("")
        elif change == 6:
            found.insert(0, "")
        separator = "  " if change == 7 else " "
        lines.append(separator.join(found).encode() + draw(st.sampled_from([b"", b"", b"", b"\r", b" \r", b" "])))
    octets = bytearray(b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"])))
    for _ in range(draw(st.integers(0, 3)) if octets else 0):
        octets[draw(st.integers(0, len(octets) - 1))] = draw(octet)
    return layout, bytes(octets)


def values_of(scanner: text.Scanner) -> dict[str, list[object]]:
    """The rows, as values: codes of dictionaries may differ."""
    scanner.sync()
    columns, family = scanner.columns.take(scanner.rows, scanner.dictionaries)
    values: dict[str, list[object]] = {"": family.tolist()}
    for name, column in columns.items():
        if hasattr(column, "codes"):
            values[name] = [column.dictionary.values[code] for code in column.codes]
        elif hasattr(column, "v4"):
            values[name] = [
                (kind, bytes(column.v6[row]) if kind == 6 else int(column.v4[row]))
                for row, kind in enumerate(column.family.tolist())
            ]
        else:
            absent = column.absent if column.absent is not None else itertools.repeat(False)
            values[name] = [None if no else value for value, no in zip(column.values.tolist(), absent, strict=False)]
    return values


def account(engine, layout, octets, cuts, rows, wanted, others, **more):
    """Everything a caller can see of scanning these octets, in stretches cut here and there."""
    scanner = engine(Columns(words(layout, wanted), rows), layout.timestamped, **more)
    seen: list[object] = []
    values: dict[str, list[object]] = {}
    at = 0
    for stop, final in [*((cut, False) for cut in cuts), (len(octets), True)]:
        as_data = False
        stretch = [0, 0, 0, 0]
        while True:
            before = at
            code = scanner.scan(octets, at, stop, final, as_data, others)
            at = scanner.position
            met = (scanner.nodata, scanner.skipdata, scanner.without_addresses, scanner.malformed)
            assert scanner.apart == sum(met)
            stretch = [total + number for total, number in zip(stretch, met, strict=True)]
            if code == FULL:
                for name, column in values_of(scanner).items():
                    values.setdefault(name, []).extend(column)
                scanner.renew()
                as_data = as_data and at == before
            else:
                seen.append((code, at, scanner.line, scanner.bad if rows > 1000 and not more else None))
                as_data = True
            if code == END:
                break
        seen.append(stretch)
    for name, column in values_of(scanner).items():
        values.setdefault(name, []).extend(column)
    return seen, values


@settings(deadline=None, max_examples=250)
@given(
    log=logs(),
    where=st.lists(st.floats(0, 1), max_size=3),
    rows=st.sampled_from([1, 2, 7, 5000]),
    wanted=st.one_of(st.none(), st.sets(st.sampled_from(NAMES), max_size=10)),
    flags=st.one_of(st.none(), st.sets(st.integers(1, 40), max_size=6)),
    limits=st.sampled_from([{}, {"dictionary_entries": 3}, {"dictionary_octets": 40}]),
    slack=st.sampled_from([b"", b"z" * 100]),
)
def test_both_say_the_same(log, where, rows, wanted, flags, limits, slack):
    layout, octets = log
    cuts = sorted(int(part * len(octets)) for part in where)
    others = None if flags is None else bytes(number in flags for number in range(256))
    padded = octets + slack  # what stands behind the stretch must not matter
    cuts = [*cuts, len(octets)] if slack else cuts
    python = account(text.Scanner, layout, padded, cuts, rows, wanted, others, **limits)
    compiled = account(_scan.Scanner, layout, padded, cuts, rows, wanted, others, **limits)
    assert compiled == python


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_both_say_the_same_of_noise(octets, cut):
    layout = Layout(("srcaddr", "interface-id", "bytes"))
    cuts = [min(cut, len(octets))]
    python = account(text.Scanner, layout, octets, cuts, 5, None, None)
    assert account(_scan.Scanner, layout, octets, cuts, 5, None, None) == python


@settings(deadline=None, max_examples=800)
@given(
    st.one_of(
        st.text("0123456789.", max_size=18),
        st.text("0123456789abcdefF:.", max_size=24),
        ipv4,
        st.ip_addresses().map(str),
        st.ip_addresses(v=6).map(lambda address: address.exploded.replace(":0000", ":0")),
    )
)
def test_an_address_is_what_the_ipaddress_module_says(word):
    """Through the compiled scanner; the twin asks the module itself."""
    octets = b"1.2.3.4 x\n" + word.encode() + b" x\n"
    layout = Layout(("srcaddr", "interface-id"))
    python = account(text.Scanner, layout, octets, [], 5000, None, None)
    assert account(_scan.Scanner, layout, octets, [], 5000, None, None) == python


def test_a_scanner_refuses_what_is_outside_the_buffer():
    scanner = _scan.Scanner(Columns(words(Layout(("srcaddr",)), None), 4))
    with pytest.raises(ValueError):
        scanner.scan(b"abc", 0, 4, True)
    with pytest.raises(ValueError):
        scanner.scan(b"abc", -1, 3, True)
    with pytest.raises(ValueError):
        scanner.scan(b"abc", 0, 3, True, False, b"short")


@settings(deadline=None, max_examples=300)
@given(st.text(" \r\n\nab", max_size=300).map(str.encode))
def test_every_machine_finds_the_same_words(octets):
    """With AVX-512, with AVX2, and without: the specification is a line of Python."""
    text = octets + b"\n"
    separates = [
        octet in b" \n" or text[at : at + 2] == b"\r\n" for at, octet in enumerate(text)
    ]  # a carriage return does only before a newline
    ends = [at for at, is_one in enumerate(separates) if is_one and at and not separates[at - 1]]
    newlines = [at for at, octet in enumerate(text) if octet == 10]
    for instructions in range(3):
        assert _scan.word_ends_by(instructions, octets) in (None, (ends, newlines))
    assert _scan.word_ends_by(0, octets) is not None


def test_a_scanner_that_was_built_of_other_sources_is_not_used(monkeypatch):
    from edfn_agent.formats import columns, engine

    assert _scan.BUILT_FOR == columns.SCANNER, "both change together"
    monkeypatch.setattr(columns, "SCANNER", columns.SCANNER + 1)
    try:
        importlib.reload(engine)
        assert not engine.COMPILED
        assert engine.Scanner is text.Scanner
    finally:
        monkeypatch.undo()
        importlib.reload(engine)
    assert engine.COMPILED
