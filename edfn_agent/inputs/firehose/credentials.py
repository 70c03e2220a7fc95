"""The access keys and the certificate, both read again when their files change."""

from __future__ import annotations

import hmac
import logging
import socket
import ssl
import threading
from pathlib import Path

from edfn_agent.inputs.firehose.body import MAX_ACCESS_KEY

log = logging.getLogger(__name__)


class EndpointError(Exception):
    """The endpoint cannot be opened as it is configured."""


class AccessKeys:
    """The keys of the secret file. Read again when the file changes, so that a key can be changed without a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[bytes, ...] = ()
        if not self._read():
            raise EndpointError(f"{path}: no access key in it")

    def _read(self) -> tuple[bytes, ...]:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                keys = tuple(line.strip() for line in self._path.read_bytes().splitlines() if line.strip())
                if any(len(key) > MAX_ACCESS_KEY for key in keys):
                    raise EndpointError(f"{self._path}: an access key has at most {MAX_ACCESS_KEY} octets")
                if keys:  # a file caught half-written must not lock everyone out
                    self._keys, self._stamp = keys, stamp
        except OSError as error:
            if not self._keys:
                raise EndpointError(f"{self._path}: {error.strerror}") from error
        return self._keys

    def admit(self, shown: bytes) -> bool:
        """In time that does not depend on the key: every key is compared, whole."""
        found = False
        for key in self._read():
            found |= hmac.compare_digest(key, shown)
        return found


class Certificate:
    """The TLS context, loaded again when the certificate file is renewed."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._stamp: tuple[int, ...] = ()
        self._lock = threading.Lock()
        self._context = self._load()

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._files
        try:
            stamp = (certificate.stat().st_mtime_ns, key.stat().st_mtime_ns)
            if stamp != self._stamp:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.minimum_version = ssl.TLSVersion.TLSv1_2
                context.load_cert_chain(certificate, key)
                self._context, self._stamp = context, stamp
        except (OSError, ssl.SSLError) as error:
            if not self._stamp:
                raise EndpointError(f"{certificate} and {key}: {error}") from error
            log.warning("firehose: the new certificate cannot be used, the old one stays: %s", error)
        return self._context

    def wrap(self, connection: socket.socket, within: float) -> socket.socket:
        with self._lock:
            context = self._load()
        connection.settimeout(within)
        secured = context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        secured.do_handshake()  # the timeout counts for the whole of it
        return secured
