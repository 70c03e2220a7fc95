"""The example values of the vendor's and AWS's documents give their roles, policies and commands.

With --as-documented word for word; without it, today's form, whose differences docs/setup.md explains.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

from edfn_agent.formats.fields import DEFAULT_NAMES
from edfn_agent.setup.agent_policy import LIKE_EDFN

from .conftest import VPC, printed, resources

SOURCE, DESTINATION = "111111111111", "123456789012"
FIREHOSE = (
    *("firehose", "--account", DESTINATION, "--region", "us-east-1", "--bucket", "my-logs", "--log-format", "default"),
    *("--vpc", f"{SOURCE}/us-east-1/{VPC}", "--delivery-stream", "flowlogs_stream", "--source-role", "mySourceRole"),
)


def policy_of(role: dict[str, Any]) -> Any:
    [one] = role["Properties"]["Policies"]
    return one["PolicyDocument"]


def trust_of(role: dict[str, Any]) -> Any:
    return role["Properties"]["AssumeRolePolicyDocument"]


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def test_cross_account_source_role() -> None:
    """Flow logs to Firehose: the source account's role. The same with and without --as-documented."""
    for more in ((), ("--as-documented",)):
        role = resources(*FIREHOSE, *more)["SourceRole"]
        assert role["Properties"]["RoleName"] == "mySourceRole"
        assert policy_of(role) == document(
            {
                "Effect": "Allow",
                "Action": "iam:PassRole",
                "Resource": f"arn:aws:iam::{SOURCE}:role/mySourceRole",
                "Condition": {
                    "StringEquals": {"iam:PassedToService": "delivery.logs.amazonaws.com"},
                    "StringLike": {"iam:AssociatedResourceARN": [f"arn:aws:ec2:us-east-1:{SOURCE}:vpc/{VPC}"]},
                },
            },
            {
                "Effect": "Allow",
                "Action": [
                    "logs:CreateLogDelivery",
                    "logs:DeleteLogDelivery",
                    "logs:ListLogDeliveries",
                    "logs:GetLogDelivery",
                ],
                "Resource": "*",
            },
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Resource": f"arn:aws:iam::{DESTINATION}:role/AWSLogDeliveryFirehoseCrossAccountRole",
            },
        )
        assert trust_of(role) == document(
            {"Effect": "Allow", "Principal": {"Service": "delivery.logs.amazonaws.com"}, "Action": "sts:AssumeRole"}
        )


def test_cross_account_destination_role() -> None:
    literal = resources(*FIREHOSE, "--as-documented")["DestinationRole"]
    assert policy_of(literal) == document(
        {"Effect": "Allow", "Action": ["iam:CreateServiceLinkedRole", "firehose:TagDeliveryStream"], "Resource": "*"}
    )
    today = resources(*FIREHOSE)["DestinationRole"]
    assert policy_of(today)["Statement"][1]["Resource"].endswith(":deliverystream/flowlogs_stream")
    for role in (literal, today):
        assert role["Properties"]["RoleName"] == "AWSLogDeliveryFirehoseCrossAccountRole"
        assert trust_of(role) == document(
            {
                "Effect": "Allow",
                "Principal": {"AWS": f"arn:aws:iam::{SOURCE}:role/mySourceRole"},
                "Action": "sts:AssumeRole",
            }
        )


def test_cross_account_flow_log_and_order() -> None:
    properties = resources(*FIREHOSE)["FlowLogVpc00112233344556677"]["Properties"]
    assert properties["DeliverCrossAccountRole"] == (
        f"arn:aws:iam::{DESTINATION}:role/AWSLogDeliveryFirehoseCrossAccountRole"
    )
    script = printed(*FIREHOSE, "--format", "cli").replace("\\\n", " ")
    commands = [shlex.split(line) for line in script.splitlines() if line.startswith("aws ")]
    [create] = [words for words in commands if words[2] == "create-flow-logs"]
    said = dict(zip(create[3::2], create[4::2], strict=True))
    assert said.pop("--tag-specifications")
    assert said == {
        "--traffic-type": "ALL",
        "--resource-type": "VPC",
        "--resource-ids": VPC,
        "--log-destination-type": "kinesis-data-firehose",
        # The document writes deliverystream:NAME; the ARN that Firehose itself gives has a slash.
        "--log-destination": f"arn:aws:firehose:us-east-1:{DESTINATION}:deliverystream/flowlogs_stream",
        "--deliver-logs-permission-arn": f"arn:aws:iam::{SOURCE}:role/mySourceRole",
        "--deliver-cross-account-role": f"arn:aws:iam::{DESTINATION}:role/AWSLogDeliveryFirehoseCrossAccountRole",
        "--max-aggregation-interval": "60",
        "--region": "us-east-1",
    }
    # A trust policy may only name a role that exists, and a flow log a role and a stream that exist.
    order = [script.index(f"--role-name {name}") for name in ("mySourceRole", "AWSLogDeliveryFirehoseCrossAccountRole")]
    assert order[0] < order[1] < script.index("create-flow-logs")


