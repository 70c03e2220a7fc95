"""`edfn-agent decode`: RFC 5655 files and captures, whole and damaged."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import PROGRAM, Run


def flows(out: str) -> list[dict[str, object]]:
    return [record for record in map(json.loads, out.splitlines()) if record.get("options") is False]


@pytest.mark.parametrize("name", ["flows.ipfix", "flows.pcap"])
def test_every_record_of_a_file(name: str, exported: Path, edfn_agent: Run) -> None:
    result = edfn_agent("decode", name, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    found = {str(one.get("sourceIPv4Address") or one["sourceIPv6Address"]): one for one in flows(result.stdout)}
    assert found.keys() == {"10.0.0.1", "10.0.0.3", "2001:db8::1"}
    assert found["10.0.0.1"]["octetDeltaCount"] == 5000
    if name.endswith(".pcap"):  # in a capture it is clear who sent it
        assert all(one["exporter"] == one["exporterIPv4Address"] for one in found.values())
    text = edfn_agent("decode", name)
    assert text.stdout.endswith("3 flow records of 2 exporters\n")
    assert "octetDeltaCount=5000 octets" in text.stdout


def test_templates_are_shown_with_their_lengths(exported: Path, edfn_agent: Run) -> None:
    text = edfn_agent("decode", "flows.ipfix", "--templates").stdout
    assert "template 300: sourceIPv4Address(8)[4], destinationIPv4Address(12)[4]" in text
    assert "options template 256, scope 1: observationDomainId(149)[4], exporterIPv4Address(130)[4]" in text
    listed = [
        json.loads(line) for line in edfn_agent("decode", "flows.ipfix", "--templates", "--json").stdout.splitlines()
    ]
    templates = {one["template"]: one for one in listed if "fields" in one}
    assert templates.keys() == {256, 257, 258, 259, 300, 301}
    assert {"name": "tcpControlBits", "id": 6, "pen": 0, "length": 1} not in templates[300]["fields"]
    assert {"name": "protocolIdentifier", "id": 4, "pen": 0, "length": 1} in templates[300]["fields"]


def test_enterprise_elements_by_name_when_the_number_is_said(exported: Path, edfn_agent: Run) -> None:
    named = flows(edfn_agent("decode", "aws.ipfix", "--json", "--enterprise-number", "4242").stdout)
    assert {one["awsVpcId"] for one in named} == {"vpc-0a", "vpc-0b"}
    assert {one["awsVersion"] for one in named} == {5}
    bare = edfn_agent("decode", "aws.ipfix", "--json")
    assert bare.returncode == 0
    assert len(flows(bare.stdout)) == 3


def test_a_file_cut_short_shows_what_came_before(exported: Path, edfn_agent: Run) -> None:
    whole = (exported / "flows.ipfix").read_bytes()
    (exported / "cut.ipfix").write_bytes(whole[:-10])
    result = edfn_agent("decode", "cut.ipfix")
    assert result.returncode == 1
    assert "cut.ipfix: the file ends" in result.stderr
    assert 0 < len([line for line in result.stdout.splitlines() if " flow 30" in line]) < 3


@pytest.mark.parametrize("missing", [3, 60])
def test_a_capture_cut_short_too(missing: int, exported: Path, edfn_agent: Run) -> None:
    (exported / "cut.pcap").write_bytes((exported / "flows.pcap").read_bytes()[:-missing])
    result = edfn_agent("decode", "cut.pcap", "--json")
    assert result.returncode == 1
    assert "cut.pcap: " in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert 0 < len(flows(result.stdout)) < 3


def test_a_damaged_message_costs_what_is_in_it(exported: Path, edfn_agent: Run) -> None:
    octets = bytearray((exported / "flows.ipfix").read_bytes())
    at = 0
    while int.from_bytes(octets[at + 16 : at + 18], "big") < 300:  # the first message that begins with flows
        at += int.from_bytes(octets[at + 2 : at + 4], "big")
    octets[at + 18 : at + 20] = b"\xff\xff"  # its set is longer than the message
    (exported / "damaged.ipfix").write_bytes(octets)
    result = edfn_agent("decode", "damaged.ipfix", "--json")
    assert result.returncode == 1
    assert "damaged.ipfix domain" in result.stderr
    assert 0 < len(flows(result.stdout)) < 3


def test_data_without_a_template_could_not_be_decoded(exported: Path, edfn_agent: Run) -> None:
    octets = (exported / "flows.ipfix").read_bytes()
    (exported / "late.ipfix").write_bytes(octets[int.from_bytes(octets[2:4], "big") :])
    result = edfn_agent("decode", "late.ipfix")
    assert result.returncode == 1
    assert "no template for it yet" in result.stderr
    assert "could not be decoded" in result.stdout


@pytest.mark.parametrize(
    "content", [b"hello\n", bytes(range(256)) * 40, b"\xd4\xc3\xb2\xa1" + b"\xff" * 100, b"\xd4\xc3\xb2\xa1"]
)
def test_what_is_neither_is_said(content: bytes, edfn_agent: Run, tmp_path: Path) -> None:
    (tmp_path / "other.ipfix").write_bytes(content)
    result = edfn_agent("decode", "other.ipfix")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "other.ipfix" in result.stderr


def test_a_missing_file_is_a_usage_error(edfn_agent: Run) -> None:
    assert edfn_agent("decode", "nowhere.ipfix").returncode == 2


def test_a_reader_that_has_seen_enough_is_no_fault(exported: Path) -> None:
    octets = (exported / "flows.ipfix").read_bytes()
    (exported / "long.ipfix").write_bytes(octets * 300)
    command = f"{PROGRAM} decode long.ipfix 2>errors | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, cwd=exported)
    assert len(done.stdout.splitlines()) == 1
    said = (exported / "errors").read_text()
    assert "Broken pipe" not in said
    assert "Traceback" not in said


def test_type_records_teach_the_elements(edfn_agent: Run, log: Path, tmp_path: Path) -> None:
    aws = ["--profile", "aws", "--enterprise-number", "4242"]
    assert edfn_agent("export", log, "--output", "types.ipfix", *aws, "--type-records").returncode == 0
    taught = edfn_agent("decode", "types.ipfix")
    assert 'awsAccountId="123456789012"' in taught.stdout
    assert "awsVersion=5 " in taught.stdout
    assert edfn_agent("export", log, "--output", "plain.ipfix", *aws).returncode == 0
    assert "element_4242_10002=" in edfn_agent("decode", "plain.ipfix").stdout
    untaught = edfn_agent("export", log, "--output", "no.ipfix", "--type-records")
    assert (untaught.returncode, "--profile aws" in untaught.stderr) == (2, True)
