"""`edfn-agent export` as a person types it: what is said, counted and returned."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edfn_agent.cli import main

from .conftest import Export
from .test_records import V2

NODATA = "2 123456789010 eni-1235b8ca123456789 - - - - - - - 1431280876 1431280934 - NODATA\n"
SKIPDATA = NODATA.replace("NODATA", "SKIPDATA")


def test_the_summary_counts_every_line_once(export: Export) -> None:
    without = "2 123456789010 eni-1235b8ca123456789 - - - - - - - 1431280876 1431280934 - OK\n"
    result = export(V2 * 3 + NODATA * 2 + SKIPDATA + without + "bogus\n")
    assert result.status == 0
    counts = {key: result.summary[key] for key in result.summary if key.startswith(("records", "lines", "files"))}
    assert counts == {
        "files": 1,
        "files_failed": 0,
        "records_exported": 3,
        "records_nodata": 2,
        "records_skipdata": 1,
        "records_without_addresses": 1,
        "lines_malformed": 1,
    }
    assert result.summary["messages"] == len(result.messages)
    assert result.summary["octets"] == sum(message.length for message in result.messages)


def test_a_bad_line_is_shown_with_its_place_and_reason(export: Export) -> None:
    result = export(V2 + V2.replace(" 22 ", " 70000 ") + V2)
    assert result.summary["records_exported"] == 2
    assert "in0.log:2: dstport" in result.stderr


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: line.replace(" 6 ", " 256 "),
        lambda line: line.replace(" 22 ", " 65536 "),
        lambda line: line.replace("172.31.16.21", "172.31.16"),
        lambda line: line.replace("172.31.16.21", "2001:db8::1"),
        lambda line: line.replace(" 4249 ", " -4249 "),
        lambda line: line.replace(" 4249 ", " 4249x "),
        lambda line: line.replace(" OK", ""),
        lambda line: line.replace("2 1234", "two 1234"),
    ],
)
def test_a_bad_line_costs_that_line(export: Export, damage: object) -> None:
    assert callable(damage)
    bad = damage(V2)
    assert bad != V2
    result = export(V2 + bad + V2)
    assert (result.status, result.summary["records_exported"], result.summary["lines_malformed"]) == (0, 2, 1)


def test_what_comes_before_the_fault_is_exported(export: Export) -> None:
    rng = random.Random(1)
    lines = "".join(V2.replace(" 20641 ", f" {rng.randrange(65536)} ") for _ in range(5000))
    whole = gzip.compress(lines.encode())
    result = export([whole[: len(whole) // 2], V2])
    assert (result.status, result.summary["files_failed"]) == (1, 1)
    assert result.summary["records_exported"] > 1000
    assert "in0.log" in result.summary["failed"][0]["file"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 20,
        random.Random(2).randbytes(100_000),
        b"x" * 10_000_000,
        b"http 2018-07-02T22:23:00.186641Z app/my-lb/50dc6c495c0c9188 192.168.131.39:2817 10.0.0.1:80 0.000 0.001\n",
    ],
    ids=["empty", "jpeg", "random", "one line of 10 MB", "load balancer log"],
)
def test_no_flow_log_at_all_is_a_failed_file(export: Export, content: bytes) -> None:
    result = export([content, V2])
    assert (result.status, result.summary["files_failed"], result.summary["records_exported"]) == (1, 1, 1)
    assert "in0.log" in result.stderr


def test_a_header_line_alone_is_a_flow_log_without_records(export: Export) -> None:
    result = export("version account-id srcaddr dstaddr log-status\n")
    assert (result.status, result.summary["records_exported"]) == (0, 0)


def test_a_file_that_is_not_there(export: Export) -> None:
    result = export(V2, "/nowhere/at/all.log.gz")
    assert result.status == 1
    assert "/nowhere/at/all.log.gz: No such file or directory" in result.stderr


def test_a_collector_that_nobody_knows_is_a_usage_error(export: Export) -> None:
    """RFC 2606: this name will never be known. Without a resolver it is waited for, as it may be known later."""
    try:
        socket.getaddrinfo("nosuch.invalid", 4739)
    except socket.gaierror as error:
        if error.errno != socket.EAI_NONAME:
            pytest.skip("no resolver answers here, so no name is known to be unknown")
    result = export(V2, "--collector", "udp://nosuch.invalid:4739")
    assert result.status == 2
    assert "nobody knows the name nosuch.invalid" in result.stderr


def test_nowhere_to_send_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["export", "file"])
    assert result.exit_code == 2
    assert "--collector" in result.output


def test_columns_may_be_named(export: Export) -> None:
    result = export("10.0.0.1 10.0.0.2 99\n", "--log-format", "${srcaddr} ${dstaddr} ${bytes}")
    assert [record["octetDeltaCount"] for record in result.flows] == [99]
    assert export(V2, "--log-format", "${nonsense}").status == 2


@pytest.mark.parametrize("size", [512, 1400, 8900])
def test_no_message_is_over_the_limit(export: Export, size: int) -> None:
    result = export(V2 * 2000, "--max-message-size", str(size))
    lengths = [message.length for message in result.messages]
    assert len(result.flows) == 2000
    assert max(lengths) <= size
    assert max(lengths) > size - 100
    assert export(V2, "--max-message-size", "511").status == 2


def test_small_files_share_messages(export: Export) -> None:
    result = export([V2] * 60)
    assert result.summary["records_exported"] == 60
    assert result.summary["messages"] < 10


def test_an_output_that_cannot_be_written_ends_it_with_a_summary(tmp_path: Path) -> None:
    (tmp_path / "in.log").write_text(V2)
    command = ["export", str(tmp_path / "in.log"), "--output", str(tmp_path / "nowhere" / "x.ipfix"), "--json"]
    result = CliRunner().invoke(main, command)
    summary = json.loads(result.stdout)
    assert (result.exit_code, summary["files_failed"], summary["records_exported"]) == (1, 0, 0)
    assert summary["ended_early"].endswith("x.ipfix: cannot be written: No such file or directory")
    assert summary["ended_early"] in result.stderr


@pytest.mark.parametrize("name", ["out.ipfix", "out.pcap"])
def test_without_a_record_the_output_is_there_and_of_this_run(name: str, tmp_path: Path) -> None:
    paths = (tmp_path / "flows.log", tmp_path / "none.log")
    paths[0].write_text(V2)
    paths[1].write_text("version account-id srcaddr dstaddr\n")
    sizes = []
    for path in paths:
        assert CliRunner().invoke(main, ["export", str(path), "--output", str(tmp_path / name)]).exit_code == 0
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[0] > 100
    assert sizes[1] == (24 if name == "out.pcap" else 0)  # the header of a capture; RFC 5655 has none
    nowhere = CliRunner().invoke(main, ["export", str(paths[1]), "--output", str(tmp_path / "nowhere" / name)])
    assert nowhere.exit_code == 1


@pytest.mark.parametrize("option", ["--collector=udp://127.0.0.1:9", "--output=x.ipfix"])
def test_the_same_destination_twice_is_a_usage_error(option: str) -> None:
    result = CliRunner().invoke(main, ["export", "file", option, option])
    assert (result.exit_code, "is given twice" in result.output) == (2, True)


def test_a_folder_without_files_is_said(export: Export, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = export(V2, str(tmp_path / "empty"))
    assert (result.status, result.summary["files"]) == (0, 1)
    assert "empty: a folder without files" in result.stderr


def test_a_folder_is_read_in_name_order_without_what_is_no_file(export: Export, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "b").mkdir(parents=True)
    os.mkfifo(folder / "a.pipe")
    for name in ("c.log", "a.log", "b/z.log"):
        (folder / name).write_text(name)
    (folder / "d.log").symlink_to(folder / "nowhere")
    failed = [Path(each["file"]).relative_to(folder) for each in export(V2, str(folder)).summary["failed"]]
    assert [str(name) for name in failed] == ["a.log", "c.log", "d.log", "b/z.log"]


def test_what_is_no_flow_log_has_no_malformed_lines_to_show(export: Export) -> None:
    result = export(["one line of nothing\nanother line\n", V2])
    assert result.summary["lines_malformed"] == 2
    assert [line for line in result.stderr.splitlines() if "in0.log" in line] == [
        line for line in result.stderr.splitlines() if "no line could be read" in line
    ]


def test_ctrl_c_ends_it_with_a_summary_of_what_went_out(tmp_path: Path) -> None:
    (tmp_path / "in.log").write_text(V2 * 20_000)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(30)
        program = str(Path(sys.executable).with_name("edfn-agent"))
        url = f"udp://127.0.0.1:{sink.getsockname()[1]}"
        command = [program, "export", "in.log", "--collector", url, "--records-per-second", "1000", "--json"]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(5):  # templates, and flows
            sink.recv(2000)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    summary = json.loads(out)
    assert (process.returncode, summary["ended_early"]) == (1, "interrupted")
    assert 0 < summary["records_exported"] < 20_000
    assert "Traceback" not in err
