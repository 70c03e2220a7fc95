"""The configurations in docs/collectors.md, taken out of the page and run; only the port is another, and the folder."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from collectors import PATIENCE, free_port, require
from command import run

PAGE = (Path(__file__).parents[2] / "docs" / "collectors.md").read_text()
LOG = (
    "version vpc-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action "
    "flow-direction\n"
    "5 vpc-0a eni-0a 10.0.0.1 10.0.0.2 1000 443 6 10 5000 1735922400 1735922460 ACCEPT ingress\n"
    "5 vpc-0b eni-0b 10.0.0.3 10.0.0.4 53 53 17 1 60 1735922400 1735922460 REJECT egress\n"
)


def section(title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[1]


def commands(title: str) -> list[list[str]]:
    """The commands of a section, word by word."""
    blocks = re.findall(r"```sh\n(.*?)```", section(title), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def files(title: str) -> dict[str, str]:
    """The files of a section by name."""
    return dict(re.findall(r"^`(\S+)`:\n\n```\n(.*?)```", section(title), re.MULTILINE | re.DOTALL))


@contextmanager
def running(command: list[str], folder: Path, ready: str, stop: signal.Signals) -> Iterator[None]:
    """A collector in `folder`, from when it says that it is ready."""
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=folder)
    try:
        until(lambda: ready in log.read_text("utf-8", "replace"), lambda: log.read_text("utf-8", "replace"))
        yield
    finally:
        process.send_signal(stop)
        process.wait(PATIENCE)


def until(true: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)


def export(folder: Path, *arguments: str) -> None:
    (folder / "flows.log").write_text(LOG)
    (folder / "map.yaml").write_text("vpc-0a: 10.1.0.1\nvpc-0b: 10.2.0.1\n")
    run("export", folder / "flows.log", "--exporter-map", folder / "map.yaml", *arguments)


def test_nfdump(tmp_path: Path) -> None:
    require("nfcapd")
    port = str(free_port())
    _, nfcapd, nfdump = (
        [word.replace("4739", port).replace("/tmp/flows", str(tmp_path / "flows")) for word in words]
        for words in commands("nfdump")
    )
    (tmp_path / "flows").mkdir()
    with running([*nfcapd, "-b", "127.0.0.1"], tmp_path, "Startup nfcapd", signal.SIGTERM):
        export(tmp_path, "--collector", f"udp://127.0.0.1:{port}", "--exporter-address", "source")
        until(lambda: _waiting(port) == 0, lambda: "nfcapd does not read")
    environment = {"TZ": "UTC", "PATH": "/usr/bin:/bin"}
    shown = subprocess.run(nfdump, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout
    assert re.search(
        r"10\.1\.0\.1 2025-01-03 16:40:00\.000 2025-01-03 16:41:00\.000 TCP +10\.0\.0\.1:1000 +-> +"
        r"10\.0\.0\.2:443 .* 10 +5000 .* eni-0a +0 .*vpc-0a",
        shown,
    )
    assert re.search(r"10\.2\.0\.1 .* UDP .* 60 +0 +.* eni-0b +\d+ +vpc-0b", shown)


def _waiting(port: str) -> int:
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[4].split(":")[1], 16) for line in lines if f":{int(port):04X} " in line)


def test_pmacct(tmp_path: Path) -> None:
    require("nfacctd")
    port = str(free_port())
    for name, text in files("pmacct").items():
        (tmp_path / name).write_text(text.replace("4739", port).replace("time[flows]: 10", "time[flows]: 1"))
    output = tmp_path / "flows.json"
    with running(commands("pmacct")[0], tmp_path, "setting object handlers", signal.SIGINT):
        export(tmp_path, "--collector", f"udp://127.0.0.1:{port}", "--exporter-address", "field")
        until(lambda: output.exists() and output.read_text().count("\n") >= 2, lambda: (tmp_path / "log").read_text())
    first, second = sorted(map(json.loads, output.read_text().splitlines()), key=lambda flow: str(flow["ip_src"]))
    assert (first["peer_ip_src"], second["peer_ip_src"]) == ("10.1.0.1", "10.2.0.1")
    assert (first["bytes"], first["firewallevent"], first["forwardingstatus"], first["flowdirection"]) == (
        5000,
        "1",
        "64",
        "0",
    )
    assert (second["bytes"], second["firewallevent"], second["forwardingstatus"], second["flowdirection"]) == (
        60,
        "3",
        "128",
        "1",
    )
    assert not [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith(("WARN", "ERROR"))]


def test_goflow2(tmp_path: Path) -> None:
    if shutil.which("goflow2") is None:
        pytest.skip("goflow2 is not installed (go install github.com/netsampler/goflow2/v2/cmd/goflow2@v2.2.6)")
    port = str(free_port())
    elements, goflow2 = commands("goflow2")
    assert elements[-2:] == [">", "mapping.yaml"]
    (tmp_path / "mapping.yaml").write_text(run(*elements[1:-2]).stdout)
    command = [word.replace(":4739", f"127.0.0.1:{port}") for word in goflow2]
    output = tmp_path / "flows.json"
    aws = ["--profile", "aws", "--enterprise-number", "4242"]
    with running(command, tmp_path, "starting collection", signal.SIGTERM):
        until(lambda: _listens(port), lambda: (tmp_path / "log").read_text())
        export(tmp_path, "--collector", f"udp://127.0.0.1:{port}", "--exporter-address", "source", *aws)
        until(lambda: output.exists() and output.read_text().count("\n") >= 2, lambda: (tmp_path / "log").read_text())
    first, second = sorted(map(json.loads, output.read_text().splitlines()), key=lambda flow: str(flow["src_addr"]))
    assert (first["sampler_address"], second["sampler_address"]) == ("10.1.0.1", "10.2.0.1")
    assert (first["bytes"], first["packets"], first["time_flow_end_ns"]) == (5000, 10, 1735922460 * 10**9)
    assert (second["forwarding_status"], second["firewallEvent"], second["flowDirection"]) == (128, 3, 1)
    assert (first["awsVpcId"], second["awsInterfaceId"], second["exporterIPv4Address"]) == (
        "vpc-0a",
        "eni-0b",
        "10.2.0.1",
    )


def test_telegraf(tmp_path: Path) -> None:
    if shutil.which("telegraf") is None:
        pytest.skip("telegraf is not installed (see docs/collectors.md)")
    port = str(free_port())
    elements, telegraf = commands("Telegraf")
    assert elements[-2:] == [">", "edfn.csv"]
    (tmp_path / "edfn.csv").write_text(run(*elements[1:-2]).stdout)
    (configuration,) = re.findall(r"```toml\n(.*?)```", section("Telegraf"), re.DOTALL)
    (tmp_path / "telegraf.conf").write_text(configuration.replace(":4739", f"127.0.0.1:{port}"))
    output = tmp_path / "flows.json"
    aws = ["--profile", "aws", "--enterprise-number", "4242"]

    def flows() -> list[dict[str, Any]]:
        lines = output.read_text().splitlines() if output.exists() else []
        return [one["fields"] | one["tags"] for one in map(json.loads, lines) if one["name"] == "netflow"]

    with running(telegraf, tmp_path, "Listening on", signal.SIGTERM):
        export(tmp_path, "--collector", f"udp://127.0.0.1:{port}", "--exporter-address", "source", *aws)
        until(lambda: len(flows()) >= 2, lambda: (tmp_path / "log").read_text())  # it writes every ten seconds
    first, second = sorted(flows(), key=lambda flow: str(flow["src"]))
    assert (first["source"], second["source"]) == ("10.1.0.1", "10.2.0.1")
    assert (first["in_bytes"], first["in_packets"], first["flow_end_ms"]) == (5000, 10, 1735922460000)
    assert (second["fwd_status"], second["fw_event"], second["direction"]) == ("dropped", "flow denied", "egress")
    assert (first["awsVpcId"], second["awsInterfaceId"], second["exporter"]) == ("vpc-0a", "eni-0b", "10.2.0.1")


def _listens(port: str) -> bool:
    return any(f":{int(port):04X} " in Path("/proc/net", name).read_text() for name in ("udp", "udp6"))


def test_wireshark(tmp_path: Path) -> None:
    require("tshark")
    exporting, _, tshark = commands("Wireshark")
    (tmp_path / "flows.log").write_text(LOG)
    words = [str(tmp_path / word) if word == "flows.pcap" else word for word in exporting[1:]]
    run(*[str(tmp_path / "flows.log") if word == "FILE" else word for word in words])
    shown = subprocess.run(tshark, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=60).stdout
    assert "SrcAddr: 10.0.0.1" in shown
    assert "Octets: 5000" in shown
    assert "eni-0b" in shown


def test_every_section_that_was_not_run_says_so() -> None:
    titles = re.findall(r"^## (.*)", PAGE, re.MULTILINE)
    assert {title for title in titles if " run)" in title} == {
        "Logstash (its codec was run)",
        "ElastiFlow (not run)",
        "Akvorado (not run)",
    }