CENTRAL = (
    *("central", "--account", "999999999999", "--region", "eu-west-1", "--bucket", "central-logs"),
    *("--vpc", f"{DESTINATION}/eu-west-1/vpc-12345678", "--role", "PublishFlowLogs", "--log-group", "vpc-flow-logs"),
    *("--log-format", "default", "--as-documented"),
)


def test_centralized_flow_logs() -> None:
    """How to facilitate data analysis ... by using centralized flow log data."""
    found = resources(*CENTRAL)
    destination = found["Destination"]["Properties"]
    assert destination["DestinationName"] == "VPCFlowLogsDestination"
    assert json.loads(destination["DestinationPolicy"]) == document(
        {
            "Effect": "Allow",
            "Principal": {"AWS": DESTINATION},
            "Action": "logs:PutSubscriptionFilter",
            "Resource": "arn:aws:logs:eu-west-1:999999999999:destination:VPCFlowLogsDestination",
        }
    )
    role = found["FlowLogRole"]
    assert role["Properties"]["RoleName"] == "PublishFlowLogs"
    assert trust_of(role) == document(
        {"Effect": "Allow", "Principal": {"Service": "vpc-flow-logs.amazonaws.com"}, "Action": "sts:AssumeRole"}
    )
    assert policy_of(role) == document(
        {
            "Effect": "Allow",
            "Action": [
                "logs:CreateLogGroup",
                "logs:CreateLogStream",
                "logs:PutLogEvents",
                "logs:DescribeLogGroups",
                "logs:DescribeLogStreams",
            ],
            "Resource": "*",
        }
    )
    assert found["SubscriptionFilter"]["Properties"] == {
        "LogGroupName": "vpc-flow-logs",
        "FilterName": "AllTraffic",
        "FilterPattern": "",
        "DestinationArn": "arn:aws:logs:eu-west-1:999999999999:destination:VPCFlowLogsDestination",
    }
    script = printed(*CENTRAL, "--format", "cli").replace("\\\n", " ")
    assert re.search(r"aws logs create-log-group\s+--log-group-name vpc-flow-logs", script)
    assert re.search(r"--resource-type VPC\s+--resource-ids vpc-12345678\s+--traffic-type ALL", script)
    assert re.search(r"--filter-name AllTraffic\s+--filter-pattern=", script)


