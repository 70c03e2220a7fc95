"""Where a collector is. In: `udp://host:port` as people write it. Out: a Collector, and the addresses of its name.

Never: a connection. What cannot be meant is refused here, with what was expected.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import urlsplit

Scheme = Literal["udp", "tcp", "tls"]
DEFAULT_PORTS: dict[Scheme, int] = {"udp": 4739, "tcp": 4739, "tls": 4740}  # RFC 7011 section 10.1, IANA
RESOLVE_EVERY = 60.0
"""Seconds between two looks at a collector's name: the usual lifetime of a record that is meant to move."""

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class Collector:
    """`host` is a name or an address, without brackets."""

    scheme: Scheme
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a collector, as sockets want it."""

    family: socket.AddressFamily
    address: str
    port: int
    scope: int = 0

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        if self.family == socket.AF_INET6:
            return (self.address, self.port, 0, self.scope)
        return (self.address, self.port)

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.family == socket.AF_INET6 else f"{self.address}:{self.port}"


def parse_collector(url: str) -> Collector:
    """`udp://host[:port]`, `tcp://…` or `tls://…`. Raises ValueError with a sentence for the person who wrote it."""
    text = url.strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f"collector {url!r}: a transport is missing, for example udp://{text or '192.0.2.10:4739'}")
    if scheme.lower() not in DEFAULT_PORTS:
        raise ValueError(f"collector {url!r}: transport {scheme!r} is none of udp, tcp, tls")
    kind = cast(Scheme, scheme.lower())
    if rest.count(":") > 1 and not rest.startswith("["):
        raise ValueError(
            f"collector {url!r}: an IPv6 address goes in brackets, for example {kind}://[2001:db8::1]:4739"
        )
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        if "port" in str(error).lower():
            raise ValueError(f"collector {url!r}: the port must be a number from 1 to 65535") from None
        raise ValueError(f"collector {url!r}: {error}") from None
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"collector {url!r}: expected {kind}://host:port and nothing behind or before it")
    if not host:
        raise ValueError(f"collector {url!r}: the host is missing")
    if port == 0:
        raise ValueError(f"collector {url!r}: the port must be a number from 1 to 65535")
    if rest.startswith("["):
        host = str(ipaddress.IPv6Address(host))
    elif not _is_ipv4(host) and not _is_name(host):
        raise ValueError(f"collector {url!r}: {host!r} is neither an address nor a host name")
    return Collector(kind, host, port or DEFAULT_PORTS[kind])


def _is_ipv4(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_name(host: str) -> bool:
    # 10.0.0.256 is a mistyped address, whatever a resolver might make of it.
    labels = host.rstrip(".").split(".")
    return len(host) <= 253 and not labels[-1].isdigit() and all(_LABEL.fullmatch(label) for label in labels)


def resolve(collector: Collector) -> list[Endpoint]:
    """Every address of the collector in the resolver's order. Raises OSError (socket.gaierror)."""
    kind = socket.SOCK_DGRAM if collector.scheme == "udp" else socket.SOCK_STREAM
    found = []
    for family, _, _, _, address in socket.getaddrinfo(collector.host, collector.port, type=kind):
        if family == socket.AF_INET:
            found.append(Endpoint(family, str(address[0]), collector.port))
        elif family == socket.AF_INET6:
            found.append(Endpoint(family, str(address[0]), collector.port, int(address[-1])))
    return found


class NameWatch:
    """Looks a collector's name up again now and then, in a thread of its own: a resolver can take many seconds.

    `moved(endpoint)` costs a comparison of times, and is true once a fresh answer no longer has `endpoint` in it. A
    failed look-up changes nothing.
    """

    def __init__(
        self,
        collector: Collector,
        resolver: Callable[[Collector], list[Endpoint]] = resolve,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collector = collector
        self._resolver = resolver
        self._clock = clock
        self._is_name = ":" not in collector.host and not _is_ipv4(collector.host)
        self._due = clock() + RESOLVE_EVERY
        self._answer: list[Endpoint] = []
        self._looking: threading.Thread | None = None

    def look(self) -> list[Endpoint]:
        """Resolve here and now."""
        self._answer = []
        self._due = self._clock() + RESOLVE_EVERY
        return self._resolver(self._collector)

    def moved(self, endpoint: Endpoint) -> bool:
        if not self._is_name:
            return False
        if self._answer and endpoint not in self._answer:
            return True
        if self._clock() >= self._due and (self._looking is None or not self._looking.is_alive()):
            self._due = self._clock() + RESOLVE_EVERY
            self._looking = threading.Thread(target=self._look_again, name="resolve", daemon=True)
            self._looking.start()
        return False

    def _look_again(self) -> None:
        try:
            self._answer = self._resolver(self._collector)
        except OSError:
            return
