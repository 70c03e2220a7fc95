"""A proxy that does what AWS does on a bad day: HTTP in, the same HTTP to an emulator, and faults in between.

A rule is a function of a `Request`; the first that gives a fault wins. Faults: AWS's refusal instead of the emulator's
answer (throttling, 5xx, expired token, access denied), a body cut off in the middle, an answer changed on its way
(duplicated and reordered messages, log events that are not there yet).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Change = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def action(self) -> str:
        """ReceiveMessage, FilterLogEvents ...; for S3 the method."""
        target = self.headers.get("x-amz-target", "")
        return target.rpartition(".")[2] or self.method


@dataclass(frozen=True)
class Answer:
    """Instead of the emulator's."""

    status: int
    code: str
    message: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """The connection breaks after so many octets of the body; `drop` alone: before any answer."""

    after: int


@dataclass(frozen=True)
class Changed:
    """The emulator's answer, changed."""

    change: Change


@dataclass(frozen=True)
class Streamed:
    """Instead of the emulator's answer: an object of `size` octets from `start` on. When `octets` end before it does,
    the connection breaks."""

    size: int
    start: int
    octets: Iterable[bytes]


Fault = Answer | Cut | Changed | Streamed
Rule = Callable[[Request], Fault | None]

THROTTLED = Answer(400, "ThrottlingException", "Rate exceeded")
SLOW_DOWN = Answer(503, "SlowDown", "Please reduce your request rate.")
BROKEN = Answer(500, "InternalError", "We encountered an internal error. Please try again.")
EXPIRED = Answer(400, "ExpiredToken", "The provided token has expired.")
DENIED = Answer(403, "AccessDenied", "Access Denied")
DENIED_JSON = Answer(400, "AccessDeniedException", "User is not authorized to perform this action")


def on(action: str, fault: Fault, times: int = 10**9, skip: int = 0) -> Rule:
    """`fault` for the first `times` calls of `action` after `skip` good ones."""
    seen = 0
    lock = threading.Lock()

    def rule(request: Request) -> Fault | None:
        nonlocal seen
        if request.action != action:
            return None
        with lock:
            seen += 1
            return fault if skip < seen <= skip + times else None

    return rule


def sometimes(fault: Fault, share: float, seed: int, *actions: str) -> Rule:
    """`fault` for a share of the calls of some actions, by a seeded chance."""
    chance = random.Random(seed)
    lock = threading.Lock()

    def rule(request: Request) -> Fault | None:
        with lock:
            return fault if request.action in actions and chance.random() < share else None

    return rule


def disorder(seed: int) -> Rule:
    """Every answer of ReceiveMessage comes shuffled, and with its first message a second time."""
    chance = random.Random(seed)

    def change(body: bytes) -> bytes:
        answer = json.loads(body)
        if answer.get("Messages"):
            chance.shuffle(answer["Messages"])
            answer["Messages"].append(answer["Messages"][0])
        return json.dumps(answer).encode()

    return lambda request: Changed(change) if request.action == "ReceiveMessage" else None


def late_events(hidden: Callable[[str], bool]) -> Rule:
    """Log events whose message is hidden are not there yet, in whatever call."""

    def change(body: bytes) -> bytes:
        answer = json.loads(body)
        answer["events"] = [event for event in answer.get("events", []) if not hidden(event["message"])]
        return json.dumps(answer).encode()

    return lambda request: Changed(change) if request.action in ("FilterLogEvents", "GetLogEvents") else None


class FaultProxy:
    def __init__(self, target: str) -> None:
        where = urlsplit(target)
        self._target = (where.hostname or "127.0.0.1", where.port or 80)
        self.rules: list[Rule] = []
        self.requests: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def calls(self, action: str) -> list[Request]:
        return [request for request in list(self.requests) if request.action == action]

    def fault(self, request: Request) -> Fault | None:
        return next((fault for rule in list(self.rules) if (fault := rule(request)) is not None), None)

    def forward(self, request: Request) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self._target, timeout=60)
        try:
            connection.request(request.method, request.path, request.body or None, dict(request.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items() if name.lower() != "connection"}
                request = Request(self.command, self.path, headers, self.rfile.read(length))
                proxy.requests.append(request)
                fault = proxy.fault(request)
                if isinstance(fault, Answer):
                    self.answer(fault, request)
                    return
                if isinstance(fault, Streamed):
                    self.stream(fault)
                    return
                status, sent, body = proxy.forward(request)
                if isinstance(fault, Changed):
                    body = fault.change(body)
                self.send_response_only(status)
                for name, value in sent:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "x-amz-crc32"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if isinstance(fault, Cut) and fault.after < len(body):
                    self.wfile.write(body[: fault.after])
                    self.wfile.flush()
                    self.close_connection = True
                    return
                if self.command != "HEAD":
                    with contextlib.suppress(OSError):  # whoever asked is gone
                        self.wfile.write(body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

            def stream(self, fault: Streamed) -> None:
                self.send_response_only(206 if fault.start else 200)
                self.send_header("ETag", '"e"')
                self.send_header("Content-Length", str(fault.size - fault.start))
                if fault.start:
                    self.send_header("Content-Range", f"bytes {fault.start}-{fault.size - 1}/{fault.size}")
                self.end_headers()
                self.close_connection = True
                with contextlib.suppress(OSError):  # whoever asked is gone
                    for part in fault.octets:
                        self.wfile.write(part)

            def answer(self, fault: Answer, request: Request) -> None:
                if "x-amz-target" in request.headers:
                    body = json.dumps({"__type": fault.code, "message": fault.message}).encode()
                else:
                    text = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>"
                    body = text.encode() if self.command != "HEAD" else b""
                self.send_response_only(fault.status)
                for name, value in fault.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
