"""TCP and TLS: real connections on loopback to a collector that reads, stalls, hangs up or asks for certificates."""

from __future__ import annotations

import datetime
import ipaddress
import random
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edfn_agent.export.transports import Backoff, Collector, TransportDown, TransportFault, open_when_up
from edfn_agent.export.transports.collector import Endpoint
from edfn_agent.export.transports.tcp import TcpTransport, TlsSettings
from ipfix import Messages

PATIENCE = 10.0  # seconds before a test that hangs fails; nothing is measured with it


def messages(*lengths: int) -> Messages:
    octets = (np.arange(sum(lengths), dtype=np.uint32) * 2654435761 >> 13).astype(np.uint8)
    return Messages(octets, np.array(lengths, np.int64), np.ones(len(lengths), np.int64))


class Peer:
    """A collector: accepts one connection after the other, and does with each what the test says."""

    def __init__(self, *acts: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self.received = bytearray()
        self.problems: list[str] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, args=(acts,), daemon=True)
        self._thread.start()

    def _serve(self, acts: tuple[Callable[[socket.socket], None], ...]) -> None:
        for act in acts:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE)
            try:
                if self._context is not None:
                    sock = self._context.wrap_socket(sock, server_side=True)
                act(sock)
            except (ssl.SSLError, ConnectionError) as error:
                self.problems.append(getattr(error, "reason", None) or type(error).__name__)
            finally:
                sock.close()

    def read_to_end(self, sock: socket.socket) -> None:
        while octets := sock.recv(65536):
            self.received += octets
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()

    def join(self) -> None:
        """Wait until each connection that was announced has come and gone."""
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()
        self._listener.close()


def reader(context: ssl.SSLContext | None = None) -> Peer:
    peer = Peer.__new__(Peer)
    Peer.__init__(peer, lambda sock: peer.read_to_end(sock), context=context)
    return peer


def tcp(port: int, **settings: object) -> TcpTransport:
    return TcpTransport(Collector("tcp", "127.0.0.1", port), **settings)  # type: ignore[arg-type]


def test_octets_arrive_in_order_and_drain_says_when() -> None:
    peer = reader()
    transport = tcp(peer.port)
    assert transport.name == f"tcp://127.0.0.1:{peer.port}"
    transport.open()
    assert (transport.session, transport.reliable) == (1, True)
    first, second = messages(*[1400] * 2000), messages(16, 100)
    transport.send(first, None)
    transport.send(second, ipaddress.IPv4Address("10.1.0.1"))
    assert transport.drain(PATIENCE)
    transport.close()
    transport.close()
    peer.join()
    assert bytes(peer.received) == bytes(first) + bytes(second)
    assert (transport.messages, transport.octets) == (2002, 2000 * 1400 + 116)


def test_a_slow_collector_is_waited_for_and_drain_is_not_true_before_it_has_read() -> None:
    go = threading.Event()
    stalled = threading.Event()

    def act(sock: socket.socket) -> None:
        assert go.wait(PATIENCE)
        peer.read_to_end(sock)

    peer = Peer(act)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            go.set()
        stalled.wait(seconds)

    transport = tcp(peer.port, send_buffer=8192, sleep=sleep)
    transport.open()
    # More than the receiver's window holds would block `send` before `drain` is asked: fill it without blocking.
    batch = messages(*[1000] * 100)
    octets = 0
    assert transport._sock is not None
    transport._sock.settimeout(0)
    filling = bytes(100_000)
    try:
        while True:
            octets += transport._sock.send(filling)
    except BlockingIOError:
        pass
    assert not transport.drain(0)
    assert transport.drain(PATIENCE)
    transport.send(batch, None)
    transport.close()
    peer.join()
    assert len(peer.received) == octets + 100_000
    assert len(waits) >= 3


