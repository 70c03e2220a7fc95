"""Real collectors on loopback, and what they made of the messages they were sent.

In: nothing but datagrams, or a file for tshark. Out: every record as a dict with the same keys whoever read it:

    src dst sport dport proto packets octets start_ms end_ms tcp_flags in_if out_if direction
    forwarding firewall_event vrf exporter domain

`exporter` is who the collector holds the exporter to be, `exporter_field` element 130 of the record where it is shown.
A key that a collector does not show is missing from its records; chosen enterprise elements come as further keys.
Never: a fixed sleep; a collector is ready when it says so and done when it has read everything.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

Record = dict[str, Any]

PATIENCE = 30.0  # seconds until a collector that does not do what it should is a failure
BUFFER = 32_000_000  # octets of receive buffer, so that nothing is lost to a busy machine


class CollectorError(AssertionError):
    """A collector did not start, lost datagrams, or did not stop."""


def require(program: str) -> str:
    """The path of a program. Without it: a failure where CI=true, a skip elsewhere."""
    path = shutil.which(program)
    if path is None:
        package = {"nfcapd": "nfdump", "nfdump": "nfdump", "nfacctd": "pmacct", "tshark": "tshark"}[program]
        reason = f"{program} is not installed (Debian package {package})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


_ports = itertools.count(20_000 + os.getpid() % 100 * 100)


def free_port(address: str = "127.0.0.1") -> int:
    """Below the ports that the kernel gives out by itself, and apart from those of other test processes.

    A port that is only looked for and let go may be another's a moment later; collectors share ports without a word
    (SO_REUSEPORT), and then each gets a part of the datagrams.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    while True:
        port = next(_ports)
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.bind((address, port))
            except OSError:
                continue
        return port


def merged(records: Iterable[Record], keys: Sequence[str]) -> Counter[tuple[Any, ...]]:
    """How many octets and packets there are for each combination of `keys`, as (..., "octets") and (..., "packets").

    nfacctd adds up records that agree in everything it is asked to show; compare like with like.
    """
    sums: Counter[tuple[Any, ...]] = Counter()
    for record in records:
        key = tuple(record.get(name) for name in keys)
        sums[(*key, "flows")] += record.get("flows", 1)
        sums[(*key, "octets")] += record["octets"]
        sums[(*key, "packets")] += record["packets"]
    return sums


class Daemon:
    """A collector that listens on UDP."""

    program = ""
    ready = ""  # in its log, once it has a socket and reads it
    stop_with = signal.SIGTERM

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        self.path = self.find()
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.address = address
        self.port = free_port(address)
        self.log_file = folder / f"{self.program}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._dropped = 0

    def find(self) -> str:
        return require(self.program)

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        self.wait_for(lambda: self.ready in self.log, f"to say {self.ready!r}")

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace") if self.log_file.exists() else ""

    def wait_for(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            if self._process is not None and self._process.poll() is not None:
                raise CollectorError(f"{self.program} ended with {self._process.returncode}:\n{self.log}")
            if time.monotonic() > deadline:
                raise CollectorError(f"waited {PATIENCE:.0f} s for {self.program} {what}:\n{self.log}")
            time.sleep(0.01)

    def _queue(self) -> int:
        """Octets that the kernel holds for the collector. Notes what it had to drop."""
        for name in ("udp", "udp6"):
            for line in Path("/proc/net", name).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[1].endswith(f":{self.port:04X}"):
                    self._dropped = int(columns[-1])
                    return int(columns[4].split(":")[1], 16)
        raise CollectorError(f"{self.program} has no socket on port {self.port}:\n{self.log}")

    def settle(self) -> None:
        """Wait until it has read every datagram sent so far."""
        self.wait_for(lambda: self._queue() == 0, "to empty its receive buffer")
        if self._dropped:
            raise CollectorError(f"{self.program} lost {self._dropped} datagrams to a full receive buffer")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.stop_with)
        try:
            status = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise CollectorError(f"{self.program} did not stop within {PATIENCE:.0f} s:\n{self.log}") from None
        if status not in (0, -self.stop_with):
            raise CollectorError(f"{self.program} ended with {status}:\n{self.log}")


