"""Collectors: does the name resolve, is there a route, does somebody answer, do messages fit, may exporters be shown.

In: collectors of the configuration, exporter addresses. Out: checks. Never: a record. What is sent: over TCP and TLS a
connection that is closed again; over UDP one IPFIX message without a set (16 octets, RFC 7011 section 3 allows it),
because that is how a machine where nobody listens can say so, and one datagram as long as the longest message, not to
be fragmented, to a port where nobody listens, as traceroute does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from edfn_agent.export.transports.collector import Collector, Endpoint, parse_collector, resolve
from edfn_agent.export.transports.tcp import TcpTransport, TlsSettings
from edfn_agent.ops.doctor.checks import ERROR, INFO, OK, UNTRIED, WARNING, Check

# Linux numbers that Python 3.11 has no names for (ip(7), ipv6(7)).
IP_MTU = 14
IPV6_MTU = 24
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_DO = 2  # do not fragment: neither here nor on the way

NOBODY = 33434
"""The port that traceroute begins with: a machine that is reached says that nobody listens there."""

PATIENCE = 0.5
"""Seconds to wait for word that nobody listens: a collector across a continent answers within 0.3."""

TRIED = 3
"""Exporter addresses that are tried: if one cannot be used as a source, neither can others outside this machine."""


def collector(configured: Any, size: int, mode: str, exporters: Sequence[IPv4Address]) -> Iterator[Check]:
    """One collector of the configuration."""
    where = parse_collector(configured.url)
    name = str(where)
    fault = ERROR if configured.required else WARNING
    try:
        endpoints = resolve(where)
    except OSError as error:
        step = "check the name and /etc/resolv.conf, or write the address"
        text = f"the name {where.host} does not resolve: {error.strerror or error}"
        yield Check("collector.name", fault, text, resource=name, next_step=step)
        return
    addresses = ", ".join(dict.fromkeys(each.address for each in endpoints))
    yield Check("collector.name", OK, f"it is {addresses}", resource=name)
    endpoint = endpoints[0]
    if where.scheme == "udp" and mode != "field":  # exporters are shown over IPv4 only
        endpoint = next((each for each in endpoints if each.family == socket.AF_INET), endpoint)
    try:
        local, mtu = _route(endpoint)
    except OSError as error:
        step = "check the address, `ip route get`, and the network interface"
        yield Check("collector.route", fault, f"no route: {error.strerror}", resource=name, next_step=step)
        return
    yield Check("collector.route", OK, f"from {local}", resource=name)
    if where.scheme == "udp":
        yield _heard(name, endpoint, fault)
        arrived, mtu = _probed(endpoint, size, mtu)
        yield _fits(name, endpoint, size, mtu, arrived)
        yield _source(name, endpoint, mode, exporters)
    else:
        yield from _connected(configured, where, name, fault)


def _route(endpoint: Endpoint) -> tuple[str, int]:
    """The address of this machine towards the collector, and the MTU of the path as the kernel knows it."""
    with socket.socket(endpoint.family, socket.SOCK_DGRAM) as probe:
        probe.connect(endpoint.sockaddr)
        v6 = endpoint.family == socket.AF_INET6
        level, option = (socket.IPPROTO_IPV6, IPV6_MTU) if v6 else (socket.IPPROTO_IP, IP_MTU)
        return str(probe.getsockname()[0]), probe.getsockopt(level, option)


def _probed(endpoint: Endpoint, size: int, mtu: int) -> tuple[bool, int]:
    """Whether a datagram of that size arrived in one piece, and the MTU of the path as it is known then.

    A router with a narrower link says so to whoever sent the datagram (RFC 1191, RFC 8201). Datagrams that leave from
    exporter addresses never hear it: such answers go to those addresses.
    """
    six = endpoint.family == socket.AF_INET6
    level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
    with socket.socket(endpoint.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.setsockopt(level, IPV6_MTU_DISCOVER if six else IP_MTU_DISCOVER, PMTUDISC_DO)
            probe.connect((endpoint.address, NOBODY))
            probe.send(bytes(size))
            if select.select([probe], [], [], PATIENCE)[0]:
                probe.recv(1)
        except ConnectionRefusedError:
            return True, mtu
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return False, probe.getsockopt(level, IPV6_MTU if six else IP_MTU)
    return False, mtu


def _fits(name: str, endpoint: Endpoint, size: int, mtu: int, arrived: bool) -> Check:
    headers = 48 if endpoint.family == socket.AF_INET6 else 28  # IP and UDP
    text = f"messages of up to {size} octets make datagrams of {size + headers}; the path takes {mtu}"
    if size + headers <= mtu:
        how = "one of that size arrived" if arrived else "as far as this machine knows: nothing answered to one"
        return Check("collector.mtu", OK, f"{text}, {how}", resource=name)
    step = "a datagram that is cut up is lost with any of its pieces, and one that may not be is lost whole"
    fix = f"ipfix: {{max_message_size: {max(512, mtu - headers)}}}"
    return Check(
        "collector.mtu", WARNING, text, resource=name, next_step=f"{step}; lower ipfix.max_message_size", fix=fix
    )


def _heard(name: str, endpoint: Endpoint, fault: str) -> Check:
    """Whether the other machine says that nobody listens. Silence is all that UDP has for an answer."""
    message = struct.pack(">HHIII", 10, 16, int(time.time()), 0, 0)
    with socket.socket(endpoint.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(endpoint.sockaddr)
            probe.send(message)
            if select.select([probe], [], [], PATIENCE)[0]:
                probe.recv(1)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                step = "start the collector, or mend the port"
                return Check("collector.port", fault, "nobody listens there", resource=name, next_step=step)
            step = "check packet filters on the way, and on this machine"
            return Check(
                "collector.port", fault, f"it cannot be sent to: {error.strerror}", resource=name, next_step=step
            )
    return Check("collector.port", OK, "sent to; nobody says that it is closed (UDP says no more)", resource=name)


def _source(name: str, endpoint: Endpoint, mode: str, exporters: Sequence[IPv4Address]) -> Check:
    """Whether datagrams may leave from exporter addresses. Nothing is sent for it."""
    if mode == "field":
        text = "not wanted (exporters.address_mode: field): records say the exporter"
        return Check("collector.source", OK, text, resource=name)
    if endpoint.family != socket.AF_INET:
        text = "the collector is reached over IPv6, and exporter addresses are IPv4: records say the exporter"
        step = "reach it by its IPv4 address if each VPC is to be a device of its own there"
        return Check("collector.source", ERROR if mode == "source" else INFO, text, resource=name, next_step=step)
    if not exporters:
        return Check("collector.source", UNTRIED, "there is no exporter to try it with", resource=name)
    for address in exporters[:TRIED]:
        error = _from(address, endpoint)
        if error is not None:
            text = f"datagrams cannot leave from {address}: {error.strerror} (needs CAP_NET_RAW)"
            if mode == "auto":
                text += "; all leave from this machine's address, and records say the exporter"
            else:
                text += "; with address_mode source nothing is exported"
            step = "give the service that one privilege if collectors are to see each VPC as a device: docs/install.md"
            fix = "AmbientCapabilities=CAP_NET_RAW\nCapabilityBoundingSet=CAP_NET_RAW"
            return Check(
                "collector.source", ERROR if mode == "source" else INFO, text, resource=name, next_step=step, fix=fix
            )
    who = "" if os.geteuid() else " (as root; the service may have fewer privileges)"
    return Check("collector.source", OK, f"datagrams may leave from exporter addresses{who}", resource=name)


def _from(address: IPv4Address, endpoint: Endpoint) -> OSError | None:
    with socket.socket(endpoint.family, socket.SOCK_DGRAM) as probe:
        with contextlib.suppress(OSError):  # an address of this machine is still possible
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
        try:
            probe.bind((str(address), 0))
            probe.connect(endpoint.sockaddr)
        except OSError as error:
            return error
    return None


def _connected(configured: Any, where: Collector, name: str, fault: str) -> Iterator[Check]:
    """By the transport that the agent itself uses."""
    from edfn_agent.export.transports.base import TransportError
    from edfn_agent.ops.doctor.certificates import lasting

    files = {
        field: str(value) if (value := getattr(configured, field)) is not None else None
        for field in ("ca_file", "certificate", "key")
    }
    tls = TlsSettings(server_name=configured.server_name, verify=configured.verify, **files)
    if configured.certificate is not None:
        yield lasting("collector.certificate", Path(configured.certificate))
    transport = TcpTransport(where, tls=tls)
    began = time.monotonic()
    try:
        transport.open()
    except TransportError as error:
        text = str(error).removeprefix(f"{name}: ")
        if transport.errors["certificate"]:
            step = "give the authority that signed it (ca_file), or the name in it (server_name)"
            yield Check("collector.certificate", fault, text, resource=name, next_step=step)
        else:
            step = "start the collector, mend the port, or let the connection through the packet filters on the way"
            yield Check("collector.port", fault, text, resource=name, next_step=step)
        return
    took = time.monotonic() - began
    transport.close()
    words = "TLS was agreed on" if where.scheme == "tls" else "it accepts connections"
    yield Check("collector.port", OK, f"{words} within {took * 1000:.0f} ms", resource=name)
    if where.scheme == "tls" and not configured.verify:
        text = "any certificate is trusted (verify: false): anyone on the way can pose as the collector"
        yield Check("collector.certificate", INFO, text, resource=name, next_step="give its authority as ca_file")
    elif where.scheme == "tls":
        yield _peer(where, tls, name)


def _peer(where: Collector, tls: TlsSettings, name: str) -> Check:
    """How long the collector's certificate lasts. It was verified a moment ago."""
    import ssl

    from edfn_agent.ops.doctor.certificates import not_after, verdict

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    try:
        with socket.create_connection((where.host, where.port), 10.0) as plain:
            with context.wrap_socket(plain, server_hostname=tls.server_name or where.host) as secured:
                der = secured.getpeercert(binary_form=True)
        return verdict("collector.certificate", name, not_after(der or b""))
    except (OSError, ValueError) as error:
        return Check("collector.certificate", UNTRIED, f"its end could not be seen: {error}", resource=name)
