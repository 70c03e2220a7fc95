"""With permissions enforced by moto the policy of the original product is enough; docs/permissions.md is complete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faultproxy import FaultProxy
from organisation import LOGGING, NETWORK, Cloud, build, role

from edfn_agent.inventory.accounts import Accounts, AwsSettings, RoleSource
from edfn_agent.inventory.calls import ALL
from edfn_agent.inventory.discovery import Discovery
from edfn_agent.inventory.sources import EnabledInputs, SourcePlan

DOCUMENT = Path(__file__).parents[2] / "docs" / "permissions.md"

# EDFN 2.9.1, "AWS Permissions Policy": EdfnMinPermissions and S3Permissions, and KCLPermissions for Kinesis.
ORIGINAL = [
    "ec2:DescribeRegions",
    "ec2:DescribeInstances",
    "ec2:DescribeFlowLogs",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeVpcs",
    "ec2:DescribeNatGateways",
    "ec2:DescribeVpcEndpoints",
    "ec2:DescribeRouteTables",
    "ec2:DescribeVpcPeeringConnections",
    "ec2:DescribeTransitGatewayAttachments",
    "ec2:SearchTransitGatewayRoutes",
    "logs:DescribeSubscriptionFilters",
    "logs:GetLogEvents",
    "logs:DescribeLogStreams",
    "s3:GetBucketLocation",
    "s3:GetBucketNotification",
    "s3:GetObject",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
    "sqs:ChangeMessageVisibility*",
    "sqs:DeleteMessage*",
    "sqs:ReceiveMessage",
    "cloudwatch:PutMetricData",
    "dynamodb:CreateTable",
    "dynamodb:DescribeTable",
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:DeleteItem",
    "dynamodb:UpdateItem",
    "dynamodb:Scan",
    "kinesis:GetRecords",
    "kinesis:GetShardIterator",
    "kinesis:ListShards",
    "kinesis:ListStreamConsumers",
    "kinesis:SubscribeToShard",
    "kinesis:DescribeStream*",
    "kinesis:RegisterStreamConsumer",
]


def policy(*actions: str) -> dict[str, object]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]}


def test_the_original_policy_finds_every_source(
    cloud: Cloud, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.reset()
    organisation = build(cloud, tmp_path)
    proxy.bucket_owners = {"central-logs": LOGGING, "quiet-logs": LOGGING}
    key, secret = cloud.user(NETWORK, "original", policy(*ORIGINAL))
    hub, hub_secret = cloud.user("123456789012", "hub", policy("sts:AssumeRole"))
    proxy.accounts[key] = NETWORK
    iam = cloud.client(LOGGING, "us-east-1", "iam")
    iam.create_role(RoleName="EdfnAgent", AssumeRolePolicyDocument="{}")
    iam.put_role_policy(RoleName="EdfnAgent", PolicyName="edfn", PolicyDocument=json.dumps(policy(*ORIGINAL)))
    credentials = tmp_path / "enforced"
    credentials.write_text(f"[network]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", hub)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", hub_secret)
    settings = AwsSettings(
        region="us-east-1",
        regions=("us-east-1", "us-west-2"),
        credentials_file=credentials,
        roles=(RoleSource(role(LOGGING)),),
        endpoints=dict.fromkeys(
            ("ec2", "sts", "iam", "logs", "s3", "sqs", "sns", "events", "kinesis", "firehose"), proxy.url
        ),
    )
    with cloud.enforcing_permissions():
        snapshot = Discovery(Accounts(settings)).run()
    assert [each.status for each in snapshot.accounts] == ["ok", "ok"]
    denied = {each.subject: each.severity for each in snapshot.findings}
    assert set(denied.values()) == {"info"}, snapshot.findings
    # The optional calls were really asked, and really denied.
    assert {"ec2:DescribeSubnets", "ec2:DescribeInternetGateways", "logs:DescribeLogGroups"} <= {
        *denied,
        *("logs:DescribeLogGroups" for each in snapshot.findings if "DescribeLogGroups" in each.problem),
    }
    plan = SourcePlan(snapshot, EnabledInputs(s3="discovered", cloudwatch_logs="discovered"))
    assert plan.source_of(organisation.vpcs["shared-a"]) == "s3:central-logs"
    assert plan.source_of(organisation.vpcs["shared-c"]) == "s3:central-logs"
    assert plan.source_of(organisation.vpcs["edge"]) == f"cloudwatch_logs:{organisation.group_arns['edge']}"
    assert [each.url is not None for each in snapshot.queues] == [True]


def test_what_is_beyond_the_original_policy_is_optional_and_nothing_else() -> None:
    def has(action: str) -> bool:
        return any(action == each or (each.endswith("*") and action.startswith(each[:-1])) for each in ORIGINAL)

    assert {each.action for each in ALL if each.optional} == {each.action for each in ALL if not has(each.action)}


def test_the_document_names_every_call_and_what_is_missing_without_it() -> None:
    text = DOCUMENT.read_text()
    for call in ALL:
        assert f"| `{call.action}` |" in text, call.action
        assert call.without in text, call.action
