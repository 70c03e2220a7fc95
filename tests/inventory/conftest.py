"""moto over HTTP, a fault proxy before it, and an organisation in it. Nothing leaves this machine."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from faultproxy import Call, FaultProxy, Reply, error
from organisation import DEAD, EXTERNAL_ID, LOGGING, NETWORK, REGIONS, WORKLOAD, Cloud, Organisation, build, role

from edfn_agent.inventory.accounts import Accounts, AwsSettings, RoleSource
from edfn_agent.inventory.discovery import Discovery

SERVICES = ("ec2", "sts", "iam", "logs", "s3", "sqs", "sns", "events", "kinesis", "firehose")


@pytest.fixture(autouse=True)
def _no_real_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever AWS settings this machine has stay out of it."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "MOTO_ACCOUNT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hub")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hub")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Cloud(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="session")
def proxy_server(cloud: Cloud) -> Iterator[FaultProxy]:
    with FaultProxy(cloud.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(proxy_server: FaultProxy) -> FaultProxy:
    proxy_server.calm()
    return proxy_server


@pytest.fixture(scope="module")
def organisation(cloud: Cloud, proxy_server: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Organisation:
    """Made once for a module; tests look at it and do not change it."""
    cloud.reset()
    made = build(cloud, tmp_path_factory.mktemp("organisation"))
    key = made.credentials_file.read_text().split("aws_access_key_id = ")[1].split("\n")[0]
    proxy_server.accounts[key] = NETWORK
    proxy_server.bucket_owners = {"central-logs": LOGGING, "quiet-logs": LOGGING}
    return made


@pytest.fixture
def empty_cloud(cloud: Cloud) -> Cloud:
    cloud.reset()
    return cloud


Settings = Callable[..., AwsSettings]


@pytest.fixture
def settings(proxy: FaultProxy) -> Settings:
    def make(**changed: Any) -> AwsSettings:
        arguments: dict[str, Any] = {
            "region": "us-east-1",
            "regions": REGIONS,
            "endpoints": dict.fromkeys(SERVICES, proxy.url),
            **changed,
        }
        return AwsSettings(**arguments)

    return make


def refuse_role(proxy: FaultProxy, account: str, code: str = "AccessDenied", message: str = "not authorized") -> None:
    """AssumeRole fails for the role of one account."""

    def rule(call: Call) -> Reply | None:
        wanted = call.operation == "AssumeRole" and call.parameters["RoleArn"].split(":")[4] == account
        return error(call, code, message, 403) if wanted else None

    proxy.rules.append(rule)


@pytest.fixture
def all_accounts(organisation: Organisation, proxy: FaultProxy, settings: Settings) -> Accounts:
    """A profile, a role, a role with an external id, and one that is dead."""
    proxy.rules.append(lambda call: None)
    refuse_role(proxy, DEAD)
    return Accounts(
        settings(
            credentials_file=organisation.credentials_file,
            roles=(RoleSource(role(WORKLOAD), EXTERNAL_ID), RoleSource(role(LOGGING)), RoleSource(role(DEAD))),
        )
    )


@pytest.fixture
def discovery(all_accounts: Accounts) -> Discovery:
    return Discovery(all_accounts)
