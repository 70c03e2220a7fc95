"""UDP transport: real sockets on loopback; what a real kernel cannot be made to answer is answered in its place."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfn_agent.export.transports import SessionEnded, TransportDown, TransportFault, UdpTransport, parse_collector
from edfn_agent.export.transports.collector import Collector, Endpoint
from edfn_agent.export.transports.datagrams import (
    RUN_MESSAGES,
    RUN_OCTETS,
    SOL_UDP,
    UDP_SEGMENT,
    DatagramSocket,
    Outgoing,
    runs_of,
)
from ipfix import Messages

A, B, C = IPv4Address("10.1.0.1"), IPv4Address("10.2.0.1"), IPv4Address("10.3.0.1")
LOCAL = IPv4Address("127.0.0.1")

SO_RCVBUFFORCE = 33

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="sending from foreign addresses takes CAP_NET_RAW (root)")


def messages(*lengths: int) -> Messages:
    """Octets that tell every place of every message apart."""
    total = sum(lengths)
    octets = (np.arange(total, dtype=np.uint32) * 2654435761 >> 13).astype(np.uint8)
    return Messages(octets, np.array(lengths, np.int64), np.ones(len(lengths), np.int64))


class Sink:
    """A collector's socket."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.sock = socket.socket(family, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE if os.geteuid() == 0 else socket.SO_RCVBUF, 8 << 20)
        self.sock.settimeout(5)
        self.sock.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        self.port = self.sock.getsockname()[1]

    def take(self, count: int) -> list[tuple[bytes, tuple[str, int]]]:
        got = [self.sock.recvfrom(65535) for _ in range(count)]
        self.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            self.sock.recvfrom(65535)  # loopback delivers within the call: nothing more can come
        self.sock.settimeout(5)
        return [(octets, (address[0], address[1])) for octets, address in got]


@pytest.fixture
def sink() -> Iterator[Sink]:
    one = Sink()
    yield one
    one.sock.close()


def udp(port: int, host: str = "127.0.0.1", **settings: object) -> UdpTransport:
    transport = UdpTransport(Collector("udp", host, port), **settings)  # type: ignore[arg-type]
    transport.open()
    return transport


SIZES = [1400] * 80 + [900, 1400, 1400, 37, 16, 1400, 1399, 1398, 1400, 1401, 20] + [512] * 20 + [8900] * 2 + [16]


