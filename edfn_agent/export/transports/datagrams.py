"""Many datagrams in one system call: UDP segmentation (GSO) where the kernel has it, sendmmsg(2) around it.

In: a UDP socket and Messages. Out: one datagram for each message, in order, never a byte of another one in it. Never:
a judgement about errors; what the kernel answered for the first message of a call is raised as it came (OSError), and
nothing of a call that raised has been sent.

The two ways add up: one entry of sendmmsg is one run, and a run is one datagram or up to 64 messages of equal length,
the last of which may be shorter, that the kernel cuts apart again. Measured per message of 1400 octets: send 4.9 us,
sendmmsg 3.6, segmentation 1.1 to 1.3.

A shaper on this machine's interface (tbf, cake, netem) cuts runs apart itself and reports a drop only when it drops all
of one; a single datagram it reports. Behind such a one a rate limit below the shaper's belongs in the configuration.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from ipaddress import IPv4Address
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edfn_agent.export.transports.collector import Endpoint

if TYPE_CHECKING:
    from ipfix import Messages

# Linux numbers that Python 3.11 has no names for.
IP_PKTINFO = 8
SOL_UDP = 17
UDP_SEGMENT = 103

RUN_OCTETS = 65_507  # the most one UDP/IPv4 datagram may hold, before it is cut too (65,535 less both headers)
RUN_MESSAGES = 64  # UDP_MAX_SEGMENTS of kernels before 6.9; later ones take 128
CALL_RUNS = 64  # entries of one sendmmsg: the gain of more is nil
FEW_RUNS = 2  # up to here, filling the tables of sendmmsg costs more than the calls it saves
LONG_RUN = 16  # and from so many messages in a run there is nothing left to save
FEW_MESSAGES = 32  # below this, a loop is faster than NumPy

SEGMENTATION_FAULTS = frozenset(
    {errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.ENOSYS}
)
"""What kernels and drivers answer when they cannot cut a run: longer than the link takes, no checksum offload, ..."""


def runs_of(lengths: list[int]) -> list[tuple[int, int]]:
    """(first, count) of the longest runs that one call with one segment size can send, in order, all messages once."""
    total = len(lengths)
    if total < 2:
        return [(0, 1)] * total
    # Where a message is unlike the one before.
    edges = (
        [at for at in range(1, total) if lengths[at] != lengths[at - 1]] if total < FEW_MESSAGES else _edges(lengths)
    )
    edges.append(total)
    runs: list[tuple[int, int]] = []
    first = 0
    for edge in edges:
        if first >= edge:  # its only message ended the run before
            continue
        size = lengths[first]
        most = max(1, min(RUN_MESSAGES, RUN_OCTETS // size))
        while edge - first > most:
            runs.append((first, most))
            first += most
        count = edge - first
        if count < most and edge < total and lengths[edge] < size:
            count += 1  # the shorter one that may end a run; it fits where one of full length would
        runs.append((first, count))
        first += count
    return runs


def _edges(lengths: list[int]) -> list[int]:
    length = np.array(lengths)
    return (np.flatnonzero(length[1:] != length[:-1]) + 1).tolist()


class _Table(NamedTuple):
    """One item a run."""

    address: NDArray[np.int64]
    octets: NDArray[np.int64]
    segment: NDArray[np.int64]  # octets of each message
    several: NDArray[np.bool_]


class Outgoing:
    """Messages on their way out, and how far they are."""

    def __init__(self, messages: Messages, segments_below: int) -> None:
        """Runs are made of messages shorter than `segments_below` octets; 0 makes every message a datagram."""
        self.octets: NDArray[np.uint8] = messages.buffer
        self.lengths: list[int] = messages.lengths.tolist()
        self.ends = list(accumulate(self.lengths))  # messages lie one behind the other
        self.sent = 0  # messages
        self.at = 0  # the next run
        self.runs = runs_of(self.lengths) if segments_below else [(i, 1) for i in range(len(self.lengths))]
        self._table: _Table | None = None
        if max(self.lengths, default=0) >= segments_below > 0:
            self.take_apart(segments_below)

    @property
    def octets_sent(self) -> int:
        return self.ends[self.sent - 1] if self.sent else 0

    def take_apart(self, segments_below: int) -> None:
        """Runs not yet sent of messages of at least this length become single datagrams."""
        runs: list[tuple[int, int]] = []
        for first, count in self.runs[self.at :]:
            if self.lengths[first] >= segments_below:
                runs.extend((first + i, 1) for i in range(count))
            else:
                runs.append((first, count))
        self.runs, self.at, self._table = runs, 0, None

    @property
    def table(self) -> _Table:
        """All runs as arrays, for who sends many of them."""
        if self._table is None:
            firsts, counts = np.array(self.runs).T
            ends, lengths = np.array(self.ends), np.array(self.lengths)
            size = lengths[firsts]
            begin = ends[firsts] - size
            self._table = _Table(begin + _address(self.octets), ends[firsts + counts - 1] - begin, size, counts > 1)
        return self._table

    def bounds(self, run: tuple[int, int]) -> tuple[int, int]:
        first, count = run
        return self.ends[first] - self.lengths[first], self.ends[first + count - 1]


class DatagramSocket:
    """A UDP socket for one destination, and what its kernel has been found able to do."""

    def __init__(
        self, sock: socket.socket, endpoint: Endpoint, *, segmentation: bool = True, many: bool = True
    ) -> None:
        self.sock = sock
        self._endpoint = endpoint
        self._connected = False
        self.segments_below = 1 << 16 if segmentation and _has_segmentation(sock) else 0
        """Messages shorter than this are worth trying in runs; learned by trying."""
        self._many = _Many(sock.fileno(), endpoint) if many and _Many.works_here() else None
        self._ancillary: dict[IPv4Address, tuple[int, int, bytes]] = {}

    def connect(self) -> None:
        self.sock.connect(self._endpoint.sockaddr)
        self._connected = True
        if self._many is not None:
            self._many.forget_destination()

    def prepare(self, messages: Messages) -> Outgoing:
        return Outgoing(messages, self.segments_below)

    def hand_over(self, outgoing: Outgoing, source: IPv4Address | None) -> bool:
        """Hand the kernel what it takes in one call.

        Raises OSError when it did not take the first. True: it took all that was offered. False: it stopped on the
        way, and an error that it noted has been lost (sendmmsg reports none once something is sent).
        """
        left = len(outgoing.runs) - outgoing.at
        try:
            if self._many is not None and left > FEW_RUNS and outgoing.runs[outgoing.at][1] < LONG_RUN:
                taken, offered = self._many.send(outgoing, source, left), min(left, CALL_RUNS)
            else:
                self._send_one(outgoing, source)
                taken = offered = 1
        except OSError as error:
            first, count = outgoing.runs[outgoing.at]
            if count == 1 or error.errno not in SEGMENTATION_FAULTS:
                raise
            self._learn(error, outgoing.lengths[first])
            outgoing.take_apart(self.segments_below)
            return True
        for _, count in outgoing.runs[outgoing.at : outgoing.at + taken]:
            outgoing.sent += count
        outgoing.at += taken
        return taken == offered

    def _learn(self, error: OSError, length: int) -> None:
        if error.errno in (errno.EINVAL, errno.EMSGSIZE) and length > 512:
            self.segments_below = min(self.segments_below, length)  # longer than the link's MTU: shorter ones may pass
        else:
            self.segments_below = 0  # the driver or the kernel cannot

    def _send_one(self, outgoing: Outgoing, source: IPv4Address | None) -> None:
        first, count = outgoing.runs[outgoing.at]
        begin, end = outgoing.bounds((first, count))
        octets = outgoing.octets.data[begin:end]
        if count == 1 and source is None and self._connected:
            self.sock.send(octets)
            return
        ancillary = []
        if source is not None:
            packet_info = self._ancillary.get(source)
            if packet_info is None:
                if len(self._ancillary) > 4096:  # exporters: VPCs, so never in practice
                    self._ancillary.clear()
                info = struct.pack("@i4s4x", 0, source.packed)
                packet_info = self._ancillary[source] = (socket.IPPROTO_IP, IP_PKTINFO, info)
            ancillary.append(packet_info)
        if count > 1:
            ancillary.append((SOL_UDP, UDP_SEGMENT, struct.pack("@H", outgoing.lengths[first])))
        if self._connected:
            self.sock.sendmsg([octets], ancillary)
        else:
            self.sock.sendmsg([octets], ancillary, 0, self._endpoint.sockaddr)


def _has_segmentation(sock: socket.socket) -> bool:
    # Asked, not only tried: a kernel before 4.18 ignores the control message and sends the run as one datagram.
    try:
        sock.getsockopt(SOL_UDP, UDP_SEGMENT)
    except OSError:
        return False
    return True


# struct mmsghdr, struct iovec and the control messages of 64-bit Linux, as columns that NumPy fills for a whole call.
_HEADER = np.dtype(
    {
        "names": ["name", "namelen", "iov", "iovlen", "control", "controllen", "flags", "sent"],
        "formats": ["u8", "u4", "u8", "u8", "u8", "u8", "i4", "u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)
_IOVEC = np.dtype([("base", "u8"), ("len", "u8")])
_CONTROL = np.dtype(
    [
        ("info_len", "u8"),
        ("info_level", "i4"),
        ("info_type", "i4"),
        ("interface", "i4"),
        ("source", "V4"),
        ("destination", "V4"),
        ("info_padding", "V4"),
        ("segment_len", "u8"),
        ("segment_level", "i4"),
        ("segment_type", "i4"),
        ("segment", "u2"),
        ("segment_padding", "V6"),
    ]
)
_INFO_SPACE = 32
_SEGMENT_SPACE = 24


class _Many:
    """sendmmsg(2), which Python's socket module lacks."""

    _call: Any = None

    @classmethod
    def works_here(cls) -> bool:
        if not sys.platform.startswith("linux") or ctypes.sizeof(ctypes.c_void_p) != 8:
            return False
        if cls._call is None:
            try:
                call = ctypes.CDLL(None, use_errno=True).sendmmsg
            except (OSError, AttributeError):
                return False
            call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
            call.restype = ctypes.c_int
            cls._call = call
        return True

    def __init__(self, descriptor: int, endpoint: Endpoint) -> None:
        self._descriptor = descriptor
        self._headers = np.zeros(CALL_RUNS, _HEADER)
        self._iovecs = np.zeros(CALL_RUNS, _IOVEC)
        self._controls = np.zeros(CALL_RUNS, _CONTROL)
        self._name = np.frombuffer(_raw_address(endpoint), np.uint8)
        self._headers["name"] = _address(self._name)
        self._headers["namelen"] = len(self._name)
        self._headers["iov"] = _address(self._iovecs) + np.arange(CALL_RUNS, dtype=np.uint64) * _IOVEC.itemsize
        self._headers["iovlen"] = 1
        self._calls = _address(self._headers)
        self._with_source = _address(self._controls) + np.arange(CALL_RUNS, dtype=np.uint64) * _CONTROL.itemsize
        self._without_source = self._with_source + np.uint64(_INFO_SPACE)
        self._controls["info_len"] = 28
        self._controls["info_level"] = socket.IPPROTO_IP
        self._controls["info_type"] = IP_PKTINFO
        self._controls["segment_len"] = 18
        self._controls["segment_level"] = SOL_UDP
        self._controls["segment_type"] = UDP_SEGMENT

    def forget_destination(self) -> None:
        self._headers["name"] = 0
        self._headers["namelen"] = 0

    def send(self, outgoing: Outgoing, source: IPv4Address | None, most: int) -> int:
        n = min(most, CALL_RUNS)
        part = slice(outgoing.at, outgoing.at + n)
        table = outgoing.table
        self._iovecs["base"][:n] = table.address[part]
        self._iovecs["len"][:n] = table.octets[part]
        info = 0
        if source is not None:
            info = _INFO_SPACE
            self._controls["source"][:n] = np.void(source.packed)
        self._headers["control"][:n] = (self._without_source if source is None else self._with_source)[:n]
        self._headers["controllen"][:n] = info + _SEGMENT_SPACE * table.several[part]
        self._controls["segment"][:n] = table.segment[part]
        taken = int(self._call(self._descriptor, self._calls, n, 0))
        if taken < 0:
            number = ctypes.get_errno()
            raise OSError(number, errno.errorcode.get(number, str(number)))
        return taken


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _raw_address(endpoint: Endpoint) -> bytes:
    """struct sockaddr_in or sockaddr_in6."""
    packed = socket.inet_pton(endpoint.family, endpoint.address.partition("%")[0])
    if endpoint.family == socket.AF_INET6:
        head = struct.pack("@H", endpoint.family) + struct.pack(">HI", endpoint.port, 0)
        return head + packed + struct.pack("@I", endpoint.scope)
    return struct.pack("@H", endpoint.family) + struct.pack(">H", endpoint.port) + packed + bytes(8)
