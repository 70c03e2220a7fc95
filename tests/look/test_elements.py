"""`edfn-agent elements`: what collectors are taught, in forms that parse and that real programs take."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from .conftest import Run

FORMATS = ["table", "json", "csv", "nfacctd", "goflow2", "telegraf", "logstash", "xml"]


def test_json(edfn_agent: Run) -> None:
    rows = json.loads(edfn_agent("elements", "--format", "json", "--enterprise-number", "4242").stdout)
    assert rows[0] == {
        "pen": 4242,
        "id": 10001,
        "name": "awsVersion",
        "type": "unsigned8",
        "length": 1,
        "field": "version",
        "description": "flow-log version of the record",
    }
    assert len({row["id"] for row in rows}) == len(rows) > 70


def test_every_format_has_the_same_elements(edfn_agent: Run) -> None:
    out = {name: edfn_agent("elements", "--format", name, "--enterprise-number", "4242").stdout for name in FORMATS}
    expected = [(row["id"], row["name"]) for row in json.loads(out["json"])]
    rows = list(csv.DictReader(out["csv"].splitlines()))
    assert [(int(row["id"]), row["name"]) for row in rows] == expected
    assert {row["pen"] for row in rows} == {"4242"}
    space = {"iana": "http://www.iana.org/assignments", "cert": "http://www.cert.org/ipfix"}
    records = ElementTree.fromstring(out["xml"]).findall(".//iana:record", space)
    assert [
        (int(one.findtext("iana:elementId", "", space)), one.findtext("iana:name", "", space)) for one in records
    ] == expected
    assert {one.findtext("cert:enterpriseId", "", space) for one in records} == {"4242"}
    lines = [dict(word.split("=") for word in line.split()) for line in out["nfacctd"].splitlines()]
    assert [(int(line["field_type"].removeprefix("4242:")), line["name"]) for line in lines] == expected
    telegraf = [line.split(",") for line in out["telegraf"].splitlines()]
    assert [(int(id.removeprefix("4242.")), name) for id, name, _ in telegraf] == expected
    assert {kind for _, _, kind in telegraf} == {"string", "uint", "ip"}
    logstash = yaml.safe_load(out["logstash"])[4242]
    assert [(id, name.removeprefix(":")) for id, (_, name) in logstash.items()] == expected
    assert {kind for kind, _ in logstash.values()} == {":string", ":uint8", ":uint64", ":ip4_addr", ":ip6_addr"}
    goflow2 = yaml.safe_load(out["goflow2"])
    mapped = [(one["field"], one["destination"]) for one in goflow2["ipfix"]["mapping"] if one.get("pen") == 4242]
    assert mapped == expected
    assert {name for _, name in expected} <= set(goflow2["formatter"]["fields"])
    table = [line.split()[:2] for line in out["table"].splitlines()[1:]]
    assert [(int(id), name) for id, name in table] == expected


def test_the_number_for_documentation_is_the_default(edfn_agent: Run) -> None:
    assert '"pen": 32473' in edfn_agent("elements", "--format", "json").stdout
    assert edfn_agent("elements", "--enterprise-number", "0").returncode == 2


@pytest.mark.interop
def test_nfacctd_takes_its_lines(edfn_agent: Run, tmp_path: Path) -> None:
    """All of them in one file; an `aggregate` may name 49."""
    program = _program("nfacctd", "pmacct")
    lines = edfn_agent("elements", "--format", "nfacctd", "--enterprise-number", "4242").stdout
    (tmp_path / "elements.lst").write_text(lines)
    names = [line.split()[0].removeprefix("name=") for line in lines.splitlines()]
    (tmp_path / "nfacctd.conf").write_text(
        f"nfacctd_ip: 127.0.0.1\nnfacctd_port: {_free_port()}\nplugins: print[all]\nprint_output[all]: json\n"
        "print_output_file[all]: flows.json\n"
        f"aggregate_primitives: elements.lst\naggregate[all]: src_host, {', '.join(names[:48])}\n"
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "-f", "nfacctd.conf"], stdout=log, stderr=log, cwd=tmp_path)
    try:
        deadline = time.monotonic() + 30
        while "setting object handlers" not in (said := (tmp_path / "log").read_text()):
            assert process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.02)
        assert "map successfully (re)loaded" in said
        assert not [line for line in said.splitlines() if line.startswith(("WARN", "ERROR"))]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


@pytest.mark.interop
def test_ipfixdump_names_them(exported: Path, edfn_agent: Run) -> None:
    program = shutil.which("ipfixDump")
    if program is None:
        pytest.skip("ipfixDump is not installed (Debian package libfixbuf-tools)")
    (exported / "elements.xml").write_text(
        edfn_agent("elements", "--format", "xml", "--enterprise-number", "4242").stdout
    )
    command = [program, "--in", "aws.ipfix", "--element-file", "elements.xml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=exported, check=True)
    assert re.search(r"\(4242/10005\) +awsVpcId : \(len: 6\) vpc-0a", done.stdout)
    assert re.search(r"\(4242/10001\) +awsVersion : 5", done.stdout)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _program(name: str, package: str) -> str:
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed (Debian package {package})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
