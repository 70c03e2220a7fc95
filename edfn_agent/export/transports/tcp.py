"""IPFIX over TCP and TLS (RFC 7011 section 10.4 and 11): one connection is one transport session.

In: Messages. Out: their octets, one after the other. Never: a message begun on one connection and ended on another;
when a write fails the connection is over, and what had not drained may be lost, so the caller sends it again.

TLS checks the collector's certificate and name unless told not to, and is never older than 1.2 (RFC 9325).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

from edfn_agent.export.transports.backoff import Backoff
from edfn_agent.export.transports.base import TransportDown, TransportFault
from edfn_agent.export.transports.collector import Collector, Endpoint, resolve

if TYPE_CHECKING:
    from ipfix import Messages

CONNECT_TIMEOUT = 10.0
STALLED_AFTER = 60.0
"""Seconds without the collector taking one octet. A slow one is waited for as long as it takes something."""
CLOSING = 2.0
"""Seconds for the farewell of TLS."""
WRITE = 256 * 1024
"""Octets of one write: TLS copies, and a write is where a stalled collector is noticed."""
READS = 16
"""Reads in a row from a peer that has nothing to say; more would be listening to babble."""

_WRONG_FILES = (FileNotFoundError, IsADirectoryError, PermissionError)


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Paths of PEM files. Without `ca_file` the system's certificate authorities are trusted."""

    ca_file: str | None = None
    certificate: str | None = None
    """The agent's own certificate, where the collector asks for one (mutual TLS)."""
    key: str | None = None
    server_name: str | None = None
    """The name in the collector's certificate, where it is not the host of the URL."""
    verify: bool = True


