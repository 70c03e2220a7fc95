"""scapy as a reader that shares no line with this library."""

import pytest

from ipfix import IANA, ExportingProcess, Template

pytest.importorskip("scapy")
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.netflow import NetflowDataflowsetV9, NetflowHeader, NetflowHeaderV10, netflowv9_defragment

FLOW = Template(
    256,
    [
        IANA.by_name(name)
        for name in (
            "sourceIPv4Address",
            "destinationIPv4Address",
            "sourceTransportPort",
            "protocolIdentifier",
            "octetDeltaCount",
            "sourceIPv6Address",
        )
    ],
)


def test_scapy_reads_every_record():
    count = 200
    records = FLOW.records(
        {
            "sourceIPv4Address": [f"192.0.2.{n}" for n in range(count)],
            "destinationIPv4Address": "198.51.100.7",
            "sourceTransportPort": range(count),
            "protocolIdentifier": [n % 256 for n in range(count)],
            "octetDeltaCount": [2**64 - 1 - n for n in range(count)],
            "sourceIPv6Address": [f"2001:db8::{n + 1:x}" for n in range(count)],
        }
    )
    exporter = ExportingProcess(max_message_size=512)
    messages = [*exporter.announce(7, [FLOW], [], now=0, export_time=5), *exporter.data(7, [records], export_time=5)]
    packets = [Ether(bytes(Ether() / IP() / UDP(dport=4739) / NetflowHeader(bytes(m)))) for m in messages]
    packets = list(netflowv9_defragment(packets))

    found = [record for packet in packets[1:] for record in packet[NetflowDataflowsetV9].records]
    assert [
        (r.IPV4_SRC_ADDR, r.IPV4_DST_ADDR, r.L4_SRC_PORT, r.PROTOCOL, int(r.IN_BYTES), r.IPV6_SRC_ADDR) for r in found
    ] == [(f"192.0.2.{n}", "198.51.100.7", n, n % 256, 2**64 - 1 - n, f"2001:db8::{n + 1:x}") for n in range(count)]
    headers = [packet[NetflowHeaderV10] for packet in packets]
    assert {(h.ObservationDomainID, int(h.ExportTime)) for h in headers} == {(7, 5)}
    per_message = (512 - 20) // FLOW.dtype.itemsize
    assert [h.flowSequence for h in headers] == [0, *range(0, count, per_message)]
