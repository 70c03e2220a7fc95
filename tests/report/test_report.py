"""The report against the same sums made line by line in plain Python, and against its own error bound."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from edfn_agent.commands.report import amount, bar, report, span, sparks
from edfn_agent.report import BYTES, FLOWS, Timeline, TopKeys

FIELDS = "srcaddr dstaddr srcport dstport protocol packets bytes start end"
HEADER = f"version interface-id {FIELDS} action log-status vpc-id az-id"
LINES = """\
5 eni-0a 10.0.0.1 10.0.0.2 50000 443 6 10 1000 1700000000 1700000060 ACCEPT OK vpc-1 use1-az1
5 eni-0a 10.0.0.2 10.0.0.1 443 50000 6 20 3000 1700000000 1700000060 ACCEPT OK vpc-1 use1-az1
5 eni-0b 10.0.0.1 10.0.0.2 50001 443 6 1 100 1700000120 1700000180 ACCEPT OK vpc-2 use1-az2
5 eni-0b 192.0.2.7 10.0.0.2 40000 23 6 1 40 1700000120 1700000180 REJECT OK vpc-2 use1-az2
5 eni-0b 192.0.2.7 10.0.0.2 40001 23 6 1 40 1700000120 1700000180 REJECT OK vpc-2 use1-az2
5 eni-0b 192.0.2.8 10.0.0.2 0 0 1 1 84 1700000120 1700000180 REJECT OK vpc-2 use1-az2
5 eni-0b 2001:db8::1 2001:db8::2 50000 53 17 2 200 1700000120 1700000180 ACCEPT OK - -
5 eni-0b - - - - - - - 1700000120 1700000180 - NODATA vpc-2 use1-az2
5 eni-0b - - - - - - - 1700000120 1700000180 - SKIPDATA vpc-2 use1-az2
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "flow.log"
    path.write_text(f"{HEADER}\n{LINES}")
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(report, [str(word) for word in words], catch_exceptions=False, env={"COLUMNS": "120"})


def document(*words: object) -> dict[str, Any]:
    result = run(*words, "--format", "json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def rows(found: dict[str, Any], table: str, *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in columns) for row in found["tables"][table]["rows"]]


def test_every_table(log: Path) -> None:
    found = document(log)
    assert (found["bytes"], found["packets"], found["flows"], found["rejected_flows"]) == (4464, 36, 7, 3)
    assert (found["first"], found["last"]) == ("2023-11-14T22:13:20Z", "2023-11-14T22:16:20Z")
    assert found["records"] == {
        "nodata": 1,
        "skipdata": 1,
        "without_addresses": 0,
        "malformed": 0,
        "other_log_group": 0,
    }
    assert rows(found, "talkers", "source", "bytes", "flows") == [
        ("10.0.0.2", 3000, 1),
        ("10.0.0.1", 1100, 2),
        ("2001:db8::1", 200, 1),
        ("192.0.2.8", 84, 1),
        ("192.0.2.7", 80, 2),
    ]
    assert rows(found, "conversations", "source", "destination", "protocol", "port", "bytes")[:3] == [
        ("10.0.0.2", "10.0.0.1", "tcp", "443", 3000),
        ("10.0.0.1", "10.0.0.2", "tcp", "443", 1100),
        ("2001:db8::1", "2001:db8::2", "udp", "53", 200),
    ]
    assert rows(found, "rejected_ports", "protocol", "port", "flows") == [("tcp", "23", 2), ("icmp", "0", 1)]
    assert rows(found, "rejected_sources", "source", "flows") == [("192.0.2.7", 2), ("192.0.2.8", 1)]
    assert rows(found, "vpcs", "vpc", "bytes") == [("vpc-1", 4000), ("vpc-2", 264), ("-", 200)]
    assert rows(found, "interfaces", "interface", "flows") == [("eni-0a", 2), ("eni-0b", 5)]
    assert rows(found, "zones", "zone", "packets") == [("use1-az1", 30), ("use1-az2", 4), ("-", 2)]
    assert [(part["accepted_bytes"], part["rejected_flows"]) for part in found["timeline"]] == [
        *((4000, 0), (0, 0), (300, 3))
    ]


def test_by_flows_and_top(log: Path) -> None:
    found = document(log, "--by", "flows", "--top", 1)
    assert rows(found, "interfaces", "interface", "flows") == [("eni-0b", 5)]
    assert found["tables"]["interfaces"]["keys"] == 2
    assert found["tables"]["interfaces"]["total"] == 7


def test_many_lines_add_up(tmp_path: Path) -> None:
    """Twenty thousand lines in two files, over many batches, added up line by line in plain Python."""
    chance = random.Random(7)
    talkers: Counter[str] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    lines = []
    for _ in range(20_000):
        source = f"10.0.{chance.randrange(3)}.{chance.randrange(200)}" if chance.random() < 0.8 else "2001:db8::7"
        target = "2001:db8::1" if ":" in source else "10.9.9.9"
        port, octets, action = (
            chance.choice([22, 53, 443]),
            chance.randrange(10**6),
            chance.choice(["ACCEPT", "REJECT"]),
        )
        lines.append(f"5 eni-0a {source} {target} 50000 {port} 17 1 {octets} 1700000000 1700000060 {action} OK vpc-1 -")
        talkers[source] += octets
        refused["udp", str(port)] += action == "REJECT"
    (tmp_path / "a.log.gz").write_bytes(gzip.compress("\n".join([HEADER, *lines[:9000], ""]).encode()))
    (tmp_path / "b.log").write_text("\n".join([HEADER, *lines[9000:]]))
    found = document(tmp_path, "--top", 1000)
    assert dict(rows(found, "talkers", "source", "bytes")) == dict(talkers)
    assert [source for source, _ in talkers.most_common(5)] == [row[0] for row in rows(found, "talkers", "source")[:5]]
    shown = rows(found, "rejected_ports", "protocol", "port", "flows")
    assert {(protocol, port): flows for protocol, port, flows in shown} == dict(refused)


def test_csv(log: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(run(log, "--format", "csv").stdout)))
    assert lines[0] == {
        **dict.fromkeys(["destination", "protocol", "port", "vpc", "interface", "zone"], ""),
        "table": "talkers",
        "rank": "1",
        "source": "10.0.0.2",
        "bytes": "3000",
        "packets": "20",
        "flows": "1",
        "uncertain": "0",
    }
    assert {line["table"] for line in lines} == {
        *("talkers", "conversations", "rejected_ports", "rejected_sources", "vpcs", "interfaces", "zones")
    }