class TcpTransport:
    """One collector over TCP, or over TLS where `collector.scheme` says so."""

    reliable = True

    def __init__(
        self,
        collector: Collector,
        *,
        tls: TlsSettings | None = None,
        send_buffer: int | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        stalled_after: float = STALLED_AFTER,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        backoff: Backoff | None = None,
        resolver: Callable[[Collector], list[Endpoint]] = resolve,
    ) -> None:
        self.collector = collector
        self.name = str(collector)
        self.session = 0
        self.messages = 0
        self.octets = 0
        self.errors: Counter[str] = Counter()
        self._tls = (tls or TlsSettings()) if collector.scheme == "tls" else None
        self._context: ssl.SSLContext | None = None
        self._send_buffer = send_buffer
        self._connect_timeout = connect_timeout
        self._stalled_after = stalled_after
        self._clock = clock
        self._sleep = sleep
        self._backoff = backoff or Backoff(clock)
        self._resolver = resolver
        self._sock: socket.socket | None = None

    def open(self) -> None:
        self._drop()
        if self._tls is not None:  # read anew for each connection: certificates are renewed without a word to the agent
            try:
                self._context = _context(self.name, self._tls)
            except TransportFault as error:
                if self._context is None:
                    raise
                # they were right once: a renewal that is half written, and mends itself
                raise self._down("certificate", str(error).removeprefix(f"{self.name}: ")) from error
        try:
            endpoints = self._resolver(self.collector)
        except OSError as error:
            reason = error.strerror or str(error)
            raise self._down("name", f"the name {self.collector.host} could not be looked up: {reason}") from error
        problems: list[tuple[str, str]] = []
        for endpoint in endpoints:
            try:
                self._sock = self._connect(endpoint)
            except ssl.SSLCertVerificationError as error:
                problems.append(("certificate", f"its certificate is not accepted: {error.verify_message}"))
            except ssl.SSLError as error:
                problems.append(("tls", f"{endpoint}: TLS failed: {_tls_reason(error)}"))
            except TimeoutError:
                problems.append(("timeout", f"{endpoint} did not answer within {self._connect_timeout:g} s"))
            except OSError as error:
                problems.append((_kind(error), f"{endpoint}: {error.strerror or error}"))
            else:
                self.session += 1
                self._backoff.succeeded()
                return
        kind = problems[0][0] if problems else "name"
        raise self._down(kind, "; ".join(text for _, text in problems) or "its name has no address")

    def _connect(self, endpoint: Endpoint) -> socket.socket:
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            sock.settimeout(self._connect_timeout)
            if self._send_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
            # A collector that vanished without a word is noticed even when there is nothing to send: 60 + 5 * 10 s.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 5)
            # And when there is: data nobody acknowledges ends the connection (tcp(7)), not only after 15 minutes.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._stalled_after * 1000))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # messages are whole; do not hold the last back
            sock.connect(endpoint.sockaddr)
            if self._tls is None or self._context is None:
                return sock
            return self._context.wrap_socket(sock, server_hostname=self._tls.server_name or self.collector.host)
        except BaseException:
            sock.close()
            raise

    def send(self, messages: Messages, source: IPv4Address | None) -> None:
        sock = self._alive()
        octets = messages.buffer.data
        sock.settimeout(self._stalled_after)
        at = 0
        try:
            while at < len(octets):
                at += sock.send(octets[at : at + WRITE])
        except TimeoutError as error:
            text = f"it has taken nothing for {self._stalled_after:g} s"
            raise self._lost("stalled", text, self._whole(messages, at)) from error
        except OSError as error:
            raise self._lost(_kind(error), _write_reason(error), self._whole(messages, at)) from error
        self.messages += len(messages)
        self.octets += len(octets)

    def _whole(self, messages: Messages, octets: int) -> int:
        return sum(1 for end in (messages.starts + messages.lengths).tolist() if end <= octets)

    def drain(self, timeout: float) -> bool:
        """True once the collector's kernel has acknowledged every octet. Raises TransportDown when the session is lost.

        A connection that was reset has lost what its collector had not read, acknowledged or not. One that was closed
        in order had been read to its end.
        """
        deadline = self._clock() + timeout
        pause = 0.0002
        while True:
            sock = self._alive(closed_is_lost=False)
            # SIOCOUTQ: octets written and not yet acknowledged (tcp(7)).
            if struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0] == 0:
                return True
            self._alive()
            left = deadline - self._clock()
            if left <= 0:
                return False
            self._sleep(min(pause, left))
            pause = min(pause * 2, 0.05)

    def _alive(self, *, closed_is_lost: bool = True) -> socket.socket:
        """The connection, if it still is one.

        A collector says nothing in IPFIX: what can be read is its farewell, an error, or TLS's own business (session
        tickets, which also have to be read because closing over unread octets resets the connection).
        """
        sock = self._sock
        if sock is None:
            raise self._down("closed", "not connected")
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        sock.settimeout(0)
        for _ in range(READS):
            if not poll.poll(0):
                break
            try:
                gone = not sock.recv(16384)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                break
            except OSError as error:
                raise self._lost(_kind(error), _write_reason(error)) from error
            if gone:
                if closed_is_lost:
                    raise self._lost("closed", "it closed the connection")
                break
        return sock

    def _lost(self, kind: str, text: str, sent: int = 0) -> TransportDown:
        self._drop()
        return self._down(kind, text, sent)

    def _down(self, kind: str, text: str, sent: int = 0) -> TransportDown:
        self.errors[kind] += 1
        return TransportDown(f"{self.name}: {text}", sent=sent, retry_after=self._backoff.failed())

    def close(self) -> None:
        """Say farewell, so that the collector keeps what it has read: close_notify first (RFC 8446 section 6.1)."""
        sock = self._sock
        if isinstance(sock, ssl.SSLSocket):
            sock.settimeout(CLOSING)
            with contextlib.suppress(OSError, ValueError):  # it had gone, or does not answer: nothing more can be done
                self._sock = sock.unwrap()
        self._drop()

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _context(name: str, tls: TlsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.ca_file is not None:
        try:
            context = _trusting(context, tls.ca_file)
        except (ssl.SSLError, OSError, ValueError) as error:  # ValueError: nothing in it
            raise TransportFault(f"{name}: ca_file {tls.ca_file}: {_file_reason(error)}") from error
    if tls.certificate is not None:
        try:
            context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
        except (ssl.SSLError, OSError, _Encrypted) as error:
            files = " and ".join(str(file) for file in (tls.certificate, tls.key) if file is not None)
            raise TransportFault(f"{name}: certificate and key {files}: {_file_reason(error)}") from error
    elif tls.key is not None:
        raise TransportFault(f"{name}: a key is set and its certificate is not")
    return context


def _trusting(context: ssl.SSLContext, ca_file: str) -> ssl.SSLContext:
    """The same settings with nobody trusted but `ca_file`."""
    only = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    only.minimum_version = context.minimum_version
    only.check_hostname = context.check_hostname
    only.verify_mode = context.verify_mode
    only.load_verify_locations(cadata=Path(ca_file).read_text("ascii", "replace"))
    return only


class _Encrypted(Exception):
    """The key asks for a passphrase, and there is nobody to type it."""


def _no_password() -> str:
    raise _Encrypted("the key is encrypted; the agent needs one without a passphrase")


def _file_reason(error: Exception) -> str:
    if isinstance(error, _WRONG_FILES):
        return error.strerror or str(error)
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key does not belong to the certificate"
        return f"no PEM certificate or key can be read from it ({error.reason or error})"
    if isinstance(error, ValueError):
        return f"no PEM certificate can be read from it ({error})"
    return str(error)


def _tls_reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _write_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_tls_reason(error)}"
    if error.errno in (errno.EPIPE, errno.ECONNRESET):
        return "it closed the connection"
    return error.strerror or str(error)


def _kind(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "tls"
    kinds = {
        errno.ECONNREFUSED: "refused",
        errno.ECONNRESET: "closed",
        errno.EPIPE: "closed",
        errno.ETIMEDOUT: "timeout",
        errno.EHOSTUNREACH: "host_unreachable",
        errno.ENETUNREACH: "network_unreachable",
    }
    number = error.errno or 0
    return kinds.get(number, errno.errorcode.get(number, "other"))
