"""What the agent shows of itself over HTTP: /metrics, /healthz, /readyz, /templates, and an index of them.

In: a Prometheus registry and callables that say how things are. Out: answers to GET and HEAD. Never: a change to
anything, a secret, knowledge of the agent behind the callables.

Whoever connects is a stranger: at most `CONNECTIONS` at a time and `REQUEST_OCTETS` of each are read, and each
connection is over after one answer or `DEADLINE`, however slowly it reads or writes. So the server holds at most
CONNECTIONS answers at a time, and no client can keep another out for longer than the deadline.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

log = structlog.get_logger("edfn.ops.http")

CONNECTIONS = 16
"""A scraper, a load balancer, a few people. A thread each."""

DEADLINE = 10.0
"""Seconds from accepting to the end; Prometheus itself gives up after 10."""

REQUEST_OCTETS = 16_384
"""A request line with headers takes some 300; what comes after these is not read."""

_POLL = 0.2  # seconds between two looks at the deadlines


class ListenError(Exception):
    """The address cannot be listened on; the text says why and what to do."""


class Health(Protocol):
    """What `/readyz` asks for. `details`, a mapping, may join them and is shown as it is."""

    @property
    def ready(self) -> bool: ...

    @property
    def reasons(self) -> Sequence[str]:
        """Why it is not ready; or, when it is, what is not well all the same."""


def check_address(host: str, port: int) -> None:
    """Raises ListenError when it cannot be listened on now."""
    _Server(host, port, lambda path, accepted: _text(""), 1, DEADLINE).server_close()


@dataclass(frozen=True, slots=True)
class Readiness:
    """A `Health` ready made."""

    ready: bool
    reasons: Sequence[str] = ()
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answer:
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


class StatusServer:
    """Listens from the moment it is made; answers between `start` and `close`."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry,
        health: Callable[[], Health],
        templates: Callable[[], object],
        alive: Callable[[], bool] = lambda: True,
        connections: int = CONNECTIONS,
        deadline: float = DEADLINE,
    ) -> None:
        """Raises ListenError. `templates` returns what json.dumps takes; `alive` is what the watchdog asks as well."""
        self._registry, self._health, self._templates, self._alive = registry, health, templates, alive
        self._pages: dict[str, tuple[str, Callable[[str], _Answer]]] = {
            "/metrics": ("figures for Prometheus", self._metrics),
            "/healthz": ("200 while the agent is alive", self._healthz),
            "/readyz": ("200 while it reads and exports, else 503 with the reasons", self._readyz),
            "/templates": ("the IPFIX templates on the wire now", self._on_the_wire),
        }
        self._server = _Server(host, port, self._answer, connections, deadline)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL,), name="http", daemon=True)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is the real one where 0 was asked for."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and end what is connected."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _answer(self, path: str, accept: str) -> _Answer:
        if path == "/":
            return _text("edfn-agent\n\n" + "".join(f"{name:<12}{what}\n" for name, (what, _) in self._pages.items()))
        if path not in self._pages:
            return _text(f"{', '.join(self._pages)}\n", HTTPStatus.NOT_FOUND)
        try:
            return self._pages[path][1](accept)
        except Exception as error:
            log.exception("a page could not be made", page=path)
            return _text(f"{type(error).__name__} while making {path}; see the log\n", HTTPStatus.INTERNAL_SERVER_ERROR)

    def _metrics(self, accept: str) -> _Answer:
        encode, content_type = choose_encoder(accept)
        return _Answer(encode(self._registry), content_type)

    def _healthz(self, _: str) -> _Answer:
        return _text("alive\n") if self._alive() else _text("stuck\n", HTTPStatus.SERVICE_UNAVAILABLE)

    def _readyz(self, _: str) -> _Answer:
        try:
            health = self._health()
            known = {"ready": health.ready, "reasons": list(health.reasons)}
            known |= dict(getattr(health, "details", {}))
        except Exception as error:  # who cannot say that he is ready is not
            log.exception("health could not be told")
            known = {"ready": False, "reasons": [f"health could not be told: {type(error).__name__}"]}
        return _json(known, HTTPStatus.OK if known["ready"] else HTTPStatus.SERVICE_UNAVAILABLE)

    def _on_the_wire(self, _: str) -> _Answer:
        return _json(self._templates())


def _text(text: str, status: HTTPStatus = HTTPStatus.OK) -> _Answer:
    return _Answer(text.encode(), status=status)


def _json(value: object, status: HTTPStatus = HTTPStatus.OK) -> _Answer:
    return _Answer(json.dumps(value, indent=2, default=str).encode() + b"\n", "application/json", status)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False  # threads end by their deadline; the agent does not wait for strangers
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(
        self,
        host: str,
        port: int,
        answer: Callable[[str, str], _Answer],
        connections: int,
        deadline: float,
    ) -> None:
        self.answer = answer
        self._most = connections
        self._deadline = deadline
        self._open: dict[socket.socket, float] = {}  # -> when it has to be over
        self._lock = threading.Lock()
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.address_family = family
            super().__init__((str(address[0]), port), _Request)
        except OSError as error:
            raise ListenError(_why_not(host, port, error)) from error

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._open) >= self._most
            if not full:
                self._open[request] = time.monotonic() + self._deadline
        if full:  # in the accepting thread: said in one packet or not at all
            with contextlib.suppress(OSError):
                request.setblocking(False)
                request.send(b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\n\r\ntoo many connections\n")
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        self._end(time.monotonic())

    def server_close(self) -> None:
        super().server_close()
        self._end(float("inf"))

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("connection broke", client=str(client_address[0]), exc_info=True)

    def _end(self, now: float) -> None:
        """Shutting a socket down wakes the thread that waits for it."""
        with self._lock:
            for request, until in self._open.items():
                if until <= now:
                    with contextlib.suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)


def _why_not(host: str, port: int, error: OSError) -> str:
    where = f"http.listen {f'[{host}]' if ':' in host else host}:{port}"
    if isinstance(error, socket.gaierror):
        return f"{where}: the host has no address ({error.strerror})"
    hints = {
        "EADDRINUSE": "is another edfn-agent running? Choose another port, or `off`",
        "EADDRNOTAVAIL": "this machine does not have the address; 0.0.0.0 or [::] is every address it has",
        "EACCES": "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher one",
    }
    hint = hints.get(errno.errorcode.get(error.errno or 0, ""), "choose another, or `off`")
    return f"{where}: {(error.strerror or str(error)).lower()}: {hint}"


class _Request(BaseHTTPRequestHandler):
    """One request, one answer, the end: HTTP/1.0 as http.server speaks it."""

    server: _Server
    server_version = "edfn-agent"
    sys_version = ""
    timeout = DEADLINE

    def setup(self) -> None:
        super().setup()
        self.rfile: Any = _Allowance(self.rfile, REQUEST_OCTETS)

    def do_GET(self) -> None:
        answer = self.server.answer(self.path.partition("?")[0], self.headers.get("Accept", ""))
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("http", client=self.client_address[0], request=format % args)


class _Allowance:
    """Lines of a connection, until so many octets; beyond them there is nothing."""

    def __init__(self, file: Any, octets: int) -> None:
        self._file, self._left = file, octets

    def readline(self, limit: int = -1) -> bytes:
        most = self._left if limit < 0 else min(limit, self._left)
        line: bytes = self._file.readline(most) if most > 0 else b""
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._file.close()

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)
