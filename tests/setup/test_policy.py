"""The agent's policy: only what is in use, and, where moto can enforce it, enough and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.core import set_initial_no_auth_action_count

from edfn_agent.setup.agent_policy import Access, StreamUse, hub, member

from .conftest import ABROAD, HOME, REGION, VPC, printed, run

Client = Callable[..., Any]
IDENTITY = f"arn:aws:iam::{HOME}:role/edfn-agent"

CONFIG = f"""
collectors: [udp://192.0.2.10:4739]
aws:
  region: {REGION}
  roles:
    - {{arn: "arn:aws:iam::{ABROAD}:role/EdfnAgent", external_id: an-external-id}}
inputs:
  s3:
    queues: ["https://sqs.us-east-1.amazonaws.com/{ABROAD}/flow-logs"]
  cloudwatch_logs:
    log_groups: [/vpc/flow-logs]
"""


def actions(statements: Any) -> set[str]:
    found: set[str] = set()
    for statement in statements:
        found |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return found


def access(*inputs: str, **more: Any) -> Access:
    return Access(frozenset(inputs), **more)


def test_only_inputs_in_use() -> None:
    assert not any(action.startswith(("s3:", "sqs:")) for action in actions(member(access("cloudwatch_logs"), HOME)))
    assert not any(action.startswith("kinesis:") for action in actions(member(access("s3"), HOME)))
    assert "logs:GetLogEvents" not in actions(member(access("s3"), HOME))
    assert "logs:DescribeSubscriptionFilters" in actions(member(access("kinesis"), HOME))
    for made in (member(access("s3"), HOME), hub(access("s3"), HOME, "aws", [f"arn:aws:iam::{ABROAD}:role/EdfnAgent"])):
        assert not any(action.startswith(("dynamodb:", "cloudwatch:")) for action in actions(made))


def test_everything_that_discovery_asks_is_in_it() -> None:
    calls = pytest.importorskip("edfn_agent.inventory.calls")
    allowed = actions(member(access("s3", "cloudwatch_logs", "kinesis", "firehose"), HOME))
    assert {call.action for call in calls.ALL} <= allowed


def test_known_resources_are_named() -> None:
    made = member(
        access(
            *("s3", "kinesis", "cloudwatch_logs"),
            buckets=("my-logs/AWSLogs/",),
            queues=(f"arn:aws:sqs:{REGION}:{HOME}:edfn",),
            log_groups=("/vpc/flow-logs",),
            streams=(StreamUse(f"arn:aws:kinesis:{REGION}:{HOME}:stream/a", fan_out=True),),
            keys=(f"arn:aws:kms:{REGION}:{HOME}:key/1",),
        ),
        HOME,
    )
    named = {statement["Sid"]: statement["Resource"] for statement in made}
    assert named["ObjectsRead"] == "arn:aws:s3:::my-logs/AWSLogs/*"
    assert named["BucketsFind"] == "arn:aws:s3:::my-logs"
    assert named["QueuesRead"] == f"arn:aws:sqs:{REGION}:{HOME}:edfn"
    assert named["LogGroupsRead"] == [
        f"arn:aws:logs:*:{HOME}:log-group:/vpc/flow-logs",
        f"arn:aws:logs:*:{HOME}:log-group:/vpc/flow-logs:*",
    ]
    assert named["StreamsRead"] == f"arn:aws:kinesis:{REGION}:{HOME}:stream/a"
    assert named["FanOutRead"] == f"arn:aws:kinesis:{REGION}:{HOME}:stream/a/consumer/*"
    assert named["Decrypt"] == f"arn:aws:kms:{REGION}:{HOME}:key/1"


HERE = StreamUse(f"arn:aws:kinesis:{REGION}:{HOME}:stream/a")
THERE = StreamUse(f"arn:aws:kinesis:{REGION}:{ABROAD}:stream/b", fan_out=True)
ROLE_THERE = f"arn:aws:iam::{ABROAD}:role/EdfnAgent"


def leases(statements: Any) -> Any:
    found = [statement["Resource"] for statement in statements if statement.get("Sid") == "Leases"]
    assert len(found) <= 1
    return found[0] if found else None


def test_leases_are_in_the_account_of_the_stream() -> None:
    both = access("kinesis", streams=(HERE, THERE), kinesis_metrics=True)
    there = member(both, ABROAD)
    tables = [f"arn:aws:dynamodb:{REGION}:{ABROAD}:table/edfn-agent-b{end}" for end in ("", "-*")]
    assert leases(there) == tables
    named = {statement["Sid"]: statement for statement in there}
    assert named["LeasesByOwner"]["Resource"] == [f"{table}/index/*" for table in tables]
    assert named["LibraryMetrics"]["Condition"] == {
        "StringLike": {"cloudwatch:namespace": ["edfn-agent-b", "edfn-agent-b-*"]}
    }
    assert leases(member(both, "999999999999")) is None
    # the identity itself: for its own account's stream, and for no other
    assert leases(hub(both, HOME, "aws", [ROLE_THERE])) == [
        f"arn:aws:dynamodb:{REGION}:{HOME}:table/edfn-agent-a{end}" for end in ("", "-*")
    ]
    theirs = access("kinesis", streams=(THERE,), kinesis_metrics=True)
    assert actions(hub(theirs, HOME, "aws", [ROLE_THERE])) == {"sts:AssumeRole"}
    assert actions(hub(access("kinesis"), HOME, "aws", [ROLE_THERE])) == {"sts:AssumeRole"}
    role_here = f"arn:aws:iam::{HOME}:role/EdfnAgent"
    assert actions(hub(both, HOME, "aws", [role_here, ROLE_THERE])) == {"sts:AssumeRole"}


def test_leases_of_discovered_streams_are_in_every_account() -> None:
    for account in (HOME, ABROAD):
        assert leases(member(access("kinesis"), account)) == f"arn:aws:dynamodb:*:{account}:table/edfn-agent-*"
    assert not any(action.startswith("cloudwatch:") for action in actions(member(access("kinesis"), HOME)))


def test_a_named_application_names_its_tables() -> None:
    stream = StreamUse(HERE.arn, application="lab")
    tables = [f"arn:aws:dynamodb:{REGION}:{HOME}:table/lab{end}" for end in ("", "-*")]
    assert leases(member(access("kinesis", streams=(stream,)), HOME)) == tables


def test_the_document_lists_what_the_library_calls() -> None:
    """docs/permissions.md and the policy name the same actions of Kinesis, DynamoDB and CloudWatch."""
    text = (Path(__file__).parents[2] / "docs" / "permissions.md").read_text()
    section = text.partition("\n## Kinesis\n")[2].partition("\n### ")[0]
    documented = set(re.findall(r"`((?:kinesis|dynamodb|cloudwatch):[A-Z][A-Za-z]+)`", section))
    streams = (StreamUse(HERE.arn, fan_out=True),)
    made = member(access("kinesis", streams=streams, kinesis_metrics=True), HOME)
    assert documented == {each for each in actions(made) if each.startswith(("kinesis:", "dynamodb:", "cloudwatch:"))}


def test_from_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(CONFIG)
    words = ("policy", "-c", str(tmp_path / "agent.yaml"), "--agent-identity", IDENTITY, "--format", "json")
    found = json.loads(printed(*words))
    assert found[f"policy EdfnAgentPolicy in {HOME}"]["Statement"] == [
        {
            "Sid": "Roles",
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Resource": f"arn:aws:iam::{ABROAD}:role/EdfnAgent",
        }
    ]
    assert found[f"role EdfnAgent in {ABROAD}: trust"]["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"AWS": IDENTITY},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalId": "an-external-id"}},
        }
    ]
    role = {one["Sid"]: one for one in found[f"role EdfnAgent in {ABROAD}"]["Statement"]}
    assert role["QueuesRead"]["Resource"] == f"arn:aws:sqs:us-east-1:{ABROAD}:flow-logs"
    assert role["LogGroupsRead"]["Resource"][0] == f"arn:aws:logs:*:{ABROAD}:log-group:/vpc/flow-logs"
    assert "StreamsRead" not in role


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text(CONFIG)
    assert "--agent-identity ARN" in run("policy", "-c", str(tmp_path / "agent.yaml")).output
    assert "Which inputs are in use?" in run("policy", "--account", HOME).output
    assert "Which account?" in run("policy", "--like-edfn").output or "which account" in run("policy").output.lower()


def test_made_changed_and_removed(aws: Client, tmp_path: Path) -> None:
    aws("iam").create_role(RoleName="edfn-agent", AssumeRolePolicyDocument="{}")
    (tmp_path / "agent.yaml").write_text(CONFIG)
    words = ["policy", "-c", str(tmp_path / "agent.yaml"), "--agent-identity", IDENTITY]
    words += ["--assume", f"{ABROAD}=arn:aws:iam::{ABROAD}:role/admin", "--yes"]
    assert run(*words, "--apply").exit_code == 0
    attached = aws("iam").list_attached_role_policies(RoleName="edfn-agent")["AttachedPolicies"]
    assert [one["PolicyName"] for one in attached] == ["EdfnAgentPolicy"]
    assert aws("iam", ABROAD).get_role(RoleName="EdfnAgent")
    assert "Nothing to do." in run(*words, "--apply").output
    streams = f"  kinesis: {{streams: [{{arn: {HERE.arn}}}, {{arn: {THERE.arn}}}]}}\n"  # one of each account
    (tmp_path / "agent.yaml").write_text(CONFIG + streams)
    said = run(*words, "--apply").output
    assert "to change    managed policy EdfnAgentPolicy" in said
    assert "to change    role EdfnAgent" in said
    assert "Nothing to do." in run(*words, "--apply").output
    assert run(*words, "--undo").exit_code == 0
    assert [one["RoleName"] for one in aws("iam").list_roles()["Roles"]] == ["edfn-agent"]
    assert aws("iam", ABROAD).list_roles()["Roles"] == []
    assert aws("iam").list_policies(Scope="Local")["Policies"] == []


# --- enforced -----------------------------------------------------------------------------------------------------


def as_user(aws: Client, document: str, work: Callable[[Client], None]) -> None:
    """Run `work` with the clients of a user who has this policy and nothing else, with moto checking every call."""
    aws("iam").create_user(UserName="edfn")
    aws("iam").put_user_policy(UserName="edfn", PolicyName="p", PolicyDocument=document)
    key = aws("iam").create_access_key(UserName="edfn")["AccessKey"]
    session = boto3.Session(key["AccessKeyId"], key["SecretAccessKey"], region_name=REGION)
    set_initial_no_auth_action_count(0)(lambda: work(session.client))()


def refused(call: Callable[..., Any], **parameters: Any) -> bool:
    try:
        call(**parameters)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] == 403 or "Unauthorized" in str(error):
            return True
        raise
    return False


def test_the_agents_policy_is_enough_for_s3_and_no_more(aws: Client, vpc: str) -> None:
    """setup s3 makes it, setup policy allows it, and a user with that policy alone works through it."""
    run("s3", "--account", HOME, "--region", REGION, "--vpc", vpc, "--bucket", "my-logs", "--apply", "--yes")
    url = aws("sqs").get_queue_url(QueueName="edfn-flow-logs")["QueueUrl"]
    aws("s3").delete_bucket_policy(Bucket="my-logs")  # moto reads its Deny without the condition
    key = f"AWSLogs/{HOME}/x.log.gz"
    aws("s3").put_object(Bucket="my-logs", Key=key, Body=b"x")
    aws("s3").put_object(Bucket="my-logs", Key="other/x.log.gz", Body=b"x")
    aws("s3").create_bucket(Bucket="others")

    def work(client: Client) -> None:
        ec2, s3, sqs = client("ec2"), client("s3"), client("sqs")
        ec2.describe_flow_logs()
        ec2.describe_network_interfaces()
        s3.get_bucket_notification_configuration(Bucket="my-logs")
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        assert any(HOME in message["Body"] and "AWSLogs" in message["Body"] for message in messages)
        assert s3.get_object(Bucket="my-logs", Key=key)["Body"].read() == b"x"
        sqs.delete_message(QueueUrl=url, ReceiptHandle=messages[0]["ReceiptHandle"])
        assert refused(s3.get_object, Bucket="my-logs", Key="other/x.log.gz")
        assert refused(s3.put_object, Bucket="my-logs", Key=key, Body=b"")
        assert refused(s3.get_bucket_location, Bucket="others")
        assert refused(sqs.send_message, QueueUrl=url, MessageBody="x")
        assert refused(ec2.create_flow_logs, ResourceType="VPC", ResourceIds=[vpc], TrafficType="ALL")
        assert refused(client("logs").describe_log_groups)
        assert refused(client("kinesis").list_streams)

    queue = f"arn:aws:sqs:{REGION}:{HOME}:edfn-flow-logs"
    words = ("--bucket", "my-logs/AWSLogs/", "--queue", queue)
    as_user(aws, printed("policy", "--account", HOME, *words, "--format", "json"), work)


def test_the_agents_policy_is_enough_for_log_groups(aws: Client, vpc: str) -> None:
    run("cloudwatch", "--account", HOME, "--region", REGION, "--vpc", vpc, "--apply", "--yes")
    aws("logs").create_log_stream(logGroupName="/edfn/flow-logs", logStreamName="eni-1-all")

    def work(client: Client) -> None:
        logs = client("logs")
        logs.describe_log_groups()
        logs.filter_log_events(logGroupName="/edfn/flow-logs")
        logs.get_log_events(logGroupName="/edfn/flow-logs", logStreamName="eni-1-all")
        logs.describe_subscription_filters(logGroupName="/edfn/flow-logs")
        assert refused(logs.delete_log_group, logGroupName="/edfn/flow-logs")
        assert refused(logs.put_retention_policy, logGroupName="/edfn/flow-logs", retentionInDays=1)

    # moto asks for every action of CloudWatch Logs on `*` and so refuses a policy that names its groups: here the
    # actions alone are tried, test_known_resources_are_named has the resources.
    words = ("policy", "--account", HOME, "--log-group", "/edfn/flow-logs", "--format", "json")
    document = json.loads(printed(*words))
    for statement in document["Statement"]:
        statement["Resource"] = "*"
    as_user(aws, json.dumps(document), work)


def test_the_original_policy_is_enough_for_what_it_is_for(aws: Client) -> None:
    def work(client: Client) -> None:
        client("ec2").describe_flow_logs()
        client("ec2").describe_vpcs()
        assert refused(client("logs").describe_log_groups)
        assert refused(client("ec2").describe_subnets)

    as_user(aws, printed("policy", "--like-edfn", "--account", HOME, "--format", "json"), work)


def test_watched_things_are_checked() -> None:
    for words, text in (
        (("--vpc", "subnet-0011223344"), "that is the id of something else (Subnet)"),
        (("--vpc", "vpc-xyz"), "is not the id of a VPC"),
        (("--vpc", f"1/eu-west-1/{VPC}"), "is not an AWS account id"),
        (("--vpc", f"{HOME}/nowhere/{VPC}"), "is not the name of an AWS region"),
        ((), "nothing is watched"),
    ):
        result = run("s3", "--account", HOME, "--region", "eu-west-1", "--bucket", "my-logs", *words)
        assert result.exit_code in (1, 2)
        assert text in result.output


def test_a_role_with_a_path(aws: Client) -> None:
    """In the trust and in the agent's policy it stands whole; IAM wants its name and its path apart."""
    arn = f"arn:aws:iam::{HOME}:role/teams/network/EdfnAgent"
    identity = f"arn:aws:iam::{ABROAD}:role/service/edfn-agent"
    assume = ("--assume", f"{ABROAD}=arn:aws:iam::{ABROAD}:role/admin")
    words = ("policy", "--agent-identity", identity, "--role", f"{arn},an-id", "--input", "s3", *assume)
    aws("iam", ABROAD).create_role(RoleName="edfn-agent", Path="/service/", AssumeRolePolicyDocument="{}")
    said = run(*words, "--apply", "--yes")
    assert said.exit_code == 0, said.output
    made = aws("iam").get_role(RoleName="EdfnAgent")["Role"]
    assert (made["Arn"], made["Path"]) == (arn, "/teams/network/")
    assert made["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == {"AWS": identity}
    [attached] = aws("iam", ABROAD).list_attached_role_policies(RoleName="edfn-agent")["AttachedPolicies"]
    version = aws("iam", ABROAD).get_policy_version(PolicyArn=attached["PolicyArn"], VersionId="v1")["PolicyVersion"]
    assert version["Document"]["Statement"][0]["Resource"] == arn
    assert "Nothing to do." in run(*words, "--apply", "--yes").stdout
    assert run(*words, "--undo", "--yes").exit_code == 0
    assert aws("iam").list_roles()["Roles"] == []


def test_access_points(tmp_path: Path) -> None:
    """Objects behind an access point have ARNs of their own, beside those of the bucket."""
    point = "arn:aws:s3:us-east-1:999999999999:accesspoint/edfn-agent"
    text = CONFIG.replace("  s3:\n", f'  s3:\n    access_points: {{flow-logs: "{point}"}}\n')
    (tmp_path / "agent.yaml").write_text(text)
    shown = printed("policy", "-c", str(tmp_path / "agent.yaml"), "--agent-identity", IDENTITY, "--format", "json")
    statements = json.loads(shown)[f"role EdfnAgent in {ABROAD}"]["Statement"]
    [read] = [each for each in statements if each.get("Sid") == "ObjectsRead"]
    assert read["Resource"] == ["arn:aws:s3:::*/*", f"{point}/object/*"]
    typed = printed("policy", "--account", HOME, "--bucket", "b01", "--bucket", f"{point}/AWSLogs/", "--format", "json")
    [read] = [each for each in json.loads(typed)["Statement"] if each.get("Sid") == "ObjectsRead"]
    assert read["Resource"] == ["arn:aws:s3:::b01/*", f"{point}/object/AWSLogs/*"]
    wrong = run("policy", "--account", HOME, "--bucket", "arn:aws:s3:::b01")
    assert "write its name, or the ARN of an access point" in wrong.output


def test_a_region_says_its_partition() -> None:
    shown = printed("policy", "--account", HOME, "--region", "cn-north-1", "--input", "s3", "--format", "json")
    assert "arn:aws-cn:s3:::*" in shown
    assert "arn:aws:" not in shown
    identity = f"arn:aws-us-gov:iam::{HOME}:role/edfn-agent"
    template = printed("policy", "--agent-identity", identity, "--input", "cloudwatch_logs")
    assert "--region us-gov-west-1" in template
    assert "arn:aws:" not in template


def test_one_role_for_two_regions_is_refused() -> None:
    things = [word for region in ("eu-west-1", "us-east-1") for word in ("--vpc", f"{HOME}/{region}/{VPC}")]
    words = ("cloudwatch", "--account", HOME, "--region", "eu-west-1", *things)
    assert run(*words).exit_code == 0
    result = run(*words, "--role", "FlowLogs")
    assert (result.exit_code, f"account {HOME} would get two roles called FlowLogs" in result.output) == (1, True)


def test_two_roles_of_one_account_are_refused() -> None:
    roles = [word for name in ("One", "Other") for word in ("--role", f"arn:aws:iam::{ABROAD}:role/{name}")]
    result = run("policy", "--agent-identity", IDENTITY, "--input", "s3", *roles)
    assert (result.exit_code, f"account {ABROAD} has 2 roles" in result.output) == (1, True)
