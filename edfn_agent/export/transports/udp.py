"""IPFIX over UDP (RFC 7011 section 10.3), each VPC from its own exporter address where the machine allows it.

In: Messages and the exporter they come from. Out: datagrams, accepted by the kernel. Never: a datagram dropped because
a buffer was full, or a second one for a message that was accepted.

One socket and one port for the whole life, because collectors tie templates to them, in one of two modes:

* `source`: the source address of each datagram is the exporter's (IP_PKTINFO). The kernel allows addresses of this
  machine to everyone, any address to a socket with IP_TRANSPARENT, which takes CAP_NET_RAW.
* `field`: everything comes from the machine's own address; records and options say who the exporter is.

`auto` starts with `source` and learns from the first message with an exporter what is possible here.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Literal

from edfn_agent.export.transports.backoff import Backoff
from edfn_agent.export.transports.base import REPORT_EVERY, Report, SessionEnded, TransportDown, TransportFault
from edfn_agent.export.transports.collector import Collector, Endpoint, NameWatch, resolve
from edfn_agent.export.transports.datagrams import DatagramSocket, Outgoing

if TYPE_CHECKING:
    from ipfix import Messages

AddressMode = Literal["auto", "source", "field"]

# Linux numbers that Python 3.11 has no names for.
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DONT = 0
IP_RECVERR = 11
IPV6_RECVERR = 25
MSG_ERRQUEUE = 0x2000

STALLED_AFTER = 30.0
"""Seconds without one datagram accepted: a link that stands that long is down, and whoever waits should hear of it."""
TRIES = 1000
"""Errors of earlier datagrams in a row before one message is given up. Each stands for one datagram that was sent, so
the end is near in any case; this is for a kernel that disagrees."""

_FIELD = "field: all datagrams leave from this machine's address"
_FULL = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM})
_FOREIGN = frozenset(
    {errno.EINVAL, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EPERM, errno.EACCES, errno.EHOSTUNREACH}
)
"""What the kernel answers to a source address it does not let us use."""
_KINDS = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "host_unreachable",
    errno.ENETUNREACH: "network_unreachable",
    errno.EPERM: "not_permitted",
    errno.EACCES: "not_permitted",
    errno.EMSGSIZE: "too_long",
}
_SAYS = {
    errno.ENETUNREACH: "no route to it from here (network is unreachable)",
    errno.EHOSTUNREACH: "no way to that host (no route, or nobody answers for it on the last link)",
    errno.EPERM: "this machine's packet filter or a security module forbids sending to it",
    errno.EACCES: "this machine forbids sending to it (a broadcast address, or a security module)",
    errno.ENETDOWN: "the network interface is down",
    errno.EINVAL: "the kernel refuses the address",
}


class UdpTransport:
    """One collector. `mode` is `undecided` until the first message of an exporter has been sent."""

    reliable = False

    def __init__(
        self,
        collector: Collector,
        *,
        address_mode: AddressMode = "auto",
        source_port: int = 0,
        send_buffer: int | None = None,
        segmentation: bool = True,
        report: Report | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        resolver: Callable[[Collector], list[Endpoint]] = resolve,
    ) -> None:
        """`source_port` 0: any, and then the same for ever. `send_buffer` in octets; None leaves the system's."""
        self.collector = collector
        self.name = str(collector)
        self.session = 0
        self.messages = 0
        self.octets = 0
        self.errors: Counter[str] = Counter()
        self.mode: Literal["undecided", "source", "field"] = "undecided"
        self.mode_reason = "decided with the first message"
        self._wanted = address_mode
        self._port = source_port
        self._send_buffer = send_buffer
        self._segmentation = segmentation
        self._report = report or logging.getLogger(__name__).warning
        self._clock = clock
        self._sleep = sleep
        self._names = NameWatch(collector, resolver, clock)
        self._backoff = Backoff(clock)
        self._endpoint: Endpoint | None = None
        self._socket: DatagramSocket | None = None
        self._transparent = False
        self._unreported: Counter[str] = Counter()
        self._reported_at: float | None = None

    @property
    def refused(self) -> int:
        """Datagrams the collector's machine sent back because nobody listened."""
        return self.errors["refused"]

    @property
    def local_port(self) -> int:
        """The port all datagrams come from; 0 before the first `open`."""
        return self._port

    def open(self) -> None:
        self._close_socket()
        try:
            endpoint = self._choose(self._names.look())
        except OSError as error:
            self.errors["name"] += 1
            reason = error.strerror or str(error)
            raise self._down(f"the name {self.collector.host} could not be looked up: {reason}") from error
        try:
            self._open_socket(endpoint)
        except OSError as error:
            self._close_socket()
            if error.errno == errno.EADDRINUSE:
                text = f"{self.name}: source port {self._port} is taken by another process"
                raise TransportFault(text) from error
            self.errors[_kind(error.errno or 0)] += 1
            raise self._down(self._explain(error)) from error
        self.session += 1
        self._backoff.succeeded()

    def _choose(self, endpoints: list[Endpoint]) -> Endpoint:
        if not endpoints:
            raise OSError(0, "it has no address")
        if self._endpoint in endpoints:
            return self._endpoint
        if self._wanted != "field":  # exporters have IPv4 addresses, so only an IPv4 collector can be shown them
            return next((one for one in endpoints if one.family == socket.AF_INET), endpoints[0])
        return endpoints[0]

    def _open_socket(self, endpoint: Endpoint) -> None:
        sock = socket.socket(endpoint.family, socket.SOCK_DGRAM)
        self._endpoint = endpoint
        self._socket = DatagramSocket(sock, endpoint, segmentation=self._segmentation)
        sock.setblocking(False)
        if self._send_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer)
        v4 = endpoint.family == socket.AF_INET
        # Two reasons to ask for errors: without this a full queue of the interface drops datagrams and says nothing
        # (udp(7) hides ENOBUFS), and an unconnected socket never hears that nobody listens.
        if v4:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
            # A message longer than a link on the way is to be fragmented there, not lost until the path is learned.
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        self._transparent = False
        self.mode, self.mode_reason = "undecided", "decided with the first message"
        if self._wanted == "field":
            self.mode, self.mode_reason = "field", f"{_FIELD} (configured)"
        elif not v4:
            reason = f"the collector {endpoint} is reached over IPv6 and exporter addresses are IPv4"
            if self._wanted == "source":
                raise TransportFault(f"{self.name}: address mode 'source' is impossible: {reason}")
            self.mode, self.mode_reason = "field", f"{_FIELD} because {reason}"
        else:
            try:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
                self._transparent = True
            except OSError:
                pass  # addresses of this machine still work
        sock.bind(("::" if not v4 else "0.0.0.0", self._port))
        self._port = sock.getsockname()[1]
        if self.mode == "field":
            self._socket.connect()

    def send(self, messages: Messages, source: IPv4Address | None) -> None:
        if self._socket is None or self._endpoint is None:
            raise self._down("not open")
        if self._names.moved(self._endpoint):
            self._report(f"{self.name}: {self._endpoint.address} is no longer its address; a new session begins")
            self.open()
            raise SessionEnded(f"{self.name}: the collector has moved to {self._endpoint}")
        outgoing = self._socket.prepare(messages)
        if self.mode == "field":
            source = None
        try:
            self._push(outgoing, source)
        except _Unwilling as unwilling:
            assert source is not None
            self._without_source(outgoing, source, unwilling.error)
        else:
            if source is not None and outgoing.sent and self.mode == "undecided":
                self.mode, self.mode_reason = "source", "source: each VPC's datagrams leave from its exporter address"
        finally:
            self.messages += outgoing.sent
            self.octets += outgoing.octets_sent

    def _without_source(self, outgoing: Outgoing, source: IPv4Address, error: OSError) -> None:
        """The kernel does not send from `source`: find out why, and go on in mode `field` if that helps."""
        assert self._socket is not None
        cure = "" if self._transparent else " (needs CAP_NET_RAW, or the address or its prefix local to this machine)"
        why = f"the kernel does not send from {source}: {error.strerror}{cure}"
        if not self._has_route() or (self._transparent and self.mode == "source"):
            self.errors[_kind(error.errno or 0)] += 1
            raise self._down(self._explain(error), outgoing.sent) from error  # not the address, or not for long
        if self._wanted == "source":
            text = f"{self.name}: address mode 'source' is impossible: {why}"
            raise TransportFault(text, sent=outgoing.sent) from error
        try:
            self._socket.connect()
        except OSError as second:
            raise self._down(self._explain(second), outgoing.sent) from second
        begun = self.mode == "source"
        if not begun:
            self._push(outgoing, None)
        self.mode, self.mode_reason = "field", f"{_FIELD} because {why}"
        if begun:  # other exporters have announced their templates from addresses that are no longer used
            self.session += 1
            self._report(f"{self.name}: {self.mode_reason}")
            raise SessionEnded(f"{self.name}: {self.mode_reason}", sent=outgoing.sent) from error

    def _has_route(self) -> bool:
        """Is there a route to the collector when the source is left to the kernel? Asked of a second socket."""
        assert self._endpoint is not None
        with socket.socket(self._endpoint.family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(self._endpoint.sockaddr)
            except OSError:
                return False
        return True

    def _push(self, outgoing: Outgoing, source: IPv4Address | None) -> None:
        """Hand over all of it, waiting and trying again as it takes."""
        assert self._socket is not None
        refusals = 0
        pause = 0.001
        stalled_since: float | None = None
        while outgoing.at < len(outgoing.runs):
            before = outgoing.sent
            try:
                whole = self._socket.hand_over(outgoing, source)
            except InterruptedError:
                continue
            except OSError as error:
                number = error.errno or 0
                if number in _FULL:
                    now = self._clock()
                    stalled_since = now if stalled_since is None else stalled_since
                    if now - stalled_since > STALLED_AFTER:
                        text = f"the send buffer has been full for {STALLED_AFTER:.0f} s"
                        raise self._down(text, outgoing.sent) from error
                    pause = self._wait_for_room(number, pause)
                    continue
                earlier = self._hear_of_earlier()
                if (earlier or number == errno.ECONNREFUSED) and refusals < TRIES:
                    # The kernel's way to speak of an earlier datagram: the one in hand was not sent. Send it again.
                    if not earlier:
                        self._note(_kind(number))
                    refusals += 1
                    continue
                raise self._verdict(error, outgoing, source) from error
            if outgoing.sent > before:
                refusals, pause, stalled_since = 0, 0.001, None
            if not whole:
                self._hear_of_earlier()

    def _verdict(self, error: OSError, outgoing: Outgoing, source: IPv4Address | None) -> Exception:
        number = error.errno or 0
        if source is not None and number in _FOREIGN:
            return _Unwilling(error)
        self.errors[_kind(number)] += 1
        if number == errno.EMSGSIZE:
            length = outgoing.lengths[outgoing.sent]
            text = f"{self.name}: a message of {length} octets does not fit in a datagram; lower ipfix.max_message_size"
            return TransportFault(text, sent=outgoing.sent)
        return self._down(self._explain(error), outgoing.sent)

    def _explain(self, error: OSError) -> str:
        return _SAYS.get(error.errno or 0) or error.strerror or str(error)

    def _down(self, text: str, sent: int = 0) -> TransportDown:
        return TransportDown(f"{self.name}: {text}", sent=sent, retry_after=self._backoff.failed())

    def _wait_for_room(self, number: int, pause: float) -> float:
        assert self._socket is not None
        if number in (errno.EAGAIN, errno.EWOULDBLOCK):
            poll = select.poll()
            poll.register(self._socket.sock, select.POLLOUT)
            poll.poll(1000)
            return pause
        self._sleep(pause)  # the interface's queue, not the socket's buffer: nothing tells when it has room
        return min(pause * 2, 0.05)

    def _hear_of_earlier(self) -> int:
        """Empty the socket's error queue (ip(7), IP_RECVERR); how many earlier datagrams came back."""
        assert self._socket is not None
        heard = 0
        while True:
            try:
                _, ancillary, _, _ = self._socket.sock.recvmsg(0, 512, MSG_ERRQUEUE)
            except OSError:
                return heard
            for _, kind, data in ancillary:
                # struct sock_extended_err: errno, origin (1 local, 2 ICMP, 3 ICMPv6), ...
                if kind in (IP_RECVERR, IPV6_RECVERR) and len(data) >= 16 and data[4] in (2, 3):
                    number = int.from_bytes(data[:4], sys.byteorder)
                    self._note(_kind(number))
                    heard += 1

    def _note(self, kind: str) -> None:
        self.errors[kind] += 1
        self._unreported[kind] += 1
        now = self._clock()
        if self._reported_at is None or now - self._reported_at >= REPORT_EVERY:
            self._reported_at = now
            self._report_earlier()

    def _report_earlier(self) -> None:
        for kind, count in self._unreported.items():
            what = "nobody listens there" if kind == "refused" else kind.replace("_", " ")
            plural = "datagram" if count == 1 else "datagrams"
            self._report(f"{self.name}: {count} {plural} came back: {what}; sending goes on")
        self._unreported.clear()

    def drain(self, timeout: float) -> bool:
        """What the kernel has accepted is all that UDP knows."""
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._hear_of_earlier()
        self._report_earlier()
        self._close_socket()

    def _close_socket(self) -> None:
        if self._socket is not None:
            self._socket.sock.close()
            self._socket = None


def _kind(number: int) -> str:
    return _KINDS.get(number) or errno.errorcode.get(number, "other")


class _Unwilling(Exception):
    """The kernel does not send from this source address."""

    def __init__(self, error: OSError) -> None:
        super().__init__(os.strerror(error.errno or 0))
        self.error = error
