"""IPFIX as a packet capture: what a collector's port would have seen, for Wireshark and for replay.

In: Messages and their exporter. Out: an Ethernet/IPv4/UDP packet for each, with right checksums, stamped with the
message's own export time. Never: a packet on a wire.

scapy builds one header per exporter and writes the file; only lengths, numbers and checksums are patched per packet.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edfn_agent.export.transports.base import TransportDown, TransportFault
from edfn_agent.export.transports.file import DrainedFile

if TYPE_CHECKING:
    from ipfix import Messages

COLLECTOR = IPv4Address("192.0.2.1")  # RFC 5737: an address that means nobody
UNKNOWN_EXPORTER = IPv4Address("192.0.2.2")
PORT = 4739
LONGEST = 65_507  # octets of a message in one UDP/IPv4 packet; a capture may hold packets longer than any link's MTU
SNAPLEN = 262_144  # what Wireshark writes itself

_ETHERNET = 14
_HEADERS = _ETHERNET + 20 + 8


class PcapTransport:
    """A capture file. One session, as if the capture had run from the exporter's start."""

    reliable = True

    def __init__(self, path: Path, collector: IPv4Address = COLLECTOR, port: int = PORT) -> None:
        self.path = path
        self.name = str(path)
        self.session = 0
        self.messages = 0
        self.octets = 0
        self.errors: Counter[str] = Counter()
        self._collector = collector
        self._port = port
        self._file: DrainedFile | None = None
        self._writer: Any = None  # scapy's, into `_packets`
        self._packets = io.BytesIO()
        self._headers: dict[IPv4Address, bytes] = {}
        self._number = 0

    def open(self) -> None:
        if self._file is None:
            try:
                from scapy.utils import RawPcapWriter
            except ImportError as error:
                text = f"{self.name}: writing .pcap files needs scapy: pip install 'edfn-agent[pcap]'"
                raise TransportFault(text) from error
            self._file = DrainedFile(self.path)
            self._writer = RawPcapWriter(self._packets, linktype=1, snaplen=SNAPLEN)
            self._writer.write_header(None)
            try:
                self._write_out()
            except TransportDown:
                self.close()
                raise
            self._file.drain()  # what follows a failure is packets again
        elif not self._file.failed:
            return
        self._file.failed = False
        self.session += 1

    def send(self, messages: Messages, source: IPv4Address | None) -> None:
        if self._file is None or self._file.failed:
            raise TransportDown(f"{self.name}: not open")
        header = self._header(source or UNKNOWN_EXPORTER)
        for message in messages:
            if len(message) > LONGEST:
                raise TransportFault(f"{self.name}: a message of {len(message)} octets fits in no UDP packet")
            packet = _packet(header, message, self._number)
            self._writer.write_packet(packet, sec=int.from_bytes(message[4:8], "big"), usec=0)
            self._number = self._number + 1 & 0xFFFF
        self._write_out()
        self.messages += len(messages)
        self.octets += messages.buffer.size

    def _write_out(self) -> None:
        assert self._file is not None
        octets = self._packets.getvalue()
        self._packets.seek(0)
        self._packets.truncate()
        try:
            self._file.write(octets)
        except TransportDown:
            self.errors["write"] += 1
            raise

    def _header(self, source: IPv4Address) -> bytes:
        """Ethernet, IP and UDP from this exporter, everything that differs between packets zero."""
        header = self._headers.get(source)
        if header is None:
            from scapy.layers.inet import IP, UDP
            from scapy.layers.l2 import Ether

            # Locally administered addresses: the exporter's is made of its IP address, so that each is one more host.
            hardware = "02:00:" + ":".join(f"{octet:02x}" for octet in source.packed)
            layers = (
                Ether(src=hardware, dst="02:00:c0:00:02:01")
                / IP(src=str(source), dst=str(self._collector), ttl=64, id=0, len=0, chksum=0)
                / UDP(sport=self._port, dport=self._port, len=0, chksum=0)
            )
            header = self._headers[source] = bytes(layers)
        return header

    def drain(self, timeout: float) -> bool:
        """Nothing is buffered in this process; what is written is the kernel's."""
        if self._file is not None and not self._file.failed:
            self._file.drain()
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _packet(header: bytes, message: memoryview, number: int) -> bytes:
    packet = bytearray(header)
    length = len(message) + 8
    struct.pack_into(">HH", packet, _ETHERNET + 2, length + 20, number)
    struct.pack_into(">H", packet, _ETHERNET + 10, _checksum(_words(packet[_ETHERNET : _ETHERNET + 20])))
    struct.pack_into(">H", packet, _HEADERS - 4, length)
    # The pseudo header (RFC 768): both addresses, the protocol and the length; then the UDP header and the message.
    pseudo = _words(packet[_ETHERNET + 12 : _ETHERNET + 20]) + 17 + length
    checksum = _checksum(pseudo + _words(packet[_HEADERS - 8 :]) + _words(message))
    struct.pack_into(">H", packet, _HEADERS - 2, checksum or 0xFFFF)  # 0 would mean: no checksum
    return bytes(packet + message)


def _words(octets: bytes | bytearray | memoryview) -> int:
    """The sum of the 16-bit words, an odd octet at the end counted as the high one."""
    whole = len(octets) & ~1
    total = int(np.frombuffer(octets, ">u2", whole // 2).sum(dtype=np.uint64))
    return total + (octets[-1] << 8 if whole < len(octets) else 0)


def _checksum(total: int) -> int:
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
