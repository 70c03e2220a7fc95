"""One line of text, one row of columns: what each word means, and when a line cannot be read."""

from __future__ import annotations

import pytest

from edfn_agent.formats.columns import END, FULL, HEADER, MAX_LINE, OTHER, Columns, words
from edfn_agent.formats.layout import DEFAULT, Layout
from edfn_agent.formats.text import explain

ADDRESSES = Layout.parse("srcaddr dstaddr")

LINE = (
    b"2 012345678901 eni-0a1b2c3d4e5f60718 10.0.1.5 203.0.113.9 443 49152 6 10 8400 1700000000 1700000059 ACCEPT OK\n"
)


def scanner_for(engine, layout=DEFAULT, rows=16, wanted=None, **more):
    return engine(Columns(words(layout, wanted), rows), layout.timestamped, **more)


def columns_of(scanner):
    scanner.sync()
    columns, family = scanner.columns.take(scanner.rows, scanner.dictionaries)
    return columns, family


def test_a_default_line_becomes_a_row_of_fourteen_columns(engine):
    scanner = scanner_for(engine)
    assert scanner.scan(LINE, 0, len(LINE), False) == END
    assert (scanner.rows, scanner.line, scanner.position) == (1, 1, len(LINE))
    columns, family = columns_of(scanner)
    assert list(columns) == list(DEFAULT.names)
    assert family.tolist() == [4]
    integers = {name: columns[name].values.tolist() for name in DEFAULT.names if hasattr(columns[name], "values")}
    assert integers == {
        "version": [2],
        "srcport": [443],
        "dstport": [49152],
        "protocol": [6],
        "packets": [10],
        "bytes": [8400],
        "start": [1700000000000],
        "end": [1700000059000],
    }
    assert all(columns[name].absent is None for name in integers)
    strings = {n: c.dictionary.values[c.codes[0]] for n, c in columns.items() if hasattr(c, "codes")}
    assert strings == {
        "account-id": b"012345678901",
        "interface-id": b"eni-0a1b2c3d4e5f60718",
        "action": b"ACCEPT",
        "log-status": b"OK",
    }
    assert columns["srcaddr"].family.tolist() == [4]
    assert columns["srcaddr"].v4.tolist() == [0x0A000105]
    assert columns["dstaddr"].v4.tolist() == [0xCB007109]
    assert columns["srcaddr"].v6 is None


def test_an_ipv6_row_has_sixteen_octets_per_address(engine):
    line = b"2001:db8::ff00:42:8329 ::ffff:192.0.2.1\n10.0.0.1 -\n"
    scanner = scanner_for(engine, ADDRESSES)
    scanner.scan(line, 0, len(line), True)
    columns, family = columns_of(scanner)
    assert family.tolist() == [6, 4]
    assert columns["srcaddr"].family.tolist() == [6, 4]
    assert columns["srcaddr"].v4.tolist() == [0, 0x0A000001]
    assert bytes(columns["srcaddr"].v6[0]).hex() == "20010db8000000000000ff0000428329"
    assert columns["dstaddr"].family.tolist() == [6, 0]
    assert bytes(columns["dstaddr"].v6[0]).hex() == "00000000000000000000ffffc0000201"


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "255.255.255.255",
        "1.2.3.4",
        "10.20.30.40",
        "100.200.100.200",
        "::",
        "::1",
        "1::",
        "1:2:3:4:5:6:7:8",
        "1:2:3:4:5:6:7::",
        "::2:3:4:5:6:7:8",
        "::1.2.3.4",
        "1:2:3:4:5:6:1.2.3.4",
        "FE80::ABCD",
        "0:0::0",
    ],
)
def test_addresses_that_are(engine, text):
    line = f"{text} {text}\n".encode()
    scanner = scanner_for(engine, ADDRESSES)
    scanner.scan(line, 0, len(line), True)
    assert (scanner.rows, scanner.malformed) == (1, 0)


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0",
        "10.0.0.1.2",
        "10.0.0.256",
        "10.0.0.01",
        "010.0.0.1",
        "00.0.0.0",
        ".1.2.3",
        "1.2.3.",
        "1..2.3",
        "1.2.3.4x",
        "1000.0.0.1",
        "0000.0.0.0",
        "1.2.3.-4",
        "1.2.3.+4",
        "1.2.3.4/32",
        "1,2,3,4",
        "",
        "a",
        ":",
        ":::",
        "1:",
        ":1",
        "1::2::3",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1::2:3:4:5:6:7:8",
        "12345::",
        "g::",
        "::1%eth0",
        "[::1]",
        "::1.2.3",
        "::1.2.3.256",
        "::01.2.3.4",
        "1.2.3.4::",
        "1:2:3:4:5:6:7:1.2.3.4",
        "::1.2.3.4:5",
        "\uff11.2.3.4",
    ],
)
def test_addresses_that_are_not(engine, text):
    line = f"{text or 'x'} -\n".encode()
    scanner = scanner_for(engine, ADDRESSES)
    scanner.scan(line, 0, len(line), True)
    assert (scanner.rows, scanner.malformed) == (0, 1)
    assert scanner.bad == [(1, 0, len(line) - 1)]