class Nfcapd(Daemon):
    """nfdump's collector. It hides forwardingStatus and firewallEvent of IPFIX, and counts sequence failures."""

    program = "nfcapd"
    ready = "Startup nfcapd"

    def command(self) -> list[str]:
        (self.folder / "flows").mkdir(exist_ok=True)
        family = ["-6"] if ":" in self.address else []
        return [
            *[self.path, "-w", str(self.folder / "flows"), "-p", str(self.port), "-b", self.address, *family],
            *["-t", "86400", "-B", str(BUFFER)],
        ]

    def records(self) -> list[Record]:
        """Read to the end, stop, and show what was kept, in the order of arrival."""
        self.settle()
        self.stop()
        domains = {sysid: domain for sysid, _, domain, _ in self._exporters()}
        return [_from_nfdump(flow, domains) for file in self._files() for flow in json.loads(self._nfdump(file))]

    def sequence_failures(self) -> dict[tuple[str, int], int]:
        """(exporter, domain) -> gaps it has seen. Each message with options records costs one, wrongly (nfdump 1.7)."""
        failures: Counter[tuple[str, int]] = Counter()
        for _, address, domain, count in self._exporters():
            failures[(address, domain)] += count
        return dict(failures)

    def _files(self) -> list[Path]:
        return sorted((self.folder / "flows").glob("nfcapd.[0-9]*"))

    def _nfdump(self, file: Path, *options: str) -> str:
        command = [require("nfdump"), *(options or ("-o", "json", "-r")), str(file)]
        environment = {**os.environ, "TZ": "UTC"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
        return done.stdout.strip() or "[]"

    def _exporters(self) -> list[tuple[int, str, int, int]]:
        found = []
        for file in self._files():
            for line in self._nfdump(file, "-E").splitlines():
                match = re.search(r"SysID: (\d+), IP: +(\S+), .*ID: +(\d+), Sequence failures: (\d+)", line)
                if match:
                    found.append((int(match[1]), match[2], int(match[3]), int(match[4])))
        return found


def _from_nfdump(flow: dict[str, Any], domains: dict[int, int]) -> Record:
    icmp = 256 * flow.get("icmp_type", 0) + flow.get("icmp_code", 0)
    return {
        "src": flow.get("src4_addr") or flow.get("src6_addr"),
        "dst": flow.get("dst4_addr") or flow.get("dst6_addr"),
        "sport": flow.get("src_port", 0),
        "dport": flow.get("dst_port", icmp),
        "proto": flow.get("proto", 0),
        "packets": flow.get("in_packets", 0),
        "octets": flow.get("in_bytes", 0),
        "start_ms": _milliseconds(flow.get("first", "")),
        "end_ms": _milliseconds(flow.get("last", "")),
        "tcp_flags": sum(128 >> place for place, letter in enumerate(flow.get("tcp_flags", "")) if letter != "."),
        "in_if": flow.get("input_snmp", 0),
        "out_if": flow.get("output_snmp", 0),
        "direction": flow.get("direction", 0),
        "vrf": int(flow.get("ingress_vrf", 0)),
        "exporter": flow.get("ip4_router") or flow.get("ip6_router"),
        "domain": domains.get(flow["export_sysid"]),
    }


def _milliseconds(text: str) -> int:
    if not text:
        return 0
    whole, _, fraction = text.partition(".")
    seconds = int(time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))) - _OFFSET
    return seconds * 1000 + int(fraction or 0)


_OFFSET = int(time.mktime(time.gmtime(0)))  # so that `mktime` reads UTC whatever this machine's zone; no summer time


