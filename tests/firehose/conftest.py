"""A client written to Firehose's published contract, and an endpoint with a pipeline that can be held back."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edfn_agent.delivery import Delivery, Outcome
from edfn_agent.inputs.firehose import EndpointSettings, FirehoseEndpoint

KEY = "a-key-of-the-tests"
STREAM = "arn:aws:firehose:eu-west-1:123456789012:deliverystream/flowlogs_stream"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Firehose:
    """Posts as Amazon Data Firehose does. Records are octets; every try of a request keeps its id."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    key: str | None = KEY
    timeout: float = 20.0

    def connect(self) -> http.client.HTTPConnection:
        if self.tls is not None:
            return http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout, context=self.tls)
        return http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)

    def headers(self, request_id: str, **more: str) -> dict[str, str]:
        headers = {
            "X-Amz-Firehose-Protocol-Version": "1.0",
            "X-Amz-Firehose-Request-Id": request_id,
            "X-Amz-Firehose-Source-Arn": STREAM,
            "X-Amz-Firehose-Common-Attributes": json.dumps({"commonAttributes": {"site": "test"}}),
            "Content-Type": "application/json",
            "User-Agent": "Amazon Kinesis Data Firehose Agent/1.0",
        }
        if self.key is not None:
            headers["X-Amz-Firehose-Access-Key"] = self.key
        return headers | {name.replace("_", "-"): value for name, value in more.items()}

    def post(
        self,
        records: list[bytes],
        request_id: str | None = None,
        compress: bool = False,
        connection: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Answer:
        request_id = request_id or str(uuid.uuid4())
        return self.post_body(body_of(request_id, records), request_id, compress, connection, **headers)

    def post_body(
        self,
        body: bytes,
        request_id: str = "an-id",
        compress: bool = False,
        connection: http.client.HTTPConnection | None = None,
        **headers: str,
    ) -> Answer:
        if compress:
            body, headers = gzip.compress(body, 1), headers | {"Content_Encoding": "gzip"}
        mine = connection or self.connect()
        try:
            mine.request("POST", "/firehose", body, self.headers(request_id, **headers))
            return read_answer(mine)
        finally:
            if connection is None:
                mine.close()


def read_answer(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, headers, json.loads(response.read()))


def body_of(request_id: str, records: list[bytes]) -> bytes:
    return json.dumps(
        {
            "requestId": request_id,
            "timestamp": 1700000000000,
            "records": [{"data": base64.b64encode(record).decode()} for record in records],
        }
    ).encode()


@dataclass
class Pipeline:
    """Stands for edfn_agent.pipeline: reads a delivery at once, settles it now or when told."""

    outcome: Outcome = Outcome.ACKNOWLEDGED
    reason: str = ""
    hold: threading.Event | None = None
    read: list[bytes] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    submitted: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def submit(self, delivery: Delivery) -> None:
        self.read.append(b"".join(delivery.chunks()))
        self.deliveries.append(delivery)
        self.submitted.release()
        threading.Thread(target=self._settle, args=(delivery,), daemon=True).start()

    def _settle(self, delivery: Delivery) -> None:
        if self.hold is not None:
            self.hold.wait(10)
        if self.outcome is not Outcome.ACKNOWLEDGED:
            delivery.fail(self.outcome, self.reason)
        delivery.release()


Serve = Callable[..., tuple[FirehoseEndpoint, Firehose]]


@pytest.fixture
def pipeline() -> Pipeline:
    return Pipeline()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "firehose.key"
    path.write_text(KEY + "\n")
    return path


@pytest.fixture
def serve(pipeline: Pipeline, key_file: Path) -> Iterator[Serve]:
    opened: list[FirehoseEndpoint] = []

    def make(**settings: Any) -> tuple[FirehoseEndpoint, Firehose]:
        given: dict[str, Any] = {"host": "127.0.0.1", "port": 0, "access_key_file": key_file, **settings}
        more = {name: given.pop(name) for name in ("layout_of", "count", "clock") if name in given}
        submit = given.pop("submit", pipeline.submit)
        endpoint = FirehoseEndpoint(EndpointSettings(**given), submit, **more)
        opened.append(endpoint)
        host, port = endpoint.start()
        return endpoint, Firehose(host, port)

    yield make
    for endpoint in opened:
        endpoint.stop(grace=0.2)