@pytest.mark.parametrize(
    ("field", "word", "value"),
    [
        ("srcport", b"0", 0),
        ("srcport", b"65535", 65535),
        ("srcport", b"00080", 80),
        ("protocol", b"255", 255),
        ("tcp-flags", b"19", 19),
        ("packets", b"12345678", 12345678),
        ("packets", b"123456789", 123456789),
        ("packets", b"1234567890123456", 1234567890123456),
        ("packets", b"12345678901234567", 12345678901234567),
        ("bytes", b"9223372036854775807", 2**63 - 1),
        ("bytes", b"0000000000000000007", 7),
        ("bytes", b"-", None),
        ("start", b"0", 0),
        ("start", b"1700000000", 1700000000000),
        ("start", b"99999999999", 99999999999000),
        ("start", b"100000000000", 100000000000),
        ("start", b"1700000000123", 1700000000123),
        ("end", b"-", None),
    ],
)
def test_numbers_that_are(engine, field, word, value):
    line = b"10.0.0.1 " + word
    scanner = scanner_for(engine, Layout(("srcaddr", field)))
    scanner.scan(line, 0, len(line), True)
    assert scanner.malformed == 0
    column = columns_of(scanner)[0][field]
    assert column.values.tolist() == [value or 0]
    assert (column.absent.tolist() if column.absent is not None else None) == ([True] if value is None else None)


