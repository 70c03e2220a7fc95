"""For the tests of the inputs: moto and ministack on loopback, a fault proxy before them, a clock, a small pipeline."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.inputs.faults`, however pytest was started

from edfn_agent.delivery import Delivery, Outcome
from edfn_agent.inputs.errors import ReadFailed
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State
from tests.inputs.faults import FaultProxy

ACCOUNT = "123456789012"
REGION = "us-east-1"


class TestClock:
    """Time that passes only when somebody waits for it. Waiting takes no time, except to let other threads run."""

    __test__ = False

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.time = now
        self.waits: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        if seconds:
            self.time += seconds
            self.waits.append(seconds)
        return event.wait(0.001)


class Sink:
    """What a pipeline does, in small: read the chunks, remember them, let go. `hold` keeps deliveries unsettled."""

    def __init__(self) -> None:
        self.read: list[tuple[str, bytes]] = []
        self.deliveries: list[Delivery] = []
        self.hold = False
        self.fail: tuple[Outcome, str] | None = None
        self.lock = threading.Lock()

    def __call__(self, delivery: Delivery) -> None:
        try:
            data = b"".join(delivery.chunks())
            with self.lock:
                self.read.append((delivery.name, data))
                self.deliveries.append(delivery)
            if self.fail is not None:
                delivery.fail(*self.fail)
        except ReadFailed as failed:
            delivery.fail(failed.outcome, failed.reason)
            raise
        finally:
            if not self.hold:
                delivery.release()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.read]

    @property
    def lines(self) -> list[str]:
        return [line for _, data in self.read for line in data.decode().splitlines()]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path / "state") as made:
        yield made


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float = 15.0) -> None:
    """Wait for it; a test that waits in vain says so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def client_of(url: str, service: str, region: str = REGION, **config: Any) -> Any:
    settings: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "read_timeout": 10, "max_pool_connections": 20}
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=url,
        aws_access_key_id=ACCOUNT,
        aws_secret_access_key="secret",
        config=Config(**(settings | {"s3": {"addressing_style": "path"}} | config)),
    )


@pytest.fixture(scope="session")
def ministack() -> Iterator[str]:
    """S3 and SQS with AWS's own events, in a process of its own."""
    port = free_port()
    environment = os.environ | {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "LOG_LEVEL": "ERROR"}
    command = [sys.executable, "-m", "ministack"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: _answers(url), 30)
        yield url
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """CloudWatch Logs, in this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url + "/_ministack/health", timeout=1).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@pytest.fixture
def proxy(ministack: str) -> Iterator[FaultProxy]:
    with FaultProxy(ministack) as made:
        yield made


@pytest.fixture
def logs_proxy(moto: str) -> Iterator[FaultProxy]:
    with FaultProxy(moto) as made:
        yield made


_names = iter(range(10**9))


@pytest.fixture
def world(ministack: str, proxy: FaultProxy) -> World:
    return World(ministack, proxy)


class World:
    """A bucket whose objects are announced in a queue. The agent's clients go through the proxy, the test's do not."""

    def __init__(self, url: str, proxy: FaultProxy, visibility: int = 30) -> None:
        self.proxy = proxy
        self.s3, self.sqs = client_of(url, "s3"), client_of(url, "sqs")
        number = next(_names)
        self.bucket, self.queue_name = f"flow-logs-{number}", f"flow-logs-{number}"
        self.s3.create_bucket(Bucket=self.bucket)
        attributes = {"VisibilityTimeout": str(visibility)}
        self.url = self.sqs.create_queue(QueueName=self.queue_name, Attributes=attributes)["QueueUrl"]
        self.arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.queue_name}"
        self._clients: dict[tuple[str, str], Any] = {}

    def announce(self) -> None:
        """From now on new objects are announced."""
        events = {"QueueArn": self.arn, "Events": ["s3:ObjectCreated:*"]}
        self.s3.put_bucket_notification_configuration(
            Bucket=self.bucket, NotificationConfiguration={"QueueConfigurations": [events]}
        )
        self.take()  # s3:TestEvent

    def take(self) -> str:
        """Receive one message and delete it: its body."""
        message = self.sqs.receive_message(QueueUrl=self.url, WaitTimeSeconds=5)["Messages"][0]
        self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return str(message["Body"])

    def clients(self, account_id: str, region: str, service: str) -> Any:
        key = (region, service)
        if key not in self._clients:
            self._clients[key] = client_of(self.proxy.url, service, region)
        return self._clients[key]

    def put(self, key: str, body: bytes = b"version account-id\n2 123456789012\n") -> str:
        return str(self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)["ETag"])

    def set_attributes(self, **attributes: str) -> None:
        self.sqs.set_queue_attributes(QueueUrl=self.url, Attributes=attributes)

    def send(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def depth(self) -> tuple[int, int]:
        """Messages waiting, and in somebody's hands."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])
