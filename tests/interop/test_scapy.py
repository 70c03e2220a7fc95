"""scapy reads what `--output FILE.pcap` wrote: every flow record in it, from the address of its exporter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import generated
import oracle
import pytest
from capture import messages
from checks import check
from collectors import Record, Tshark
from command import KEYS, Names, export

pytest.importorskip("scapy")
from scapy.layers.inet import IP, UDP
from scapy.layers.netflow import (
    NetflowDataflowsetV9,
    NetflowHeader,
    NetflowHeaderV10,
    NetflowOptionsFlowset10,
    netflowv9_defragment,
)
from scapy.packet import bind_layers
from scapy.utils import rdpcap

ELEMENTS = {
    "IPV4_SRC_ADDR": "src",
    "IPV6_SRC_ADDR": "src",
    "IPV4_DST_ADDR": "dst",
    "IPV6_DST_ADDR": "dst",
    "L4_SRC_PORT": "sport",
    "L4_DST_PORT": "dport",
    "PROTOCOL": "proto",
    "TCP_FLAGS": "tcp_flags",
    "IN_BYTES": "octets",
    "IN_PKTS": "packets",
    "DIRECTION": "direction",
    "flowStartMilliseconds": "start_ms",
    "flowEndMilliseconds": "end_ms",
    "INPUT_SNMP": "in_if",
    "OUTPUT_SNMP": "out_if",
    "FORWARDING_STATUS": "forwarding",
    "firewallEvent": "firewall_event",
    "ingressVRFID": "vrf",
    "exporterIPv4Address": "exporter_field",
}


@pytest.mark.parametrize("size", [512, 8900])
def test_scapy_reads_every_record(size: int, tmp_path: Path) -> None:
    folder = generated.write(tmp_path / "logs", ok=2000, skipdata=5, nodata=5, files=6)
    expected = [flow for path in sorted(folder.rglob("*.gz")) for flow in oracle.flows(oracle.lines(path))]
    file = tmp_path / "flows.pcap"
    summary = export(folder, "--output", file, "--max-message-size", str(size))
    assert len(messages(file)) == summary["messages"]
    assert max(one.length for one in messages(file)) <= size
    names = Names(Tshark(file))
    bind_layers(UDP, NetflowHeader, dport=4739)
    packets = list(netflowv9_defragment([_without_options_templates(one) for one in rdpcap(str(file))]))
    check((names.named(record) for packet in packets for record in _records(packet)), expected, KEYS)
    for packet in rdpcap(str(file)):
        sums = packet[IP].chksum, packet[UDP].chksum
        del packet[IP].chksum, packet[UDP].chksum
        again = packet.__class__(bytes(packet))
        assert sums == (again[IP].chksum, again[UDP].chksum)


def _without_options_templates(packet: Any) -> Any:
    """scapy 2.8 holds options templates to be padded, and fails on those that are not and need not be."""
    if NetflowOptionsFlowset10 in packet:
        packet[NetflowOptionsFlowset10].underlayer.remove_payload()
    return packet


def _records(packet: Any) -> Iterator[Record]:
    domain = packet[NetflowHeaderV10].ObservationDomainID
    layer = packet
    while layer:
        if isinstance(layer, NetflowDataflowsetV9) and layer.templateID >= 300:
            for record in layer.records:
                values = {ELEMENTS[field.name]: getattr(record, field.name) for field in record.fields_desc}
                yield {key: _plain(value) for key, value in values.items()} | {"domain": domain}
                assert values["exporter_field"] == packet[IP].src
        layer = layer.payload


def _plain(value: Any) -> Any:
    return int.from_bytes(value, "big") if isinstance(value, bytes) else value