@pytest.mark.parametrize(
    ("field", "word", "reason"),
    [
        ("dstport", b"70000", "dstport: 70000 is over 65535"),
        ("dstport", b"65536", "dstport: 65536 is over 65535"),
        ("protocol", b"256", "protocol: 256 is over 255"),
        ("protocol", b"tcp", "protocol: 'tcp' is not a number"),
        ("bytes", b"9223372036854775808", "bytes: 9223372036854775808 is over 9223372036854775807"),
        ("bytes", b"00000000000000000001", "bytes: '00000000000000000001' has more than 19 digits"),
        ("packets", b"-1", "packets: '-1' is not a number"),
        ("packets", b"+1", "packets: '+1' is not a number"),
        ("packets", b"1_0", "packets: '1_0' is not a number"),
        ("packets", b"1.5", "packets: '1.5' is not a number"),
        ("packets", b"--", "packets: '--' is not a number"),
        ("packets", b"12345678x", "packets: '12345678x' is not a number"),
        ("packets", b"x12345678", "packets: 'x12345678' is not a number"),
        ("packets", b"1234567/", "packets: '1234567/' is not a number"),
        ("packets", b"1234567:", "packets: '1234567:' is not a number"),
        ("packets", b"\xff\xfe", "packets: '\\\\xff\\\\xfe' is not a number".replace("\\\\", "\\")),
        ("packets", "٣".encode(), "packets: '\\xd9\\xa3' is not a number"),
        ("dstaddr", b"10.0.0", "dstaddr: '10.0.0' is not an address"),
        ("dstaddr", b"2001:db8::1", "IPv4 and IPv6 addresses in one line"),
        ("pkt-dstaddr", b"2001:db8::1", "IPv4 and IPv6 addresses in one line"),
    ],
)
def test_why_a_line_is_malformed(engine, field, word, reason):
    line = b"10.0.0.1 " + word
    layout = Layout(("srcaddr", field))
    scanner = scanner_for(engine, layout)
    assert scanner.scan(line, 0, len(line), True) == END
    assert (scanner.rows, scanner.malformed) == (0, 1)
    assert explain(words(layout, None), line, False) == reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"10.0.0.1", "1 word where the layout has 2"),
        (b"10.0.0.1 10.0.0.2 3", "3 words where the layout has 2"),
        (b"10.0.0.1\t10.0.0.2", "1 word where the layout has 2"),
        (b"x" * (MAX_LINE + 1), "longer than 65536 octets"),
    ],
)
def test_lines_with_another_number_of_words(engine, line, reason):
    octets = line + b"\n10.0.0.1 10.0.0.2\n"
    scanner = scanner_for(engine, ADDRESSES)
    assert scanner.scan(octets, 0, len(octets), False) == END
    assert (scanner.rows, scanner.malformed, scanner.bad) == (1, 1, [(1, 0, len(line))])
    assert explain(words(ADDRESSES, None), line, False) == reason


def test_spaces_carriage_returns_and_empty_lines_do_not_matter(engine):
    octets = b"\n  10.0.0.1   10.0.0.2  \r\n\r\n   \n10.0.0.3 10.0.0.4\r\n \r\n10.0.0.5 10.0.0.6 \n10.0.0.7 10.0.0.8"
    scanner = scanner_for(engine, ADDRESSES)
    assert scanner.scan(octets, 0, len(octets), True) == END
    assert (scanner.rows, scanner.malformed, scanner.line) == (4, 0, 8)
    assert columns_of(scanner)[0]["dstaddr"].v4.tolist() == [0x0A000000 + n for n in (2, 4, 6, 8)]


def test_a_carriage_return_inside_a_line_is_part_of_a_word(engine):
    octets = b"10.0.0.1 a\rb\n10.0.0.2 c\r\r\n"
    scanner = scanner_for(engine, Layout(("srcaddr", "interface-id")))
    scanner.scan(octets, 0, len(octets), False)
    column = columns_of(scanner)[0]["interface-id"]
    assert [column.dictionary.values[code] for code in column.codes] == [b"a\rb", b"c\r"]


def test_what_is_not_whole_stays(engine):
    octets = b"10.0.0.1 10.0.0.2\n10.0.0.3 10."
    scanner = scanner_for(engine, ADDRESSES)
    assert scanner.scan(octets, 0, len(octets), False) == END
    assert (scanner.rows, scanner.position, octets[scanner.position :]) == (1, 18, b"10.0.0.3 10.")


def test_nodata_skipdata_and_rows_without_addresses_are_counted_apart(engine):
    octets = (
        b"2 1 eni-1 - - - - - - - 1431280876 1431280934 - NODATA\n"
        b"2 1 eni-1 - - - - - - - 1431280876 1431280934 - SKIPDATA\n"
        b"2 1 eni-1 - - - - - - - 1431280876 1431280934 - OK\n"
        b"2 1 eni-1 10.0.0.1 - - - - - - 1431280876 1431280934 - OK\n"
        b"2 1 eni-1 - 10.0.0.1 - - - - - 1431280876 1431280934 - -\n"
    )
    scanner = scanner_for(engine)
    scanner.scan(octets, 0, len(octets), False)
    assert (scanner.rows, scanner.nodata, scanner.skipdata, scanner.without_addresses) == (2, 1, 1, 1)
    assert (scanner.malformed, scanner.apart) == (0, 3)
    columns, family = columns_of(scanner)
    assert family.tolist() == [4, 4]
    assert columns["srcaddr"].family.tolist() == [4, 0]
    assert columns["srcport"].absent.tolist() == [True, True]


