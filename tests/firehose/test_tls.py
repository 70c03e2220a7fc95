"""The same over TLS: a certificate renewed while the agent runs, and senders that do not know how to speak it."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .conftest import Pipeline, Serve


def certificate(directory: Path, common_name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "tls.crt", directory / "tls.key"


def trusting(path: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(path))


def test_requests_over_tls(serve: Serve, pipeline: Pipeline, tmp_path: Path) -> None:
    crt, key = certificate(tmp_path, "first")
    _, firehose = serve(certificate=crt, key=key)
    firehose.tls = trusting(crt)
    connection = firehose.connect()
    assert firehose.post([b"one"], compress=True, connection=connection).status == 200
    assert firehose.post([b"two"], connection=connection).status == 200
    firehose.key = "wrong"
    assert firehose.post([b"three"]).status == 401
    assert pipeline.read == [b"one\n", b"two\n"]


def test_a_renewed_certificate_is_used_at_once(serve: Serve, tmp_path: Path) -> None:
    crt, key = certificate(tmp_path, "first")
    _, firehose = serve(certificate=crt, key=key)
    time.sleep(0.02)  # so that the files' times differ
    certificate(tmp_path, "second")
    firehose.tls = trusting(crt)
    assert firehose.post([b"one"]).status == 200
    crt.write_text("half a file")
    assert firehose.post([b"two"]).status == 200  # the old one stays


def test_old_tls_and_plain_http_are_turned_away(serve: Serve, tmp_path: Path) -> None:
    crt, key = certificate(tmp_path, "first")
    counted: list[str] = []
    _, firehose = serve(certificate=crt, key=key, count=counted.append)
    firehose.timeout = 3
    with pytest.raises((OSError, ValueError)):
        firehose.post([b"plain"])
    assert counted == ["refused"]
    firehose.tls = trusting(crt)
    assert firehose.post([b"one"]).status == 200


def test_a_handshake_that_never_comes_is_not_waited_for(serve: Serve, tmp_path: Path) -> None:
    crt, key = certificate(tmp_path, "first")
    _, firehose = serve(certificate=crt, key=key, head_within=0.3)
    with socket.create_connection((firehose.host, firehose.port), 5) as sender:
        started = time.monotonic()
        sender.sendall(b"\x16\x03\x01")
        assert sender.recv(10) == b""
    assert time.monotonic() - started < 3


def test_stop_closes_idle_connections(serve: Serve, tmp_path: Path) -> None:
    crt, key = certificate(tmp_path, "first")
    endpoint, firehose = serve(certificate=crt, key=key)
    firehose.tls = trusting(crt)
    connection = firehose.connect()
    assert firehose.post([b"one"], connection=connection).status == 200
    endpoint.stop(grace=2)
    with pytest.raises(OSError):
        firehose.post([b"two"], connection=connection)
