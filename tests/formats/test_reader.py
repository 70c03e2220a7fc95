"""Deliveries in, batches out: layouts, sections, coalescing, and who holds what."""

from __future__ import annotations

import gc
import gzip
import tracemalloc
from typing import Any

import pytest

from edfn_agent.delivery import Origin, Outcome
from edfn_agent.formats import reader as reader_module
from edfn_agent.formats.batch import Counts
from edfn_agent.formats.errors import NotAFlowLog
from edfn_agent.formats.layout import DEFAULT, TRANSIT_GATEWAY_DEFAULT, Layout
from edfn_agent.formats.reader import Reader

pytestmark = pytest.mark.usefixtures("both_engines")

HEADER = (
    b"version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action "
    b"log-status\n"
)
LINE = b"2 123456789012 eni-1 10.0.0.1 10.0.0.2 443 49152 6 10 8400 1700000000 1700000059 ACCEPT OK\n"
LINE6 = b"2 123456789012 eni-1 2001:db8::1 2001:db8::2 443 49152 6 10 8400 1700000000 1700000059 ACCEPT OK\n"
NODATA = b"2 123456789012 eni-1 - - - - - - - 1700000000 1700000059 - NODATA\n"

PAIR = Layout.parse("srcaddr dstaddr")
TRIPLE = Layout.parse("interface-id dstaddr srcaddr")

TGW_LINE = (
    b"6 TransitGateway 123456789012 tgw-1 tgw-attach-1 111111111111 222222222222 vpc-1 vpc-2 subnet-1 subnet-2 eni-1 "
    b"eni-2 use1-az1 use1-az2 tgw-attach-2 10.1.0.5 10.2.0.7 443 49152 6 10 8400 1700000000 1700000059 OK IPv4 1 2 3 4 "
    b"19 us-east-1 ingress - -\n"
)


# -- which layout ------------------------------------------------------------------------------------------------------


def out_of(call: Any, *arguments: Any) -> list[Any]:
    """What `feed` or `flush` gives."""
    given: list[Any] = []
    call(*arguments, given.append)
    return given


def test_a_header_line_says_the_layout(read):
    got = read(b"dstaddr bytes srcaddr\n10.0.0.2 77 10.0.0.1\n")
    assert got.rows == [{"dstaddr": "10.0.0.2", "bytes": 77, "srcaddr": "10.0.0.1"}]
    assert got.batches[0].layout == Layout(("dstaddr", "bytes", "srcaddr"))
    assert got.tally == Counts(flows=1)


def test_lines_without_a_header_are_the_default_format(read):
    got = read(LINE + LINE6 + NODATA)
    assert [row["srcaddr"] for row in got.rows] == ["10.0.0.1", "2001:db8::1"]
    assert got.batches[0].layout is DEFAULT
    assert got.batches[0].family.tolist() == [4, 6]
    assert got.tally == Counts(flows=2, nodata=1)


def test_a_header_wins_over_what_the_source_says(read):
    got = read(b"srcaddr dstaddr\n10.0.0.1 10.0.0.2\n", layout=TRIPLE)
    assert got.batches[0].layout == PAIR


def test_what_the_source_says_wins_over_what_is_known_of_the_origin(read):
    got = read(b"10.0.0.1 10.0.0.2\n", layout=PAIR, layouts_of=lambda origin: [TRIPLE])
    assert got.batches[0].layout == PAIR


def test_what_is_known_of_the_origin_wins_over_the_default(read):
    asked = []
    got = read(b"10.0.0.1 10.0.0.2\n", layouts_of=lambda origin: asked.append(origin) or [PAIR])
    assert got.batches[0].layout == PAIR
    assert asked == [got.delivery.origin]


def test_with_several_known_layouts_the_number_of_words_decides_line_by_line(read):
    octets = b"10.0.0.1 10.0.0.2\neni-1 10.0.0.4 10.0.0.3\nnonsense in four words\n10.0.0.5 10.0.0.6\n"
    got = read(octets, layouts_of=lambda origin: [PAIR, TRIPLE])
    by_layout = {
        batch.layout: [row["srcaddr"] for row in got.rows if row.keys() == set(batch.layout.names)]
        for batch in got.batches
    }
    assert by_layout == {PAIR: ["10.0.0.1", "10.0.0.5"], TRIPLE: ["10.0.0.3"]}
    assert [(line.line, line.reason) for line in got.bad] == [(3, "4 words where the layout has 3")]