class Nfacctd(Daemon):
    """pmacct's collector with the print plugin, asked for every field of profile `standard`.

    `primitives` are further elements: name -> (`89` or `PEN:ID`, length or "vlen", semantics u_int, hex, ip, str, raw).
    `exporter` follows an options record with element 130, as pmacct does. A record without octetDeltaCount is an event
    to it: neither counters nor `flows`, and those that agree in all it is asked to show may be one line or several.
    """

    program = "nfacctd"
    ready = "setting object handlers"
    stop_with = signal.SIGINT

    STANDARD: dict[str, tuple[str, int | str, str]] = {
        "proto": ("4", 1, "u_int"),  # pmacct's own is a name
        "direction": ("61", 1, "u_int"),
        "forwarding": ("89", 1, "u_int"),
        "firewall_event": ("233", 1, "u_int"),
        "vrf": ("234", 4, "u_int"),
        "exporter_field": ("130", 4, "ip"),
    }

    def __init__(
        self,
        folder: Path,
        address: str = "127.0.0.1",
        primitives: dict[str, tuple[str, int | str, str]] | None = None,
    ) -> None:
        super().__init__(folder, address)
        self.primitives = self.STANDARD | (primitives or {})
        self._output = folder / "records.json"

    def command(self) -> list[str]:
        primitives = self.folder / "primitives.lst"
        primitives.write_text(
            "".join(
                f"name={_OWN}{name} field_type={field} len={length} semantics={semantics}\n"
                for name, (field, length, semantics) in self.primitives.items()
            )
        )
        shown = [
            *["src_host", "dst_host", "src_port", "dst_port", "tcpflags", "in_iface", "out_iface", "flows"],
            *["timestamp_start", "timestamp_end", "peer_src_ip", "export_proto_sysid"],
            *(_OWN + name for name in self.primitives),
        ]
        settings = {
            "daemonize": "false",
            "nfacctd_ip": self.address,
            "nfacctd_port": self.port,
            "nfacctd_disable_checks": "false",  # so that it speaks of gaps
            "nfacctd_pipe_size": BUFFER,
            "plugins": "print[all]",
            "aggregate[all]": ", ".join(shown),
            "aggregate_primitives": primitives,
            "print_output[all]": "json",
            "print_output_file[all]": self._output,
            "print_output_file_append[all]": "true",
            "print_refresh_time[all]": 1,
            "print_cache_entries[all]": 65537,
            # no plugin_buffer_size: the core would sit on what does not fill it, and garble strings of variable length;
            # no ZeroMQ: what is published before the plugin has subscribed is lost, and nothing tells when it has
            "plugin_pipe_size": 256_000_000,
            "timestamps_since_epoch": "true",
        }
        file = self.folder / "nfacctd.conf"
        file.write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
        return [self.path, "-f", str(file)]

    def records(self, expected: int) -> list[Record]:
        """Wait until `expected` records have come through its pipe and cache, stop, and show them, in no order.

        Of equal events one is expected. With fewer it waits in vain, and shows what there is.
        """
        self.settle()
        deadline = time.monotonic() + PATIENCE
        size = 0
        while time.monotonic() < deadline:
            if self._output.exists() and self._output.stat().st_size > size:
                size = self._output.stat().st_size
                lines = self._output.read_bytes().split(b"\n")[:-1]
                counts = [int(found[1]) for line in lines if (found := re.search(rb'"flows": (\d+)', line))]
                events = {line for line in lines if line and b'"flows"' not in line}
                if sum(counts) + len(events) >= expected:
                    break
            time.sleep(0.02)
        self.stop()
        return self._read()

    def _read(self) -> list[Record]:
        if not self._output.exists():
            return []
        lines = self._output.read_bytes().split(b"\n")
        return [self._record(json.loads(line)) for line in lines[:-1] if line]  # the last line may still be written

    def _record(self, flow: dict[str, Any]) -> Record:
        record = {
            "src": str(ip_address(flow["ip_src"])),
            "dst": str(ip_address(flow["ip_dst"])),
            "sport": flow["port_src"],
            "dport": flow["port_dst"],
            "packets": flow.get("packets", 0),
            "octets": flow.get("bytes", 0),
            "start_ms": _from_epoch(flow["timestamp_start"]),
            "end_ms": _from_epoch(flow["timestamp_end"]),
            "tcp_flags": int(flow["tcp_flags"]),
            "in_if": flow["iface_in"],
            "out_if": flow["iface_out"],
            "exporter": flow["peer_ip_src"],
            "domain": flow["export_proto_sysid"],
            "flows": flow.get("flows", 0),
        }
        for name, (_, _, semantics) in self.primitives.items():
            value = flow[(_OWN + name).lower()]
            record[name] = int(value) if semantics == "u_int" else value
        return record

    def sequence_complaints(self) -> list[str]:
        return [line for line in self.log.splitlines() if "expecting flow" in line]

    def complaints(self) -> list[str]:
        return [line for line in self.log.splitlines() if line.startswith(("WARN", "ERROR"))]


_OWN = "own_"  # before the names of primitives, because pmacct has some of the same itself


