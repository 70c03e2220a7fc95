"""`edfn-agent collect`: what arrives by UDP and TCP is shown, counted and kept."""

from __future__ import annotations

import json
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import PROGRAM, Run


def message(*sets: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack(">HH", set_id, 4 + len(octets)) + octets for set_id, octets in sets)
    return struct.pack(">HHIII", 10, 16 + len(body), 1735920000, 0, 1) + body


def template(*fields: tuple[int, int]) -> tuple[int, bytes]:
    return 2, struct.pack(">HH", 256, len(fields)) + b"".join(struct.pack(">HH", *field) for field in fields)


VARIABLE = 65535
ODD = [
    # counters, interfaces and the verdict of a firewall as octets of any length
    message(template((1, VARIABLE), (10, VARIABLE), (233, VARIABLE)), (256, b"\3abc\4abcd\1x")),
    message(template((1, 9), (10, 5), (233, 12)), (256, b"\x01" * 26)),
    # names that are markup to who prints tables, and commands to a terminal
    message((3, struct.pack(">HHHHHHH", 257, 2, 1, 149, 4, 236, VARIABLE)), (257, b"\0\0\0\1\x0a[/b]\x1b[31m\x9b")),
    message((3, struct.pack(">HHHHHHH", 257, 2, 1, 149, 4, 236, VARIABLE)), (257, b"\0\0\0\1\x09[/b]\x1b[31m")),
    message(template((82, VARIABLE)), (256, b"\x06\xc2\x9b31mx")),
    # no number
    message(template((320, 8)), (256, b"\x7f\xf8" + bytes(6))),
]
FLOW = message(template((1, 8), (2, 4)), (256, (5000).to_bytes(8, "big") + (10).to_bytes(4, "big")))