def test_of_two_layouts_with_as_many_words_the_first_is_used(read):
    got = read(b"10.0.0.1 10.0.0.2\n", layouts_of=lambda origin: [PAIR, Layout.parse("dstaddr srcaddr")])
    assert got.rows == [{"srcaddr": "10.0.0.1", "dstaddr": "10.0.0.2"}]


def test_a_given_fallback_replaces_the_default_format(read):
    got = read(b"10.0.0.1 10.0.0.2\n", fallback=PAIR)
    assert got.rows == [{"srcaddr": "10.0.0.1", "dstaddr": "10.0.0.2"}]


def test_a_transit_gateway_is_known_by_its_second_word(read):
    got = read(LINE + TGW_LINE + LINE)
    tgw = next(batch for batch in got.batches if batch.layout == TRANSIT_GATEWAY_DEFAULT)
    assert tgw.rows == 1
    assert tgw.integers("packets-lost-ttl-expired").values.tolist() == [4]
    assert got.tally == Counts(flows=3)


def test_thirty_six_words_alone_are_no_transit_gateway(read):
    got = read(LINE + TGW_LINE.replace(b"TransitGateway", b"Other"))
    assert got.tally == Counts(flows=1, malformed=1)


def test_a_header_in_mid_file_changes_the_layout(read):
    got = read(LINE + b"srcaddr dstaddr\n10.0.0.3 10.0.0.4\n" + HEADER + LINE)
    assert [(batch.layout == PAIR, batch.rows) for batch in got.batches] == [(False, 2), (True, 1)]
    assert got.tally == Counts(flows=3)


def test_a_header_that_repeats_itself_is_no_data(read):
    header = b"a-new-field srcaddr version\n"
    got = read(header + b"x 10.0.0.1 9\n" + header + b"y 10.0.0.2 9\n")
    assert got.rows == [
        {"a-new-field": "x", "srcaddr": "10.0.0.1", "version": 9},
        {"a-new-field": "y", "srcaddr": "10.0.0.2", "version": 9},
    ]
    assert got.tally == Counts(flows=2)


def test_data_that_begins_with_the_name_of_a_field_is_data(read):
    got = read(b"interface-type srcaddr\nregion 10.0.0.1\ntype 10.0.0.2\n")
    assert got.rows == [
        {"interface-type": "region", "srcaddr": "10.0.0.1"},
        {"interface-type": "type", "srcaddr": "10.0.0.2"},
    ]


def test_a_header_of_one_field(read):
    assert read(b"srcaddr\n10.0.0.1\nsrcaddr\n").tally == Counts(flows=1)


def test_unknown_fields_are_carried(read):
    got = read(b"srcaddr flux-capacitance dstaddr\n10.0.0.1 1.21GW 10.0.0.2\n")
    assert got.rows == [{"srcaddr": "10.0.0.1", "flux-capacitance": "1.21GW", "dstaddr": "10.0.0.2"}]
    assert got.batches[0].layout.unknown == ("flux-capacitance",)


def test_utf8_in_a_string_is_carried_as_octets(read):
    got = read("srcaddr instance-tag\n10.0.0.1 caffè\n".encode())
    assert got.rows == [{"srcaddr": "10.0.0.1", "instance-tag": "caffè"}]


def test_times_in_front_of_lines_are_recognised(read):
    got = read(b"2024-12-14T16:37:04.000Z " + LINE + b"2024-12-14T16:37:04.000Z " + NODATA + LINE)
    assert got.tally == Counts(flows=1, nodata=1, malformed=1)
    assert got.batches[0].layout == Layout(DEFAULT.names, timestamped=True)
    assert got.bad[0].reason == "'2' is not a time in front of the line"


