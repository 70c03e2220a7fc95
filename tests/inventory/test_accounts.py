"""How accounts are reached, and what is said of those that are not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from faultproxy import Call, FaultProxy, Reply, error
from organisation import Cloud

from edfn_agent.inventory.accounts import (
    Accounts,
    AwsSettings,
    NoRegion,
    RoleSource,
    default_region,
    is_own_role,
    profiles_of,
    refresh_windows,
)

Settings = Callable[..., AwsSettings]
A, B = "111111111111", "222222222222"


def role(account: str, name: str = "EdfnAgent") -> str:
    return f"arn:aws:iam::{account}:role/{name}"


def one(accounts: Accounts) -> tuple[str, str | None, str]:
    """(status, problem, next step) of the only account"""
    (row,) = accounts.open()
    step = accounts.findings[0].next_step if accounts.findings else ""
    return row.status, row.error, step


def test_without_profiles_and_roles_the_agents_own_identity_is_the_account(settings: Settings) -> None:
    (row,) = Accounts(settings()).open()
    assert (row.account_id, row.via, row.status) == ("123456789012", "default", "ok")


def test_profiles_of_a_credentials_file_and_of_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[profile other]\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = a\n[two words]\naws_access_key_id = b\n")
    assert profiles_of(tmp_path / "credentials") == ["default", "two words"]


def test_two_profiles_of_one_account(cloud: Cloud, settings: Settings, tmp_path: Path, proxy: FaultProxy) -> None:
    cloud.reset()
    file = tmp_path / "credentials"
    keys = [cloud.user(A, name) for name in ("first", "second")]
    texts = [
        f"[{n}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n" for n, (key, secret) in enumerate(keys)
    ]
    file.write_text("".join(texts))
    accounts = Accounts(settings(credentials_file=file, roles=(RoleSource(role(A)),)))
    assert [(each.account_id, each.via) for each in accounts.open()] == [(A, "profile:0")]
    assert [(each.severity, each.subject) for each in accounts.findings] == [
        ("warning", "profile:1"),
        ("warning", f"role:{role(A)}"),
    ]
    assert "already reached by profile:0" in accounts.findings[0].problem


def test_a_credentials_file_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    accounts = Accounts(settings(credentials_file=tmp_path / "nothing", roles=(RoleSource(role(A)),)))
    assert [each.status for each in accounts.open()] == ["failed", "ok"]
    assert "cannot be read" in accounts.findings[0].problem


def test_a_role_is_assumed_with_its_external_id_and_duration(settings: Settings, proxy: FaultProxy) -> None:
    accounts = Accounts(settings(roles=(RoleSource(role(A), "x,y=z"), RoleSource(role(B))), session_duration=7200))
    accounts.open()
    wanted = {each.parameters["RoleArn"]: each.parameters for each in proxy.calls if each.operation == "AssumeRole"}
    assert wanted[role(A)]["ExternalId"] == "x,y=z"
    assert wanted[role(A)]["DurationSeconds"] == "7200"
    assert "ExternalId" not in wanted[role(B)]
    assert accounts.client(A, "us-east-1", "sts").get_caller_identity()["Account"] == A


def test_beside_roles_the_own_account_is_within_reach_and_not_discovered(settings: Settings) -> None:
    """The queue or stream of all accounts may be there."""
    alone = Accounts(settings())
    own = alone.open()[0].account_id or ""
    accounts = Accounts(settings(roles=(RoleSource(role(A)),)))
    accounts.open()
    assert [each.account_id for each in accounts.living] == [A]
    assert [accounts.alive(each) for each in (A, own, "999999999999")] == [True, True, False]
    assert accounts.client(own, "eu-west-1", "sts").get_caller_identity()["Arn"] == accounts.own_arn
    assert accounts.credentials(own).access_key == "hub"
    with pytest.raises(KeyError):
        accounts.client("999999999999", "us-east-1", "sts")


def test_an_external_id_never_shows() -> None:
    assert "secret" not in repr(RoleSource(role(A), "secret"))


def test_a_role_of_fifteen_minutes_is_not_assumed_on_every_call(settings: Settings, proxy: FaultProxy) -> None:
    accounts = Accounts(settings(roles=(RoleSource(role(A)),), session_duration=900))
    accounts.open()
    client = accounts.client(A, "us-east-1", "ec2")
    for _ in range(5):
        client.describe_vpcs()
    accounts.client(A, "us-east-1", "sqs").list_queues()
    assert proxy.times("AssumeRole") == 1
    assert refresh_windows(900) == (180, 60)
    assert refresh_windows(43200) == (900, 600)


def test_credentials_near_their_end_are_renewed_once_for_all_clients(settings: Settings, proxy: FaultProxy) -> None:
    proxy.assumed_for = 30  # within the last minute of 15: whoever comes next must renew
    accounts = Accounts(settings(roles=(RoleSource(role(A)),), session_duration=900))
    accounts.open()
    proxy.assumed_for = None
    for service in ("ec2", "sts", "ec2"):
        client = accounts.client(A, "us-east-1", service)
        getattr(client, {"ec2": "describe_vpcs", "sts": "get_caller_identity"}[service])()
    assert proxy.times("AssumeRole") == 2


class TestRefusals:
    def refuse(self, proxy: FaultProxy, code: str, message: str, when: Callable[[Call], bool] = lambda _: True) -> None:
        def rule(call: Call) -> Reply | None:
            return error(call, code, message, 403) if call.operation == "AssumeRole" and when(call) else None

        proxy.rules.append(rule)

    def test_an_external_id(self, settings: Settings, proxy: FaultProxy) -> None:
        self.refuse(proxy, "AccessDenied", "User: x is not authorized to perform: sts:AssumeRole on resource: y")
        status, problem, step = one(Accounts(settings(roles=(RoleSource(role(A), "wrong-secret"),))))
        assert status == "failed"
        assert "external id is not the one in its trust policy" in (problem or "")
        assert "sts:ExternalId" in step
        assert "wrong-secret" not in f"{problem}{step}"

    def test_a_role_that_does_not_trust_the_agent(self, settings: Settings, proxy: FaultProxy) -> None:
        self.refuse(proxy, "AccessDenied", "User: x is not authorized to perform: sts:AssumeRole on resource: y")
        _, problem, step = one(Accounts(settings(roles=(RoleSource(role(A)),))))
        assert "the role refuses arn:aws:sts::123456789012:user/moto" in (problem or "")
        assert "may call sts:AssumeRole" in step

    def test_a_duration_falls_back_to_an_hour(self, settings: Settings, proxy: FaultProxy) -> None:
        text = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
        self.refuse(proxy, "ValidationError", text, lambda call: int(call.parameters["DurationSeconds"]) > 3600)
        accounts = Accounts(settings(roles=(RoleSource(role(A)),), session_duration=43200))
        assert [each.status for each in accounts.open()] == ["ok"]
        (finding,) = accounts.findings
        assert (finding.severity, finding.subject) == ("warning", role(A))
        assert "does not allow sessions of 43200 s; 1 h is used" in finding.problem

    def test_role_chaining_is_known(self, settings: Settings, proxy: FaultProxy) -> None:
        arn = "arn:aws:sts::123456789012:assumed-role/hub/i-0abc"
        answer = (
            f"<R><GetCallerIdentityResult><Arn>{arn}</Arn><Account>123456789012</Account></GetCallerIdentityResult></R>"
        )
        proxy.rules.append(lambda call: Reply(200, answer.encode()) if call.operation == "GetCallerIdentity" else None)
        accounts = Accounts(settings(roles=(RoleSource(role(A)),), session_duration=7200))
        accounts.open()
        (assumed,) = [each for each in proxy.calls if each.operation == "AssumeRole"]
        assert assumed.parameters["DurationSeconds"] == "3600"
        assert [(each.severity, "role chaining" in each.problem) for each in accounts.findings] == [("info", True)]

    def test_the_own_role_in_the_list(self, settings: Settings, proxy: FaultProxy) -> None:
        arn = "arn:aws:sts::123456789012:assumed-role/hub/i-0abc"
        answer = (
            f"<R><GetCallerIdentityResult><Arn>{arn}</Arn><Account>123456789012</Account></GetCallerIdentityResult></R>"
        )
        proxy.rules.append(lambda call: Reply(200, answer.encode()) if call.operation == "GetCallerIdentity" else None)
        accounts = Accounts(settings(roles=(RoleSource(role("123456789012", "path/hub")),)))
        assert [each.status for each in accounts.open()] == ["ok"]
        assert proxy.times("AssumeRole") == 0
        assert "the role that the agent runs with" in accounts.findings[0].problem
        assert not is_own_role(arn, role("123456789012", "hub2"))
        assert not is_own_role("arn:aws:iam::123456789012:user/hub", role("123456789012", "hub"))

    @pytest.mark.parametrize(
        ("code", "message", "problem", "step"),
        [
            ("ExpiredToken", "The security token included in the request is expired", "token has expired", "renew"),
            ("InvalidClientTokenId", "The security token is invalid.", "credentials are refused", "renew"),
            ("SignatureDoesNotMatch", "The signature we calculated does not match", "credentials are refused", "renew"),
            (
                "SignatureDoesNotMatch",
                "Signature expired: 2026 is now earlier than 2027",
                "time of this machine",
                "clock",
            ),
        ],
    )
    def test_a_profile(
        self, settings: Settings, proxy: FaultProxy, tmp_path: Path, code: str, message: str, problem: str, step: str
    ) -> None:
        (tmp_path / "credentials").write_text("[p]\naws_access_key_id = AKIA\naws_secret_access_key = s\n")
        proxy.refuse(code, message, status=403, operation="GetCallerIdentity")
        status, said, next_step = one(Accounts(settings(credentials_file=tmp_path / "credentials")))
        assert status == "failed"
        assert problem in (said or "")
        assert step in next_step

    def test_a_profile_without_a_key(self, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "credentials").write_text("[p]\naws_access_key_id = AKIA\n")
        status, said, _ = one(Accounts(settings(credentials_file=tmp_path / "credentials")))
        assert (status, "incomplete" in (said or "")) == ("failed", True)

    def test_no_identity_to_assume_from(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        _, problem, step = one(Accounts(settings(roles=(RoleSource(role(A)),))))
        assert "no identity of its own" in (problem or "")
        assert "instance role" in step


def test_a_dead_account_is_tried_again_and_a_new_key_in_the_file_is_taken(
    cloud: Cloud, settings: Settings, proxy: FaultProxy, tmp_path: Path
) -> None:
    cloud.reset()
    file = tmp_path / "credentials"
    file.write_text("[p]\naws_access_key_id = OLD\naws_secret_access_key = s\n")
    proxy.refuse("InvalidClientTokenId", "invalid", status=403, key="OLD")
    accounts = Accounts(settings(credentials_file=file))
    assert [each.status for each in accounts.open()] == ["failed"]
    key, secret = cloud.user(A, "new")
    file.write_text(f"[p]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    assert [(each.account_id, each.status) for each in accounts.open()] == [(A, "ok")]
    proxy.refuse("InvalidClientTokenId", "invalid", status=403, key=key)
    assert [each.status for each in accounts.open()] == ["failed"]
    assert not accounts.alive(A)


class TestRegions:
    def test_the_order(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import botocore.session

        config = tmp_path / "config"
        config.write_text("[default]\nregion = eu-north-1\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        assert default_region(botocore.session.Session()) == "eu-north-1"
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-2")
        assert default_region(botocore.session.Session()) == "eu-west-2"
        monkeypatch.setenv("AWS_REGION", "eu-west-3")
        assert default_region(botocore.session.Session()) == "eu-west-3"

    def test_the_instances_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import botocore.session

        monkeypatch.setattr("botocore.utils.IMDSRegionProvider.provide", lambda _: "ap-south-1")
        assert default_region(botocore.session.Session()) == "ap-south-1"

    def test_none_says_where_to_write_it(self, settings: Settings) -> None:
        with pytest.raises(NoRegion, match=r"aws\.region in the configuration, set AWS_REGION"):
            Accounts(settings(region=None)).open()

    def test_other_partitions(self, settings: Settings, proxy: FaultProxy) -> None:
        roles = (
            RoleSource("arn:aws-us-gov:iam::111111111111:role/r"),
            RoleSource("arn:aws-cn:iam::222222222222:role/r"),
        )
        accounts = Accounts(settings(roles=roles, regions=("us-east-1", "cn-northwest-1")))
        accounts.open()
        assert [accounts.home_region(each) for each in (A, B)] == ["us-gov-west-1", "cn-northwest-1"]
        assert {each.region for each in proxy.calls if each.operation == "AssumeRole"} == {
            "us-gov-west-1",
            "cn-northwest-1",
        }


class TestClients:
    def test_one_for_each_account_region_and_service(self, settings: Settings) -> None:
        accounts = Accounts(settings(roles=(RoleSource(role(A)), RoleSource(role(B)))))
        accounts.open()
        client = accounts.client(A, "us-east-1", "sqs")
        assert accounts.client(A, "us-east-1", "sqs") is client
        assert accounts.client(B, "us-east-1", "sqs") is not client
        assert accounts.client(A, "us-east-1", "sqs", patient=True) is not client
        assert client.meta.config.read_timeout > 20  # the long poll
        assert client.meta.config.retries["mode"] == "standard"
        accounts.forget_clients()
        assert accounts.client(A, "us-east-1", "sqs") is client
        with pytest.raises(KeyError):
            accounts.client("999999999999", "us-east-1", "sqs")

    def test_endpoints_of_services(self, settings: Settings) -> None:
        endpoints = {**settings().endpoints, "sqs": "https://sqs-fips.{region}.example"}
        accounts = Accounts(settings(endpoints=endpoints))
        accounts.open()
        assert (
            accounts.client("123456789012", "eu-west-1", "sqs").meta.endpoint_url
            == "https://sqs-fips.eu-west-1.example"
        )

    def test_each_call_is_told(self, settings: Settings, proxy: FaultProxy) -> None:
        told: list[tuple[str, str, str]] = []
        accounts = Accounts(settings(), lambda *call: told.append(call))
        accounts.open()
        proxy.deny("DescribeVpcs")
        with pytest.raises(Exception, match="not authorized"):
            accounts.client("123456789012", "us-east-1", "ec2").describe_vpcs()
        assert told == [("sts", "GetCallerIdentity", "ok"), ("ec2", "DescribeVpcs", "UnauthorizedOperation")]
        assert accounts.calls == 2

    def test_credentials_for_what_signs_by_itself(self, settings: Settings) -> None:
        accounts = Accounts(settings(roles=(RoleSource(role(A)),)))
        accounts.open()
        credentials = accounts.credentials(A)
        assert credentials.get_frozen_credentials().token
        assert credentials._expiry_time - datetime.now(UTC) > timedelta(minutes=50)