class Collecting:
    """A running `collect` on a port of its own."""

    def __init__(self, folder: Path, scheme: str, *arguments: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM) as free:
            free.bind(("127.0.0.1", 0))
            self.url = f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
        command = [PROGRAM, "collect", "--listen", self.url, *arguments]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, cwd=folder
        )
        assert self.process.stderr is not None
        assert self.process.stderr.readline() == f"listening on {self.url}\n"

    def end(self) -> tuple[int, str, str]:
        """Status, standard output, and standard error without its first line, once it has ended by itself."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def started() -> Iterator[list[Collecting]]:
    running: list[Collecting] = []
    yield running
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_people_see_a_line_a_record_and_a_table(
    scheme: str, edfn_agent: Run, log: Path, tmp_path: Path, started: list[Collecting]
) -> None:
    started.append(collect := Collecting(tmp_path, scheme, "--count", "3"))
    assert edfn_agent("export", log, "--collector", collect.url).returncode == 0
    status, out, err = collect.end()
    assert (status, err) == (0, "")
    flows = [line for line in out.splitlines() if " flow 30" in line]
    assert len(flows) == 3
    assert re.search(r"sourceIPv4Address=10.0.0.1 .*octetDeltaCount=5000 octets packetDeltaCount=10 packets", out)
    assert "flowStartMilliseconds=2025-01-03T16:40:00.000Z" in flows[0]
    assert 'VRFname="vpc-0a"' in out
    assert 'interfaceDescription="eni-0b"' in out
    table = {row[2]: row for row in (line.split() for line in out.splitlines()) if len(row) == 11}
    assert table["vpc-0a"][4:] == ["2", "5,160", "12", "0", "4", "0", "0"]
    assert table["vpc-0b"][4:] == ["1", "60", "1", "1", "4", "0", "0"]
    assert out.endswith("3 flow records of 2 exporters\n")


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_one_json_object_a_record_and_nothing_else(
    scheme: str, edfn_agent: Run, log: Path, tmp_path: Path, started: list[Collecting]
) -> None:
    started.append(collect := Collecting(tmp_path, scheme, "--count", "3", "--json"))
    edfn_agent("export", log, "--collector", collect.url)
    status, out, _ = collect.end()
    assert status == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert sum(record["options"] for record in records) == 8
    flow = next(record for record in records if record.get("sourceIPv4Address") == "10.0.0.3")
    assert flow["exporter"] == "127.0.0.1"
    assert flow["domain"] == flow["ingressVRFID"]
    assert (flow["octetDeltaCount"], flow["forwardingStatus"], flow["firewallEvent"]) == (60, 128, 3)
    assert flow["flowEndMilliseconds"] == "2025-01-03T16:41:00.000Z"


def test_what_was_written_is_what_came(edfn_agent: Run, log: Path, tmp_path: Path, started: list[Collecting]) -> None:
    started.append(collect := Collecting(tmp_path, "udp", "--count", "3", "--json", "--write", "kept.ipfix"))
    edfn_agent("export", log, "--collector", collect.url)
    _, live, _ = collect.end()
    decoded = edfn_agent("decode", "kept.ipfix", "--json")
    assert decoded.returncode == 0
    assert decoded.stdout.replace('"exporter": "kept.ipfix"', '"exporter": "127.0.0.1"') == live


def test_what_is_no_message_is_not_kept(edfn_agent: Run, tmp_path: Path, started: list[Collecting]) -> None:
    started.append(collect := Collecting(tmp_path, "udp", "--quiet", "--count", "2", "--write", "kept.ipfix"))
    host, port = collect.url.removeprefix("udp://").split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for octets in (FLOW, b"hello", FLOW[:20], b"\0\x09" + FLOW[2:], FLOW + b"more"):
            sock.sendto(octets, (host, int(port)))
    assert collect.end()[0] == 0
    assert (tmp_path / "kept.ipfix").read_bytes() == FLOW + FLOW


def test_a_disk_that_is_full_ends_it_with_its_table(tmp_path: Path, started: list[Collecting]) -> None:
    started.append(collect := Collecting(tmp_path, "udp", "--quiet", "--write", "/dev/full"))
    host, port = collect.url.removeprefix("udp://").split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(FLOW, (host, int(port)))
    status, out, err = collect.end()
    assert status == 1
    assert "--write: /dev/full: No space left on device" in err
    assert "Traceback" not in err
    assert out.endswith("1 flow records of 1 exporter\n")


def test_seconds_end_it(tmp_path: Path, started: list[Collecting]) -> None:
    started.append(collect := Collecting(tmp_path, "udp", "--seconds", "0.1"))
    assert collect.end() == (0, "0 flow records of 0 exporters\n", "")


def test_an_interrupt_ends_it_with_its_table(
    edfn_agent: Run, log: Path, tmp_path: Path, started: list[Collecting]
) -> None:
    started.append(collect := Collecting(tmp_path, "udp", "--quiet"))
    edfn_agent("export", log, "--collector", collect.url, "--exporter", "10.9.9.9", "--exporter-address", "field")
    collect.process.send_signal(signal.SIGINT)
    status, out, _ = collect.end()
    assert status == 0
    assert "sourceIPv4Address" not in out
    assert "10.9.9.9" in out


def test_what_is_no_ipfix_and_what_is_missing_is_said(
    exported: Path, edfn_agent: Run, tmp_path: Path, started: list[Collecting]
) -> None:
    octets = (exported / "flows.ipfix").read_bytes()
    messages = []
    while octets:
        length = int.from_bytes(octets[2:4], "big")
        messages.append(octets[:length])
        octets = octets[length:]
    first = messages[0]
    later = first[:8] + (100).to_bytes(4, "big") + first[12:]
    started.append(collect := Collecting(tmp_path, "udp", "--quiet", "--count", "3"))
    host, port = collect.url.removeprefix("udp://").split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for message in (first, later, b"hello", *messages[1:]):
            sock.sendto(message, (host, int(port)))
    status, out, err = collect.end()
    assert status == 0
    assert "not an IPFIX message" in err
    assert "data records are missing" in err
    assert "1 datagram was no IPFIX" in out


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_whatever_is_sent_it_goes_on(arguments: list[str], tmp_path: Path, started: list[Collecting]) -> None:
    started.append(collect := Collecting(tmp_path, "udp", "--count", "5", *arguments))
    host, port = collect.url.removeprefix("udp://").split(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for octets in (*ODD, FLOW):
            sock.sendto(octets, (host, int(port)))
    status, out, _ = collect.end()
    assert status == 0
    assert "\x1b" not in out
    assert "\x9b" not in out
    if arguments:

        def not_json(constant: str) -> None:
            raise AssertionError(constant)

        assert len([json.loads(line, parse_constant=not_json) for line in out.splitlines()]) == 7
    else:
        assert r"[/b]\x1b[31m" in out
        assert " 5,000 " in out.splitlines()[-2]
        assert out.endswith("5 flow records of 1 exporter\n")


def test_a_stream_that_is_no_ipfix_is_closed_and_others_are_heard(tmp_path: Path, started: list[Collecting]) -> None:
    started.append(collect := Collecting(tmp_path, "tcp", "--count", "2", "--quiet"))
    host, port = collect.url.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port)), 60) as odd, socket.create_connection((host, int(port))) as good:
        odd.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert odd.recv(1) == b""
        good.sendall(FLOW + FLOW[:7])
        good.sendall(FLOW[7:] + FLOW)
        status, out, err = collect.end()
    assert status == 0
    assert "no message header in the stream" in err
    assert out.endswith("2 flow records of 1 exporter\n")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--listen", "127.0.0.1:4739"], 2, "for example udp://127.0.0.1:4739"),
        (["--listen", "tls://127.0.0.1"], 2, "collect listens on udp:// or tcp://"),
        (["--listen", "udp://192.0.2.1:4739"], 1, "cannot listen on udp://192.0.2.1:4739: Cannot assign"),
        (["--write", "/nowhere/x.ipfix"], 1, "/nowhere/x.ipfix: cannot be written: No such file or directory"),
        (["--count", "0"], 2, "--count"),
    ],
)
def test_faults_are_one_line(edfn_agent: Run, arguments: list[str], status: int, says: str) -> None:
    result = edfn_agent("collect", *arguments)
    assert result.returncode == status
    assert says in result.stderr
    assert "Traceback" not in result.stderr