def test_a_layout_with_times_is_used_for_lines_without(read):
    got = read(b"10.0.0.1 10.0.0.2\n", layout=Layout(PAIR.names, timestamped=True))
    assert got.tally == Counts(flows=1)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_endings(read, ending, last):
    octets = (HEADER + LINE + LINE6).replace(b"\n", ending)
    got = read(octets if last else octets.removesuffix(ending))
    assert got.tally == Counts(flows=2)
    assert {row["log-status"] for row in got.rows} == {"OK"}


def test_empty_lines_and_a_byte_order_mark_in_front(read):
    assert read(b"\n\r\n" + HEADER + LINE).tally == Counts(flows=1)
    assert read(b"\xef\xbb\xbf" + HEADER + LINE).tally == Counts(flows=1)


def test_a_header_alone_is_a_flow_log_without_records(read):
    got = read(HEADER)
    assert (got.fault, got.tally, got.batches) == (None, Counts(), [])
    assert read(HEADER.strip()).fault is None


# -- what stays of a line ----------------------------------------------------------------------------------------------


def test_bad_lines_are_counted_and_the_first_few_shown(read):
    bad = LINE.replace(b" 49152 ", b" 70000 ")
    got = read(HEADER + LINE + bad * 10 + b"\x1b[31mred\n" + LINE)
    assert got.tally == Counts(flows=2, malformed=11)
    assert [(line.source, line.line, line.reason) for line in got.bad] == [
        ("a-file.log", number, "dstport: 70000 is over 65535") for number in range(3, 8)
    ]
    assert got.bad[0].text.startswith("'2 123456789012 eni-1 10.0.0.1")
    assert len(got.bad[0].text) < 60


def test_what_is_shown_of_a_line_is_safe_to_print(read):
    got = read(LINE + b"\x1b[31m\xff\r\x07red\n")
    assert got.bad[0].text == "'\\x1b[31m\\xff\\r\\x07red'"


def test_a_line_that_is_too_long_costs_that_line(read):
    for size in (70_000, 300_000, 3_000_000):
        for chunk in (5_000, 1 << 20):
            got = read(HEADER + LINE + b"x" * size + b" 1\n" + LINE, chunk=chunk)
            assert got.tally == Counts(flows=2, malformed=1)
            assert [(line.line, line.reason) for line in got.bad] == [(3, "longer than 65536 octets")]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 50, 97, 1000])
def test_how_the_octets_are_cut_does_not_matter(read, chunk):
    octets = HEADER + LINE + LINE6 + b"nonsense\r\n" + NODATA + PAIR_TEXT + LINE[:-1]
    whole = read(octets)
    cut = read(octets, chunk=chunk)
    assert cut.rows == whole.rows
    assert cut.tally == whole.tally
    assert cut.bad == whole.bad
    zipped = read(gzip.compress(octets), chunk=chunk)
    assert (zipped.rows, zipped.tally, zipped.bad) == (whole.rows, whole.tally, whole.bad)


PAIR_TEXT = b"srcaddr dstaddr\n10.9.0.3 10.9.0.4\n\n10.9.0.5 10.9.0.6\n10.9.0.5\n" + HEADER


