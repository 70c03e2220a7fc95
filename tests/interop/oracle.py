"""What a flow log says, read in the plainest way: split the line, look at each word. No product code.

In: the text of a flow log. Out: for each row that is a flow, a dict with the keys of `collectors.py`:

    src dst sport dport proto packets octets start_ms end_ms tcp_flags direction forwarding firewall_event

and three that collectors say by number: `vpc` (whose flow it is: a VPC or a transit gateway), `in_name` and `out_name`
(the interfaces). A key that the layout lacks, or that the row has `-` for, is missing. `words` is the row itself, for
profile aws.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

Record = dict[str, Any]

DEFAULT = [
    *["version", "account-id", "interface-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol"],
    *["packets", "bytes", "start", "end", "action", "log-status"],
]
NUMBERS = {"srcport": "sport", "dstport": "dport", "protocol": "proto", "packets": "packets", "bytes": "octets"}
UNATTRIBUTED = "unattributed"


def lines(path: Path) -> Iterator[str]:
    """The lines of a file, or of all files below a folder."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    for file in files:
        octets = file.read_bytes()
        yield from (gzip.decompress(octets) if octets[:2] == b"\x1f\x8b" else octets).decode().splitlines()


def flows(text: Iterable[str]) -> list[Record]:
    """The flows among the lines of one file."""
    names = DEFAULT
    found = []
    for line in text:
        line = re.sub(r"^\d{4}-\d\d-\d\dT\S+Z ", "", line)  # an export task of CloudWatch Logs puts the time in front
        words = line.split()
        if "srcaddr" in words or "tgw-id" in words:
            names = words
            continue
        if len(words) != len(names):
            continue
        row = {name: word for name, word in zip(names, words, strict=True) if word != "-"}
        if "srcaddr" in row and row.get("log-status", "OK") == "OK":
            found.append(_flow(row, names))
    return found


def _flow(row: dict[str, str], names: list[str]) -> Record:
    flow: Record = {"words": row, "src": _address(row["srcaddr"]), "dst": _address(row["dstaddr"])}
    for name, key in NUMBERS.items():
        if name in row:
            flow[key] = int(row[name])
    for name in ("start", "end"):
        if name in row:
            time = int(row[name])
            flow[f"{name}_ms"] = time if time > 10**11 else time * 1000
    if "tcp-flags" in names:
        flow["tcp_flags"] = int(row.get("tcp-flags", "0"))
    if "action" in row:
        refused = 129 if "reject-reason" in row else 128
        flow["forwarding"], flow["firewall_event"] = {"ACCEPT": (64, 1), "REJECT": (refused, 3)}[row["action"]]
    if "flow-direction" in row:
        flow["direction"] = {"ingress": 0, "egress": 1}[row["flow-direction"]]
    if "interface-id" in names:
        own = row.get("interface-id", "")
        flow["in_name"], flow["out_name"] = ("", own) if flow.get("direction") == 1 else (own, "")
    elif "tgw-attachment-id" in names:  # a transit gateway's interfaces are its attachments
        sides = row.get("tgw-attachment-id", ""), row.get("tgw-pair-attachment-id", "")
        flow["in_name"], flow["out_name"] = reversed(sides) if flow.get("direction") == 1 else sides
    flow["vpc"] = row.get("vpc-id") or row.get("tgw-id") or UNATTRIBUTED
    return flow


def _address(text: str) -> str:
    return str(ip_address(text))
