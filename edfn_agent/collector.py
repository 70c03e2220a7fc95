"""A small collector: receives IPFIX, decodes it, and keeps count per exporter and observation domain.

In: datagrams or a TCP stream on one listening socket, or messages somebody read from a file. Out: each message decoded,
and a Tally. It is what `collect`, `decode` and `demo` look through; it stores nothing and answers nothing.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edfn_agent.export.mapping import REJECTED
from ipfix import CollectingProcess, DataSet, DecodingError, HeaderError, Message

RECEIVE_BUFFER = 16 * 1024 * 1024
"""Octets asked of the kernel: what arrives while a batch is decoded has to wait somewhere."""
MOST_STREAMS = 256
"""TCP connections at a time; one more is closed at once. Each may keep one message that is not whole yet."""
_LARGEST = 65535

_COUNTED = ("octetDeltaCount", "packetDeltaCount", "firewallEvent", "ingressInterface", "egressInterface")


@dataclass(slots=True)
class Received:
    """One message and who sent it. `error` is set when the octets are no message at all."""

    sender: str
    octets: bytes
    message: Message | None
    error: DecodingError | None = None


@dataclass(slots=True)
class ExporterTally:
    """What one exporter sent in one observation domain."""

    sender: str
    domain: int
    messages: int = 0
    flows: int = 0
    octets: int = 0
    packets: int = 0
    denied: int = 0
    options: int = 0
    missing: int = 0  # data records, by sequence numbers
    unknown_sets: int = 0
    errors: int = 0
    exporter: str = ""  # from the exporter table: exporterIPv4Address
    name: str = ""  # from the VRF table
    interfaces: dict[int, str] = field(default_factory=dict)  # from the interface table
    used_interfaces: set[int] = field(default_factory=set)


class Tally:
    """Counts by (sender, domain)."""

    def __init__(self) -> None:
        self.exporters: dict[tuple[str, int], ExporterTally] = {}
        self.not_ipfix = 0

    @property
    def flows(self) -> int:
        return sum(each.flows for each in self.exporters.values())

    def add(self, received: Received) -> None:
        message = received.message
        if message is None:
            self.not_ipfix += 1
            return
        key = (received.sender, message.domain)
        tally = self.exporters.get(key)
        if tally is None:
            tally = self.exporters[key] = ExporterTally(received.sender, message.domain)
        tally.messages += 1
        tally.missing += max(0, message.gap or 0)
        tally.unknown_sets += len(message.unknown)
        tally.errors += message.error is not None
        for data in message.data:
            if data.is_options:
                tally.options += len(data)
                _note_options(tally, data)
            else:
                _count_flows(tally, data)


def _note_options(tally: ExporterTally, data: DataSet) -> None:
    for record in data:
        if "exporterIPv4Address" in record:
            tally.exporter = str(record["exporterIPv4Address"])
        if "VRFname" in record:
            tally.name = str(record["VRFname"])
        index = record.get("ingressInterface")
        if isinstance(index, int) and "interfaceDescription" in record:
            tally.interfaces[index] = str(record["interfaceDescription"])


def _count_flows(tally: ExporterTally, data: DataSet) -> None:
    tally.flows += len(data)
    # an exporter may announce a counter with any length; where that is no integer's, it is shown, but not added up
    fields = dict(zip(data.template.names, data.template.fields, strict=True))
    names = [name for name in _COUNTED if name in fields and fields[name].element.data_type.startswith("unsigned")]
    columns: dict[str, NDArray[Any]]
    if data.template.record_length is not None:
        every = data.columns()
        columns = {name: every[name] for name in names}
    else:  # records of variable length: only what is counted
        records = list(data)
        columns = {name: np.array([record[name] for record in records], np.uint64) for name in names}

    def total(name: str) -> int:
        return int(columns[name].sum(dtype=np.uint64)) if name in columns else 0

    tally.octets += total("octetDeltaCount")
    tally.packets += total("packetDeltaCount")
    if "firewallEvent" in columns:
        tally.denied += int(np.count_nonzero(columns["firewallEvent"] == REJECTED))
    for name in ("ingressInterface", "egressInterface"):
        if name in columns:
            tally.used_interfaces.update(index for index in np.unique(columns[name]).tolist() if index)


class Listener:
    """A listening socket and what comes in by it. `udp://host:port` or `tcp://host:port`; port 0 takes a free one."""

    def __init__(self, scheme: str, host: str, port: int, process: CollectingProcess | None = None) -> None:
        self._process = process or CollectingProcess()
        self._streams: dict[socket.socket, tuple[str, bytearray]] = {}
        self._selector = selectors.DefaultSelector()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = socket.SOCK_DGRAM if scheme == "udp" else socket.SOCK_STREAM
        self._socket = socket.socket(family, kind)
        try:
            if kind == socket.SOCK_DGRAM:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                self._force_buffer()
            else:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            if kind == socket.SOCK_STREAM:
                self._socket.listen()
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._datagrams = kind == socket.SOCK_DGRAM

    def _force_buffer(self) -> None:
        so_rcvbufforce = 33  # Linux; Python 3.11 has no name for it. Above net.core.rmem_max with CAP_NET_ADMIN
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, so_rcvbufforce, RECEIVE_BUFFER)
        except OSError:
            return

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    def receive(self, until: Callable[[], bool], poll: float = 0.1) -> Iterator[Received]:
        """Messages as they come, until `until()`, which is asked whenever nothing is waiting and after each message."""
        while not until():
            for key, _ in self._selector.select(poll):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if sock is not self._socket:
                    yield from self._read_stream(sock, until)
                elif self._datagrams:
                    yield from self._read_datagrams(until)
                else:
                    self._accept()
                if until():
                    return

    def _accept(self) -> None:
        try:
            stream, address = self._socket.accept()
        except OSError:  # it has gone again
            return
        if len(self._streams) >= MOST_STREAMS:
            stream.close()
            return
        self._streams[stream] = (str(address[0]), bytearray())
        self._selector.register(stream, selectors.EVENT_READ)

    def _read_datagrams(self, until: Callable[[], bool]) -> Iterator[Received]:
        while True:
            try:
                octets, address = self._socket.recvfrom(_LARGEST)
            except BlockingIOError:
                return
            yield self._decode(octets, str(address[0]), address)
            if until():
                return

    def _read_stream(self, stream: socket.socket, until: Callable[[], bool]) -> Iterator[Received]:
        sender, buffer = self._streams[stream]
        try:
            octets = stream.recv(1 << 18)
        except OSError:
            octets = b""
        if not octets:
            self._end(stream)
            return
        buffer += octets
        while len(buffer) >= 4:
            length = int.from_bytes(buffer[2:4], "big")
            if buffer[:2] != b"\x00\x0a" or length < 16:  # where the next message would begin nobody can say
                self._end(stream)
                yield Received(sender, bytes(buffer), None, HeaderError("no message header in the stream; closed"))
                return
            if len(buffer) < length:
                return
            message = bytes(buffer[:length])
            del buffer[:length]
            yield self._decode(message, sender, id(buffer))
            if until():
                return

    def _end(self, stream: socket.socket) -> None:
        _, buffer = self._streams.pop(stream)
        self._selector.unregister(stream)
        stream.close()
        self._process.forget(id(buffer))

    def _decode(self, octets: bytes, sender: str, session: Hashable) -> Received:
        return decode(self._process, octets, sender, session)

    def close(self) -> None:
        self._selector.close()
        for stream in self._streams:
            stream.close()
        self._socket.close()


def decode(process: CollectingProcess, octets: bytes, sender: str, session: Hashable) -> Received:
    """One message of a session; octets that are no message are said so, not raised."""
    try:
        return Received(sender, octets, process.receive(octets, session))
    except DecodingError as error:
        return Received(sender, octets, None, error)


def deadline(seconds: float | None) -> Callable[[], bool]:
    """A stop condition: so many seconds from now, or never."""
    if seconds is None:
        return lambda: False
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end
