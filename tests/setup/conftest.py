"""The setup commands as a person types them, and an AWS (moto, over HTTP on loopback) to carry them out in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
import yaml
from botocore.loaders import Loader
from click.testing import CliRunner, Result
from moto import mock_aws

from edfn_agent.commands.setup import setup

HOME = "123456789012"  # the account of moto's caller
ABROAD = "111111111111"
REGION = "us-east-1"
VPC = "vpc-00112233344556677"


def run(*words: str, input: str | None = None) -> Result:
    return CliRunner().invoke(setup, list(words), input=input, catch_exceptions=False)


def printed(*words: str) -> str:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def templates(*words: str) -> list[dict[str, Any]]:
    return [template for template in yaml.safe_load_all(printed(*words)) if template]


def resources(*words: str) -> dict[str, dict[str, Any]]:
    """Every resource of every stack, by logical id."""
    return {name: entry for template in templates(*words) for name, entry in template["Resources"].items()}


@pytest.fixture(scope="session", autouse=True)
def models_are_read_once() -> Iterator[None]:
    """Every session of botocore reads the models of the services anew, a second for each command that is tried here."""
    known: dict[Any, Any] = {}

    def once(method: Any) -> Any:
        def load(self: Loader, *given: Any, **more: Any) -> Any:
            key = (method.__name__, given, tuple(more.items()))
            if key not in known:
                known[key] = method(self, *given, **more)
            return known[key]

        return load

    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_service_model", "load_data_with_path"):
            patch.setattr(Loader, name, once(getattr(Loader, name)))
        yield


def take_destinations(patches: pytest.MonkeyPatch) -> None:
    """moto 5.2 refuses a CloudWatch Logs destination for the target of a subscription filter."""
    from moto.logs.models import LogsBackend

    subscribe = LogsBackend.put_subscription_filter

    def put_subscription_filter(
        self: Any, log_group_name: str, filter_name: str, filter_pattern: str, destination_arn: str, role_arn: str
    ) -> None:
        if ":destination:" in destination_arn:
            self.groups[log_group_name].put_subscription_filter(filter_name, filter_pattern, destination_arn, role_arn)
        else:
            subscribe(self, log_group_name, filter_name, filter_pattern, destination_arn, role_arn)

    patches.setattr(LogsBackend, "put_subscription_filter", put_subscription_filter)


@pytest.fixture
def destinations(monkeypatch: pytest.MonkeyPatch) -> None:
    take_destinations(monkeypatch)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Clients by service, account and region; everything that setup calls goes to the same moto."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    clients: dict[tuple[str, str, str], Any] = {}

    def client(service: str, account: str = HOME, region: str = REGION) -> Any:
        if (service, account, region) not in clients:
            session = boto3.Session(region_name=region)
            if account != HOME:
                role = f"arn:aws:iam::{account}:role/anything"
                given = session.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
                session = boto3.Session(
                    given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], region_name=region
                )
            clients[service, account, region] = session.client(service)
        return clients[service, account, region]

    with mock_aws():
        yield client


@pytest.fixture
def vpc(aws: Callable[..., Any]) -> str:
    return str(aws("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])
