"""Whatever somebody points the agent at, it says what is wrong with it, and never does anything else."""

from __future__ import annotations

import contextlib
import io
import os
import random
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edfn_agent.delivery import Delivery, Origin
from edfn_agent.formats.batch import Counts
from edfn_agent.formats.errors import FormatError, NotAFlowLog
from edfn_agent.formats.layout import Layout
from edfn_agent.formats.reader import Reader

ELB = (
    b"http 2018-07-02T22:23:00.186641Z app/my-loadbalancer/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 "
    b'0.000 0.001 0.000 200 200 34 366 "GET http://www.example.com:80/ HTTP/1.1" "curl/7.46.0" - - '
    b"arn:aws:elasticloadbalancing:us-east-2:123456789012:targetgroup/my-targets/73e2d6bc24d8a067 "
    b'"Root=1-58337262-36d228ad5d99923122bbe354" "-" "-" 0 2018-07-02T22:22:48.364000Z "forward" "-" "-" "-" "-" "-"\n'
)

NINE = "lines have 9 words, the default format has 14: name the layout"


def tar() -> bytes:
    octets = io.BytesIO()
    with tarfile.open(fileobj=octets, mode="w") as archive:
        info = tarfile.TarInfo("flow.log")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"2 1\n"))
    return octets.getvalue()


def zipped() -> bytes:
    octets = io.BytesIO()
    with zipfile.ZipFile(octets, "w") as archive:
        archive.writestr("flow.log", "2 1\n")
    return octets.getvalue()


@pytest.mark.parametrize(
    ("octets", "said"),
    [
        (b"", "empty"),
        (b"\n\r\n   \n", "nothing but empty lines"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(256)) * 40, "a JPEG image"),
        (tar(), "a tar archive: unpack it first"),
        (zipped(), "a zip archive: unpack it first"),
        (b"BZh91AY&SY", "compressed with bzip2, which is not read: decompress it first"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "compressed with Zstandard, which is not read: decompress it first"),
        (b"<?xml version='1.0'?>", "XML"),
        (ELB * 3, "no line could be read (line 1: 30 words where the layout has 14)"),
        (b"x" * 10_000_000, "no line could be read (line 1: longer than 65536 octets)"),
        (b"x" * 10_000_000 + b"\n", "no line could be read (line 1: longer than 65536 octets)"),
        (b"hello\n", "no line could be read (line 1: 1 word where the layout has 14)"),
        (b"version of what\n", "no line could be read (line 1: 3 words where the layout has 14)"),
        (
            b"5 10.0.0.1 10.0.0.2 443 49152 6 1700000000 1700000059 OK\n",
            "no line could be read (line 1: 9 words where the layout has 14); " + NINE,
        ),
    ],
)
@pytest.mark.parametrize("chunk", [1000, 1 << 20])
def test_what_is_wrong_is_said(read, octets, said, chunk):
    got = read(octets, chunk=chunk)
    assert isinstance(got.fault, NotAFlowLog)
    assert str(got.fault) == said
    assert got.rows == []


def test_its_lines_are_counted_all_the_same(read):
    assert read(ELB * 3).tally == Counts(malformed=3)


def test_the_hint_names_a_given_layout_as_such(read):
    fault = read(b"10.0.0.1 10.0.0.2 80\n", fallback=Layout.parse("srcaddr dstaddr")).fault
    assert str(fault).endswith("; lines have 3 words, the layout has 2: name the layout")


def test_one_good_line_makes_it_a_flow_log(read):
    good = b"2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 1 1 1 ACCEPT OK\n"
    assert read(ELB * 100 + good).tally == Counts(flows=1, malformed=100)


def test_a_header_makes_it_a_flow_log(read):
    got = read(b"srcaddr dstaddr\nnonsense\n")
    assert (got.fault, got.tally) == (None, Counts(malformed=1))


def test_random_octets(read):
    octets = random.Random(7).randbytes(2_000_000)
    got = read(octets, chunk=65536)
    assert isinstance(got.fault, NotAFlowLog)
    assert got.tally.malformed > 1000
    assert all(line.text.isprintable() and line.reason.isprintable() for line in got.bad)


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(st.just(b""), st.sampled_from([b"\x1f\x8b\x08", b"PAR1", b"{", b"[{", b'{"message":"', b"srcaddr\n"])),
    st.binary(max_size=400),
    st.integers(1, 50),
)
def test_nothing_but_a_format_error_ever_comes_of_octets(start, rest, chunk):
    octets = start + rest
    reader = Reader(batch_rows=3)
    chunks = [octets[at : at + chunk] for at in range(0, len(octets), chunk)]
    delivery = Delivery(Origin("files", "x"), "x", lambda: chunks, lambda *fate: None)
    batches = []
    with contextlib.suppress(FormatError):
        reader.feed(delivery, batches.append)
    reader.flush(batches.append)
    assert sum(batch.rows for batch in batches) <= len(octets)


def test_a_pipe_that_gives_little_at_a_time(make_delivery):
    """Chunks of any size, empty ones too, as a pipe or a socket gives them."""
    reader = Reader()
    delivery, _ = make_delivery(b"")
    line = b"srcaddr bytes\n10.0.0.1 7\n"
    delivery.chunks = lambda: (part for octet in line for part in (b"", bytes([octet])))
    reader.feed(delivery, [].append)
    assert reader.tally == Counts(flows=1)


def test_chunks_may_be_memoryviews_and_bytearrays(make_delivery):
    for kind in (bytearray, memoryview):
        reader = Reader()
        delivery, _ = make_delivery(b"")
        delivery.chunks = lambda kind=kind: [kind(b"srcaddr bytes\n10.0.0.1 7\n")]
        reader.feed(delivery, [].append)
        assert reader.tally == Counts(flows=1)


def test_an_input_of_the_size_of_a_disk_is_not_read_to_its_end(make_delivery):
    reader = Reader()
    delivery, _ = make_delivery(b"")
    block = os.urandom(1 << 16)
    given = 0

    def chunks():
        nonlocal given
        while True:
            given += len(block)
            yield block

    delivery.chunks = chunks
    with pytest.raises(NotAFlowLog, match="no line of a stretch of 64 MiB could be read"):
        reader.feed(delivery, [].append)
    assert given < 70 << 20