@pytest.mark.parametrize("rows", [1, 2, 3, 1000])
def test_batches_have_at_most_so_many_rows_in_order(read, rows):
    octets = b"srcaddr bytes\n" + b"".join(b"10.0.0.1 %d\n" % n for n in range(10))
    got = read(octets, batch_rows=rows)
    assert [row["bytes"] for row in got.rows] == list(range(10))
    assert [batch.rows for batch in got.batches] == ([rows] * (10 // rows) + [10 % rows] * (10 % rows > 0))


def test_only_wanted_columns_are_kept(read):
    got = read(HEADER + LINE + LINE.replace(b" 8400 ", b" lots "), wanted={"srcaddr", "srcport", "vpc-id"})
    assert got.rows == [{"srcaddr": "10.0.0.1", "srcport": 443}]
    assert got.tally == Counts(flows=1, malformed=1), "a line is malformed whoever reads it"


# -- many small deliveries ---------------------------------------------------------------------------------------------


def test_small_deliveries_share_a_batch_that_holds_each_of_them_once(make_delivery, as_rows):
    reader = Reader()
    made = [make_delivery(LINE + LINE, name=f"d{n}") for n in range(50)]
    for delivery, _ in made:
        reader.feed(delivery, pytest.fail)
        assert reader.tally == Counts(flows=2)
        delivery.release()
    assert reader.pending_rows == 100
    assert reader.pending_octets > 0
    assert not any(settled for _, settled in made)
    (batch,) = out_of(reader.flush)
    assert batch.rows == 100
    assert batch.counts == Counts(flows=100)
    assert list(batch.deliveries) == [delivery for delivery, _ in made]
    assert reader.pending_rows == 0
    reader.flush(pytest.fail)
    batch.release()
    assert [settled for _, settled in made] == [[(Outcome.ACKNOWLEDGED, "")]] * 50


def test_a_delivery_is_held_by_each_batch_that_has_rows_of_it(make_delivery):
    reader = Reader(batch_rows=4)
    first, first_settled = make_delivery(LINE * 3, name="first")
    second, second_settled = make_delivery(LINE * 3, name="second")
    reader.feed(first, pytest.fail)
    (full,) = out_of(reader.feed, second)
    first.release()
    second.release()
    assert [delivery.name for delivery in full.deliveries] == ["first", "second"]
    (rest,) = out_of(reader.flush)
    assert [delivery.name for delivery in rest.deliveries] == ["second"]
    full.release()
    assert (len(first_settled), len(second_settled)) == (1, 0)
    rest.release()
    assert len(second_settled) == 1


def test_a_delivery_without_flows_is_not_held_but_its_counts_come_out(make_delivery):
    reader = Reader()
    delivery, settled = make_delivery(NODATA)
    reader.feed(delivery, pytest.fail)
    delivery.release()
    assert len(settled) == 1
    (batch,) = out_of(reader.flush)
    assert (batch.rows, batch.counts, list(batch.deliveries)) == (0, Counts(nodata=1), [])


def test_batches_never_mix_origins_or_layouts(make_delivery):
    reader = Reader()
    for account in ("1", "2"):
        for octets in (LINE, b"srcaddr dstaddr\n10.0.0.1 10.0.0.2\n"):
            delivery, _ = make_delivery(octets, origin=Origin("files", "x", account_id=account))
            reader.feed(delivery, pytest.fail)
    batches = out_of(reader.flush)
    assert {(batch.origin.account_id, batch.layout) for batch in batches} == {
        (account, layout) for account in "12" for layout in (DEFAULT, PAIR)
    }


def test_dictionaries_live_on_over_batches(make_delivery):
    reader = Reader()
    seen = []
    for interface in (b"eni-1", b"eni-2", b"eni-1"):
        delivery, _ = make_delivery(LINE.replace(b"eni-1", interface))
        reader.feed(delivery, [].append)
        reader.flush(seen.append)
    columns = [batch.strings("interface-id") for batch in seen]
    assert len({id(column.dictionary) for column in columns}) == 1
    assert [column.codes.tolist() for column in columns] == [[1], [2], [1]]


def test_batches_do_not_share_memory(make_delivery, as_rows):
    reader = Reader(batch_rows=4)
    batches = []
    for number in range(9):
        delivery, _ = make_delivery(
            b"srcaddr bytes\n" + b"".join(b"10.0.0.1 %d\n" % (number * 10 + n) for n in range(3))
        )
        reader.feed(delivery, batches.append)
        if number % 4 == 0:
            reader.flush(batches.append)
    reader.flush(batches.append)
    assert [row["bytes"] for batch in batches for row in as_rows(batch)] == [
        number * 10 + n for number in range(9) for n in range(3)
    ]


def test_rows_that_wait_are_bounded_however_many_layouts_there_are(make_delivery, monkeypatch):
    monkeypatch.setattr(reader_module, "MAX_PENDING", 4)
    reader = Reader(batch_rows=10)
    names = ["srcport", "dstport", "protocol", "bytes", "packets", "start", "end", "version"]
    octets = b"".join(f"srcaddr {name}\n".encode() + b"10.0.0.1 7\n" * 6 for name in names * 2)
    delivery, _ = make_delivery(octets)
    rows = 0

    def take(batch):
        nonlocal rows
        rows += batch.rows
        assert reader.pending_rows <= reader_module.PENDING_BATCHES * 10 + 10
        assert len(reader._pending) <= 4

    reader.feed(delivery, take)
    rows += sum(batch.rows for batch in out_of(reader.flush))
    assert rows == 6 * 16


def test_an_evicted_layout_can_come_back(make_delivery, monkeypatch, as_rows):
    monkeypatch.setattr(reader_module, "MAX_PENDING", 2)
    reader = Reader()
    rows = []
    for number in range(12):
        origin = Origin("files", f"origin-{number % 4}")
        delivery, _ = make_delivery(LINE + b"srcaddr bytes\n10.0.0.1 %d\n" % number, origin=origin)
        for batch in out_of(reader.feed, delivery):
            assert all(each.origin == batch.origin for each in batch.deliveries)
            rows.extend(as_rows(batch))
    rows.extend(row for batch in out_of(reader.flush) for row in as_rows(batch))
    assert sorted(row["bytes"] for row in rows if len(row) == 2) == list(range(12))
    assert len(rows) == 24


def test_a_reader_goes_on_after_a_delivery_that_was_none(make_delivery, as_rows):
    reader = Reader()
    good, _ = make_delivery(LINE, name="good")
    bad, bad_settled = make_delivery(b"nothing of the kind\n" * 3, name="bad")
    reader.feed(good, [].append)
    with pytest.raises(NotAFlowLog):
        reader.feed(bad, [].append)
    assert reader.tally == Counts(malformed=3)
    bad.release()
    assert len(bad_settled) == 1
    again, _ = make_delivery(LINE, name="again")
    reader.feed(again, [].append)
    (batch,) = out_of(reader.flush)
    assert [delivery.name for delivery in batch.deliveries] == ["good", "again"]
    assert batch.counts == Counts(flows=2, malformed=3)


def test_what_the_source_raises_goes_through_after_what_came_before(make_delivery, as_rows):
    reader = Reader()

    def chunks():
        yield HEADER + LINE + LINE[:20]
        raise ConnectionResetError("gone")

    delivery, _ = make_delivery(b"")
    delivery.chunks = chunks
    with pytest.raises(ConnectionResetError):
        reader.feed(delivery, [].append)
    (batch,) = out_of(reader.flush)
    assert batch.rows == 1
    assert batch.counts == Counts(flows=1), "the line that was cut off is not taken for a whole one"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input(make_delivery):
    if reader_module.Scanner.__module__.endswith("text"):
        pytest.skip("the same reader, too slowly")
    block = b"".join(LINE.replace(b"eni-1", b"eni-%d" % n) for n in range(2000))

    def feed(blocks: int) -> int:
        reader = Reader()
        delivery, _ = make_delivery(b"")
        delivery.chunks = lambda: (block for _ in range(blocks))
        gc.collect()
        tracemalloc.start()
        rows = 0

        def take(batch):
            nonlocal rows
            rows += batch.rows

        reader.feed(delivery, take)
        reader.flush(take)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows == 2000 * blocks
        return peak

    small, large = feed(60), feed(400)
    assert large < small + (2 << 20)
    assert large < 30 << 20


def test_a_flood_of_new_values_is_held_in_bounded_memory(make_delivery):
    if reader_module.Scanner.__module__.endswith("text"):
        pytest.skip("the same reader, too slowly")
    reader = Reader()
    rows = 300_000

    def chunks():
        yield b"srcaddr instance-tag\n"
        for start in range(0, rows, 1000):
            yield b"".join(b"10.0.0.1 %s%d\n" % (b"v" * 40, n) for n in range(start, start + 1000))

    delivery, _ = make_delivery(b"")
    delivery.chunks = chunks
    seen = 0

    def take(batch):
        nonlocal seen
        column = batch.strings("instance-tag")
        assert len(column.dictionary) < 70_000
        value = column.dictionary.values[column.codes[-1]]
        seen += batch.rows
        assert value == b"v" * 40 + b"%d" % (seen - 1)

    reader.feed(delivery, take)
    reader.flush(take)
    assert seen == rows
