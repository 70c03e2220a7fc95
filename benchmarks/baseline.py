"""The same work as `edfn-agent export`, as well as plain Python does it: record by record.

In: gzip flow-log files (v2 default or the 29-field v5 layout of generate.py) and an exporter map. Out: IPFIX over UDP,
the fields of profile `standard`, one template per address family, every VPC its own observation domain; at the end one
JSON object with what was done. A bad line costs that line and is counted. Never: quite the product's strictness, as
`int` takes "+5" and "1_000" too.

Tuned, for a fair comparison: igzip into a reused block, lines split by `bytes.split`, addresses, interfaces and
times from dictionaries, one precompiled struct per family and layout, full messages of one domain and template, one
`send` each on a connected socket. No options records and one source address, which is less than the product does.

    python benchmarks/baseline.py --collector 127.0.0.1:4739 --exporter-map exporters.json small.log.gz
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from generate import LAYOUTS
from isal import igzip

BLOCK = 1 << 20
MESSAGE = 1400
REFRESH = 60.0

ACTIONS = {b"ACCEPT": (64, 1), b"REJECT": (128, 3)}  # forwardingStatus, firewallEvent
DIRECTIONS = {b"ingress": 0, b"egress": 1}

# element, length; in the order of the product's templates
ADDRESSES = {4: [(8, 4), (12, 4)], 6: [(27, 16), (28, 16)]}
PORTS = [(7, 2), (11, 2), (4, 1)]
COUNTERS = [(1, 8), (2, 8), (152, 8), (153, 8), (10, 4), (14, 4)]
VERDICT = [(89, 1), (233, 1), (234, 4), (130, 4)]
FIELDS = {
    (layout, family): [
        *ADDRESSES[family],
        *PORTS,
        *([(6, 1)] if layout == "v5" else []),
        *COUNTERS,
        *([(61, 1)] if layout == "v5" else []),
        *VERDICT,
    ]
    for layout in LAYOUTS
    for family in (4, 6)
}
TEMPLATE_IDS = {("v2", 4): 300, ("v2", 6): 301, ("v5", 4): 302, ("v5", 6): 303}
RECORDS = {
    ("v2", 4): struct.Struct(">4s4sHHBQQQQIIBB8s"),
    ("v2", 6): struct.Struct(">16s16sHHBQQQQIIBB8s"),
    ("v5", 4): struct.Struct(">4s4sHHBBQQQQIIBBB8s"),
    ("v5", 6): struct.Struct(">16s16sHHBBQQQQIIBBB8s"),
}
HEADER = struct.Struct(">HHIIIHH")  # message header and the header of its only set


class Domain:
    """A VPC: its records until they fill a message, and its sequence number."""

    def __init__(self, number: int, exporter: str, sender: Sender, layout: str) -> None:
        self.number = number
        self.tail = struct.pack(">I", number) + socket.inet_aton(exporter)  # ingressVRFID, exporterIPv4Address
        self.sender = sender
        self.sequence = 0
        self.waiting: dict[int, list[bytes]] = {4: [], 6: []}
        self.layout = layout
        self.most = {family: (MESSAGE - 20) // RECORDS[layout, family].size for family in (4, 6)}
        self.announced = 0.0

    def flush(self, family: int) -> None:
        records = self.waiting[family]
        if not records:
            return
        now = time.time()
        if now - self.announced >= REFRESH:
            self.announce(now)
        body = b"".join(records)
        size = len(body) + 20
        header = HEADER.pack(
            10, size, int(now), self.sequence, self.number, TEMPLATE_IDS[self.layout, family], size - 16
        )
        self.sender.send(header + body)
        self.sequence = (self.sequence + len(records)) & 0xFFFFFFFF
        records.clear()

    def announce(self, now: float) -> None:
        self.announced = now
        templates = b"".join(
            struct.pack(">HH", TEMPLATE_IDS[self.layout, family], len(fields))
            + b"".join(struct.pack(">HH", *field) for field in fields)
            for family in (4, 6)
            for fields in [FIELDS[self.layout, family]]
        )
        size = len(templates) + 20
        self.sender.send(HEADER.pack(10, size, int(now), self.sequence, self.number, 2, size - 16) + templates)


class Sender:
    def __init__(self, collector: str) -> None:
        host, _, port = collector.rpartition(":")
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect((host, int(port)))
        self.messages = 0
        self.octets = 0

    def send(self, message: bytes) -> None:
        try:
            self.sock.send(message)
        except ConnectionRefusedError:  # of an earlier datagram: this one has not gone
            self.sock.send(message)
        self.messages += 1
        self.octets += len(message)


class Addresses(dict[bytes, bytes]):
    """Text -> octets, remembered."""

    def __missing__(self, text: bytes) -> bytes:
        if len(self) > 1_000_000:
            self.clear()
        octets = socket.inet_pton(socket.AF_INET6 if b":" in text else socket.AF_INET, text.decode("ascii"))
        self[text] = octets
        return octets


class Numbers(dict[bytes, int]):
    """Text -> number, remembered: for protocols and times, which come again and again; for ports it does not pay."""

    def __init__(self, factor: int = 1) -> None:
        super().__init__()
        self.factor = factor

    def __missing__(self, text: bytes) -> int:
        if len(self) > 100_000:
            self.clear()
        self[text] = number = int(text) * self.factor
        return number


NUMBERS = Numbers()
TIMES = Numbers(1000)  # seconds -> milliseconds


class Interfaces(dict[bytes, tuple[Domain, int]]):
    """interface-id -> its VPC's domain and its ifIndex."""

    def __init__(self, exporters: dict[str, str], sender: Sender, layout: str) -> None:
        super().__init__()
        self.exporters = exporters
        self.sender = sender
        self.layout = layout
        self.domains: dict[str, Domain] = {}

    def __missing__(self, interface: bytes) -> tuple[Domain, int]:
        address = self.exporters.get(interface.decode(), "100.64.0.1")
        domain = self.domains.get(address)
        if domain is None:
            domain = self.domains[address] = Domain(len(self.domains) + 1, address, self.sender, self.layout)
        self[interface] = found = (domain, len(self) + 1)
        return found


