"""Files: RFC 5655 and packet captures, read back by other people's programs."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import pytest

from edfn_agent.export.transports import TransportDown, TransportFault, file_transport
from edfn_agent.export.transports.file import DrainedFile, FileTransport
from edfn_agent.export.transports.pcap import PcapTransport
from ipfix import Messages

A, B = IPv4Address("10.1.0.1"), IPv4Address("10.2.0.1")
TIME = 1_735_922_400


def messages(*bodies: bytes) -> Messages:
    octets = [struct.pack(">HHIII", 10, 16 + len(body), TIME + n, n, 7) + body for n, body in enumerate(bodies)]
    lengths = np.array([len(one) for one in octets], np.int64)
    return Messages(np.frombuffer(b"".join(octets), np.uint8), lengths, np.zeros(len(octets), np.int64))


TEMPLATE = struct.pack(">HHHHHHHH", 2, 16, 256, 2, 8, 4, 1, 4)
DATA = struct.pack(">HHIIII", 256, 20, 0x0A000001, 1000, 0x0A000002, 2000)
BATCH = messages(TEMPLATE, DATA, DATA + DATA, TEMPLATE + DATA)


def test_an_ipfix_file_is_the_messages_and_nothing_else(tmp_path: Path) -> None:
    transport = file_transport(tmp_path / "flows.ipfix")
    assert isinstance(transport, FileTransport)
    transport.open()
    transport.send(BATCH[:1], A)
    transport.open()  # what TransportDown asks for; here it changes nothing
    transport.send(BATCH[1:], B)
    assert transport.drain(0)
    transport.close()
    transport.close()
    assert (tmp_path / "flows.ipfix").read_bytes() == bytes(BATCH)
    assert (transport.session, transport.messages, transport.octets) == (1, 4, len(bytes(BATCH)))


def test_names(tmp_path: Path) -> None:
    assert isinstance(file_transport(tmp_path / "flows.PCAP"), PcapTransport)
    with pytest.raises(ValueError, match=r"flows\.json.*has to end in \.ipfix .*\.pcap"):
        file_transport(tmp_path / "flows.json")


@pytest.mark.parametrize("name", ["no/such/folder.ipfix", "no/such/folder.pcap"])
def test_a_file_that_cannot_be_made_is_a_fault(tmp_path: Path, name: str) -> None:
    with pytest.raises(TransportFault, match="cannot be written: No such file"):
        file_transport(tmp_path / name).open()


@pytest.mark.parametrize("kind", ["ipfix", "pcap"])
def test_a_full_disk_leaves_what_has_drained_and_the_rest_is_sent_again(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"flows.{kind}"
    transport = file_transport(path)
    transport.open()
    transport.send(BATCH[:1], A)
    assert transport.drain(0)
    drained = path.read_bytes()
    transport.send(BATCH[1:2], A)

    class Full:
        """Takes 10 octets, then none."""

        def __init__(self, file: object) -> None:
            self.file = file
            self.left = 10

        def write(self, octets: memoryview) -> int:
            if not self.left:
                raise OSError(28, "No space left on device")
            done = self.file.write(octets[: self.left])  # type: ignore[attr-defined]
            self.left -= done
            return int(done)

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    inner = transport._file  # type: ignore[attr-defined]
    assert isinstance(inner, DrainedFile)
    with monkeypatch.context() as patch:
        patch.setattr(inner, "_file", Full(inner._file))
        with pytest.raises(TransportDown, match="No space left") as down:
            transport.send(BATCH[2:], A)
    assert down.value.sent == 0
    assert down.value.retry_after > 0
    assert path.read_bytes() == drained
    with pytest.raises(TransportDown, match="not open"):
        transport.send(BATCH[2:], A)
    transport.open()
    assert transport.session == 2
    transport.send(BATCH[1:], A)
    transport.close()
    fresh = file_transport(tmp_path / f"fresh.{kind}")
    fresh.open()
    fresh.send(BATCH, A)
    fresh.close()
    if kind == "ipfix":
        assert path.read_bytes() == (tmp_path / "fresh.ipfix").read_bytes()
    assert path.stat().st_size == (tmp_path / f"fresh.{kind}").stat().st_size
    assert transport.errors == {"write": 1}


def test_a_capture_by_scapy_with_right_checksums(tmp_path: Path) -> None:
    from scapy.layers.inet import IP, UDP
    from scapy.utils import rdpcap

    bodies = [bytes([n % 251]) * (n * 7) for n in range(200)]  # odd and even lengths
    batch = messages(*bodies, bytes(8884))
    transport = PcapTransport(tmp_path / "flows.pcap", IPv4Address("198.51.100.7"), 2055)
    transport.open()
    transport.send(batch, A)
    transport.send(BATCH, B)
    transport.send(BATCH[:1], None)
    transport.close()
    packets = rdpcap(str(tmp_path / "flows.pcap"))
    assert [bytes(packet[UDP].payload) for packet in packets] == [bytes(one) for one in (*batch, *BATCH, *BATCH[:1])]
    assert [packet[IP].src for packet in packets] == ["10.1.0.1"] * 201 + ["10.2.0.1"] * 4 + ["192.0.2.2"]
    assert [int(packet.time) for packet in packets[:201]] == [TIME + n for n in range(201)]
    assert [packet[IP].id for packet in packets] == list(range(206))
    for packet in packets:
        assert (packet[IP].dst, packet[UDP].dport) == ("198.51.100.7", 2055)
        said = bytes(packet)
        del packet[IP].chksum, packet[UDP].chksum, packet[IP].len, packet[UDP].len
        assert bytes(packet) == said  # scapy works them out anew


@pytest.mark.skipif(shutil.which("tshark") is None and os.environ.get("CI") != "true", reason="tshark is not installed")
def test_wireshark_opens_a_capture(tmp_path: Path) -> None:
    path = tmp_path / "flows.pcap"
    transport = PcapTransport(path)
    transport.open()
    transport.send(BATCH, A)
    transport.close()
    out = subprocess.run(
        [
            "tshark",
            "-n",
            "-r",
            str(path),
            "-T",
            "fields",
            "-o",
            "ip.check_checksum:TRUE",
            "-o",
            "udp.check_checksum:TRUE",
        ]
        + [argument for field in FIELDS for argument in ("-e", field)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rows = [line.split("\t") for line in out.stdout.splitlines()]
    assert [row[0] for row in rows] == ["10.1.0.1"] * 4
    assert {(row[1], row[2], row[3]) for row in rows} == {("192.0.2.1", "1", "1")}  # 1: good
    assert [row[4] for row in rows] == ["", *["1000,2000"], "1000,2000,1000,2000", "1000,2000"]
    assert [row[5] for row in rows] == ["", "", "", ""]


FIELDS = ["ip.src", "ip.dst", "ip.checksum.status", "udp.checksum.status", "cflow.octets", "_ws.malformed"]


def test_without_scapy_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scapy.utils", None)
    transport = file_transport(tmp_path / "flows.pcap")
    with pytest.raises(TransportFault, match=r"pip install 'edfn-agent\[pcap\]'"):
        transport.open()
    assert not (tmp_path / "flows.pcap").exists()