@pytest.mark.parametrize("segmentation", [True, False], ids=["gso", "plain"])
@pytest.mark.parametrize("mode", ["field", "source"])
@pytest.mark.parametrize("many", [True, False], ids=["sendmmsg", "sendmsg"])
def test_every_message_is_one_datagram_in_order(
    sink: Sink, segmentation: bool, mode: str, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not many:
        monkeypatch.setattr("edfn_agent.export.transports.datagrams._Many.works_here", lambda: False)
    transport = udp(sink.port, address_mode=mode, segmentation=segmentation)
    batch = messages(*SIZES)
    transport.send(batch, IPv4Address("127.0.0.9"))
    got = sink.take(len(SIZES))
    assert [octets for octets, _ in got] == [bytes(one) for one in batch]
    expected = "127.0.0.9" if mode == "source" else "127.0.0.1"
    assert {address for _, address in got} == {(expected, transport.local_port)}
    assert (transport.messages, transport.octets) == (len(SIZES), sum(SIZES))
    assert transport.drain(0)
    transport.close()
    transport.close()


def test_an_empty_batch_sends_nothing(sink: Sink) -> None:
    transport = udp(sink.port)
    transport.send(messages(), A)
    sink.take(0)
    assert transport.mode == "undecided"


@needs_root
def test_each_exporter_from_its_own_address_and_all_from_one_port(sink: Sink) -> None:
    transport = udp(sink.port)
    for source, size in ((A, 100), (B, 200), (C, 300), (A, 400)):
        transport.send(messages(*[size] * 5), source)
    transport.send(messages(50), None)
    got = sink.take(21)
    port = transport.local_port
    assert [(address, len(octets)) for octets, address in got] == [
        *[(("10.1.0.1", port), 100)] * 5,
        *[(("10.2.0.1", port), 200)] * 5,
        *[(("10.3.0.1", port), 300)] * 5,
        *[(("10.1.0.1", port), 400)] * 5,
        (("127.0.0.1", port), 50),
    ]
    assert transport.mode == "source"
    assert transport.mode_reason == "source: each VPC's datagrams leave from its exporter address"


@pytest.fixture
def without_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a process without CAP_NET_RAW and CAP_NET_ADMIN: the kernel refuses IP_TRANSPARENT."""
    real = socket.socket.setsockopt

    class Plain(socket.socket):
        def setsockopt(self, level: int, option: int, value: object, *more: int) -> None:  # type: ignore[override]
            if (level, option) == (socket.IPPROTO_IP, socket.IP_TRANSPARENT):
                raise PermissionError(errno.EPERM, "Operation not permitted")
            real(self, level, option, value, *more)  # type: ignore[call-overload]

    monkeypatch.setattr("edfn_agent.export.transports.udp.socket.socket", Plain)


@pytest.mark.usefixtures("without_capability")
def test_auto_falls_back_to_field_and_loses_nothing(sink: Sink) -> None:
    transport = udp(sink.port)
    session = transport.session
    batch = messages(100, 100, 100, 70)
    transport.send(batch, A)
    assert [(octets, address) for octets, address in sink.take(4)] == [
        (bytes(one), ("127.0.0.1", transport.local_port)) for one in batch
    ]
    assert transport.mode == "field"
    assert "does not send from 10.1.0.1" in transport.mode_reason
    assert "CAP_NET_RAW" in transport.mode_reason
    assert transport.session == session  # nothing had gone before


@pytest.mark.usefixtures("without_capability")
def test_local_exporter_addresses_need_no_capability_and_the_first_foreign_one_ends_the_session(sink: Sink) -> None:
    lines: list[str] = []
    transport = udp(sink.port, report=lines.append)
    transport.send(messages(100), IPv4Address("127.0.0.2"))
    assert transport.mode == "source"
    session = transport.session
    with pytest.raises(SessionEnded) as ended:
        transport.send(messages(100), A)
    assert ended.value.sent == 0
    assert (transport.mode, transport.session) == ("field", session + 1)
    assert len(lines) == 1
    transport.send(messages(100), A)
    assert [address[0] for _, address in sink.take(2)] == ["127.0.0.2", "127.0.0.1"]


@pytest.mark.usefixtures("without_capability")
def test_source_that_was_asked_for_and_cannot_be_is_a_fault(sink: Sink) -> None:
    transport = udp(sink.port, address_mode="source")
    with pytest.raises(TransportFault, match=r"'source' is impossible.*10\.1\.0\.1.*CAP_NET_RAW"):
        transport.send(messages(100), A)
    sink.take(0)


def test_ipv6_collector_gets_field_mode_and_is_told_why() -> None:
    sink = Sink(socket.AF_INET6)
    transport = udp(sink.port, "::1")
    assert transport.name == f"udp://[::1]:{sink.port}"
    batch = messages(*SIZES)
    transport.send(batch, A)
    assert [octets for octets, _ in sink.take(len(SIZES))] == [bytes(one) for one in batch]
    assert transport.mode == "field"
    assert "over IPv6 and exporter addresses are IPv4" in transport.mode_reason
    sink.sock.close()
    with pytest.raises(TransportFault, match="IPv6"):
        udp(sink.port, "::1", address_mode="source")


def test_reopening_keeps_the_port_and_begins_a_session(sink: Sink) -> None:
    transport = udp(sink.port)
    port, session = transport.local_port, transport.session
    transport.open()
    assert (transport.local_port, transport.session) == (port, session + 1)
    transport.send(messages(100), None)
    assert sink.take(1)[0][1][1] == port


def closed_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize("mode", ["field", "source"])
@pytest.mark.parametrize("many", [True, False], ids=["sendmmsg", "sendmsg"])
def test_a_collector_that_is_down_stops_nothing_and_is_reported_once_an_interval(
    mode: str, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not many:
        monkeypatch.setattr("edfn_agent.export.transports.datagrams._Many.works_here", lambda: False)
    now = [1000.0]
    lines: list[str] = []
    port = closed_port()
    transport = udp(port, address_mode=mode, segmentation=False, report=lines.append, clock=lambda: now[0])
    transport.send(messages(*[100] * 50), LOCAL)
    transport.send(messages(*[100] * 50), LOCAL)
    assert transport.messages == 100
    assert 98 <= transport.refused <= 100  # the last ones' answers are read with the next send
    assert lines == [f"udp://127.0.0.1:{port}: 1 datagram came back: nobody listens there; sending goes on"]
    now[0] += 60
    transport.send(messages(100, 100), LOCAL)
    assert len(lines) == 2
    transport.close()
    assert transport.refused == 102
    reported = sum(int(line.split(": ")[1].split()[0]) for line in lines)
    assert reported == 102


def test_a_message_is_not_lost_to_an_error_of_the_one_before() -> None:
    """The collector comes up between two messages: what is sent from then on arrives, the next message first."""
    port = closed_port()
    transport = udp(port)
    transport.send(messages(100), LOCAL)
    sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sink.bind(("127.0.0.1", port))
    sink.settimeout(5)
    transport.send(messages(200), LOCAL)
    transport.send(messages(300), LOCAL)
    assert [len(sink.recv(1000)) for _ in range(2)] == [200, 300]
    assert transport.refused == 1
    sink.close()


class Kernel:
    """Stands between DatagramSocket and the kernel: answers some calls itself, counts all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: int) -> None:
        self.answers = list(answers)
        self.runs: list[int] = []
        real = DatagramSocket._send_one

        def send_one(sock: DatagramSocket, outgoing: Outgoing, source: IPv4Address | None) -> None:
            self.runs.append(outgoing.runs[outgoing.at][1])
            if self.answers and (number := self.answers.pop(0)):
                raise OSError(number, os.strerror(number))
            real(sock, outgoing, source)

        monkeypatch.setattr("edfn_agent.export.transports.datagrams._Many.works_here", lambda: False)
        monkeypatch.setattr(DatagramSocket, "_send_one", send_one)