class Counts:
    flows = nodata = skipdata = malformed = 0


def blocks(path: Path) -> Iterator[list[bytes]]:
    """Whole lines, a block at a time, into one buffer."""
    buffer = bytearray(BLOCK)
    view = memoryview(buffer)
    rest = b""
    with igzip.open(path, "rb") as file:
        while size := file.readinto(view):
            lines = (rest + view[:size]).split(b"\n")
            rest = lines.pop()
            yield lines
    if rest:
        yield [rest]


def export_v2(lines: list[bytes], interfaces: Interfaces, addresses: Addresses, counts: Counts) -> None:
    pack4, pack6 = RECORDS["v2", 4].pack, RECORDS["v2", 6].pack
    numbers, times = NUMBERS, TIMES
    actions = ACTIONS
    for line in lines:
        try:
            _, _, eni, src, dst, sport, dport, proto, packets, octets, start, end, action, status = line.split(b" ")
            if status != b"OK":
                _idle(status, counts)
                continue
            domain, index = interfaces[eni]
            source, destination = addresses[src], addresses[dst]
            forwarding, event = actions[action]
            family = 4 if len(source) == 4 else 6
            if len(source) != len(destination):
                raise ValueError("both families in one line")
            # fmt: off
            record = (pack4 if family == 4 else pack6)(
                source, destination, int(sport), int(dport), numbers[proto], int(octets), int(packets),
                times[start], times[end], index, 0, forwarding, event, domain.tail)
            # fmt: on
        except (ValueError, KeyError, OSError, struct.error):
            counts.malformed += 1
            continue
        waiting = domain.waiting[family]
        waiting.append(record)
        if len(waiting) == domain.most[family]:
            domain.flush(family)
        counts.flows += 1


def export_v5(lines: list[bytes], interfaces: Interfaces, addresses: Addresses, counts: Counts) -> None:
    pack4, pack6 = RECORDS["v5", 4].pack, RECORDS["v5", 6].pack
    numbers, times = NUMBERS, TIMES
    actions, directions = ACTIONS, DIRECTIONS
    for line in lines:
        try:
            # fmt: off
            (_, _, eni, src, dst, sport, dport, proto, packets, octets, start, end, action, status,
             _, _, _, flags, _, _, _, _, _, _, _, _, _, flow_direction, _) = line.split(b" ")
            # fmt: on
            if status != b"OK":
                _idle(status, counts)
                continue
            domain, index = interfaces[eni]
            source, destination = addresses[src], addresses[dst]
            forwarding, event = actions[action]
            direction = directions[flow_direction]
            family = 4 if len(source) == 4 else 6
            if len(source) != len(destination):
                raise ValueError("both families in one line")
            inward, outward = (0, index) if direction else (index, 0)
            # fmt: off
            record = (pack4 if family == 4 else pack6)(
                source, destination, int(sport), int(dport), numbers[proto], numbers[flags],
                int(octets), int(packets), times[start], times[end],
                inward, outward, direction, forwarding, event, domain.tail)
            # fmt: on
        except (ValueError, KeyError, OSError, struct.error):
            counts.malformed += 1
            continue
        waiting = domain.waiting[family]
        waiting.append(record)
        if len(waiting) == domain.most[family]:
            domain.flush(family)
        counts.flows += 1


def _idle(status: bytes, counts: Counts) -> None:
    if status == b"NODATA":
        counts.nodata += 1
    elif status == b"SKIPDATA":
        counts.skipdata += 1
    else:
        raise ValueError(f"log-status {status!r}")


EXPORT: dict[str, Callable[[list[bytes], Interfaces, Addresses, Counts], None]] = {"v2": export_v2, "v5": export_v5}


def export(path: Path, sender: Sender, exporters: dict[str, str], counts: Counts) -> None:
    layout = ""
    interfaces: Interfaces | None = None
    addresses = Addresses()
    for lines in blocks(path):
        if interfaces is None:
            header = lines.pop(0).decode()
            layout = next(name for name, fields in LAYOUTS.items() if fields == header)
            interfaces = Interfaces(exporters, sender, layout)
        EXPORT[layout](lines, interfaces, addresses, counts)
    for domain in interfaces.domains.values() if interfaces else ():
        for family in (4, 6):
            domain.flush(family)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--collector", required=True, metavar="HOST:PORT")
    parser.add_argument("--exporter-map", type=Path)
    parser.add_argument("--core", type=int, help="run on this core only")
    given = parser.parse_args(arguments)
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})
    exporters = json.loads(given.exporter_map.read_text()) if given.exporter_map else {}
    sender = Sender(given.collector)
    counts = Counts()
    began = time.monotonic()
    for path in given.files:
        export(path, sender, exporters, counts)
    summary = {
        "files": len(given.files),
        "records_exported": counts.flows,
        "records_nodata": counts.nodata,
        "records_skipdata": counts.skipdata,
        "lines_malformed": counts.malformed,
        "messages": sender.messages,
        "octets": sender.octets,
        "seconds": round(time.monotonic() - began, 6),
    }
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
