"""Every way of delivery carried out in moto: made, found there, made again without a change, used, removed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import ABROAD, HOME, REGION, run

Client = Callable[..., Any]
HERE = ("--account", HOME, "--region", REGION)
NAME = "edfn-flow-logs"


def apply(*words: str) -> str:
    result = run(*words, "--apply", "--yes")
    assert result.exit_code == 0, result.output
    return result.stdout


def undo(*words: str) -> str:
    result = run(*words, "--undo", "--yes", "--delete-data")
    assert result.exit_code == 0, result.output
    return result.stdout


def everything(aws: Client, account: str = HOME) -> dict[str, Any]:
    """What an account has of the kinds that setup makes."""
    return {
        "roles": [one["RoleName"] for one in aws("iam", account).list_roles()["Roles"]],
        "policies": [one["PolicyName"] for one in aws("iam", account).list_policies(Scope="Local")["Policies"]],
        "buckets": [one["Name"] for one in aws("s3", account).list_buckets()["Buckets"]],
        "queues": aws("sqs", account).list_queues().get("QueueUrls", []),
        "groups": [one["logGroupName"] for one in aws("logs", account).describe_log_groups()["logGroups"]],
        "streams": aws("kinesis", account).list_streams()["StreamNames"],
        "delivery": aws("firehose", account).list_delivery_streams()["DeliveryStreamNames"],
        "destinations": aws("logs", account).describe_destinations()["destinations"],
        "flow logs": aws("ec2", account).describe_flow_logs()["FlowLogs"],
    }


@pytest.mark.parametrize(
    "words",
    [
        ("s3", "--bucket", "my-logs", "--parquet", "--kms", "new"),
        ("cloudwatch",),
        ("cloudwatch", "--kms", "new"),
        ("kinesis", "--shards", "2", "--stream-hours", "48"),
        ("firehose", "--bucket", "my-logs"),
        ("firehose-http", "--bucket", "my-logs", "--url", "https://flows.example.com/"),
    ],
    ids=lambda words: " ".join(words),
)
def test_made_made_again_and_removed(aws: Client, vpc: str, words: tuple[str, ...], tmp_path: Path) -> None:
    before = everything(aws)
    if words[0] == "firehose-http":
        (tmp_path / "key").write_text("a-key-of-twenty-and-more\n")
        words = (*words, "--access-key-file", str(tmp_path / "key"))
    words = (*words, *HERE, "--vpc", vpc)
    apply(*words)
    [flow_log] = aws("ec2").describe_flow_logs()["FlowLogs"]
    assert flow_log["ResourceId"] == vpc
    assert flow_log["MaxAggregationInterval"] == 60
    assert "${next-hop-vpc-id}" in flow_log["LogFormat"]
    again = apply(*words)
    assert "Nothing to do." in again
    assert everything(aws)["flow logs"][0]["FlowLogId"] == flow_log["FlowLogId"]
    undo(*words)
    assert everything(aws) == before
    assert "Nothing of this is there." in run(*words, "--undo", "--yes").stdout


def test_it_asks_first(aws: Client, vpc: str) -> None:
    words = ("cloudwatch", *HERE, "--vpc", vpc)
    result = run(*words, "--apply", input="n\n")
    assert "to make      log group /edfn/flow-logs  (123456789012 us-east-1)" in result.stdout
    assert "to make      role edfn-flow-logs-publish-us-east-1" in result.stdout
    assert "Do this?" in result.stdout
    assert everything(aws)["groups"] == []
    apply(*words)
    result = run(*words, "--undo", input="n\n")
    assert "Remove this?" in result.stdout
    assert everything(aws)["groups"] == ["/edfn/flow-logs"]


def test_what_drifted_is_put_right(aws: Client, vpc: str) -> None:
    words = ("s3", *HERE, "--vpc", vpc, "--bucket", "my-logs")
    apply(*words)
    url = aws("sqs").get_queue_url(QueueName=NAME)["QueueUrl"]
    aws("sqs").set_queue_attributes(QueueUrl=url, Attributes={"ReceiveMessageWaitTimeSeconds": "0"})
    aws("s3").put_bucket_notification_configuration(Bucket="my-logs", NotificationConfiguration={})
    said = apply(*words)
    assert "to change    queue edfn-flow-logs  " in said
    assert "to make      notification edfn-flow-logs" in said
    attributes = aws("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert attributes["ReceiveMessageWaitTimeSeconds"] == "20"
    assert "Nothing to do." in apply(*words)


def test_other_peoples_things_are_left_alone(aws: Client, vpc: str) -> None:
    """A bucket that was there gets entries by name, keeps its own, and gets them back."""
    aws("s3").create_bucket(Bucket="shared")
    theirs = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "AWSLogDeliveryWrite",
                "Effect": "Allow",
                "Principal": {"Service": "delivery.logs.amazonaws.com"},
                "Action": "s3:PutObject",
                "Resource": "arn:aws:s3:::shared/AWSLogs/999999999999/*",
            }
        ],
    }
    aws("s3").put_bucket_policy(Bucket="shared", Policy=json.dumps(theirs))
    aws("sqs").create_queue(QueueName="theirs")
    told = {"Id": "theirs", "QueueArn": f"arn:aws:sqs:{REGION}:{HOME}:theirs", "Events": ["s3:ObjectRemoved:*"]}
    aws("s3").put_bucket_notification_configuration(
        Bucket="shared", NotificationConfiguration={"QueueConfigurations": [told]}
    )
    words = ("s3", *HERE, "--vpc", vpc, "--bucket", "shared")
    result = run(*words, "--apply", "--yes")
    assert result.exit_code == 1
    assert "bucket shared in 123456789012 us-east-1: it was there before" in result.output
    assert len(everything(aws)["queues"]) == 1  # theirs: nothing was made
    words = (*words, "--existing-bucket")
    apply(*words)
    found = json.loads(aws("s3").get_bucket_policy(Bucket="shared")["Policy"])["Statement"]
    assert [one["Sid"][:-8] if one["Sid"].startswith("Edfn") else one["Sid"] for one in found] == [
        *("AWSLogDeliveryWrite", "EdfnFlowLogsAWSLogDeliveryWrite", "EdfnFlowLogsAWSLogDeliveryAclCheck")
    ]
    assert len(announced(aws)) == 2
    undo(*words)
    assert json.loads(aws("s3").get_bucket_policy(Bucket="shared")["Policy"]) == theirs
    queues = aws("s3").get_bucket_notification_configuration(Bucket="shared")["QueueConfigurations"]
    assert [one["Id"] for one in queues] == ["theirs"]


def announced(aws: Client) -> dict[str, str]:
    """Of the shared bucket: its notifications, by the prefix that each is for."""
    found = aws("s3").get_bucket_notification_configuration(Bucket="shared").get("QueueConfigurations", [])
    rules = [
        {rule["Name"]: rule["Value"] for rule in one.get("Filter", {}).get("Key", {}).get("FilterRules", [])}
        for one in found
    ]
    return {rule.get("prefix", rule.get("Prefix", "")): one["Id"] for rule, one in zip(rules, found, strict=True)}


def test_what_is_set_up_beside_something_leaves_it_as_it_is(aws: Client, vpc: str) -> None:
    """The same name and bucket again, for another prefix and another account: both work, each is undone alone."""
    aws("s3").create_bucket(Bucket="shared")
    first = ("s3", *HERE, "--bucket", "shared", "--existing-bucket", "--vpc", vpc)
    other = ("s3", *HERE, "--bucket", "shared", "--existing-bucket", "--prefix", "network", "--source-account", ABROAD)

    def statements() -> list[Any]:
        return list(json.loads(aws("s3").get_bucket_policy(Bucket="shared")["Policy"])["Statement"])

    apply(*first)
    alone = statements()
    said = apply(*other)
    assert "is there     queue edfn-flow-logs  " in said
    assert [each for each in statements() if each in alone] == alone
    assert len(statements()) == 2 * len(alone)
    assert {f"network/AWSLogs/{ABROAD}/", f"AWSLogs/{HOME}/"} <= {
        each["Resource"].partition("/")[2].rstrip("*") for each in statements() if each["Action"] == "s3:PutObject"
    }
    assert set(announced(aws)) == {"AWSLogs/", "network/AWSLogs/"}
    for words in (first, other):
        assert "Nothing to do." in apply(*words)
    undo(*other)
    assert statements() == alone
    assert set(announced(aws)) == {"AWSLogs/"}


def test_a_set_up_is_of_one_bucket(aws: Client, vpc: str) -> None:
    """The same name for another bucket would take the queue or the delivery stream away from the first one."""
    for command in ("s3", "firehose"):
        name = ("--name", f"by-{command}")
        apply(command, *HERE, *name, "--vpc", vpc, "--bucket", f"{command}-one")
        words = (command, *HERE, *name, "--vpc", vpc, "--bucket", f"{command}-two", "--apply", "--yes")
        result = run(*words)
        assert result.exit_code == 1
        assert f"queue by-{command} in {HOME} {REGION}: it is there for arn:aws:s3:::{command}-one" in result.output
        assert f"{command}-two" not in everything(aws)["buckets"]
    assert f"delivery stream by-firehose in {HOME} {REGION}: it delivers to arn:aws:s3:::firehose-one" in result.output


def test_data_is_kept_unless_asked_for(aws: Client, vpc: str) -> None:
    words = ("s3", *HERE, "--vpc", vpc, "--bucket", "my-logs")
    apply(*words)
    # moto does not look at conditions: to it, the Deny of unencrypted transport denies everything.
    aws("s3").delete_bucket_policy(Bucket="my-logs")
    aws("s3").put_object(Bucket="my-logs", Key="AWSLogs/x.log.gz", Body=b"x")
    said = run(*words, "--undo", "--yes").stdout
    assert "kept     bucket my-logs: it holds objects; --delete-data removes them" in said
    assert everything(aws)["buckets"] == ["my-logs"]
    undo(*words)
    assert everything(aws)["buckets"] == []


def test_a_log_group_that_was_there_is_used_and_stays(aws: Client, vpc: str) -> None:
    aws("logs").create_log_group(logGroupName="/edfn/flow-logs")
    words = ("cloudwatch", *HERE, "--vpc", vpc)
    assert "was there before; used as it is log group /edfn/flow-logs" in apply(*words)
    undo(*words)
    assert everything(aws)["groups"] == ["/edfn/flow-logs"]


def test_a_flow_log_in_another_format_is_not_doubled(aws: Client, vpc: str) -> None:
    apply("s3", *HERE, "--vpc", vpc, "--bucket", "my-logs", "--log-format", "${version} ${vpc-id}")
    result = run("s3", *HERE, "--vpc", vpc, "--bucket", "my-logs", "--apply", "--yes")
    assert result.exit_code == 1
    assert "in another format, and a flow log cannot be changed" in result.output


def test_credentials_of_another_account_are_refused(aws: Client, vpc: str) -> None:
    result = run("cloudwatch", "--account", ABROAD, "--region", REGION, "--vpc", vpc, "--apply", "--yes")
    assert result.exit_code == 1
    assert f"the credentials in hand are of account {HOME}, this is for {ABROAD}" in result.output
    assert everything(aws, ABROAD)["groups"] == []


# --- two accounts -------------------------------------------------------------------------------------------------


@pytest.fixture
def vpc_abroad(aws: Client) -> str:
    return str(aws("ec2", ABROAD).create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"])


def test_firehose_across_accounts(aws: Client, vpc_abroad: str) -> None:
    """Document 000, both accounts."""
    words = (
        *("firehose", *HERE, "--bucket", "my-logs", "--vpc", f"{ABROAD}/{REGION}/{vpc_abroad}"),
        *("--delivery-stream", "flowlogs_stream", "--source-role", "mySourceRole"),
        *("--assume", f"{ABROAD}=arn:aws:iam::{ABROAD}:role/admin"),
    )
    apply(*words)
    assert aws("firehose").list_delivery_streams()["DeliveryStreamNames"] == ["flowlogs_stream"]
    [flow_log] = aws("ec2", ABROAD).describe_flow_logs()["FlowLogs"]
    assert flow_log["LogDestination"] == f"arn:aws:firehose:{REGION}:{HOME}:deliverystream/flowlogs_stream"
    assert flow_log["DeliverLogsPermissionArn"] == f"arn:aws:iam::{ABROAD}:role/mySourceRole"
    # moto takes DeliverCrossAccountRole and does not tell it again: test_documents.py has it.
    trust = aws("iam").get_role(RoleName="AWSLogDeliveryFirehoseCrossAccountRole")["Role"]["AssumeRolePolicyDocument"]
    assert trust["Statement"][0]["Principal"] == {"AWS": f"arn:aws:iam::{ABROAD}:role/mySourceRole"}
    assert "Nothing to do." in apply(*words)
    undo(*words)
    assert everything(aws, ABROAD)["roles"] == []
    assert everything(aws)["roles"] == []


def test_central(aws: Client, vpc_abroad: str, destinations: None) -> None:
    """Document 001, both accounts, with keys: the bucket's, and one for the log group in the source account."""
    words = (
        *("central", *HERE, "--bucket", "central-logs", "--kms", "new", "--log-group-kms", "new"),
        *("--vpc", f"{ABROAD}/{REGION}/{vpc_abroad}", "--assume", f"{ABROAD}=arn:aws:iam::{ABROAD}:role/admin"),
    )
    apply(*words)
    found = everything(aws)
    assert (found["buckets"], found["delivery"], found["flow logs"]) == (["central-logs"], [NAME], [])
    [destination] = found["destinations"]
    assert destination["destinationName"] == "VPCFlowLogsDestination"
    assert json.loads(destination["accessPolicy"])["Statement"][0]["Principal"] == {"AWS": ABROAD}
    [flow_log] = aws("ec2", ABROAD).describe_flow_logs()["FlowLogs"]
    assert flow_log["LogGroupName"] == "/edfn/flow-logs"
    [group] = aws("logs", ABROAD).describe_log_groups()["logGroups"]
    assert group["kmsKeyId"].startswith(f"arn:aws:kms:{REGION}:{ABROAD}:key/")
    [to] = aws("logs", ABROAD).describe_subscription_filters(logGroupName="/edfn/flow-logs")["subscriptionFilters"]
    assert to["destinationArn"] == destination["arn"]
    assert "Nothing to do." in apply(*words)
    undo(*words)
    for account in (HOME, ABROAD):
        assert [value for value in everything(aws, account).values() if value] == []


