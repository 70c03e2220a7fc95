"""Real servers and real processes for the Kinesis tests; all of them end with the test, by their own ids.

`aws` is ministack (Kinesis, DynamoDB, CloudWatch); `kinesis_local` is the emulator with AWS's shard lineage (npm).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.service`, however pytest was started

from edfn_agent.inputs.kinesis import java

KINESIS_LOCAL = "kinesis-local@0.6.2"
ACCOUNT = "111111111111"
ON_LOOPBACK = """
const net = require('net'), listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (options, ...rest) {
  if (options !== null && typeof options === 'object') options.host = '127.0.0.1';
  return listen.call(this, options, ...rest);
};
"""


def until(condition: Callable[[], Any], seconds: float = 60, what: str = "") -> Any:
    """The first true value of `condition`; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what or condition}")
        time.sleep(0.05)
    return value


def missing(reason: str) -> None:
    """Skip; but CI has to have everything that the real daemon needs as soon as it has Java."""
    if os.environ.get("CI") == "true" and shutil.which("java"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[Any]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(client: Any) -> bool:
    try:
        client.list_streams()
    except Exception:
        return False
    return True


@pytest.fixture(scope="session")
def real_daemon() -> java.Installation:
    try:
        return java.find()
    except java.Missing as reason:
        missing(str(reason))
        raise AssertionError from None


@pytest.fixture(scope="session")
def aws(real_daemon: java.Installation) -> Iterator[str]:
    if importlib.util.find_spec("ministack") is None or importlib.util.find_spec("cbor2") is None:
        missing("needs ministack and cbor2: pip install ministack cbor2")
    port = free_port()
    environment = {**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "MINISTACK_ACCOUNT_ID": ACCOUNT}
    process = subprocess.Popen(
        [sys.executable, "-m", "ministack"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(client("kinesis", url)), 30, "ministack")
        yield url
    finally:
        end(process)


@pytest.fixture(scope="session")
def kinesis_local(real_daemon: java.Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip(f"needs Node and npm for {KINESIS_LOCAL}: the one emulator that ends a split shard as AWS does")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edfn-agent-tests" / KINESIS_LOCAL
    package = cache / "node_modules" / "kinesis-local"
    if not (package / "main.js").exists():
        cache.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(cache), KINESIS_LOCAL]
        done = subprocess.run(install, capture_output=True, text=True, timeout=120)
        if done.returncode:
            missing(f"{KINESIS_LOCAL} cannot be installed: {done.stderr[-300:]}")
    directory = tmp_path_factory.mktemp("kinesis-local")
    (directory / "loopback.js").write_text(ON_LOOPBACK)
    port = free_port()
    environment = {
        **os.environ,
        "KINESIS_MOCK_PLAIN_PORT": str(port),
        "KINESIS_MOCK_TLS_PORT": str(free_port()),
        "LOG_LEVEL": "ERROR",
        "CREATE_STREAM_DURATION": "50ms",
        "SPLIT_SHARD_DURATION": "50ms",
        "MERGE_SHARDS_DURATION": "50ms",
    }
    process = subprocess.Popen(
        [node, "-r", str(directory / "loopback.js"), "main.js"],
        cwd=package,  # it reads server.json from there
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(client("kinesis", url)), 30, "kinesis-local")
        yield url
    finally:
        end(process)


def client(service: str, url: str, account: str = ACCOUNT) -> Any:
    """A client of an account: emulators take a 12-digit access key for the account."""
    import boto3

    return boto3.client(
        service, endpoint_url=url, region_name="us-east-1", aws_access_key_id=account, aws_secret_access_key="x"
    )


class Sts(ThreadingHTTPServer):
    """AssumeRole and GetCallerIdentity as AWS answers them, with keys that the emulators take for the role's account.
    Keeps what AssumeRole was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Answers)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        sts = self.server
        assert isinstance(sts, Sts)
        asked = dict(parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        key = self.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        if asked["Action"] == "AssumeRole":
            sts.asked.append(asked)
            expires = datetime.now(UTC) + timedelta(seconds=int(asked["DurationSeconds"]))
            result = (
                f"<Credentials><AccessKeyId>{asked['RoleArn'].split(':')[4]}</AccessKeyId>"
                "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
                f"<Expiration>{expires:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>"
            )
        else:
            result = f"<UserId>u</UserId><Account>{key}</Account><Arn>arn:aws:iam::{key}:user/edfn</Arn>"
        name = asked["Action"]
        body = (
            f'<{name}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{name}Result>{result}</{name}Result>'
            f"</{name}Response>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def sts() -> Iterator[Sts]:
    sts = Sts()
    yield sts
    sts.shutdown()
    sts.server_close()