def test_a_full_buffer_or_queue_is_waited_for(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch, errno.EAGAIN, errno.EAGAIN, errno.ENOBUFS, 0, errno.ENOBUFS, errno.ENOBUFS)
    pauses: list[float] = []
    transport = udp(sink.port, sleep=pauses.append)
    batch = messages(100, 200, 300)
    transport.send(batch, None)
    assert [octets for octets, _ in sink.take(3)] == [bytes(one) for one in batch]
    assert kernel.runs == [1] * 8
    assert pauses == [0.001, 0.001, 0.002]
    assert not transport.errors


def test_a_buffer_that_stays_full_is_a_collector_that_is_down(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, 0, *[errno.ENOBUFS] * 10_000)
    now = [0.0]
    transport = udp(sink.port, clock=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds))
    with pytest.raises(TransportDown, match="full for 30 s") as down:
        transport.send(messages(100, 200), None)
    assert down.value.sent == 1
    assert down.value.retry_after > 0


@pytest.mark.parametrize("answer", [errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.EOPNOTSUPP])
def test_a_run_the_kernel_cannot_cut_is_sent_message_by_message(
    sink: Sink, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    kernel = Kernel(monkeypatch, answer)
    transport = udp(sink.port)
    batch = messages(*[1400] * 5, 100)
    transport.send(batch, None)
    assert kernel.runs == [6, 1, 1, 1, 1, 1, 1]
    transport.send(batch, None)
    assert kernel.runs[7:] == [1] * 6  # and it is not tried for ever
    assert [octets for octets, _ in sink.take(12)] == [bytes(one) for one in batch] * 2


def test_messages_too_long_for_the_link_leave_segmentation_to_the_shorter(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch, errno.EINVAL)
    transport = udp(sink.port)
    transport.send(messages(3900, 3900, 1400, 1400, 1400), None)
    assert kernel.runs == [3, 1, 1, 1, 2]
    transport.send(messages(3900, 3900), None)
    transport.send(messages(1400, 1400), None)
    assert kernel.runs[-3:] == [1, 1, 2]
    assert [len(octets) for octets, _ in sink.take(9)] == [3900, 3900, 1400, 1400, 1400, 3900, 3900, 1400, 1400]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (errno.ENETUNREACH, "no route"),
        (errno.EHOSTUNREACH, "no way to that host"),
        (errno.EPERM, "packet filter"),
        (errno.ENETDOWN, "interface is down"),
    ],
)
def test_unreachable_says_how_and_how_far_it_got(
    sink: Sink, monkeypatch: pytest.MonkeyPatch, answer: int, says: str
) -> None:
    Kernel(monkeypatch, 0, answer)
    transport = udp(sink.port, address_mode="field", segmentation=False)
    with pytest.raises(TransportDown, match=says) as down:
        transport.send(messages(100, 200, 300), A)
    assert down.value.sent == transport.messages == 1
    assert sum(transport.errors.values()) == 1
    transport.open()
    transport.send(messages(100, 200, 300)[down.value.sent :], A)
    assert [len(octets) for octets, _ in sink.take(3)] == [100, 200, 300]


