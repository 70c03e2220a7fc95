"""The MTU of the path: a narrow link behind a router, which only a datagram that may not be fragmented shows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from edfn_agent.export.transports.collector import Endpoint
from edfn_agent.ops.doctor import collectors
from edfn_agent.ops.doctor.checks import Check
from tests.transports.test_link import inside, ip

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="network namespaces take root and iproute2"
)

NARROW = 1280


@pytest.fixture(scope="module")
def here() -> Iterator[str]:
    """A namespace from which 192.0.2.2 and 2001:db8:2::2 are behind a router and a link of 1280 octets."""
    ours, router, theirs = (f"edfn-{name}{os.getpid()}" for name in ("p", "q", "r"))
    try:
        for namespace in (ours, router, theirs):
            ip("netns", "add", namespace)
        ip("-n", ours, "link", "add", "out", "type", "veth", "peer", "name", "near", "netns", router)
        ip("-n", router, "link", "add", "far", "type", "veth", "peer", "name", "in", "netns", theirs)
    except subprocess.CalledProcessError as error:
        for namespace in (ours, router, theirs):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
        pytest.skip(f"no namespaces here: {error.stderr.decode().strip()}")
    try:
        for namespace, device, four, six, mtu in (
            (ours, "out", "198.51.100.1/24", "2001:db8:1::1/64", 1500),
            (router, "near", "198.51.100.2/24", "2001:db8:1::2/64", 1500),
            (router, "far", "192.0.2.1/24", "2001:db8:2::1/64", NARROW),
            (theirs, "in", "192.0.2.2/24", "2001:db8:2::2/64", NARROW),
        ):
            ip("-n", namespace, "addr", "add", four, "dev", device)
            ip("-n", namespace, "addr", "add", six, "dev", device, "nodad")
            ip("-n", namespace, "link", "set", device, "mtu", str(mtu), "up")
        for namespace, four, six in ((ours, "198.51.100.2", "2001:db8:1::2"), (theirs, "192.0.2.1", "2001:db8:2::1")):
            ip("-n", namespace, "route", "add", "default", "via", four)
            ip("-n", namespace, "-6", "route", "add", "default", "via", six)
        for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            ip("netns", "exec", router, "sysctl", "-qw", setting)
        yield ours
    finally:
        for namespace in (ours, router, theirs):
            ip("netns", "del", namespace)


@pytest.mark.parametrize(
    ("family", "address", "headers"),
    [(socket.AF_INET, "192.0.2.2", 28), (socket.AF_INET6, "2001:db8:2::2", 48)],
    ids=["IPv4", "IPv6"],
)
def test_a_narrow_link_behind_a_router(here: str, family: socket.AddressFamily, address: str, headers: int) -> None:
    endpoint = Endpoint(family, address, 4739)

    def looked(size: int) -> Check:
        def look() -> Check:
            _, mtu = collectors._route(endpoint)
            arrived, mtu = collectors._probed(endpoint, size, mtu)
            return collectors._fits("udp://collector:4739", endpoint, size, mtu, arrived)

        return inside(here, look)

    for _ in range(20):  # neighbours of a link that is just up are not found at once
        fits = looked(NARROW - headers)
        if "arrived" in fits.text:
            break
    assert (fits.status, "one of that size arrived" in fits.text) == ("ok", True)
    long = looked(1400)
    assert (long.status, long.fix) == ("warning", f"ipfix: {{max_message_size: {NARROW - headers}}}")