def test_nodata_is_what_a_row_is_whatever_else_it_holds(engine):
    octets = b"nonsense NODATA\nnonsense OK\n10.0.0.1 NODATAX\n"
    scanner = scanner_for(engine, Layout(("srcaddr", "log-status")))
    scanner.scan(octets, 0, len(octets), False)
    assert (scanner.rows, scanner.nodata, scanner.malformed, scanner.bad) == (1, 1, 1, [(2, 16, 27)])


def test_unwanted_columns_are_checked_and_not_kept(engine):
    octets = b"".join(
        (
            b"2 10.0.0.1 7 10.0.0.1 OK\n",
            b"2 10.0.0.2 - 10.9.9.9 OK\n",
            b"- - 1 - OK\n",
            b"nonsense 10.0.0.1 1 nonsense NODATA\n",
            b"2 10.0.0.1 70000 10.0.0.1 OK\n",
            b"2x 10.0.0.1 7 10.0.0.1 OK\n",
            b"2 10.0.0.1 7 10.0.0.256 OK\n",
            b"2 10.0.0.1 7 2001:db8::1 OK\n",
            b"2 10.0.0.x 7 10.0.0.x OK\n",
        )
    )
    layout = Layout(("version", "srcaddr", "dstport", "pkt-srcaddr", "log-status"))
    scanner = scanner_for(engine, layout, wanted={"interface-id"})
    scanner.scan(octets, 0, len(octets), False)
    assert (scanner.rows, scanner.without_addresses, scanner.nodata, scanner.malformed) == (2, 1, 1, 5)
    columns, family = columns_of(scanner)
    assert columns == {}
    assert family.tolist() == [4, 4]


def test_it_stops_when_the_columns_are_full_and_goes_on_where_it_was(engine):
    octets = b"".join(b"10.0.0.%d -\n" % n for n in range(1, 6))
    scanner = scanner_for(engine, ADDRESSES, rows=2)
    seen = []
    at = 0
    while True:
        code = scanner.scan(octets, at, len(octets), False)
        at = scanner.position
        seen.append(columns_of(scanner)[0]["srcaddr"].v4.tolist())
        if code != FULL:
            break
        scanner.renew()
    assert seen == [[0x0A000001, 0x0A000002], [0x0A000003, 0x0A000004], [0x0A000005]]
    assert scanner.line == 5


def test_it_stops_at_what_may_be_a_header_line(engine):
    octets = b"10.0.0.1 -\nsrcaddr dstaddr\ntype x\n"
    scanner = scanner_for(engine, ADDRESSES)
    assert scanner.scan(octets, 0, len(octets), False) == HEADER
    assert (scanner.rows, scanner.position, scanner.line) == (1, 11, 1)
    # told that it is data, it is
    assert scanner.scan(octets, 11, len(octets), False, True) == HEADER
    assert (scanner.malformed, scanner.position, scanner.bad) == (1, 27, [(2, 11, 26)])


def test_it_stops_at_a_line_of_another_known_layout(engine):
    others = bytearray(256)
    others[4] = 1
    octets = b"10.0.0.1 -\n1 2 3\n1 2 3 4\n10.0.0.2 -\n"
    scanner = scanner_for(engine, ADDRESSES)
    assert scanner.scan(octets, 0, len(octets), False, False, bytes(others)) == OTHER
    assert (scanner.rows, scanner.malformed, scanner.position) == (1, 1, 17)
    assert scanner.scan(octets, 17, len(octets), False, True, bytes(others)) == END
    assert (scanner.rows, scanner.malformed) == (2, 1)


