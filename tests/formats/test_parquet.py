"""Parquet as AWS writes it, and as other tools do."""

from __future__ import annotations

import gc
import gzip
import io
import sys
import tracemalloc

import pytest

from edfn_agent.formats.batch import Counts
from edfn_agent.formats.errors import CorruptInput, MissingExtra, NotAFlowLog, TruncatedInput
from edfn_agent.formats.fields import BY_NAME, Kind
from edfn_agent.formats.layout import Layout

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'edfn-agent[parquet]'")
pq = pytest.importorskip("pyarrow.parquet")


def file_of(table: dict[str, object], **more: object) -> bytes:
    octets = io.BytesIO()
    pq.write_table(pa.table(table), octets, **more)
    return octets.getvalue()


def as_aws_writes_it(rows: list[dict[str, object]]) -> bytes:
    """Integers as INT_32 or INT_64 with nulls, strings with `-`, underscores in names, gzip inside."""
    table = {}
    for name in rows[0]:
        kind = BY_NAME[name.replace("_", "-")].kind
        if kind in (Kind.STRING, Kind.ADDRESS):
            table[name] = pa.array([row[name] or "-" for row in rows], pa.string())
        else:
            wide = kind in (Kind.INT64, Kind.TIME)
            table[name] = pa.array([row[name] for row in rows], pa.int64() if wide else pa.int32())
    return file_of(table, compression="gzip")


ROW = {
    "version": 5,
    "account_id": "012345678901",
    "interface_id": "eni-1",
    "srcaddr": "10.0.0.1",
    "dstaddr": "10.0.0.2",
    "srcport": 443,
    "dstport": 49152,
    "protocol": 6,
    "packets": 10,
    "bytes": 2**63 - 1,
    "start": 1700000000,
    "end": 1700000059,
    "action": "ACCEPT",
    "log_status": "OK",
    "tcp_flags": None,
    "pkt_srcaddr": None,
}

NODATA = dict.fromkeys(ROW) | {"version": 5, "start": 1, "end": 2, "log_status": "NODATA"}


def test_a_file_as_aws_writes_it(read):
    six = ROW | {"srcaddr": "2001:db8::1", "dstaddr": None, "bytes": None, "tcp_flags": 18}
    got = read(as_aws_writes_it([ROW, NODATA, six, NODATA | {"log_status": "SKIPDATA"}, NODATA | {"log_status": "OK"}]))
    assert got.tally == Counts(flows=2, nodata=1, skipdata=1, without_addresses=1)
    assert got.batches[0].layout == Layout(tuple(name.replace("_", "-") for name in ROW))
    assert got.batches[0].family.tolist() == [4, 6]
    first, second = got.rows
    expected = {name.replace("_", "-"): value for name, value in ROW.items()}
    assert first == expected | {"start": 1700000000000, "end": 1700000059000}
    assert (second["srcaddr"], second["dstaddr"]) == ("2001:db8::1", None)
    assert (second["bytes"], second["tcp-flags"]) == (None, 18)


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_it_is_read_a_stretch_at_a_time(read, rows):
    octets = as_aws_writes_it([ROW | {"bytes": n} for n in range(10)] + [NODATA])
    got = read(octets, batch_rows=rows, chunk=100)
    assert [row["bytes"] for row in got.rows] == list(range(10))
    assert max(batch.rows for batch in got.batches) <= rows


def test_unwanted_columns_are_not_read(read):
    got = read(as_aws_writes_it([ROW, NODATA]), wanted={"srcport", "srcaddr"})
    assert got.rows == [{"srcaddr": "10.0.0.1", "srcport": 443}]
    assert got.tally == Counts(flows=1, nodata=1)


def test_names_with_hyphens_and_unknown_columns(read):
    got = read(file_of({"srcaddr": ["10.0.0.1"], "pkt-srcaddr": ["10.0.0.9"], "new_field": ["x"], "nested": [[1]]}))
    assert got.rows == [{"srcaddr": "10.0.0.1", "pkt-srcaddr": "10.0.0.9", "new-field": "x"}]


@pytest.mark.parametrize(
    "numbers",
    [
        pa.array(["7", "None", "-", None], pa.string()),
        pa.array(["7", "None", "-", None], pa.large_string()),
        pa.array([b"7", b"", b"-", None], pa.binary()),
        pa.array([7.0, None, float("nan"), None], pa.float64()),
        pa.array([7, None, None, None], pa.uint8()),
        pa.array(["7", "-", "-", None], pa.string()).dictionary_encode(),
    ],
)
def test_integers_of_odd_types(read, numbers):
    got = read(file_of({"srcaddr": ["10.0.0.1"] * 4, "protocol": numbers}))
    assert [row["protocol"] for row in got.rows] == [7, None, None, None]


