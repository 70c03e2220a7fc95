"""UDP over a link of 1500 octets between two namespaces: what loopback's link of 65,536 never shows."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from edfn_agent.export.transports import AddressMode, Collector, TransportDown, UdpTransport
from ipfix import Messages

T = TypeVar("T")
A = IPv4Address("10.1.0.1")
CLONE_NEWNET = 0x40000000

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces take root and iproute2"
)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own that lives in the namespace; sockets made there stay there."""

    def enter() -> T:
        with Path("/var/run/netns", namespace).open() as handle:
            if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(enter).result(30)


@pytest.fixture
def link() -> Iterator[tuple[str, str]]:
    """Two namespaces, 192.0.2.1 on one side and 192.0.2.2 on the other."""
    ours, theirs = f"edfn-a{os.getpid()}", f"edfn-b{os.getpid()}"
    try:
        ip("netns", "add", ours)
        ip("netns", "add", theirs)
        ip("-n", ours, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", theirs)
    except subprocess.CalledProcessError as error:
        for name in (ours, theirs):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        pytest.skip(f"no namespaces here: {error.stderr.decode().strip()}")
    try:
        for namespace, device, address in ((ours, "out", "192.0.2.1/24"), (theirs, "in", "192.0.2.2/24")):
            ip("-n", namespace, "addr", "add", address, "dev", device)
            ip("-n", namespace, "link", "set", device, "up")
        # Without a route back, a receiver that checks sources would drop what comes from exporter addresses.
        ip("-n", theirs, "route", "add", "10.0.0.0/8", "via", "192.0.2.1")
        yield ours, theirs
    finally:
        ip("netns", "del", ours)
        ip("netns", "del", theirs)


def sink() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("192.0.2.2", 4739))
    sock.settimeout(5)
    return sock


def messages(*lengths: int) -> Messages:
    octets = (np.arange(sum(lengths), dtype=np.uint32) * 2654435761 >> 13).astype(np.uint8)
    return Messages(octets, np.array(lengths, np.int64), np.ones(len(lengths), np.int64))


@pytest.mark.parametrize("mode", ["field", "source"])
def test_messages_longer_than_the_link_are_fragmented_and_the_others_still_segmented(
    link: tuple[str, str], mode: AddressMode
) -> None:
    ours, theirs = link
    collector = inside(theirs, sink)
    batch = messages(*[3900] * 6, *[1400] * 20, 700, *[512] * 9)

    def send() -> UdpTransport:
        transport = UdpTransport(Collector("udp", "192.0.2.2", 4739), address_mode=mode)
        transport.open()
        transport.send(batch, A)
        return transport

    transport = inside(ours, send)
    got = [collector.recvfrom(65535) for _ in range(len(batch))]
    assert [octets for octets, _ in got] == [bytes(one) for one in batch]
    assert {address[0] for _, address in got} == {"192.0.2.1" if mode == "field" else "10.1.0.1"}
    assert not transport.errors
    assert transport._socket is not None
    assert transport._socket.segments_below in (0, 3900)  # 0: this kernel has no segmentation
    transport.close()
    collector.close()


@pytest.mark.parametrize("mode", ["auto", "source", "field"])
def test_no_route_says_so_and_leaves_the_mode_open(link: tuple[str, str], mode: AddressMode) -> None:
    def send() -> UdpTransport:
        transport = UdpTransport(Collector("udp", "198.51.100.1", 4739), address_mode=mode)
        with pytest.raises(TransportDown, match="no route to it from here"):
            transport.open()
            transport.send(messages(100), A)
        return transport

    transport = inside(link[0], send)
    assert transport.mode == ("field" if mode == "field" else "undecided")
    assert (transport.messages, sum(transport.errors.values())) == (0, 1)
