"""A UDP collector that costs the sender as little as it can: takes every datagram, keeps only what it needs to count.

In: IPFIX on a port of 127.0.0.1. Out: the port on the first line of standard output, and after SIGTERM or SIGINT one
JSON object: messages, octets, data records (options records too) by sequence numbers, and datagrams the kernel had to
drop. Never: sleeping. It polls without pause on the core it is given, because on loopback a sender pays for waking a
collector that sleeps; `"waits": "polls"` in the result says so, and `--sleep` makes it wait in the kernel instead.

    python benchmarks/sink.py --core 1
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import struct
import sys
import threading
from pathlib import Path

BUFFER = 256 << 20
SO_RCVBUFFORCE = 33  # beyond net.core.rmem_max, for root


class Templates:
    """How long the records of each template are, per domain: only what counting the last message takes."""

    def __init__(self) -> None:
        self._lengths: dict[tuple[bytes, int], int] = {}

    def learn(self, domain: bytes, sets: memoryview) -> int:
        """Note the templates in the sets of a message; how many records of known length there are."""
        records = 0
        while len(sets) >= 4:
            set_id, size = struct.unpack_from(">HH", sets)
            body, sets = sets[4:size], sets[max(4, size) :]
            if set_id in (2, 3):
                self._templates(domain, body, 4 if set_id == 2 else 6)
            elif length := self._lengths.get((domain, set_id)):
                records += len(body) // length
        return records

    def _templates(self, domain: bytes, body: memoryview, head: int) -> None:
        while len(body) >= head:
            number, count = struct.unpack_from(">HH", body)
            body = body[head:]
            length = 0
            for _ in range(count):
                element, octets = struct.unpack_from(">HH", body)
                length += octets
                body = body[8 if element & 0x8000 else 4 :]
            self._lengths[(domain, number)] = length


def take(sock: socket.socket, stopping: threading.Event) -> dict[str, int]:
    """Count until told to stop, and until nothing is left."""
    buffer = bytearray(65536)
    view = memoryview(buffer)
    templates = Templates()
    messages = octets = 0
    first: dict[bytes, bytes] = {}  # domain -> sequence number of its first message
    last: dict[bytes, bytes] = {}  # domain -> its newest message
    receive = sock.recv_into
    while True:
        try:
            size = receive(buffer)
        except (BlockingIOError, TimeoutError):
            if stopping.is_set():
                break
            continue
        messages += 1
        octets += size
        domain = bytes(view[12:16])
        if domain not in first:
            first[domain] = bytes(view[8:12])
        if buffer[16] == 0:  # a set id below 256: templates, perhaps with data behind them
            templates.learn(domain, view[16:size])
        last[domain] = bytes(view[:size])
    records = 0
    for domain, message in last.items():
        sequence = int.from_bytes(message[8:12], "big") - int.from_bytes(first[domain], "big")
        records += (sequence & 0xFFFFFFFF) + templates.learn(domain, memoryview(message)[16:])
    return {"messages": messages, "octets": octets, "records": records, "domains": len(last)}


def dropped(port: int) -> int:
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1].endswith(f":{port:04X}"):
            return int(columns[-1])
    return 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--core", type=int, help="run on this core only; not the sender's")
    parser.add_argument("--sleep", action="store_true", help="wait in the kernel instead of polling")
    given = parser.parse_args(arguments)
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})

    stopping = threading.Event()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        sock.bind(("127.0.0.1", given.port))
        sock.settimeout(0.1 if given.sleep else 0)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: stopping.set())
        port = sock.getsockname()[1]
        print(port, flush=True)
        counts = take(sock, stopping)
        print(json.dumps({**counts, "dropped": dropped(port), "waits": "sleeps" if given.sleep else "polls"}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