def test_a_message_longer_than_any_datagram_is_a_fault(sink: Sink) -> None:
    transport = udp(sink.port)
    with pytest.raises(TransportFault, match=r"65535 octets.*max_message_size") as fault:
        transport.send(messages(100, 65535, 100), None)
    assert fault.value.sent == 1


def test_no_route_at_all_is_down_in_every_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    for mode in ("auto", "source"):
        transport = udp(4739, address_mode=mode)
        monkeypatch.setattr(transport, "_has_route", lambda: False)
        with monkeypatch.context() as patch:
            Kernel(patch, errno.ENETUNREACH)
            transport.open()
            with pytest.raises(TransportDown, match="no route"):
                transport.send(messages(100), A)
        assert transport.mode == "undecided"


def test_a_name_that_is_unknown_is_tried_again_later() -> None:
    def resolver(collector: Collector) -> list[Endpoint]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    transport = UdpTransport(parse_collector("udp://collector.example:4739"), resolver=resolver)
    pauses = []
    for _ in range(8):
        with pytest.raises(TransportDown, match=r"name collector\.example .*not known") as down:
            transport.open()
        pauses.append(down.value.retry_after)
    assert all(
        longest / 2 <= pause <= longest for pause, longest in zip(pauses, (1, 2, 4, 8, 16, 32, 60, 60), strict=True)
    )


def test_a_name_that_moves_takes_the_session_along() -> None:
    old, new = Sink(), Sink()
    now = [0.0]
    answer = [Endpoint(socket.AF_INET, "127.0.0.1", old.port)]
    transport = UdpTransport(
        parse_collector("udp://collector.example"), resolver=lambda _: list(answer), clock=lambda: now[0], report=print
    )
    transport.open()
    transport.send(messages(100), None)
    answer[:] = [Endpoint(socket.AF_INET, "127.0.0.1", new.port)]
    transport.send(messages(100), None)  # nobody has looked yet
    now[0] = 61
    transport.send(messages(100), None)  # someone looks, aside
    assert transport._names._looking is not None
    transport._names._looking.join(5)
    with pytest.raises(SessionEnded) as ended:
        transport.send(messages(200), None)
    assert (ended.value.sent, transport.session) == (0, 2)
    transport.send(messages(200), None)
    assert len(old.take(3)) == 3
    assert len(new.take(1)) == 1
    old.sock.close()
    new.sock.close()


@given(
    st.lists(
        st.tuples(st.sampled_from([16, 20, 100, 512, 1399, 1400, 8900, 40_000, 65_507]), st.integers(1, 150)),
        max_size=12,
    )
)
def test_runs_are_what_one_segment_size_can_carry(parts: list[tuple[int, int]]) -> None:
    lengths = [size for size, count in parts for _ in range(count)]
    runs = runs_of(lengths)
    assert [index for first, count in runs for index in range(first, first + count)] == list(range(len(lengths)))
    for first, count in runs:
        sizes = lengths[first : first + count]
        assert count <= RUN_MESSAGES
        assert sum(sizes) <= RUN_OCTETS
        assert set(sizes[:-1]) <= {sizes[0]}
        assert sizes[-1] <= sizes[0]


def test_this_kernel_segments() -> None:
    """Not a property of the code: it says whether the other tests exercised segmentation here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.getsockopt(SOL_UDP, UDP_SEGMENT)
        except OSError:
            pytest.skip(f"no UDP_SEGMENT in kernel {Path('/proc/sys/kernel/osrelease').read_text().strip()}")