def test_flow_logs_to_s3() -> None:
    """Configure VPC flow logs: the bucket's policy."""
    words = ("s3", "--account", DESTINATION, "--region", "us-east-1", "--bucket", "bucket-name", "--vpc", VPC)
    literal = resources(*words, "--prefix", "optional_folder", "--as-documented")
    assert literal["BucketPolicy"]["Properties"]["PolicyDocument"] == document(
        {
            "Sid": "AWSLogDeliveryWrite",
            "Effect": "Allow",
            "Principal": {"Service": "delivery.logs.amazonaws.com"},
            "Action": "s3:PutObject",
            "Resource": f"arn:aws:s3:::bucket-name/optional_folder/AWSLogs/{DESTINATION}/*",
            "Condition": {"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}},
        },
        {
            "Sid": "AWSLogDeliveryAclCheck",
            "Effect": "Allow",
            "Principal": {"Service": "delivery.logs.amazonaws.com"},
            "Action": "s3:GetBucketAcl",
            "Resource": "arn:aws:s3:::bucket-name",
        },
    )
    queue = literal["QueuePolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert queue["Condition"] == {"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:*:bucket-name"}}
    assert literal["Queue"]["Properties"]["ReceiveMessageWaitTimeSeconds"] == 20
    today = resources(*words)["QueuePolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert today["Principal"] == {"Service": "s3.amazonaws.com"}
    assert today["Condition"] == {
        "ArnEquals": {"aws:SourceArn": "arn:aws:s3:::bucket-name"},
        "StringEquals": {"aws:SourceAccount": DESTINATION},
    }
    write = resources(*words, "--hive")["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"][0]
    assert write["Resource"] == f"arn:aws:s3:::bucket-name/AWSLogs/aws-account-id={DESTINATION}/*"
    assert write["Condition"] == {
        "StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control", "aws:SourceAccount": DESTINATION},
        "ArnLike": {"aws:SourceArn": f"arn:aws:logs:us-east-1:{DESTINATION}:*"},
    }


def test_the_original_products_template() -> None:
    """Group with 30 days, stream with 24 hours and one shard, filter and two roles; no flow log."""
    found = resources(
        *("kinesis", "--account", DESTINATION, "--region", "us-east-1", "--log-group", "NFLVpcFlowLogGroup"),
        *("--stream", "NFLVpcKinesisStream", "--filter", "NFLVpcFlowLogsSubscriptionFilter"),
        *("--role", "NFLVpcFlowLogRole-us-east-1", "--role-to-stream", "NFLCwlToKinesisRole-us-east-1"),
    )
    assert {entry["Type"] for entry in found.values()} == {
        *("AWS::Logs::LogGroup", "AWS::IAM::Role", "AWS::Kinesis::Stream", "AWS::Logs::SubscriptionFilter")
    }
    assert found["LogGroup"]["Properties"]["RetentionInDays"] == 30
    assert found["Stream"]["Properties"]["RetentionPeriodHours"] == 24
    assert found["Stream"]["Properties"]["ShardCount"] == 1
    assert found["ToStreamRole"]["Properties"]["RoleName"] == "NFLCwlToKinesisRole-us-east-1"


def test_the_original_products_policy() -> None:
    shown = json.loads(printed("policy", "--like-edfn", "--format", "json"))
    assert [statement["Sid"] for statement in shown["Statement"]] == [
        *("EdfnMinPermissions", "S3Permissions", "KCLPermissions")
    ]
    assert [len(statement["Action"]) for statement in shown["Statement"]] == [14, 8, 15]
    assert all(statement["Resource"] == "*" for statement in shown["Statement"])
    assert shown == document(*LIKE_EDFN)


def test_formats() -> None:
    words = ("s3", "--account", DESTINATION, "--region", "us-east-1", "--bucket", "bucket-name")
    vpc = resources(*words, "--vpc", VPC)["FlowLogVpc00112233344556677"]["Properties"]
    names = re.findall(r"\$\{([a-z0-9-]+)\}", vpc["LogFormat"])
    assert tuple(names[:14]) == DEFAULT_NAMES
    assert "next-hop-interface-type" in names
    assert "ecs-task-id" in names
    # AWS refuses the tag fields without the keys of the tags.
    assert not any(name.endswith(("-tag", "-tag-2")) for name in names)
    tagged = resources(*words, "--vpc", VPC, "--tag-key", "instance=Name", "--tag-key", "instance=Team")
    properties = tagged["FlowLogVpc00112233344556677"]["Properties"]
    assert "${instance-tag} ${instance-tag-2}" in properties["LogFormat"]
    assert properties["TagFieldSpecifications"] == [{"ResourceType": "instance", "TagKeys": ["Name", "Team"]}]
    gateway = resources(*words, "--transit-gateway", "tgw-0011223344556677a")["FlowLogTgw0011223344556677A"][
        "Properties"
    ]
    assert gateway["LogFormat"].startswith("${version} ${resource-type} ${account-id} ${tgw-id}")
    assert "TrafficType" not in gateway
    assert gateway["MaxAggregationInterval"] == 60
    five = resources(*words, "--vpc", VPC, "--field-version", "5", "--no-ecs-fields", "--parquet", "--hive", "--hourly")
    properties = five["FlowLogVpc00112233344556677"]["Properties"]
    assert properties["LogFormat"].endswith("${flow-direction} ${traffic-path}")
    assert properties["DestinationOptions"] == {
        "FileFormat": "parquet",
        "HiveCompatiblePartitions": True,
        "PerHourPartition": True,
    }