def test_a_collector_that_takes_nothing_is_down_and_its_session_over() -> None:
    over = threading.Event()
    peer = Peer(lambda sock: over.wait(PATIENCE) and None)  # type: ignore[func-returns-value, return-value]
    transport = tcp(peer.port, send_buffer=8192, stalled_after=0.2)
    transport.open()
    with pytest.raises(TransportDown, match=r"taken nothing for 0\.2 s") as down:
        transport.send(messages(*[1400] * 10_000), None)
    assert 0 <= down.value.sent < 10_000
    assert down.value.retry_after > 0
    with pytest.raises(TransportDown, match="not connected"):
        transport.send(messages(100), None)
    over.set()
    peer.join()


def test_the_peers_farewell_is_noticed_before_anything_is_written() -> None:
    said = threading.Event()

    def hang_up(sock: socket.socket) -> None:
        sock.recv(16)
        sock.shutdown(socket.SHUT_WR)
        said.set()
        peer.read_to_end(sock)

    peer = Peer(hang_up, lambda sock: peer.read_to_end(sock))
    transport = tcp(peer.port)
    transport.open()
    transport.send(messages(16), None)
    assert said.wait(PATIENCE)
    assert transport.drain(PATIENCE)  # read before it left
    with pytest.raises(TransportDown, match="closed the connection"):
        transport.send(messages(*[100] * 3), None)
    transport.open()
    assert transport.session == 2
    transport.send(messages(*[100] * 3), None)
    transport.close()
    peer.join()
    assert bytes(peer.received) == bytes(messages(*[100] * 3))
    assert transport.errors == {"closed": 1}


