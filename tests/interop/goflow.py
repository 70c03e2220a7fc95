"""goflow2, and Telegraf's input netflow, which sits on the same decoder. Neither is in Debian: tests of them are
skipped where they are not installed, also in CI. Records as in `collectors.py`, enterprise elements by name.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from collectors import Daemon, Record
from command import run
from elements import NUMBER

_INSTALL = {
    "goflow2": "go install github.com/netsampler/goflow2/v2/cmd/goflow2@v2.2.6",
    "telegraf": (
        "go install -tags custom,inputs.netflow,outputs.file,serializers.json"
        " github.com/influxdata/telegraf/cmd/telegraf@v1.37.2"
    ),
}
_OF_GOFLOW2 = {
    "src_addr": "src",
    "dst_addr": "dst",
    "src_port": "sport",
    "dst_port": "dport",
    "bytes": "octets",
    "packets": "packets",
    "tcp_flags": "tcp_flags",
    "in_if": "in_if",
    "out_if": "out_if",
    "flowDirection": "direction",
    "forwarding_status": "forwarding",
    "firewallEvent": "firewall_event",
    "ingressVRFID": "vrf",
    "sampler_address": "exporter",
    "observation_domain_id": "domain",
    "exporterIPv4Address": "exporter_field",
}
_OF_TELEGRAF = {
    "src": "src",
    "dst": "dst",
    "src_port": "sport",
    "dst_port": "dport",
    "in_bytes": "octets",
    "in_packets": "packets",
    "flow_start_ms": "start_ms",
    "flow_end_ms": "end_ms",
    "in_snmp": "in_if",
    "out_snmp": "out_if",
    "in_vrf_id": "vrf",
    "exporter": "exporter_field",
}
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "ipv6-icmp": 58}


class _FromGo(Daemon):
    output = ""
    counted = ""  # in a line that is a flow

    def find(self) -> str:
        path = shutil.which(self.program)
        if path is None:
            pytest.skip(f"{self.program} is not installed ({_INSTALL[self.program]})")
        return path

    def start(self) -> None:
        super().start()
        self.wait_for(self._listens, "to listen")

    def _listens(self) -> bool:
        return any(f":{self.port:04X} " in Path("/proc/net", name).read_text() for name in ("udp", "udp6"))

    def records(self, expected: int) -> list[Record]:
        """Wait until so many flows are in its file, stop, and show all that are there."""
        file = self.folder / self.output
        self.settle()
        self.wait_for(lambda: file.exists() and file.read_text().count(self.counted) >= expected, "to write all flows")
        self.stop()
        lines = [line for line in file.read_text().splitlines() if self.counted in line]
        return [self.record(json.loads(line)) for line in lines]

    def record(self, flow: dict[str, Any]) -> Record:
        raise NotImplementedError


def _renamed(flow: dict[str, Any], names: dict[str, str]) -> Record:
    """What is shown under these names, under ours; elements of profile aws as they are."""
    private = {name: value for name, value in flow.items() if name.startswith("aws")}
    return private | {ours: flow[theirs] for theirs, ours in names.items() if theirs in flow}


class Goflow2(_FromGo):
    """Times are the export time where a record has none, counters 0 where it lacks them."""

    program = "goflow2"
    ready = "starting collection"
    output = "flows.json"
    counted = '"type":"IPFIX"'

    def command(self) -> list[str]:
        mapping = self.folder / "mapping.yaml"
        mapping.write_text(run("elements", "--format", "goflow2", "--enterprise-number", str(NUMBER)).stdout)
        return [
            *[self.path, "-listen", f"netflow://{self.address}:{self.port}?workers=1", "-addr", "", "-format", "json"],
            *["-transport", "file", "-transport.file", self.output, "-mapping", str(mapping)],
        ]

    def record(self, flow: dict[str, Any]) -> Record:
        return _renamed(flow, _OF_GOFLOW2) | {
            "proto": _PROTOCOLS[flow["proto"].lower()],
            "start_ms": flow["time_flow_start_ns"] // 10**6,
            "end_ms": flow["time_flow_end_ns"] // 10**6,
        }


class Telegraf(_FromGo):
    """It does not show the observation domain; the VRF is the same number."""

    program = "telegraf"
    ready = "Listening on"
    output = "flows.json"
    counted = '"name":"netflow"'

    def command(self) -> list[str]:
        (self.folder / "edfn.csv").write_text(
            run("elements", "--format", "telegraf", "--enterprise-number", str(NUMBER)).stdout
        )
        (self.folder / "telegraf.conf").write_text(
            f"""
            [agent]
              flush_interval = "100ms"
              metric_buffer_limit = 100000
              omit_hostname = true
            [[inputs.netflow]]
              service_address = "udp://{self.address}:{self.port}"
              protocol = "ipfix"
              read_buffer_size = "8MiB"
              private_enterprise_number_files = ["edfn.csv"]
            [[outputs.file]]
              files = ["{self.output}"]
              data_format = "json"
            """
        )
        return [self.path, "--config", "telegraf.conf"]

    def record(self, flow: dict[str, Any]) -> Record:
        fields = flow["fields"]
        record = _renamed(fields, _OF_TELEGRAF)
        record["exporter"] = flow["tags"]["source"]
        record["domain"] = record["vrf"]
        record["proto"] = _PROTOCOLS[fields["protocol"]]
        for ours, theirs, words in (
            ("direction", "direction", {"ingress": 0, "egress": 1}),
            ("firewall_event", "fw_event", {"flow created": 1, "flow denied": 3}),
        ):
            if theirs in fields:
                record[ours] = words[fields[theirs]]
        if "tcp_flags" in fields:
            flags = fields["tcp_flags"]
            record["tcp_flags"] = sum(128 >> place for place, letter in enumerate(flags) if letter != ".")
        if "fwd_status" in fields:
            status = {"forwarded": 64, "dropped": 128}[fields["fwd_status"]]
            record["forwarding"] = status + {"unknown": 0, "ACL deny": 1}[fields["fwd_reason"]]
        return record
