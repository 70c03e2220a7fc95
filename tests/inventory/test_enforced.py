"""With identity policies enforced: each kind of account, the original policy, and each of its actions taken away.

Three accounts that are alike, reached by a profile, by a role and by a role with an external id, so that a run looks at
three actions at once: each account lacks another one.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faultproxy import Call, FaultProxy, Reply
from organisation import EXTERNAL_ID, LOGGING, NETWORK, WORKLOAD, Cloud, role

from edfn_agent.inventory.accounts import Accounts, AwsSettings, RoleSource
from edfn_agent.inventory.calls import ALL
from edfn_agent.inventory.discovery import Discovery
from edfn_agent.inventory.model import Snapshot
from edfn_agent.inventory.sources import EnabledInputs, SourcePlan
from edfn_agent.setup.agent_policy import LIKE_EDFN
from ipfix import CollectingProcess

PROFILE, PLAIN, AGREED = NETWORK, LOGGING, WORKLOAD
ACCOUNTS = (PROFILE, PLAIN, AGREED)
HUB = "123456789012"
REGION = "us-east-1"
SERVICES = ("ec2", "sts", "iam", "logs", "s3", "sqs", "sns", "events", "kinesis", "firehose")

DISCOVERY = (
    # three at a time
    ("ec2:DescribeRegions", "ec2:DescribeVpcs", "logs:DescribeSubscriptionFilters"),
    ("ec2:DescribeInstances", "ec2:DescribeFlowLogs", "s3:GetBucketLocation"),
    ("ec2:DescribeNetworkInterfaces", "s3:GetBucketNotification", "ec2:DescribeNatGateways"),
    ("sqs:GetQueueAttributes", "ec2:DescribeVpcEndpoints", "ec2:DescribeRouteTables"),
    ("ec2:DescribeVpcPeeringConnections", "sqs:GetQueueUrl", "kinesis:DescribeStream*"),
    ("ec2:DescribeTransitGatewayAttachments",),
)


def policy(without: str = "") -> dict[str, Any]:
    """The original policy, less one action as it is written there."""
    statements = [{**each, "Action": [one for one in each["Action"] if one != without]} for each in LIKE_EDFN]
    return {"Version": "2012-10-17", "Statement": statements}


@dataclass
class World:
    cloud: Cloud
    proxy: FaultProxy
    settings: AwsSettings
    vpcs: dict[tuple[str, str], str]  # (account, name) -> id

    def allow(self, account: str, document: Mapping[str, Any]) -> None:
        iam = self.cloud.client(account, REGION, "iam")
        text = json.dumps(document)
        if account == PROFILE:
            iam.put_user_policy(UserName="edfn", PolicyName="edfn", PolicyDocument=text)
        else:
            iam.put_role_policy(RoleName="EdfnAgent", PolicyName="edfn", PolicyDocument=text)


@pytest.fixture(scope="module")
def made(cloud: Cloud, proxy_server: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> World:
    cloud.reset()
    cloud.without_default_vpcs(*ACCOUNTS, regions=(REGION,))
    vpcs = {}
    for account in ACCOUNTS:
        for name in ("stored", "logged", "streamed"):
            vpcs[account, name] = cloud.vpc(account, REGION, name, "10.0.0.0/16")
        _bucket(cloud, account, vpcs[account, "stored"])
        for name in ("logged", "streamed"):
            cloud.client(account, REGION, "logs").create_log_group(logGroupName=name)
            cloud.flow_log(
                account, REGION, vpcs[account, name], LogDestinationType="cloud-watch-logs", LogGroupName=name
            )
        _subscribe(cloud, account)
    for account in (PLAIN, AGREED):
        cloud.client(account, REGION, "iam").create_role(RoleName="EdfnAgent", AssumeRolePolicyDocument="{}")
    key, secret = cloud.user(PROFILE, "edfn")
    assume = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
    hub, hub_secret = cloud.user(HUB, "hub", {"Version": "2012-10-17", "Statement": [assume]})
    folder = tmp_path_factory.mktemp("enforced")
    (folder / "credentials").write_text(f"[network]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    (folder / "hub").write_text(f"[default]\naws_access_key_id = {hub}\naws_secret_access_key = {hub_secret}\n")
    proxy_server.accounts |= {key: PROFILE, hub: HUB}
    proxy_server.bucket_owners = {f"logs-{account}": account for account in ACCOUNTS}
    settings = AwsSettings(
        region=REGION,
        regions=(REGION,),
        credentials_file=folder / "credentials",
        roles=(RoleSource(role(PLAIN)), RoleSource(role(AGREED), EXTERNAL_ID)),
        endpoints=dict.fromkeys(SERVICES, proxy_server.url),
    )
    return World(cloud, proxy_server, settings, vpcs)


@pytest.fixture
def world(made: World, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert made.settings.credentials_file is not None
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(made.settings.credentials_file.with_name("hub")))
    for account in ACCOUNTS:
        made.allow(account, policy())
    return made


def _bucket(cloud: Cloud, account: str, vpc: str) -> None:
    s3, sqs = cloud.client(account, REGION, "s3"), cloud.client(account, REGION, "sqs")
    url = sqs.create_queue(QueueName="objects")["QueueUrl"]
    s3.create_bucket(Bucket=f"logs-{account}")
    events = {"QueueArn": f"arn:aws:sqs:{REGION}:{account}:objects", "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=f"logs-{account}", NotificationConfiguration={"QueueConfigurations": [events]}
    )
    for each in sqs.receive_message(QueueUrl=url).get("Messages", ()):  # S3's test message
        sqs.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
    cloud.flow_log(account, REGION, vpc, LogDestinationType="s3", LogDestination=f"arn:aws:s3:::logs-{account}")


def _subscribe(cloud: Cloud, account: str) -> None:
    from moto.backends import get_backend

    cloud.client(account, REGION, "kinesis").create_stream(StreamName="lab", ShardCount=1)
    group = get_backend("logs")[account][REGION].groups["streamed"]
    group.put_subscription_filter("to-stream", "", f"arn:aws:kinesis:{REGION}:{account}:stream/lab", "")


def discovered(world: World, **changed: Any) -> tuple[Snapshot, dict[str | None, list[str]]]:
    """(snapshot, what is said of each account beyond remarks)"""
    with world.cloud.enforcing_permissions():
        snapshot = Discovery(Accounts(AwsSettings(**(vars_of(world.settings) | changed)))).run()
    plan = SourcePlan(snapshot, EnabledInputs(s3="discovered", cloudwatch_logs="discovered"))
    said: dict[str | None, list[str]] = {}
    for each in (*snapshot.findings, *plan.findings):
        if each.severity != "info":
            said.setdefault(each.account_id, []).append(f"{each.problem}; {each.next_step}")
    return snapshot, said


def vars_of(settings: AwsSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def test_every_kind_of_account_is_discovered_with_the_original_policy(world: World) -> None:
    snapshot, _ = discovered(world)
    assert [(each.account_id, each.via.partition(":")[0], each.status) for each in snapshot.accounts] == [
        (PROFILE, "profile", "ok"),
        (PLAIN, "role", "ok"),
        (AGREED, "role", "ok"),
    ]
    assert {each.severity for each in snapshot.findings} == {"info"}, snapshot.findings
    # the optional calls were really asked, and really denied
    assert {"ec2:DescribeSubnets", "ec2:DescribeInternetGateways", "iam:ListAccountAliases"} <= {
        each.subject for each in snapshot.findings
    }
    agreed = [each.parameters.get("ExternalId") for each in world.proxy.calls if each.operation == "AssumeRole"]
    assert sorted(filter(None, agreed)) == [EXTERNAL_ID]
    plan = SourcePlan(snapshot, EnabledInputs(s3="discovered", cloudwatch_logs="discovered", kinesis="discovered"))
    assert {(account, name): plan.source_of(vpc) for (account, name), vpc in world.vpcs.items()} == {
        (account, name): source
        for account in ACCOUNTS
        for name, source in (
            ("stored", f"s3:logs-{account}"),
            ("logged", f"cloudwatch_logs:arn:aws:logs:{REGION}:{account}:log-group:logged"),
            ("streamed", f"kinesis:arn:aws:kinesis:{REGION}:{account}:stream/lab"),
        )
    }


@pytest.mark.parametrize("missing", DISCOVERY, ids=lambda missing: str(missing[0]))
def test_each_action_taken_away_has_its_finding(missing: Sequence[str], world: World) -> None:
    lacking = dict(zip(ACCOUNTS, missing, strict=False))
    for account, action in lacking.items():
        world.allow(account, policy(without=action))
    changed: dict[str, Any] = {}
    if "ec2:DescribeRegions" in missing:
        answer = Reply(200, f"<R><regionInfo><item><regionName>{REGION}</regionName></item></regionInfo></R>".encode())

        def elsewhere(call: Call) -> Reply | None:
            return answer if call.operation == "DescribeRegions" and call.account != PROFILE else None

        world.proxy.rules.append(elsewhere)
        changed["regions"] = None
    _, said = discovered(world, **changed)
    for account, action in lacking.items():
        name = action.replace("DescribeStream*", "DescribeStreamSummary")
        assert any(f"{name} is not allowed" in each for each in said.get(account, ())), (account, name, said)
    assert [each for account, each in said.items() if account not in lacking] == []


def test_no_action_is_left_out() -> None:
    """But for SearchTransitGatewayRoutes: moto has no attachment with a route table, botocore's Stubber has."""
    taken = {action.replace("DescribeStream*", "DescribeStreamSummary") for line in DISCOVERY for action in line}
    assert {each.action for each in ALL if not each.optional} - taken == {"ec2:SearchTransitGatewayRoutes"}