def test_account_ids_that_became_numbers_get_their_zeros_back(read):
    assert read(file_of({"srcaddr": ["10.0.0.1"], "account_id": [12345678901]})).rows[0]["account-id"] == "012345678901"


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_times_that_are_timestamps(read, unit):
    scale = {"s": 1, "ms": 1000, "us": 1000_000}[unit]
    times = pa.array([1700000000 * scale], pa.timestamp(unit))
    assert read(file_of({"srcaddr": ["10.0.0.1"], "start": times})).rows[0]["start"] == 1700000000000


@pytest.mark.parametrize("kind", [pa.timestamp("ns", tz="UTC"), pa.duration("ns"), pa.time64("ns")])
def test_times_finer_than_python_has_in_other_columns_and_in_bad_rows(read, kind):
    odd = pa.array([1, 86_399_999_999_999], pa.int64()).cast(kind)
    got = read(file_of({"srcaddr": ["10.0.0.1", "x"], "protocol": [6, 6], "arrived": odd}))
    assert got.fault is None
    assert got.tally == Counts(flows=1, malformed=1)
    assert got.bad[0].reason == "srcaddr: 'x' is not an address"


def test_rows_that_cannot_be_read(read):
    good = {"srcaddr": "10.0.0.1", "dstaddr": "10.0.0.2", "protocol": 6}
    rows = [
        good,
        good | {"protocol": 8080},
        good | {"protocol": -1},
        good | {"dstaddr": "10.0.0"},
        good | {"dstaddr": "::1"},
        good,
    ]
    got = read(as_aws_writes_it(rows))
    assert got.tally == Counts(flows=2, malformed=4)
    assert [(line.line, line.reason) for line in got.bad] == [
        (2, "protocol: 8080 is over 255"),
        (3, "protocol: '-1' is not a number"),
        (4, "dstaddr: '10.0.0' is not an address"),
        (5, "IPv4 and IPv6 addresses in one line"),
    ]
    assert got.bad[0].text == "'10.0.0.1 10.0.0.2 8080'"


def test_a_file_without_rows_is_a_flow_log(read):
    got = read(
        as_aws_writes_it([ROW])[:0]
        or file_of({"srcaddr": pa.array([], pa.string()), "bytes": pa.array([], pa.int64())})
    )
    assert (got.fault, got.tally) == (None, Counts())


def test_gzip_around_it(read):
    assert read(gzip.compress(as_aws_writes_it([ROW]))).tally == Counts(flows=1)


def test_other_parquet(read):
    fault = read(file_of({"a": [1], "b": ["x"]})).fault
    assert isinstance(fault, NotAFlowLog)
    assert str(fault) == "Parquet, but its columns are no flow-log fields ('a', 'b')"


def test_a_file_that_ends_too_early(read):
    octets = as_aws_writes_it([ROW])
    for end in (4, 11, len(octets) // 2, len(octets) - 1):
        assert isinstance(read(octets[:end]).fault, TruncatedInput)


def test_a_damaged_file(read):
    octets = bytearray(as_aws_writes_it([ROW] * 100))
    for at in range(4, len(octets) - 4, len(octets) // 40):
        damaged = octets[:]
        damaged[at] ^= 0xFF
        fault = read(bytes(damaged)).fault
        assert fault is None or isinstance(fault, CorruptInput | NotAFlowLog)


def test_without_pyarrow_it_says_what_to_install(read, monkeypatch):
    octets = as_aws_writes_it([ROW])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    fault = read(octets).fault
    assert isinstance(fault, MissingExtra)
    assert str(fault) == "reading Parquet needs pyarrow: pip install 'edfn-agent[parquet]'"


def test_a_large_file_is_read_in_bounded_memory(read, make_delivery):
    from edfn_agent.formats.reader import Reader

    rows = 400_000
    octets = file_of(
        {"srcaddr": [f"10.{n % 200}.0.1" for n in range(rows)], "bytes": pa.array(range(rows), pa.int64())},
        row_group_size=rows,
    )
    reader = Reader()
    delivery, _ = make_delivery(octets)
    pa_before = pa.total_allocated_bytes()
    gc.collect()
    tracemalloc.start()
    total = 0
    most = 0

    def take(batch):
        nonlocal total, most
        total += batch.rows
        most = max(most, pa.total_allocated_bytes() - pa_before)

    reader.feed(delivery, take)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == rows
    assert peak < 16 << 20
    assert most < 16 << 20
