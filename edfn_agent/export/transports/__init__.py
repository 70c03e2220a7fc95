"""The ways out: UDP, TCP, TLS, RFC 5655 files, packet captures. One interface, `Transport`; see `base`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edfn_agent.export.transports.backoff import Backoff, open_when_up
from edfn_agent.export.transports.base import (
    Report,
    SessionEnded,
    Transport,
    TransportDown,
    TransportError,
    TransportFault,
)
from edfn_agent.export.transports.collector import Collector, parse_collector
from edfn_agent.export.transports.udp import AddressMode, UdpTransport

if TYPE_CHECKING:
    from edfn_agent.export.transports.tcp import TlsSettings

__all__ = [
    "Transport",
    "TransportError",
    "TransportDown",
    "SessionEnded",
    "TransportFault",
    "Collector",
    "parse_collector",
    "transport_of",
    "file_transport",
    "AddressMode",
    "UdpTransport",
    "Backoff",
    "open_when_up",
]


def transport_of(
    collector: Collector,
    *,
    address_mode: AddressMode = "auto",
    tls: TlsSettings | None = None,
    report: Report | None = None,
) -> Transport:
    """The transport to a collector, not yet open. What the collector's scheme has no use for is ignored."""
    if collector.scheme == "udp":
        return UdpTransport(collector, address_mode=address_mode, report=report)
    from edfn_agent.export.transports.tcp import TcpTransport

    return TcpTransport(collector, tls=tls)


def file_transport(path: Path) -> Transport:
    """What writes `FILE.ipfix` or `FILE.pcap`, not yet open. Raises ValueError for any other name."""
    suffix = path.suffix.lower()
    if suffix == ".ipfix":
        from edfn_agent.export.transports.file import FileTransport

        return FileTransport(path)
    if suffix == ".pcap":
        from edfn_agent.export.transports.pcap import PcapTransport

        return PcapTransport(path)
    raise ValueError(f"output {path}: the name has to end in .ipfix (RFC 5655) or .pcap")
