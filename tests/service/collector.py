"""A collector that counts how often each numbered record came, on the product's own decoder; UDP, TCP or TLS.

It can be closed and opened again on its port. Closing a stream loses nothing that the agent takes for delivered: the
agent is held (SIGSTOP), all that it wrote is read, and then the connection goes. What the agent was in the middle of it
has to send again.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import numpy as np

from edfn_agent.collector import Listener, Received, decode
from ipfix import CollectingProcess

BUFFER = 1 << 18


class Collector:
    def __init__(self, scheme: str = "udp", context: ssl.SSLContext | None = None, slow: float = 0.0) -> None:
        self.scheme, self._context, self.slow = scheme, context, slow
        self.counts = np.zeros(1 << 16, np.int32)  # by number
        self.sizes: list[int] = []
        self.flow_messages = 0
        self.times: list[tuple[float, int]] = []  # (monotonic, records of a message)
        self.domains: dict[int, set[int]] = {}  # domain -> ports it was sent from
        self.names: dict[int, str] = {}
        self.exporters: dict[int, str] = {}
        self.interfaces: dict[int, str] = {}
        self.missing = self.unknown = self.errors = self.templates = 0
        self.sessions = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._pause = threading.Event()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def unique(self) -> int:
        return int(np.count_nonzero(self.counts))

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def lost(self, written: int) -> int:
        """How many of the records 1 ... `written` never came."""
        return int(np.count_nonzero(self._upto(written)[1:] == 0))

    def repeated(self) -> dict[int, int]:
        """Number -> how often it came beyond once."""
        return {int(n): int(self.counts[n]) - 1 for n in np.flatnonzero(self.counts > 1)}

    def received(self) -> set[int]:
        return set(np.flatnonzero(self.counts.copy()).tolist())

    def _upto(self, written: int) -> np.ndarray:
        with self._lock:
            self._grow(written)
            return self.counts[: written + 1].copy()

    def _grow(self, number: int) -> None:
        if number >= len(self.counts):
            grown = np.zeros(max(number + 1, 2 * len(self.counts)), np.int32)
            grown[: len(self.counts)] = self.counts
            self.counts = grown

    # -- life

    def open(self) -> None:
        self._stop.clear()
        if self.scheme == "udp":
            self._listener = Listener("udp", "127.0.0.1", self.port, CollectingProcess())
            self.port = self._listener.port
            self._run(self._datagrams)
            return
        self._server = socket.socket()
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._server.bind(("127.0.0.1", self.port))
        self.port = self._server.getsockname()[1]
        self._server.listen()
        self._server.settimeout(0.1)
        self._run(self._accept)

    def close(self, agent: int | None = None) -> None:
        """`agent`: the process that writes, where it must not write on while the connection goes."""
        if self.scheme == "udp":
            self._end()
            self._listener.close()
            return
        if agent is not None:
            os.kill(agent, signal.SIGSTOP)
        try:
            if agent is not None:
                self._until_quiet(agent)
            self._end()
            self._server.close()
        finally:
            if agent is not None:
                os.kill(agent, signal.SIGCONT)

    def _end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()
        self._connections.clear()

    def stall(self, stalled: bool) -> None:
        """Take nothing for a while."""
        (self._pause.set if stalled else self._pause.clear)()

    def _until_quiet(self, agent: int) -> None:
        """Until the stopped agent's kernel has handed over everything that it was given, and all of it is read."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            before = len(self.sizes)
            state = Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T" and not self._outstanding():
                time.sleep(0.1)
                if not self._outstanding() and before == len(self.sizes):
                    return
            time.sleep(0.02)
        raise AssertionError("the agent's connection did not become quiet")

    def _outstanding(self) -> int:
        """Octets on the way to this collector: in the sender's queue or in its own."""
        octets = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            columns = line.split()
            here, there = (int(each.rpartition(":")[2], 16) for each in columns[1:3])
            sending, receiving = (int(each, 16) for each in columns[4].split(":"))
            if columns[3] == "01" and there == self.port:
                octets += sending
            elif columns[3] == "01" and here == self.port:
                octets += receiving
        return octets

    # -- reading

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _datagrams(self) -> None:
        for received in self._listener.receive(self._stop.is_set, poll=0.05):
            self._add(received)
            while self._pause.is_set() and not self._stop.is_set():
                time.sleep(0.02)

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                stream, _ = self._server.accept()
            except TimeoutError:
                continue
            self._run(self._read, stream)

    def _read(self, stream: socket.socket) -> None:
        process, buffer = CollectingProcess(), bytearray()
        try:
            stream.settimeout(5)
            if self._context is not None:
                stream = self._context.wrap_socket(stream, server_side=True)
            self.sessions += 1
            stream.settimeout(0.05)
            while not self._stop.is_set():
                if self._pause.is_set():
                    time.sleep(0.02)
                    continue
                try:
                    octets = stream.recv(1 << 16)
                except TimeoutError:
                    continue
                if not octets:
                    return
                buffer += octets
                while len(buffer) >= 4 and len(buffer) >= (length := int.from_bytes(buffer[2:4], "big")):
                    self._add(decode(process, bytes(buffer[:length]), "tcp", 1))
                    del buffer[:length]
                if self.slow:
                    time.sleep(self.slow)
        except OSError:
            return
        finally:
            stream.close()

    def _add(self, received: Received) -> None:
        message = received.message
        if message is None:
            self.errors += 1
            return
        with self._lock:
            self.sizes.append(message.length)
            self.missing += max(0, message.gap or 0)
            self.unknown += len(message.unknown)
            self.errors += message.error is not None
            self.templates += len(message.templates)
            self.domains.setdefault(message.domain, set())
            flows = 0
            for data in message.data:
                if data.is_options:
                    self._note(message.domain, data)
                    continue
                numbers = data.columns()["octetDeltaCount"].astype(np.int64)
                flows += len(numbers)
                self._grow(int(numbers.max(initial=0)))
                np.add.at(self.counts, numbers, 1)
            if flows:
                self.flow_messages += 1
            self.times.append((time.monotonic(), message.records))

    def _note(self, domain: int, data: object) -> None:
        for record in data:  # type: ignore[attr-defined]
            if "exporterIPv4Address" in record:
                self.exporters[domain] = str(record["exporterIPv4Address"])
            if "VRFname" in record:
                self.names[domain] = str(record["VRFname"])
            if "interfaceDescription" in record:
                self.interfaces[int(record["ingressInterface"])] = str(record["interfaceDescription"])
