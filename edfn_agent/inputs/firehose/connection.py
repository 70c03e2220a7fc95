"""One connection: HTTP/1.1 as Firehose speaks it, with a deadline and a bound on everything that is read.

In: a connection that was accepted. Out: answers in Firehose's format. Never: a body read before the access key was
seen and room for it was reserved, a thread kept by somebody who drips octets, an answer other than JSON.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import socketserver
import ssl
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BufferedIOBase, BufferedReader, RawIOBase
from typing import TYPE_CHECKING, Any

from edfn_agent.inputs.firehose.body import ANSWER_WITHIN, MAX_BODY, MAX_ERROR_MESSAGE, Refusal, gunzip, parse
from edfn_agent.inputs.firehose.requests import Entry

if TYPE_CHECKING:
    from edfn_agent.inputs.firehose import FirehoseEndpoint

log = logging.getLogger(__name__)

MAX_HEAD = 96 * 1024  # octets: the access key and 50 common attributes of 1280 octets fit, with room
WORKING_COPIES = 3  # what a body costs while it is taken apart: its octets, the parsed JSON, the decoded records


class Server(socketserver.ThreadingTCPServer):
    """A thread per connection, up to the cap. One more is closed before anything is read from it."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, endpoint: FirehoseEndpoint) -> None:
        self.endpoint = endpoint
        self.address_family = socket.AF_INET6 if ":" in endpoint.settings.host else socket.AF_INET
        self._open: dict[socket.socket, _Held] = {}  # by the connection as it was accepted; TLS wraps it in another
        self._changed = threading.Condition()
        super().__init__((endpoint.settings.host, endpoint.settings.port), Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._changed:
            if len(self._open) < self.endpoint.settings.connections:
                self._open[request] = _Held(request)
                return True
        self.endpoint.count("over_limit")
        return False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._open.pop(request, None)
                self._changed.notify_all()

    def secured(self, request: Any, connection: socket.socket) -> None:
        with self._changed:
            self._open[request].connection = connection

    def busy(self, request: Any, is_busy: bool) -> None:
        with self._changed:
            self._open[request].busy = is_busy
            self._changed.notify_all()

    def drain(self, grace: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not any(held.busy for held in self._open.values()), grace)
            connections = [held.connection for held in self._open.values()]
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("firehose: connection from %s", client_address[0])


class _Held:
    """A connection, and whether it has a request in hand."""

    __slots__ = ("busy", "connection")

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.busy = False


class DeadlineReader(RawIOBase):
    """Reads of a socket that end by a deadline, however slowly the octets drip, and never go beyond an allowance."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline = 0.0
        self.first_octet_by = 0.0  # when set, the deadline starts only with the first octet
        self.patience = 0.0
        self.allowance = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.allowance <= 0:
            raise Refusal(431, "the request's header is too long")
        until = self.first_octet_by or self.deadline
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("too slow")
        self._connection.settimeout(left)
        view = memoryview(buffer)[: self.allowance]
        count = self._connection.recv_into(view)
        self.allowance -= count
        if self.first_octet_by:
            self.first_octet_by, self.deadline = 0.0, time.monotonic() + self.patience
        return count


class Handler(BaseHTTPRequestHandler):
    """One connection: HTTP/1.1 with keep-alive, one request after the other."""

    protocol_version = "HTTP/1.1"
    server: Server
    rfile: BufferedReader

    def setup(self) -> None:
        self.endpoint = self.server.endpoint
        self.limits = self.endpoint.settings
        self.request_id = ""
        self._expects_continue = False
        self._plain: socket.socket = self.request

    def handle(self) -> None:
        try:
            self.connection = self.endpoint.secure(self._plain)
            self.server.secured(self._plain, self.connection)
        except (OSError, ssl.SSLError):  # scanners, plain HTTP to a TLS port, a slow handshake
            self.endpoint.count("refused")
            return
        self.reader = DeadlineReader(self.connection)
        self.rfile = BufferedReader(self.reader, 65536)
        self.wfile = Writer(self.connection)
        self.close_connection = False
        try:
            while not self.close_connection and not self.endpoint.stopping.is_set():
                self.reader.patience = self.limits.head_within
                self.reader.first_octet_by = time.monotonic() + self.limits.idle
                self.reader.allowance = MAX_HEAD
                self.handle_one_request()
        except Refusal as refusal:
            self.endpoint.count("refused")
            self._answer(refusal.status, refusal.message)
        except (OSError, ValueError):
            pass  # gone, too slow, or no HTTP: nobody is there to be told
        finally:
            with contextlib.suppress(OSError):
                self.connection.close()

    def finish(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        # http.server looks for do_METHOD: one door for every method, so that the key is asked for before anything else.
        if name.startswith("do_"):
            return self._request
        raise AttributeError(name)

    def _request(self) -> None:
        self.request_id = ""
        try:
            self._authenticate()
            self.server.busy(self._plain, True)
            try:
                self._serve()
            finally:
                self.server.busy(self._plain, False)
        except Refusal as refusal:
            # Whatever of the body is unread stays unread: the connection ends with the answer.
            self.close_connection = True
            self.endpoint.count({401: "refused", 408: "returned", 503: "returned"}.get(refusal.status, "malformed"))
            if refusal.status >= 400 and refusal.status not in (401, 503):
                log.warning("firehose: request %s: %s %s", self.request_id, refusal.status, refusal.message)
            self._answer(refusal.status, refusal.message)

    def _authenticate(self) -> None:
        shown = self.headers.get("X-Amz-Firehose-Access-Key") or ""
        keys = self.endpoint.keys
        if keys is not None and not keys.admit(shown.encode("latin-1", "replace")):
            raise Refusal(401, "the access key is missing or wrong")

    def _serve(self) -> None:
        endpoint = self.endpoint
        if self.command != "POST":
            raise Refusal(405, "Firehose posts")
        version = self.headers.get("X-Amz-Firehose-Protocol-Version", "1.0")
        if version != "1.0":
            raise Refusal(400, f"protocol version {version[:20]!r} is not known, 1.0 is")
        request_id = self.headers.get("X-Amz-Firehose-Request-Id") or ""
        if not re.fullmatch(r"[!-~]{1,128}", request_id):
            raise Refusal(400, "the header X-Amz-Firehose-Request-Id is missing or is no id of up to 128 characters")
        self.request_id = request_id
        stream_arn = (self.headers.get("X-Amz-Firehose-Source-Arn") or "")[:512]
        length, is_gzip = self._announced()
        entry, is_first = self._take(request_id, stream_arn, length, is_gzip)
        endpoint.wait(entry)
        endpoint.count("acknowledged" if is_first else "replay")
        self._answer(200)

    def _take(self, request_id: str, stream_arn: str, length: int | None, is_gzip: bool) -> tuple[Entry, bool]:
        """Read the body and hand its records over. The memory is reserved for as long as this takes, and no longer."""
        reserve = self.endpoint.reserve
        worst = MAX_BODY if is_gzip or length is None else length
        reserved = reserve.take(worst * WORKING_COPIES, self.limits.answer_within)
        try:
            body = self._body(length)
            if is_gzip:
                body = gunzip(body, MAX_BODY)
            # What the worst case did not need goes back before the long part begins.
            needed = min(reserved, len(body) * WORKING_COPIES)
            reserve.give_back(reserved - needed)
            reserved = needed
            records = parse(body, request_id)
            del body
            return self.endpoint.take(request_id, stream_arn, records)
        finally:
            reserve.give_back(reserved)

    def _announced(self) -> tuple[int | None, bool]:
        """Length of the body (None: it comes in chunks) and whether it is compressed, from the header alone."""
        encoding = (self.headers.get("Content-Encoding") or "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise Refusal(415, f"content encoding {encoding[:40]!r} is not known; gzip is")
        transfer = self.headers.get("Transfer-Encoding")
        lengths = self.headers.get_all("Content-Length") or []
        if transfer is not None:
            # Both at once is how requests are smuggled past a proxy (RFC 9112, section 6.3).
            if lengths or transfer.strip().lower() != "chunked":
                raise Refusal(400, "the length of the body is not clear")
            return None, encoding == "gzip"
        if len(lengths) != 1 or not re.fullmatch(r"[0-9]{1,12}", lengths[0].strip()):
            raise Refusal(411, "the length of the body is not given")
        length = int(lengths[0])
        if length > MAX_BODY:
            raise Refusal(413, f"a body of {length} octets is over the limit of {MAX_BODY}")
        return length, encoding == "gzip"

    def _body(self, length: int | None) -> bytes:
        if self._expects_continue:
            self._expects_continue = False
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.reader.first_octet_by = 0.0
        expected = MAX_BODY if length is None else length
        self.reader.deadline = (
            time.monotonic() + self.limits.body_start + min(expected / self.limits.slowest, ANSWER_WITHIN)
        )
        self.reader.allowance = expected + MAX_HEAD  # and the framing of chunks
        try:
            body = self._chunked() if length is None else self.rfile.read(length)
        except TimeoutError:
            raise Refusal(408, "the body came too slowly") from None
        if length is not None and len(body) != length:
            raise ConnectionError("the sender went away in the middle of the body")
        return body

    def _chunked(self) -> bytes:
        parts: list[bytes] = []
        total = 0
        while True:
            size_line = self.rfile.readline(1024)
            match = re.match(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;|\r?\n)", size_line)
            if match is None:
                raise Refusal(400, "a chunk's size is not readable")
            size = int(match[1], 16)
            total += size
            if total > MAX_BODY:
                raise Refusal(413, f"the body is over the limit of {MAX_BODY} octets")
            if size == 0:
                while self.rfile.readline(8192).strip():
                    pass
                return b"".join(parts)
            parts.append(self.rfile.read(size))
            if len(parts[-1]) != size:
                raise ConnectionError("the sender went away in the middle of the body")
            self.rfile.readline(16)

    def _answer(self, status: int, message: str = "") -> None:
        answer: dict[str, object] = {"requestId": self.request_id, "timestamp": int(time.time() * 1000)}
        if message:
            answer["errorMessage"] = message[:MAX_ERROR_MESSAGE]
        if not self.request_id:
            del answer["requestId"]
        body = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n"
        if self.close_connection or status != 200 or self.endpoint.stopping.is_set():
            self.close_connection = True
            head += "Connection: close\r\n"
        try:
            self.wfile.write(head.encode() + b"\r\n" + body)
            if status != 200:
                self._let_it_be_read()
        except OSError:
            self.close_connection = True

    def _let_it_be_read(self) -> None:
        """Closing with unread octets resets the connection and takes the answer with it: read on, for a moment."""
        if not isinstance(self.connection, ssl.SSLSocket):
            self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(0.5)
        until = time.monotonic() + 0.5
        left = 256 * 1024
        while left > 0 and time.monotonic() < until:
            octets = len(self.connection.recv(16384))
            if not octets:
                return
            left -= octets

    # What http.server would do in its own way.

    def handle_expect_100(self) -> bool:
        self._expects_continue = True  # said only once the key has been seen and there is room for the body
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.endpoint.count("refused")
        self.close_connection = True
        self._answer(int(code), message or "no request that can be read")

    def log_message(self, format: str, *args: object) -> None:
        log.debug("firehose: %s", format % args)


class Writer(BufferedIOBase):
    """The answer's way out; small, and given 30 s."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, octets: Any) -> int:
        self._connection.settimeout(30.0)
        self._connection.sendall(octets)
        return len(octets)

    def flush(self) -> None:
        pass
