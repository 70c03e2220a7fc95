"""The ways out: UDP, TCP, TLS, RFC 5655 files, packet captures. One interface, `Transport`; see `base`."""

from edfn_agent.export.transports.backoff import Backoff, open_when_up
from edfn_agent.export.transports.base import (
    SessionEnded,
    Transport,
    TransportDown,
    TransportError,
    TransportFault,
)
from edfn_agent.export.transports.collector import Collector, parse_collector
from edfn_agent.export.transports.udp import AddressMode, UdpTransport

__all__ = [
    "Transport",
    "TransportError",
    "TransportDown",
    "SessionEnded",
    "TransportFault",
    "Collector",
    "parse_collector",
    "AddressMode",
    "UdpTransport",
    "Backoff",
    "open_when_up",
]