def test_central_in_one_account_with_every_key(aws: Client, vpc: str, destinations: None) -> None:
    words = ("central", *HERE, "--bucket", "central-logs", "--kms", "new", "--log-group-kms", "new", "--vpc", vpc)
    apply(*words)
    aliases = [each["AliasName"] for each in aws("kms").list_aliases()["Aliases"] if NAME in each["AliasName"]]
    assert sorted(aliases) == [f"alias/{NAME}", f"alias/{NAME}-logs"]
    assert "Nothing to do." in apply(*words)


def test_central_to_an_encrypted_stream(aws: Client, vpc: str, destinations: None) -> None:
    words = ("central", *HERE, "--kms", "new", "--vpc", vpc)
    apply(*words)
    described = aws("kinesis").describe_stream_summary(StreamName=NAME)["StreamDescriptionSummary"]
    assert described["KeyId"].startswith(f"arn:aws:kms:{REGION}:{HOME}:key/")
    role = aws("iam").get_role_policy(RoleName=f"{NAME}-to-target-{REGION}", PolicyName="put")["PolicyDocument"]
    assert [each["Action"] for each in role["Statement"]] == [
        ["kinesis:PutRecord", "kinesis:PutRecords"],
        "kms:GenerateDataKey",
    ]
    assert "Nothing to do." in apply(*words)
    undo(*words)
    assert [value for value in everything(aws).values() if value] == []
