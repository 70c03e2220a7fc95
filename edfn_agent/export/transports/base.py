"""What every way out has in common: the Transport and the errors it speaks in.

In: whole IPFIX messages, in order. Out: datagrams, a byte stream or a file. Never: templates, sequence numbers or
waiting between tries; those belong to the caller, who is told by `session` when templates are due again and by
`TransportDown.retry_after` how long to leave a collector alone. A transport belongs to one thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ipfix import Messages

Report = Callable[[str], None]
"""Takes one line for the log. A transport says a repeated thing at most once in REPORT_EVERY."""

REPORT_EVERY = 60.0
"""Seconds. Often enough to be seen, rare enough that a collector that is down for a night does not fill a disk."""


class TransportError(Exception):
    """`sent` says how many messages of this `send` were handed over before: they are not to be sent again over UDP.

    On a reliable transport a lost session loses what had not drained too; there the caller starts from its last drain.
    """

    def __init__(self, message: str, *, sent: int = 0) -> None:
        super().__init__(message)
        self.sent = sent


class TransportDown(TransportError):
    """The collector cannot be reached now. Wait `retry_after` seconds, `open()`, announce templates, send the rest."""

    def __init__(self, message: str, *, sent: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message, sent=sent)
        self.retry_after = retry_after


class SessionEnded(TransportError):
    """A new session has begun in the middle of `send`. Announce templates and send the rest, at once."""


class TransportFault(TransportError):
    """Trying again cannot help: the configuration or the machine has to change."""


class Transport(Protocol):
    """`open`, then `send` as often as wanted, `drain` before anything is acknowledged, `close` at the end."""

    name: str
    """As in the configuration: udp://192.0.2.10:4739, or the name of a file."""
    reliable: bool
    """True where what has drained has arrived at the other end's kernel or disk, and nothing is lost unseen."""
    session: int
    """Grows when a transport session began (RFC 7011 section 2): announce templates and restart sequence numbers."""
    messages: int
    octets: int
    errors: Counter[str]
    """What went wrong, by kind, since the transport was made."""

    def open(self) -> None:
        """Begin a session; the one before, if any, is over. Raises TransportDown or TransportFault."""

    def send(self, messages: Messages, source: IPv4Address | None) -> None:
        """Return when every message is handed over. `source` is the exporter, for transports that can show it."""

    def drain(self, timeout: float) -> bool:
        """Wait until everything sent has left this process's hands for good; False when time is up first.

        Raises TransportDown when the session is lost: on a reliable transport everything since the last drain is.
        """

    def close(self) -> None:
        """End the session in order. Never raises; may be called twice."""