@pytest.fixture
def collector() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind(("127.0.0.1", 0))
        made.settimeout(1)
        yield made


def test_every_kind_of_account_is_read_with_the_original_policy(
    world: World, collector: socket.socket, tmp_path: Path
) -> None:
    """The agent itself, as a process: one record of each account from S3, one from CloudWatch Logs."""
    now = int(time.time())
    wanted = set()
    for number, account in enumerate(ACCOUNTS, 1):
        s3, logs = world.cloud.client(account, REGION, "s3"), world.cloud.client(account, REGION, "logs")
        line = "2 {} eni-1 10.0.0.1 10.0.0.2 {} {} {} OK"
        ids = {name: world.vpcs[account, name] for name in ("stored", "logged")}
        header = "version vpc-id interface-id srcaddr dstaddr bytes start end log-status"
        body = "\n".join([header, line.format(ids["stored"], number, now - 60, now), ""])
        day = time.strftime("%Y/%m/%d", time.gmtime(now))
        key = f"AWSLogs/{account}/vpcflowlogs/{REGION}/{day}/{account}_vpcflowlogs_{REGION}_fl-1_{number}.log.gz"
        s3.put_object(Bucket=f"logs-{account}", Key=key, Body=gzip.compress(body.encode()))
        logs.create_log_stream(logGroupName="logged", logStreamName="eni-1-all")
        message = line.format(ids["logged"], number + 10, now - 60, now)
        event = {"timestamp": now * 1000 - 30_000, "message": message}
        logs.put_log_events(logGroupName="logged", logStreamName="eni-1-all", logEvents=[event])
        wanted |= {number, number + 10}
    config = tmp_path / "edfn-agent.yaml"
    settings = world.settings
    config.write_text(
        json.dumps(  # JSON is YAML
            {
                "collectors": [f"udp://127.0.0.1:{collector.getsockname()[1]}"],
                "exporters": {"address_mode": "field"},
                "aws": {
                    "region": REGION,
                    "regions": [REGION],
                    "credentials_file": str(settings.credentials_file),
                    "roles": [
                        {"arn": role(PLAIN)},
                        {"arn": role(AGREED), "external_id": EXTERNAL_ID},
                    ],
                    "endpoints": dict(settings.endpoints),
                },
                "inputs": {"s3": {}, "cloudwatch_logs": {"interval": "1s", "start_from": "1h"}},
                "state_directory": str(tmp_path / "state"),
                "http": {"listen": None},
            }
        )
    )
    with world.cloud.enforcing_permissions():
        agent = subprocess.Popen(
            [sys.executable, "-m", "edfn_agent.cli", "run", "-c", str(config)],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.DEVNULL,
            stderr=(tmp_path / "log").open("wb"),
        )
        try:
            found = _received(collector, wanted, until=time.monotonic() + 60)
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(60)
    assert found == wanted, (tmp_path / "log").read_text()[-4000:]


def _received(collector: socket.socket, wanted: set[int], until: float) -> set[int]:
    """The numbers that came, in the place of octets."""
    process = CollectingProcess()
    found: set[int] = set()
    while not wanted <= found and time.monotonic() < until:
        try:
            message = collector.recv(65535)
        except TimeoutError:
            continue
        for data in process.receive(message).data:
            if not data.is_options:
                found |= {int(str(record["octetDeltaCount"])) for record in data}
    return found
