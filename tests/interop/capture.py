"""What was on the wire: tshark on the loopback interface, and messages cut out of captures by hand.

A capture on the sending machine shows several messages in one packet where the kernel was given many in one call (UDP
segmentation happens behind the capture). At less than a message a millisecond there is one in each.
"""

from __future__ import annotations

import signal
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from collectors import PATIENCE, CollectorError, require


@dataclass
class Sent:
    """One IPFIX message: who sent it, its domain, and what sets it has."""

    source: str
    domain: int
    length: int
    templates: list[int] = field(default_factory=list)  # ids, those of options too
    sets: list[int] = field(default_factory=list)  # ids of data sets

    @property
    def has_options(self) -> bool:
        return any(id < 300 for id in self.sets)


def messages(file: Path) -> list[Sent]:
    """Every message in a pcap file of Ethernet, IPv4 and UDP."""
    return [message for source, payload in _datagrams(file.read_bytes()) for message in _messages(source, payload)]


def options_messages(sent: list[Sent]) -> Counter[tuple[str, int]]:
    """(source, domain) -> messages with options records, which nfdump takes for gaps."""
    return Counter((one.source, one.domain) for one in sent if one.has_options)


def _datagrams(octets: bytes) -> Iterator[tuple[str, bytes]]:
    assert octets[:4] == b"\xd4\xc3\xb2\xa1"
    at = 24
    while at + 16 <= len(octets):
        (length,) = struct.unpack_from("<I", octets, at + 8)
        packet = octets[at + 16 : at + 16 + length]
        if len(packet) < length:
            return  # still being written
        at += 16 + length
        header = 14 + 4 * (packet[14] & 15)
        assert packet[23] == 17
        yield str(IPv4Address(packet[26:30])), packet[header + 8 :]


def _messages(source: str, payload: bytes) -> Iterator[Sent]:
    while payload:
        version, length, _, _, domain = struct.unpack_from(">HHIII", payload)
        assert version == 10
        sent = Sent(source, domain, length)
        at = 16
        while at < length:
            id, size = struct.unpack_from(">HH", payload, at)
            if id in (2, 3):  # templates first set by set; that is how each is sent here
                sent.templates.append(struct.unpack_from(">H", payload, at + 4)[0])
            else:
                sent.sets.append(id)
            at += size
        assert at == length
        yield sent
        payload = payload[length:]


class Capture:
    """tshark on the loopback interface, for datagrams to one port."""

    def __init__(self, file: Path, port: int) -> None:
        self.file = file
        self._log = file.with_suffix(".log")
        filter = f"udp dst port {port}"
        command = [*[require("tshark"), "-n", "-i", "lo", "-f", filter, "-B", "64"], *["-F", "pcap", "-w", str(file)]]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait(lambda: "Capture started" in self._log.read_text("utf-8", "replace"))

    def _wait(self, true: object) -> None:
        assert callable(true)
        deadline = time.monotonic() + PATIENCE
        while not true():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise CollectorError(f"tshark on {self.file}:\n{self._log.read_text('utf-8', 'replace')}")
            time.sleep(0.02)

    def messages(self, count: int) -> list[Sent]:
        """Wait until it has seen so many messages, and stop it."""
        self._wait(lambda: self.file.exists() and self.file.stat().st_size > 24 and len(messages(self.file)) >= count)
        self.stop()
        return messages(self.file)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(PATIENCE)