def test_names_out_of_a_log_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "flow.log"
    path.write_text(f"{HEADER}\n{LINES.replace('vpc-1', '=cmd|x').replace('vpc-2', '[red]x[/red]')}")
    assert "'=cmd|x" in run(path, "--format", "csv").stdout
    assert "[red]x[/red]" in run(path).stdout


def test_the_tables_on_a_terminal(log: Path) -> None:
    shown = run(log).stdout
    assert "7 flows, 36 packets, 4.5 kB; 3 flows rejected" in shown
    assert "not in it: 1 NODATA, 1 SKIPDATA (AWS lost some)" in shown
    assert "2001:db8::1  2001:db8::2  udp       53" in shown
    assert "accepted  █ ▁ max 4.0 kB" in shown
    assert "accepted" not in run(log, "--no-chart").stdout


def test_a_file_that_cannot_be_read_is_said_and_the_rest_is_shown(log: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.log.gz").write_bytes(gzip.compress(log.read_bytes())[:-20])
    result = run(log, tmp_path / "cut.log.gz", tmp_path / "none.log")
    assert result.exit_code == 1
    assert f"{tmp_path / 'none.log'}: No such file or directory" in result.stderr
    assert "cut.log.gz" in result.stderr
    assert "flows" in result.stdout


def test_nothing_at_all(tmp_path: Path) -> None:
    (tmp_path / "only-nodata.log").write_text(HEADER + "\n" + LINES.splitlines()[-2] + "\n")
    assert "0 flows" in run(tmp_path / "only-nodata.log").stdout


def test_a_file_without_header_line(tmp_path: Path) -> None:
    path = tmp_path / "bare.log"
    path.write_text(LINES)
    found = document(path, "--log-format", HEADER)
    assert found["flows"] == 7


# --- bounded memory -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1000)), max_size=30), max_size=20))
def test_the_error_bound_holds(parts: list[list[tuple[int, int]]]) -> None:
    """However little is kept: no sum is more than `uncertain` too small, none is too large."""
    top = TopKeys(1, BYTES, capacity=8)
    truth: Counter[int] = Counter()
    for part in parts:
        keys = np.array([[key] for key, _ in part], np.uint64).reshape(-1, 1)
        sums = np.array([[octets, 1, 1] for _, octets in part], np.uint64).reshape(-1, 3)
        top.add(keys, sums)
        truth.update({key: 0 for key, _ in part})
        for key, octets in part:
            truth[key] += octets
    shown = {int(key[0]): int(sums[BYTES]) for key, sums in top.largest(100)}
    assert len(shown) <= 8
    assert top.total == sum(truth.values())
    for key, octets in truth.items():
        assert shown.get(key, 0) <= octets <= shown.get(key, 0) + top.uncertain
    if len(truth) <= 8:
        assert top.uncertain == 0


def test_a_table_stays_small() -> None:
    rng = np.random.default_rng(1)
    top = TopKeys(3, FLOWS, capacity=1000)
    for _ in range(50):
        keys = rng.integers(0, 1 << 40, (2000, 3), np.uint64)
        keys[:500] = (4, 0, 7)
        top.add(keys, np.ones((2000, 3), np.uint64))
        assert len(top) <= 1000
    [(key, sums)] = top.largest(1)
    assert key.tolist() == [4, 0, 7]
    assert sums[FLOWS] == 25_000  # the largest was never dropped
    assert 0 < top.uncertain < 200


def test_the_timeline_gets_coarser() -> None:
    line = Timeline(limit=100)
    for minute in range(1000):
        start = np.array([1_700_000_000_000 + minute * 60_000], np.uint64)
        line.add(start, np.array([[10, 1, 1]], np.uint64), np.array([False]))
    assert len(line.parts) <= 101
    assert sum(octets for _, octets, _ in line.steps(50)) == 10_000
    assert len(line.steps(50)) <= 50


def test_how_figures_are_written() -> None:
    assert [amount(n) for n in (0, 999, 1000, 999_950, 12_345_678, 5 * 10**15)] == [
        *("0 B", "999 B", "1.0 kB", "1.0 MB", "12.3 MB", "5,000.0 TB")
    ]
    assert bar(1, 3, 4) == "█▍"
    assert bar(0, 0, 4) == ""
    assert sparks([0, 1, 500, 1000]) == " ▁▄█"
    assert [span(n * 60_000) for n in (1, 90, 300, 5000)] == ["1 min", "90 min", "5 h", "3.47 days"]
