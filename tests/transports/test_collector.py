"""Collector URLs as people write them."""

from __future__ import annotations

import socket

import pytest

from edfn_agent.export.transports import Collector, parse_collector, transport_of
from edfn_agent.export.transports.collector import Endpoint, resolve


@pytest.mark.parametrize(
    ("url", "collector", "name"),
    [
        ("udp://192.0.2.10", Collector("udp", "192.0.2.10", 4739), "udp://192.0.2.10:4739"),
        ("udp://192.0.2.10:2055", Collector("udp", "192.0.2.10", 2055), "udp://192.0.2.10:2055"),
        ("tcp://flows.example.net", Collector("tcp", "flows.example.net", 4739), "tcp://flows.example.net:4739"),
        ("tls://flows.example.net", Collector("tls", "flows.example.net", 4740), "tls://flows.example.net:4740"),
        ("tls://[2001:DB8:0::1]:99", Collector("tls", "2001:db8::1", 99), "tls://[2001:db8::1]:99"),
        (" UDP://Localhost:1/ ", Collector("udp", "localhost", 1), "udp://localhost:1"),
        ("udp://nf_collector.local", Collector("udp", "nf_collector.local", 4739), "udp://nf_collector.local:4739"),
    ],
)
def test_good(url: str, collector: Collector, name: str) -> None:
    assert parse_collector(url) == collector
    assert str(collector) == name
    assert parse_collector(name) == collector
    assert transport_of(collector).name == name


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("192.0.2.10:4739", "a transport is missing, for example udp://192.0.2.10:4739"),
        ("", "a transport is missing, for example udp://192.0.2.10:4739"),
        ("sctp://192.0.2.10", "'sctp' is none of udp, tcp, tls"),
        ("udp://", "the host is missing"),
        ("udp://:4739", "the host is missing"),
        ("udp://host:0", "a number from 1 to 65535"),
        ("udp://host:65536", "a number from 1 to 65535"),
        ("udp://host:port", "a number from 1 to 65535"),
        ("udp://2001:db8::1", r"goes in brackets, for example udp://\[2001:db8::1\]:4739"),
        ("udp://[2001:db8::zz]:4739", "2001:db8::zz"),
        ("udp://192.0.2.256", "neither an address nor a host name"),
        ("udp://-host", "neither an address nor a host name"),
        ("udp://host name", "neither an address nor a host name"),
        ("udp://host:4739/path", "nothing behind or before it"),
        ("udp://user@host:4739", "nothing behind or before it"),
        ("udp://host:4739?x=1", "nothing behind or before it"),
    ],
)
def test_bad(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_collector(url)


def test_addresses_of_a_literal() -> None:
    assert resolve(Collector("udp", "192.0.2.10", 5)) == [Endpoint(socket.AF_INET, "192.0.2.10", 5)]
    assert resolve(Collector("tcp", "2001:db8::1", 5)) == [Endpoint(socket.AF_INET6, "2001:db8::1", 5)]
    assert str(resolve(Collector("tcp", "::1", 5))[0]) == "[::1]:5"
