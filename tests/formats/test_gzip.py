"""Gzip around the lines: members, nesting, damage, and bombs."""

from __future__ import annotations

import gc
import gzip
import tracemalloc
import zlib

import pytest

from edfn_agent.formats import containers
from edfn_agent.formats.batch import Counts
from edfn_agent.formats.containers import Chunks, Gunzip
from edfn_agent.formats.errors import CorruptInput, NotAFlowLog, TruncatedInput
from edfn_agent.formats.reader import Reader

HEADER = b"srcaddr bytes\n"
LINES = b"".join(b"10.0.%d.%d %d\n" % (n // 250, n % 250, n * n) for n in range(5000))


def test_several_members_are_one_text(read):
    octets = gzip.compress(HEADER + LINES[:5000]) + gzip.compress(b"") + gzip.compress(LINES[5000:])
    for chunk in (1, 2, 1000, 1 << 20):
        assert read(octets, chunk=chunk).tally == Counts(flows=5000)


def test_zeros_after_the_last_member_are_padding(read):
    assert read(gzip.compress(HEADER + LINES) + b"\0" * 1000).tally == Counts(flows=5000)
    assert read(gzip.compress(HEADER + LINES) + b"\0" * 1000, chunk=7).fault is None


@pytest.mark.parametrize("rest", [b"x", b"\x1f", b"junk and more", b"\0\0\0x"])
@pytest.mark.parametrize("chunk", [1, 1 << 20])
def test_anything_else_after_it_is_damage(read, rest, chunk):
    got = read(gzip.compress(HEADER + LINES) + rest, chunk=chunk)
    # what is shorter than a member's header could be the beginning of one
    assert isinstance(got.fault, CorruptInput if len(rest) > 9 else TruncatedInput)
    assert got.tally == Counts(flows=5000)


@pytest.mark.parametrize("chunk", [100, 1 << 20])
def test_a_member_that_ends_too_early_gives_what_is_there(read, chunk):
    whole = gzip.compress(HEADER + LINES)
    for end in (len(whole) - 1, len(whole) - 8, len(whole) // 2, 60):
        got = read(whole[:end], chunk=chunk)
        assert isinstance(got.fault, TruncatedInput)
        assert str(got.fault) == "gzip: it ends in the middle of a member"
        kept = zlib.decompressobj(31).decompress(whole[:end])
        assert got.tally == Counts(flows=max(0, kept.count(b"\n") - 1)), "and not the line that is cut in two"


def test_a_wrong_checksum_is_found_after_the_lines_were_read(read):
    whole = bytearray(gzip.compress(HEADER + LINES))
    whole[-8] ^= 1
    got = read(bytes(whole))
    assert isinstance(got.fault, CorruptInput)
    assert str(got.fault) == "gzip: incorrect checksum found"
    assert got.tally == Counts(flows=5000)


def test_damage_in_the_middle_costs_what_is_behind_it(read):
    whole = bytearray(gzip.compress(HEADER + LINES))
    whole[len(whole) // 2 : len(whole) // 2 + 64] = b"\xff" * 64
    got = read(bytes(whole))
    assert isinstance(got.fault, CorruptInput)
    assert 1000 < got.tally.flows < 4000


def test_gzip_inside_gzip_has_an_end(read):
    octets = HEADER + LINES
    for depth in range(1, 4):
        octets = gzip.compress(octets)
        assert read(octets).tally == Counts(flows=5000), depth
    fault = read(gzip.compress(octets)).fault
    assert isinstance(fault, NotAFlowLog)
    assert str(fault) == "gzip inside gzip, more than 3 deep"


@pytest.mark.parametrize("piece", [1, 3, 64, 1000])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 1000, 2999])
def test_no_octet_is_lost_at_the_limit_of_a_piece(monkeypatch, make_delivery, piece, size):
    monkeypatch.setattr(containers, "_COMPRESSED", 50)
    octets = gzip.compress(b"x" * size) + gzip.compress(bytes(range(256)) * (size // 256 + 1))
    for chunk in (1, 7, 10_000):
        delivery, _ = make_delivery(octets, chunk)
        source, view, got = Gunzip(Chunks(delivery, delivery.chunks())), memoryview(bytearray(piece)), b""
        while given := source.readinto(view):
            assert 0 < given <= piece
            got += view[:given]
        assert got == b"x" * size + bytes(range(256)) * (size // 256 + 1)
        assert delivery.octets == len(octets)


def bomb(level: int, fill: bytes, mebibytes: int) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = fill * ((1 << 20) // len(fill))
    octets = b"".join(deflate.compress(block) for _ in range(mebibytes)) + deflate.flush()
    for _ in range(level):
        octets = gzip.compress(octets)
    return octets


@pytest.mark.parametrize(("level", "fill"), [(0, b"\0"), (0, b"\n"), (0, b"a b\n"), (1, b"x"), (2, b" "), (0, b"{")])
def test_a_bomb_is_given_up_in_bounded_memory(make_delivery, level, fill):
    octets = bomb(level, fill, 200)
    reader = Reader()
    delivery, _ = make_delivery(octets)
    gc.collect()
    tracemalloc.start()
    with pytest.raises((NotAFlowLog, CorruptInput)):
        reader.feed(delivery, [].append)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_bomb_behind_good_lines_leaves_them(make_delivery):
    reader = Reader()
    delivery, _ = make_delivery(gzip.compress(HEADER + LINES) + bomb(0, b"\0", 100))
    with pytest.raises(NotAFlowLog, match="no line of a stretch of 64 MiB could be read"):
        reader.feed(delivery, [].append)
    assert reader.tally.flows == 5000
    batches = []
    reader.flush(batches.append)
    assert sum(batch.rows for batch in batches) == 5000
