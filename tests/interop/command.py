"""`edfn-agent export` as people run it, and what it says about exporters in its options records.

The numbers of domains and interfaces are the product's own; `Names`, read by tshark from the options records of the
same run, turns them into what the flow log calls them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from collectors import Daemon, Record, Tshark

PROGRAM = str(Path(sys.executable).with_name("edfn-agent"))
PACE = "40000"  # records a second: half of what the slowest of the collectors takes on one busy core
KEYS = [
    *["src", "dst", "sport", "dport", "proto", "packets", "octets", "start_ms", "end_ms", "tcp_flags", "direction"],
    *["forwarding", "firewall_event", "vpc", "in_name", "out_name"],
]
NFDUMP_HIDES = {"forwarding", "firewall_event"}  # version 1.7.1, for IPFIX


def run(*arguments: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, (
        f"{arguments}: status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    )
    return done


def export(
    files: Path | Iterable[Path], *arguments: str | Path, to: Iterable[Daemon] = (), pace: str = PACE
) -> dict[str, Any]:
    """Export to these collectors. The summary, after seeing that every file was read."""
    destinations = [f"--collector=udp://{_host(one.address)}:{one.port}" for one in to]
    paths = [files] if isinstance(files, Path) else list(files)
    done = run("export", *paths, *destinations, "--records-per-second", pace, "--json", *arguments)
    summary: dict[str, Any] = json.loads(done.stdout)
    assert summary["files_failed"] == 0
    return summary


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


class Names:
    """The four options tables as tshark shows them: by domain who the exporter is, and what numbers mean."""

    def __init__(self, shown: Tshark) -> None:
        self.vpcs: dict[int, str] = {}  # VRF id -> name
        self.exporters: dict[int, str] = {}  # domain -> address
        self.interfaces: dict[tuple[int, int], str] = {}  # (domain, ifIndex) -> name
        self.sampled: set[int] = set()  # domains that say that nothing was
        self.types: list[dict[str, bytes]] = []  # what enterprise elements are (RFC 5610)
        for record in shown.options:
            self._add(dict(record))

    def _add(self, record: dict[str, bytes]) -> None:
        if "cflow.information_element_name" in record:
            self.types.append(record)
            return
        domain = int.from_bytes(record["cflow.od_id"], "big")
        if "cflow.exporter_addr" in record:
            self.exporters[domain] = str(IPv4Address(record["cflow.exporter_addr"]))
        elif "cflow.vrfname" in record:
            self.vpcs[int.from_bytes(record["cflow.ingress_vrfid"], "big")] = _name(record["cflow.vrfname"])
        elif "cflow.if_descr" in record:
            index = int.from_bytes(record["cflow.inputint"], "big")
            self.interfaces[domain, index] = _name(record["cflow.if_descr"])
        else:
            number = [int.from_bytes(octets, "big") for octets in record.values()]
            assert number == [domain, 1, 1, 0], record
            self.sampled.add(domain)

    def named(self, record: Record) -> Record:
        """A collector's record with names for numbers, after seeing that its numbers belong together."""
        domain = record["domain"]
        assert record.get("vrf", domain) == domain
        assert record.get("exporter_field", self.exporters[domain]) == self.exporters[domain]
        result = dict(record, vpc=self.vpcs[domain])
        for key, name in (("in_if", "in_name"), ("out_if", "out_name")):
            if key in record:
                result[name] = self.interfaces[domain, record[key]] if record[key] else ""
        return result


def _name(octets: bytes) -> str:
    assert len(octets) == 64
    assert octets[-1] == 0
    return octets.rstrip(b"\0").decode()