def test_times_in_front_of_lines(engine):
    layout = Layout(("srcaddr", "dstaddr"), timestamped=True)
    octets = b"2024-12-14T16:37:04.000Z 10.0.0.1 10.0.0.2\n10.0.0.1 10.0.0.2\nxx 10.0.0.1 10.0.0.2\n"
    scanner = scanner_for(engine, layout)
    scanner.scan(octets, 0, len(octets), False)
    assert (scanner.rows, scanner.malformed) == (1, 2)
    assert explain(words(layout, None), b"xx 10.0.0.1 10.0.0.2", True) == "'xx' is not a time in front of the line"


def test_malformed_rows_leave_no_hole(engine):
    lines = [b"10.0.0.%d eni-%d %d" % (n, n, n * (99999 if n % 3 == 0 else 1)) for n in range(200)]
    octets = b"\n".join(lines)
    scanner = scanner_for(engine, Layout(("srcaddr", "interface-id", "srcport")), rows=500)
    scanner.scan(octets, 0, len(octets), True)
    good = [n for n in range(200) if n % 3 or n == 0]
    assert scanner.rows == len(good)
    columns, _ = columns_of(scanner)
    assert columns["srcaddr"].v4.tolist() == [0x0A000000 + n for n in good]
    assert columns["srcport"].values.tolist() == good
    names = columns["interface-id"]
    assert [names.dictionary.values[code] for code in names.codes] == [b"eni-%d" % n for n in good]
    assert [line for line, _, _ in scanner.bad] == [4, 7, 10, 13, 16, 19, 22, 25]


def test_the_first_malformed_lines_are_kept_whatever_is_wrong_with_them(engine):
    octets = b"10.0.0.1 70000\n10.0.0.1\n10.0.0.1 80\n" * 10
    scanner = scanner_for(engine, Layout(("srcaddr", "srcport")))
    scanner.scan(octets, 0, len(octets), False)
    assert (scanner.rows, scanner.malformed) == (10, 20)
    assert [line for line, _, _ in scanner.bad] == [1, 2, 4, 5, 7, 8, 10, 11]
    assert octets[slice(*scanner.bad[2][1:])] == b"10.0.0.1 70000"


def test_a_dictionary_that_grows_too_large_is_replaced_and_rows_stay_right(engine):
    octets = b"".join(b"10.0.0.1 value-%d\n" % n for n in range(1000))
    scanner = scanner_for(engine, Layout(("srcaddr", "interface-id")), rows=100, dictionary_entries=150)
    seen: list[bytes] = []
    dictionaries = set()
    at = 0
    while True:
        code = scanner.scan(octets, at, len(octets), True)
        at = scanner.position
        column = columns_of(scanner)[0]["interface-id"]
        assert len(column.dictionary) <= 150 + 256 + 1
        dictionaries.add(id(column.dictionary))
        seen.extend(column.dictionary.values[value] for value in column.codes)
        if code != FULL:
            break
        scanner.renew()
    assert seen == [b"value-%d" % n for n in range(1000)]
    assert len(dictionaries) > 1


def test_values_of_all_lengths_keep_apart_in_a_dictionary(engine):
    values = [bytes([97 + n % 26]) * n for n in range(1, 130)] + [b"b" * n + b"c" for n in range(40)]
    octets = b"".join(b"10.0.0.1 " + value + b"\n" for value in values * 3)
    scanner = scanner_for(engine, Layout(("srcaddr", "interface-id")), rows=1000)
    scanner.scan(octets, 0, len(octets), True)
    column = columns_of(scanner)[0]["interface-id"]
    assert [column.dictionary.values[code] for code in column.codes] == values * 3
    assert len(column.dictionary) == len(set(values)) + 1
