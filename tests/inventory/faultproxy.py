"""A proxy in front of an AWS emulator that knows who calls what, notes it, and can make trouble.

It reads region, service and key from the signature, and the operation from the target header, the form or the path.
The account comes from the answers of AssumeRole it has seen, else from `accounts` (key -> account). Rules are tried in
order.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

Fault = Callable[["Call"], "Reply | str | None"]


@dataclass(frozen=True)
class Call:
    account: str
    region: str
    service: str
    operation: str
    parameters: Mapping[str, str]
    key: str


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    type: str = "text/xml"


DROP = "drop"
"""Close the connection without an answer."""


def error(call: Call, code: str, message: str, status: int = 400) -> Reply:
    """An error in the form that the service would use."""
    if call.service in ("logs", "kinesis", "firehose", "sqs", "events"):
        return Reply(status, f'{{"__type": "{code}", "message": "{message}"}}'.encode(), "application/x-amz-json-1.1")
    if call.service == "s3":
        return Reply(status, f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode())
    if call.service == "ec2":
        text = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
        return Reply(status, text.encode())
    text = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return Reply(status, text.encode())


@dataclass
class FaultProxy:
    upstream: str
    accounts: dict[str, str] = field(default_factory=dict)
    rules: list[Fault] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    bucket_owners: dict[str, str] = field(
        default_factory=dict
    )  # others are denied, as they are without a bucket policy
    page_size: int | None = None  # most items in an EC2 answer
    assumed_for: float | None = None  # seconds that answers of AssumeRole are valid, whatever was asked
    default_account: str = "123456789012"
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> FaultProxy:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def calm(self) -> None:
        """No trouble, nothing noted."""
        self.rules.clear()
        self.calls.clear()
        self.page_size = self.assumed_for = None

    def counted(self) -> Counter[tuple[str, str, str]]:
        """(account, region, operation) -> calls"""
        return Counter((each.account, each.region, each.operation) for each in self.calls)

    def times(self, operation: str) -> int:
        return sum(each.operation == operation for each in self.calls)

    # ---- trouble

    def deny(self, operation: str, *, account: str | None = None, region: str | None = None) -> None:
        def rule(call: Call) -> Reply | None:
            if call.operation != operation or account not in (None, call.account) or region not in (None, call.region):
                return None
            code = "UnauthorizedOperation" if call.service == "ec2" else "AccessDeniedException"
            return error(call, code, f"not authorized to perform: {call.service}:{operation}", 403)

        self.rules.append(rule)

    def refuse(self, code: str, message: str, *, times: int = 10**9, status: int = 400, **wanted: str) -> None:
        """Answers the first `times` matching calls with an error; `wanted` names attributes of Call."""
        left = [times]

        def rule(call: Call) -> Reply | None:
            if left[0] <= 0 or any(getattr(call, name) != value for name, value in wanted.items()):
                return None
            left[0] -= 1
            return error(call, code, message, status)

        self.rules.append(rule)

    def drop(self, *, times: int, **wanted: str) -> None:
        left = [times]

        def rule(call: Call) -> str | None:
            if left[0] <= 0 or any(getattr(call, name) != value for name, value in wanted.items()):
                return None
            left[0] -= 1
            return DROP

        self.rules.append(rule)

    # ---- work

    def answer(self, call: Call, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply | str:
        with self._lock:
            self.calls.append(call)
            for rule in self.rules:
                fault = rule(call)
                if fault is not None:
                    return fault
        if call.service == "s3":
            bucket = path.split("/")[1].partition("?")[0]
            if self.bucket_owners.get(bucket, call.account) != call.account:
                return error(call, "AccessDenied", "Access Denied", 403)
        start = 0
        if call.service == "ec2" and self.page_size:
            start = int(call.parameters.get("NextToken", "0"))
            body = re.sub(rb"&?NextToken=\d+", b"", body)
        reply = self._forward(method, path, headers, body)
        if call.operation == "AssumeRole" and reply.status == 200:
            reply = self._note_role(call, reply)
        if call.service == "ec2" and self.page_size and reply.status == 200:
            reply = Reply(200, _page(reply.body, start, self.page_size))
        return reply

    def _forward(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=60)
        passed = {
            name: value for name, value in headers.items() if name.lower() not in ("content-length", "connection")
        }
        connection.request(method, path, body, passed)
        answer = connection.getresponse()
        reply = Reply(answer.status, answer.read(), answer.getheader("Content-Type", "text/xml"))
        connection.close()
        return reply

    def _note_role(self, call: Call, reply: Reply) -> Reply:
        text = reply.body.decode()
        key = re.search(r"<AccessKeyId>(.*?)</AccessKeyId>", text)
        assert key is not None
        self.accounts[key[1]] = call.parameters["RoleArn"].split(":")[4]
        if self.assumed_for is not None:
            from datetime import UTC, datetime, timedelta

            until = (datetime.now(UTC) + timedelta(seconds=self.assumed_for)).strftime("%Y-%m-%dT%H:%M:%SZ")
            text = re.sub(r"<Expiration>.*?</Expiration>", f"<Expiration>{until}</Expiration>", text)
        return Reply(200, text.encode())


def _page(body: bytes, start: int, size: int) -> bytes:
    """Leaves `size` items of an EC2 answer's list in it, and a token for the rest."""
    root = ElementTree.fromstring(body)
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    ElementTree.register_namespace("", space.strip("{}"))
    for member in root:
        items = member.findall(f"{space}item")
        if not items:
            continue
        for item in (*items[:start], *items[start + size :]):
            member.remove(item)
        for token in root.findall(f"{space}nextToken"):
            root.remove(token)
        if len(items) > start + size:
            ElementTree.SubElement(root, f"{space}nextToken").text = str(start + size)
    return ElementTree.tostring(root)


def _operation(method: str, path: str, service: str, form: Mapping[str, str], target: str) -> str:
    if target:
        return target.rpartition(".")[2]
    if "Action" in form:
        return form["Action"]
    query = urlsplit(path).query
    if service == "s3" and method == "GET":
        if query.startswith("location"):
            return "GetBucketLocation"
        if query.startswith("notification"):
            return "GetBucketNotification"
        return "GetObject" if urlsplit(path).path.count("/") > 1 else "ListObjects"
    return f"{method} {path}"


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One write per answer: header and body in two make the other side wait for its delayed acknowledgement.
        wbufsize = -1

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/", self.headers.get("Authorization", ""))
            key, region, service = scope.groups() if scope else ("", "", "")
            form = {}
            if "urlencoded" in self.headers.get("Content-Type", ""):
                form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
            operation = _operation(self.command, self.path, service, form, self.headers.get("X-Amz-Target", ""))
            account = proxy.accounts.get(key, proxy.default_account)
            call = Call(account, region, service, operation, form, key)
            reply = proxy.answer(call, self.command, self.path, dict(self.headers.items()), body)
            if isinstance(reply, str):
                self.close_connection = True
                return
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.type)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            pass

    return Handler
