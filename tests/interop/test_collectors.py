"""The harness itself: messages made by hand, and what each collector has to show of them."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from collectors import CollectorError, Nfacctd, Nfcapd, Record, Tshark, free_port, merged

from edfn_agent.export.transports.pcap import PcapTransport
from ipfix import Messages

# Two templates in one message: 256 for IPv4, 257 for IPv6; element and length, as a VPC's records have them.
COMMON = (
    "0007 0002  000b 0002  0004 0001  0006 0001  0001 0008  0002 0008  0098 0008  0099 0008"
    "000a 0004  000e 0004  003d 0001  0059 0001  00e9 0001  00ea 0004  0082 0004"
)
TEMPLATES = bytes.fromhex(
    "000a 00a8  6778 1344  0000 0000  0000 0007"
    f"0002 004c  0100 0011  0008 0004  000c 0004  {COMMON}"
    f"0002 004c  0101 0011  001b 0010  001c 0010  {COMMON}"
)
T = 1735922400123  # 2025-01-03 16:40:00.123 UTC
FIRST = bytes.fromhex(
    "000a 00f3  6778 1344  0000 0000  0000 0007"
    "0100 0086"
    # 10.0.0.1:1000 > 10.0.0.2:443, TCP FIN SYN PSH ACK, 5000 octets in 10 packets, 59 s, in by interface 3, accepted
    "0a000001 0a000002 03e8 01bb 06 1b 0000000000001388 000000000000000a 000001942d09bb7b 000001942d0aa1f4"
    "00000003 00000000 00 40 01 00000009 0a010001"
    # 10.0.0.3:53 > 10.0.0.4:53, UDP, 600 GB in one packet, out by interface 4, denied
    "0a000003 0a000004 0035 0035 11 00 0000008bb2c97000 0000000000000001 000001942d09bb7c 000001942d09bb7d"
    "00000000 00000004 01 80 03 00000009 0a010001"
    "0101 005d"
    # 2001:db8::1 > 2001:db8::2, ICMPv6
    "20010db8000000000000000000000001 20010db8000000000000000000000002 0000 0000 3a 00 0000000000000050"
    "0000000000000001 000001942d09bb7b 000001942d09bb7b 00000005 00000000 00 40 01 00000009 0a010001"
)
SECOND = bytes.fromhex(  # sequence number 3: three records came before
    "000a 0055  6778 1345  0000 0003  0000 0007"
    "0100 0045"
    "0a000005 0a000006 0001 0002 06 02 0000000000000028 0000000000000001 000001942d09bb7b 000001942d09bb7b"
    "00000001 00000002 00 81 03 00000009 0a010001"
)


COLUMNS = ["src", "dst", "sport", "dport", "proto", "tcp_flags", "octets", "packets", "start_ms", "end_ms"]
COLUMNS += ["in_if", "out_if", "direction", "forwarding", "firewall_event"]
RECORDS: list[Record] = [
    dict(zip(COLUMNS, row, strict=True)) | {"vrf": 9, "domain": 7, "exporter_field": "10.1.0.1"}
    for row in (
        ("10.0.0.1", "10.0.0.2", 1000, 443, 6, 0x1B, 5000, 10, T, T + 59_001, 3, 0, 0, 64, 1),
        ("10.0.0.3", "10.0.0.4", 53, 53, 17, 0, 600_000_000_000, 1, T + 1, T + 2, 0, 4, 1, 128, 3),
        ("2001:db8::1", "2001:db8::2", 0, 0, 58, 0, 80, 1, T, T, 5, 0, 0, 64, 1),
        ("10.0.0.5", "10.0.0.6", 1, 2, 6, 2, 40, 1, T, T, 1, 2, 0, 129, 3),
    )
]
KEYS = [key for key in RECORDS[0] if key not in ("packets", "octets")]
NFDUMP_HIDES = {"forwarding", "firewall_event", "exporter_field"}


def send(collector: Nfcapd | Nfacctd, *messages: bytes, source: str = "127.0.0.1") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        for message in messages:
            sock.sendto(message, (collector.address, collector.port))


def seen_by(exporter: str, hides: set[str] = frozenset()) -> list[Record]:  # type: ignore[assignment]
    return [{k: v for k, v in one.items() if k not in hides} | {"exporter": exporter} for one in RECORDS]


def test_nfcapd(nfcapd: Nfcapd) -> None:
    send(nfcapd, TEMPLATES, FIRST, SECOND, source="127.0.0.9")
    assert nfcapd.records() == seen_by("127.0.0.9", NFDUMP_HIDES)
    assert nfcapd.sequence_failures() == {("127.0.0.9", 7): 0}


def test_nfcapd_gap(nfcapd: Nfcapd) -> None:
    send(nfcapd, TEMPLATES, FIRST, SECOND, SECOND)
    assert len(nfcapd.records()) == 5
    assert nfcapd.sequence_failures() == {("127.0.0.1", 7): 1}


def test_nfacctd(nfacctd: Nfacctd) -> None:
    send(nfacctd, TEMPLATES, FIRST, SECOND, source="127.0.0.9")
    keys = [*KEYS, "exporter"]
    assert merged(nfacctd.records(4), keys) == merged(seen_by("127.0.0.9"), keys)
    assert nfacctd.sequence_complaints() == []
    assert nfacctd.complaints() == []


def test_nfacctd_gap_and_records_that_agree_in_everything(nfacctd: Nfacctd) -> None:
    send(nfacctd, TEMPLATES, FIRST, SECOND, SECOND)
    records = nfacctd.records(5)
    assert sum(one["flows"] for one in records) == 5
    assert merged(records, KEYS) == merged([*RECORDS, RECORDS[3]], KEYS)
    assert len(nfacctd.sequence_complaints()) == 1


def test_nfacctd_further_elements(tmp_path: Path) -> None:
    collector = Nfacctd(
        tmp_path, primitives={"zone": ("32473:1000", "vlen", "str"), "code": ("32473:1001", 2, "u_int")}
    )
    collector.start()
    template = bytes.fromhex(
        "0002 0034 0100 0009  0008 0004  000c 0004  0001 0008  0002 0008  0098 0008  0099 0008  0004 0001"
        "83e9 0002 00007ed9  83e8 ffff 00007ed9"
    )
    data = bytes.fromhex(
        "0a000001 0a000002 0000000000000005 0000000000000001 000001942d09bb7b 000001942d09bb7b 06 01f4"
        "08 7573652d31617a31"
    )
    sets = template + struct.pack(">HH", 256, 4 + len(data)) + data
    send(collector, struct.pack(">HHIII", 10, 16 + len(sets), 1735922500, 0, 7) + sets)
    (got,) = collector.records(1)
    assert (got["zone"], got["code"], got["octets"]) == ("use-1az1", 500, 5)


@pytest.mark.parametrize("kind", ["ipfix", "pcap"])
def test_tshark(tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"flows.{kind}"
    if kind == "ipfix":
        file.write_bytes(TEMPLATES + FIRST + SECOND)
        expected = RECORDS
    else:
        _capture(file, TEMPLATES, FIRST, SECOND)
        expected = seen_by("10.1.0.1")
    shown = Tshark(file)
    assert shown.records == expected
    assert [name for name, _ in shown.elements[0]][-1] == "cflow.exporter_addr"
    assert (shown.options, shown.malformed, shown.sequence_complaints, shown.without_template) == ([], [], [], 0)


def test_tshark_complains(tmp_path: Path) -> None:
    file = tmp_path / "flows.ipfix"
    file.write_bytes(TEMPLATES + FIRST + SECOND + SECOND)
    shown = Tshark(file)
    assert len(shown.records) == 5
    assert len(shown.sequence_complaints) == 1
    file.write_bytes(FIRST + SECOND)
    shown = Tshark(file)
    assert shown.records == []
    assert shown.without_template == 3


def _capture(file: Path, *octets: bytes) -> None:
    import numpy as np

    lengths = np.array([len(one) for one in octets], np.int64)
    transport = PcapTransport(file)
    transport.open()
    transport.send(Messages(np.frombuffer(b"".join(octets), np.uint8), lengths, lengths * 0), ip_address("10.1.0.1"))  # type: ignore[arg-type]
    transport.close()


def test_a_collector_that_cannot_start_says_why(tmp_path: Path) -> None:
    collector = Nfcapd(tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        collector.port = taken.getsockname()[1]
        with pytest.raises(CollectorError, match="nfcapd ended with"):
            collector.start()
    assert free_port() != 0


def test_a_missing_collector_is_a_skip_here_and_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    from collectors import require

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match=r"nfacctd is not installed \(Debian package pmacct\)"):
        require("nfacctd")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="tshark is not installed"):
        require("tshark")
