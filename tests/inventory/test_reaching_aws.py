"""How AWS is reached: SSO and container credentials, FIPS endpoints, proxies, partitions."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from faultproxy import FaultProxy

from edfn_agent.inventory.accounts import Accounts, AwsSettings

Settings = Callable[..., AwsSettings]
REGION = "us-east-1"
START = "https://sso.example/start"


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], tuple[int, bytes]]) -> Iterator[str]:
    """A small HTTP server; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_any(self) -> None:
            status, body = answer(self)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_CONNECT = do_any

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def without_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No keys in the environment; the home folder that AWS's files are looked for in."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    monkeypatch.setattr("botocore.credentials.SSOProvider._SSO_TOKEN_CACHE_DIR", str(cache))
    return tmp_path / ".aws"


def only(settings: AwsSettings) -> tuple[str, str | None, str]:
    """(status, problem, next step) of the only account."""
    accounts = Accounts(settings)
    (row,) = accounts.open()
    return row.status, row.error, accounts.findings[0].next_step if accounts.findings else ""


class TestSso:
    @pytest.fixture(autouse=True)
    def profile(self, without_keys: Path) -> Path:
        lines = ["[default]", f"sso_start_url = {START}", f"sso_region = {REGION}"]
        lines += ["sso_account_id = 111111111111", "sso_role_name = Viewer", ""]
        (without_keys / "config").write_text("\n".join(lines))
        return without_keys

    def token(self, folder: Path, hours: float) -> None:
        """As `aws sso login` leaves it."""
        until = (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = hashlib.sha1(START.encode()).hexdigest()
        text = json.dumps({"startUrl": START, "region": REGION, "accessToken": "the-token", "expiresAt": until})
        (folder / "sso" / "cache" / f"{name}.json").write_text(text)

    def test_a_profile_with_a_token(
        self, profile: Path, settings: Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[tuple[str, str | None]] = []

        def portal(request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
            asked.append((request.path, request.headers.get("x-amz-sso_bearer_token")))
            key = {"accessKeyId": "ASIA1", "secretAccessKey": "s", "sessionToken": "t"}
            return 200, json.dumps({"roleCredentials": key | {"expiration": int(time.time() + 3600) * 1000}}).encode()

        self.token(profile, hours=8)
        with serving(portal) as url:
            monkeypatch.setenv("AWS_ENDPOINT_URL_SSO", url)
            assert only(settings()) == ("ok", None, "")
        assert asked == [("/federation/credentials?role_name=Viewer&account_id=111111111111", "the-token")]
        assert {each.key for each in proxy.calls} == {"ASIA1"}

    def test_a_token_that_has_expired(self, profile: Path, settings: Settings) -> None:
        self.token(profile, hours=-1)
        status, problem, step = only(settings())
        assert status == "failed"
        assert "aws sso login" in (problem or "")
        assert "SSO" in (problem or "")
        assert "aws sso login" in step

    def test_no_token_at_all(self, profile: Path, settings: Settings) -> None:
        status, problem, step = only(settings())
        assert status == "failed"
        assert "token" in (problem or "").lower()
        assert "aws sso login" in step


def test_a_container_role(
    without_keys: Path, settings: Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"AccessKeyId": "ASIA2", "SecretAccessKey": "s", "Token": "t", "Expiration": until}
    with serving(lambda _: (200, json.dumps(body).encode())) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/role")
        assert only(settings()) == ("ok", None, "")
    assert {each.key for each in proxy.calls} == {"ASIA2"}


# ---- endpoints


class Sent(Exception):
    """Not sent, rather: where it would have gone."""


def endpoint(settings: AwsSettings, service: str, operation: str, region: str, **arguments: str) -> str:
    accounts = Accounts(settings)
    client = accounts._make_client(accounts._session(), region, service, "standard")

    def catch(request: Any, **_: Any) -> None:
        raise Sent(f"{urlsplit(request.url).scheme}://{urlsplit(request.url).netloc}")

    client.meta.events.register("before-send", catch)
    with pytest.raises(Sent) as caught:
        getattr(client, operation)(**arguments)
    return str(caught.value)


def test_fips_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    settings = AwsSettings(region=REGION)
    assert [
        endpoint(settings, "ec2", "describe_vpcs", REGION),
        endpoint(settings, "sts", "get_caller_identity", REGION),
        endpoint(settings, "s3", "get_bucket_location", REGION, Bucket="logs"),
        endpoint(settings, "sqs", "list_queues", REGION),
        endpoint(settings, "logs", "describe_log_groups", REGION),
        endpoint(settings, "kinesis", "list_streams", REGION),
    ] == [
        "https://ec2-fips.us-east-1.amazonaws.com",
        "https://sts-fips.us-east-1.amazonaws.com",
        "https://s3-fips.us-east-1.amazonaws.com",
        "https://sqs-fips.us-east-1.amazonaws.com",
        "https://logs-fips.us-east-1.amazonaws.com",
        "https://kinesis-fips.us-east-1.amazonaws.com",
    ]


def test_an_endpoint_of_the_configuration_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, proxy: FaultProxy
) -> None:
    """Also where FIPS is on: whoever writes a VPC endpoint's URL has chosen."""
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert only(settings()) == ("ok", None, "")
    assert proxy.times("GetCallerIdentity") == 1


@pytest.mark.parametrize(
    ("region", "sts", "queue"),
    [
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn", "https://sqs.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com", "https://sqs.us-gov-west-1.amazonaws.com"),
        ("ap-east-1", "https://sts.ap-east-1.amazonaws.com", "https://sqs.ap-east-1.amazonaws.com"),  # opt-in
    ],
)
def test_partitions_and_regions_have_their_endpoints(region: str, sts: str, queue: str) -> None:
    settings = AwsSettings(region=region)
    assert endpoint(settings, "sts", "get_caller_identity", region) == sts
    assert endpoint(settings, "sqs", "list_queues", region) == queue


# ---- proxies


class Forward:
    """A proxy for http: passes absolute requests on, and answers CONNECT with 502."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, request: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        self.asked.append((request.command, request.path))
        if request.command == "CONNECT":
            return 502, b"no"
        target = urlsplit(request.path)
        connection = HTTPConnection(target.netloc, timeout=10)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        connection.request(request.command, target.path or "/", body, dict(request.headers.items()))
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_through_a_proxy(settings: Settings, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = Forward()
    with serving(forward) as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("NO_PROXY", "")
        assert only(settings()) == ("ok", None, "")
        assert forward.asked == [("POST", f"{proxy.url}/")]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert only(settings()) == ("ok", None, "")
        assert len(forward.asked) == 1


@pytest.mark.parametrize("there", [True, False], ids=["refuses", "is-not-there"])
def test_a_proxy_that_does_not_let_through_is_said(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its password."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
    forward = Forward()
    with serving(forward) as url:
        place = url.removeprefix("http://") if there else "127.0.0.1:9"
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:hunter2@{place}")
        monkeypatch.setenv("NO_PROXY", "")
        status, problem, step = only(AwsSettings(region=REGION))
    assert status == "failed"
    assert "proxy" in (problem or "").lower()
    assert "HTTPS_PROXY" in step
    assert "hunter2" not in f"{problem} {step}"
    assert set(forward.asked) == ({("CONNECT", "sts.us-east-1.amazonaws.com:443")} if there else set())