def test_a_reset_loses_what_was_not_read_and_drain_says_so() -> None:
    sent = threading.Event()
    reset = threading.Event()

    def act(sock: socket.socket) -> None:
        assert sent.wait(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        reset.set()

    peer = Peer(act)
    transport = tcp(peer.port)
    transport.open()
    transport.send(messages(1000), None)
    sent.set()
    assert reset.wait(PATIENCE)
    with pytest.raises(TransportDown, match="closed the connection"):
        transport.drain(PATIENCE)
    peer.join()


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    transport = tcp(port)
    with pytest.raises(TransportDown, match=rf"tcp://127\.0\.0\.1:{port}: 127\.0\.0\.1:{port}: Connection refused"):
        transport.open()
    assert transport.session == 0
    assert transport.errors == {"refused": 1}


def test_every_address_of_a_name_is_tried() -> None:
    peer = reader()
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    transport = TcpTransport(
        Collector("tcp", "collector.example", 4739),
        resolver=lambda _: [Endpoint(socket.AF_INET, "127.0.0.1", port) for port in (closed, peer.port)],
    )
    transport.open()
    transport.send(messages(100), None)
    transport.close()
    peer.join()
    assert len(peer.received) == 100


def test_pauses_double_jitter_and_stop_growing_and_a_steady_session_makes_them_short_again() -> None:
    now = [0.0]
    shares = random.Random(1)
    backoff = Backoff(lambda: now[0], shares.uniform)
    pauses = [backoff.failed() for _ in range(10)]
    longest = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    assert len(set(pauses[6:])) == 4
    backoff.succeeded()
    now[0] += 1
    assert backoff.failed() >= 30  # it hung up at once
    backoff.succeeded()
    now[0] += 10
    assert backoff.failed() <= 1


def test_opening_goes_on_until_the_collector_is_there_or_the_agent_stops() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    pauses: list[float] = []
    heard: list[str] = []
    peers: list[socket.socket] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            peers.append(socket.create_server(("127.0.0.1", port)))

    transport = tcp(port)
    assert open_when_up(transport, sleep=sleep, down=lambda error: heard.append(str(error)))
    assert (len(pauses), len(heard), transport.session) == (3, 3, 1)
    transport.close()
    peers[0].close()
    assert not open_when_up(tcp(port), sleep=pauses.append, stopping=lambda: len(pauses) >= 5)
    assert len(pauses) == 5


# ---- TLS -------------------------------------------------------------------------------------------------------------

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass
class Authority:
    name: str
    folder: Path

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        certificate = self._sign(self.subject, self.key, NOW - DAY, NOW + DAY, ca=True)
        self.file = str(self.folder / f"{self.name}.pem")
        Path(self.file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        begin: datetime.datetime,
        end: datetime.datetime,
        *,
        ca: bool = False,
        names: tuple[x509.GeneralName, ...] = (),
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if ca:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def certify(
        self, name: str, *, expired: bool = False, address: bool = True, password: bytes = b""
    ) -> tuple[str, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        names: tuple[x509.GeneralName, ...] = (x509.DNSName(name),)
        if address:
            names += (x509.IPAddress(ipaddress.ip_address("127.0.0.1")),)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        end = NOW - DAY / 2 if expired else NOW + DAY
        certificate = self._sign(subject, key, NOW - DAY, end, names=names)
        files = (self.folder / f"{name}.crt", self.folder / f"{name}.key")
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        files[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        )
        return str(files[0]), str(files[1])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority("authority", tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority("stranger", tmp_path_factory.mktemp("stranger"))


def server(files: tuple[str, str], ca: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca)
    return context


def tls(port: int, settings: TlsSettings, host: str = "127.0.0.1") -> TcpTransport:
    return TcpTransport(
        Collector("tls", host, port),
        tls=settings,
        resolver=lambda collector: [Endpoint(socket.AF_INET, "127.0.0.1", collector.port)],
    )


@pytest.fixture
def collector(authority: Authority) -> Iterator[Peer]:
    peer = reader(server(authority.certify("collector.example")))
    yield peer
    peer.join()


def deliver(transport: TcpTransport) -> bytes:
    batch = messages(*[1400] * 500, 16)
    transport.open()
    transport.send(batch, None)
    assert transport.drain(PATIENCE)
    transport.close()
    return bytes(batch)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_by_address_and_everything_is_read_before_the_farewell(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    context = server(authority.certify("collector.example"))
    context.minimum_version = context.maximum_version = version
    peer = reader(context)
    octets = deliver(tls(peer.port, TlsSettings(ca_file=authority.file)))
    peer.join()
    assert bytes(peer.received) == octets
    assert peer.problems == []  # close_notify came: a bare close would have been a reset


def test_tls_by_name(authority: Authority, collector: Peer) -> None:
    octets = deliver(tls(collector.port, TlsSettings(ca_file=authority.file), "collector.example"))
    collector.join()
    assert bytes(collector.received) == octets


def test_tls_by_another_name_than_the_url_has(authority: Authority, collector: Peer) -> None:
    settings = TlsSettings(ca_file=authority.file, server_name="collector.example")
    octets = deliver(tls(collector.port, settings, "inside.example"))
    collector.join()
    assert bytes(collector.received) == octets


def test_tls_wrong_name(authority: Authority, collector: Peer) -> None:
    with pytest.raises(TransportDown, match=r"certificate is not accepted: .*mismatch.*other\.example"):
        tls(collector.port, TlsSettings(ca_file=authority.file), "other.example").open()


def test_tls_wrong_authority(stranger: Authority, collector: Peer) -> None:
    transport = tls(collector.port, TlsSettings(ca_file=stranger.file))
    with pytest.raises(TransportDown, match="certificate is not accepted: unable to get local issuer"):
        transport.open()
    assert transport.errors == {"certificate": 1}
    assert transport.session == 0


def test_tls_the_systems_authorities_do_not_know_it(collector: Peer) -> None:
    with pytest.raises(TransportDown, match="certificate is not accepted"):
        tls(collector.port, TlsSettings()).open()


def test_tls_expired(authority: Authority) -> None:
    peer = reader(server(authority.certify("late.example", expired=True)))
    with pytest.raises(TransportDown, match="certificate is not accepted: certificate has expired"):
        tls(peer.port, TlsSettings(ca_file=authority.file)).open()
    peer.join()


def test_tls_unverified_only_when_told(stranger: Authority, collector: Peer) -> None:
    octets = deliver(tls(collector.port, TlsSettings(ca_file=stranger.file, verify=False)))
    collector.join()
    assert bytes(collector.received) == octets


def test_tls_older_than_1_2_is_refused(authority: Authority) -> None:
    context = server(authority.certify("old.example"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    peer = reader(context)
    with pytest.raises(TransportDown, match="TLS failed"):
        tls(peer.port, TlsSettings(ca_file=authority.file)).open()
    peer.join()


def test_mutual_tls(authority: Authority) -> None:
    peer = reader(server(authority.certify("mutual.example"), authority.file))
    certificate, key = authority.certify("agent.example")
    octets = deliver(tls(peer.port, TlsSettings(authority.file, certificate, key)))
    peer.join()
    assert bytes(peer.received) == octets


@pytest.mark.parametrize("has", ["none", "a stranger's"])
def test_mutual_tls_without_the_right_certificate_is_noticed(
    authority: Authority, stranger: Authority, has: str
) -> None:
    peer = reader(server(authority.certify("mutual.example"), authority.file))
    settings = TlsSettings(authority.file)
    if has != "none":
        certificate, key = stranger.certify("agent.example")
        settings = replace(settings, certificate=certificate, key=key)
    transport = tls(peer.port, settings)
    # In TLS 1.3 the client is done before the server has looked: the refusal comes with what is done next.
    with pytest.raises(TransportDown, match=r"TLS failed: .*(certificate required|unknown ca)|closed the connection"):
        transport.open()
        peer.join()
        transport.send(messages(100), None)
        transport.drain(PATIENCE)
    assert peer.received == b""


def test_tls_renewed_files_are_read_with_the_next_connection(authority: Authority, stranger: Authority) -> None:
    """The agent's certificate and key, and the authority's: half written they are waited for."""
    peer = Peer.__new__(Peer)
    Peer.__init__(
        peer,
        *[lambda sock: peer.read_to_end(sock)] * 2,
        context=server(authority.certify("mutual.example"), authority.file),
    )
    before = stranger.certify("agent.example")
    certificate, key = (Path(authority.folder, name) for name in ("renewed.crt", "renewed.key"))
    ca = Path(authority.folder, "trusted.crt")
    ca.write_bytes(Path(authority.file).read_bytes())
    for file, old in ((certificate, before[0]), (key, before[1])):
        file.write_bytes(Path(old).read_bytes())
    transport = tls(peer.port, TlsSettings(str(ca), str(certificate), str(key)))
    with pytest.raises(TransportDown):
        transport.open()  # a stranger's
        for _ in range(100):
            transport.send(messages(100), None)
            transport.drain(0.1)
    after = authority.certify("agent.example")
    certificate.write_bytes(Path(after[0]).read_bytes())
    with pytest.raises(TransportDown, match="the key does not belong to the certificate"):
        transport.open()
    key.write_bytes(Path(after[1]).read_bytes())
    ca.write_bytes(b"")
    with pytest.raises(TransportDown, match=r"trusted\.crt: no PEM certificate"):
        transport.open()
    ca.write_bytes(Path(authority.file).read_bytes())
    octets = deliver(transport)
    peer.join()
    assert bytes(peer.received) == octets
    assert transport.errors["certificate"] == 2


def test_tls_files_that_cannot_be_used_are_faults(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.certify("one.example")
    other = authority.certify("two.example")[1]
    locked = authority.certify("three.example", password=b"secret")
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    for settings, says in (
        (TlsSettings(ca_file=str(tmp_path / "none.pem")), "none.pem: No such file"),
        (TlsSettings(ca_file=str(junk)), "junk.pem: no PEM certificate"),
        (TlsSettings(certificate=certificate, key=other), "does not belong"),
        (TlsSettings(certificate=str(junk), key=key), "no PEM certificate"),
        (TlsSettings(certificate=locked[0], key=locked[1]), "encrypted"),
        (TlsSettings(key=key), "its certificate is not"),
    ):
        with pytest.raises(TransportFault, match=says):
            tls(4740, settings).open()