def _from_epoch(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1000 + int(fraction.ljust(6, "0")[:3])


class Tshark:
    """Wireshark's dissector over a capture or an RFC 5655 file: every element of every record, and its complaints."""

    def __init__(self, file: Path, *, port: int | None = None) -> None:
        """`port`: the collector's UDP port in the capture, where it is not 4739."""
        command = [require("tshark"), "-n", "-r", str(file), "-T", "pdml"]
        if port is not None:
            command += ["-d", f"udp.port=={port},cflow"]
        self.records: list[Record] = []
        self.options: list[list[tuple[str, bytes]]] = []
        """Records without addresses: element by element, Wireshark's name and the octets."""
        self.elements: list[list[tuple[str, bytes]]] = []
        """Beside each of `records`, all its elements; those Wireshark has no name for carry its description."""
        self.sequence_complaints: list[str] = []
        self.malformed: list[str] = []
        self.without_template = 0  # sets
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            for _, element in ElementTree.iterparse(process.stdout):
                if element.tag == "packet":
                    self._packet(element)
                    element.clear()
        if process.returncode:
            raise CollectorError(f"tshark ended with {process.returncode} on {file}")

    def _packet(self, packet: ElementTree.Element) -> None:
        exporter = next((field.get("show") for field in packet.iter("field") if field.get("name") in _SOURCES), None)
        for proto in packet.iter("proto"):
            if proto.get("name") == "_ws.malformed":
                self.malformed.append(str(proto.get("showname")))
            if proto.get("name") != "cflow":
                continue
            domain = None
            for field in proto.iter("field"):
                name, show, said = field.get("name"), field.get("show", ""), field.get("showname", "")
                if name == "cflow.od_id":
                    domain = int(show)
                elif name == "cflow.unexpected_sequence_number":
                    self.sequence_complaints.append(said)
                elif name == "cflow.no_template_found":
                    self.without_template += 1
                elif name == "_ws.expert" and "/Malformed" in said and "no template found" not in said:
                    self.malformed.append(said)
                elif not name and re.fullmatch(r"Flow \d+( \[.*\])?", show):
                    self._flow(field, exporter, domain)

    def _flow(self, flow: ElementTree.Element, exporter: str | None, domain: int | None) -> None:
        elements = list(_elements(flow))
        record: Record = {}
        for name, octets in elements:
            key, read = _TSHARK.get(name, ("", None))
            if read is not None:
                record[key] = read(octets)
        if "src" not in record:
            self.options.append(elements)
            return
        if exporter is not None:
            record["exporter"] = exporter
        record["domain"] = domain
        self.records.append(record)
        self.elements.append(elements)


_SOURCES = ("ip.src", "ipv6.src")


def _elements(flow: ElementTree.Element) -> Iterable[tuple[str, bytes]]:
    for field in flow:
        name = field.get("name") or str(field.get("show"))
        if name == "cflow.timedelta":  # start and end are shown beneath the duration
            yield from _elements(field)
            continue
        if name == "Forwarding Status":
            name = "cflow.forwarding_status"
        value = field.get("value")
        if value is not None and len(value) % 2 == 0:
            yield name, bytes.fromhex(value)


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _text(octets: bytes) -> str:
    return str(ip_address(octets))


_TSHARK: dict[str, tuple[str, Callable[[bytes], Any] | None]] = {
    "cflow.srcaddr": ("src", _text),
    "cflow.srcaddrv6": ("src", _text),
    "cflow.dstaddr": ("dst", _text),
    "cflow.dstaddrv6": ("dst", _text),
    "cflow.srcport": ("sport", _number),
    "cflow.dstport": ("dport", _number),
    "cflow.protocol": ("proto", _number),
    "cflow.packets": ("packets", _number),
    "cflow.octets": ("octets", _number),
    "cflow.abstimestart": ("start_ms", _number),
    "cflow.abstimeend": ("end_ms", _number),
    "cflow.tcpflags": ("tcp_flags", _number),
    "cflow.inputint": ("in_if", _number),
    "cflow.outputint": ("out_if", _number),
    "cflow.direction": ("direction", _number),
    "cflow.forwarding_status": ("forwarding", _number),
    "cflow.firewall_event": ("firewall_event", _number),
    "cflow.ingress_vrfid": ("vrf", _number),
    "cflow.exporter_addr": ("exporter_field", _text),
}
