"""With permissions enforced: the original policy is enough, and each action taken away is found and mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from faultproxy import Call, FaultProxy, Reply

from tests.doctor.world import (
    ACCOUNT,
    BUCKET,
    ORIGINAL,
    QUEUE,
    REGION,
    World,
    checks,
    configured,
    emptied,
    named,
    one,
    run,
    without,
)


@pytest.fixture
def config(world: World, proxy: FaultProxy, collector: str, tmp_path: Path) -> Path:
    return configured(tmp_path, proxy.url, world.key, collectors=[collector])


def examined(world: World, config: Path, policy: Any = ORIGINAL, *options: str) -> tuple[int, list[dict[str, Any]]]:
    world.allow(policy)
    with world.cloud.enforcing_permissions():
        result = run("doctor", "-c", config, "--json", *options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, checks(result)


def test_the_original_policy_is_enough(world: World, config: Path) -> None:
    status, found = examined(world, config)
    assert [each for each in found if each["status"] in ("error", "warning")] == []
    assert status == 0
    tried = {each["id"].removeprefix("permission.") for each in named_permissions(found, "ok")}
    assert {
        "ec2:DescribeVpcs",
        "ec2:DescribeFlowLogs",
        "ec2:DescribeNetworkInterfaces",
        "logs:DescribeSubscriptionFilters",
        "logs:DescribeLogStreams",
        "logs:GetLogEvents",
        "s3:GetBucketLocation",
        "s3:GetBucketNotification",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:ReceiveMessage",
        "sqs:DeleteMessage",
        "sqs:ChangeMessageVisibility",
        "kinesis:DescribeStreamSummary",
        "kinesis:ListShards",
        "kinesis:GetShardIterator",
        "kinesis:GetRecords",
        "kinesis:ListStreamConsumers",
        "dynamodb:DescribeTable",
        "dynamodb:Scan",
        "dynamodb:GetItem",
    } <= tried
    # What cannot be tried without changing something is said to be untried.
    untried = {each["id"].removeprefix("permission.") for each in named_permissions(found, "untried")}
    writes = {
        f"dynamodb:{each}" for each in ("CreateTable", "UpdateTable", "PutItem", "UpdateItem", "DeleteItem", "Query")
    }
    assert untried == writes | {"s3:GetObject"}
    # What only comforts is missed as information.
    optional = {each["id"].removeprefix("permission.") for each in named_permissions(found, "info")}
    assert {"ec2:DescribeSubnets", "logs:FilterLogEvents", "logs:DescribeLogGroups"} <= optional


def named_permissions(found: list[dict[str, Any]], status: str) -> list[dict[str, Any]]:
    return [each for each in found if each["id"].startswith("permission.") and each["status"] == status]


def test_keys_under_the_original_policy(world: World, config: Path) -> None:
    """It allows nothing of KMS: said as untried, and no fault."""
    key = world.client("kms").create_key()["KeyMetadata"]["Arn"]
    world.encrypt_queue(key)
    try:
        status, found = examined(world, config)
    finally:
        world.encrypt_queue("")
    assert status == 0
    assert one(found, "key.policy")["status"] == "untried"
    decrypt = one(found, "permission.kms:Decrypt")
    assert (decrypt["status"], decrypt["resource"]) == ("untried", QUEUE)
    assert f"edfn-agent setup policy -c {config}" in decrypt["next_step"]


def test_every_fault_has_what_to_do(world: World, config: Path) -> None:
    """Whatever is taken away: a next step, and for a permission the statement that mends it."""
    nothing = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}]}
    for policy in (without("sqs:GetQueueAttributes", "kinesis:ListShards", "logs:DescribeLogStreams"), nothing):
        status, found = examined(world, config, policy)
        assert status == 1
        faults = [each for each in found if each["status"] in ("error", "warning")]
        assert len(faults) > 2
        assert [each for each in faults if not each["next_step"]] == []
        assert [each for each in faults if each["id"].startswith("permission.") and not each["fix"]] == []


def test_nothing_is_changed(world: World, config: Path, proxy: FaultProxy) -> None:
    examined(world, config)
    harmless = ("Describe", "Get", "List", "Search", "Filter", "Scan", "Simulate", "AssumeRole", "ReceiveMessage")
    # These two are for a receipt handle that no message has.
    others = {each.operation for each in proxy.calls if not each.operation.startswith(harmless)}
    assert others - {"GET /"} <= {"DeleteMessage", "ChangeMessageVisibility"}
    assert not (config.parent / "state").exists()


@pytest.mark.parametrize(
    ("written", "action", "severity", "resource"),
    [
        ("ec2:DescribeFlowLogs", "ec2:DescribeFlowLogs", "error", ""),
        ("ec2:DescribeNatGateways", "ec2:DescribeNatGateways", "warning", ""),
        ("s3:GetBucketLocation", "s3:GetBucketLocation", "warning", BUCKET),
        ("s3:GetBucketNotification", "s3:GetBucketNotification", "error", BUCKET),
        ("logs:GetLogEvents", "logs:GetLogEvents", "error", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:office"),
        ("sqs:ReceiveMessage", "sqs:ReceiveMessage", "error", QUEUE),
        ("sqs:DeleteMessage*", "sqs:DeleteMessage", "error", QUEUE),
        ("kinesis:GetRecords", "kinesis:GetRecords", "error", f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/lab"),
        ("dynamodb:Scan", "dynamodb:Scan", "error", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/edfn-agent-lab"),
    ],
)
def test_an_action_taken_away_is_named_with_the_statement_that_allows_it(
    world: World, config: Path, written: str, action: str, severity: str, resource: str
) -> None:
    status, found = examined(world, config, without(written))
    fault = next(each for each in named(found, f"permission.{action}") if each["resource"] == resource)
    assert (status, fault["status"], fault["account_id"]) == (1, severity, ACCOUNT)
    assert action in fault["text"]
    statement = json.loads(fault["fix"])
    assert (statement["Effect"], statement["Action"]) == ("Allow", action)
    assert not [each for each in named(found, f"permission.{action}") if each["status"] == "ok" and not resource]


def simulated(proxy: FaultProxy, **verdicts: str) -> None:
    """IAM answers simulations: allowed, unless said otherwise by the action's name without its service."""

    def rule(call: Call) -> Reply | None:
        if call.operation != "SimulatePrincipalPolicy":
            return None
        action = call.parameters["ActionNames.member.1"]
        assert call.parameters["PolicySourceArn"] == f"arn:aws:iam::{ACCOUNT}:user/edfn"
        verdict = verdicts.get(action.partition(":")[2], "allowed")
        # with `?`: for want of something that a condition looks at
        lacks = "<MissingContextValues><member>aws:SourceIp</member></MissingContextValues>" if "?" in verdict else ""
        decision = f"<EvalDecision>{verdict.rstrip('?')}</EvalDecision>{lacks}"
        result = f"<member><EvalActionName>{action}</EvalActionName>{decision}</member>"
        space = 'xmlns="https://iam.amazonaws.com/doc/2010-05-08/"'
        body = (
            f"<SimulatePrincipalPolicyResponse {space}><SimulatePrincipalPolicyResult><EvaluationResults>{result}"
            "</EvaluationResults></SimulatePrincipalPolicyResult></SimulatePrincipalPolicyResponse>"
        )
        return Reply(200, body.encode())

    proxy.rules.insert(0, rule)


def test_what_cannot_be_tried_is_simulated_where_iam_allows_it(world: World, config: Path, proxy: FaultProxy) -> None:
    simulated(proxy, UpdateItem="implicitDeny", GetObject="explicitDeny")
    status, found = examined(world, config)
    assert status == 1
    assert not [each for each in found if each["status"] == "untried" and each["id"].startswith("permission.")]
    faults = [each for each in found if each["status"] == "error"]
    assert {each["id"] for each in faults} == {"permission.dynamodb:UpdateItem", "permission.s3:GetObject"}
    objects = one(found, "permission.s3:GetObject")
    assert "explicitDeny" in objects["text"]
    assert json.loads(objects["fix"])["Resource"] == f"arn:aws:s3:::{BUCKET}/*"
    assert one(found, "permission.sqs:DeleteMessage")["text"] == "allowed, by the simulation of IAM"


class TestQueueWithMessages:
    @pytest.fixture(autouse=True)
    def waiting(self, world: World) -> Any:
        key = f"AWSLogs/{ACCOUNT}/vpcflowlogs/{REGION}/2026/01/01/some.log.gz"
        world.client("s3").put_object(Bucket=BUCKET, Key=key, Body=b"x")
        yield
        emptied(world.client("sqs"), world.queue_url)

    def test_no_message_is_received(self, world: World, config: Path, proxy: FaultProxy) -> None:
        _, found = examined(world, config)
        assert proxy.times("ReceiveMessage") == 0
        assert one(found, "permission.sqs:ReceiveMessage")["status"] == "untried"
        assert one(found, "queue.backlog")["text"] == "messages that wait: 1"

    def test_unless_it_is_wanted(self, world: World, config: Path) -> None:
        status, found = examined(world, config, ORIGINAL, "--peek")
        assert status == 0
        assert one(found, "permission.sqs:ReceiveMessage")["status"] == "ok"
        assert one(found, "permission.s3:GetObject")["status"] == "ok"
        assert one(found, "bucket.object")["resource"] == BUCKET
        # and it is there for the agent
        sqs, url = world.client("sqs"), world.queue_url
        received = sqs.receive_message(QueueUrl=url)["Messages"]
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=received[0]["ReceiptHandle"], VisibilityTimeout=0)

    def test_an_object_that_may_not_be_read(self, world: World, config: Path) -> None:
        status, found = examined(world, config, without("s3:GetObject"), "--peek")
        denied = one(found, "permission.s3:GetObject")
        assert (status, denied["status"]) == (1, "error")
        assert json.loads(denied["fix"])["Action"] == "s3:GetObject"


def test_a_condition_that_iam_cannot_judge_leaves_it_untried(world: World, config: Path, proxy: FaultProxy) -> None:
    simulated(proxy, UpdateItem="implicitDeny?")
    status, found = examined(world, config)
    assert status == 0
    assert {each["status"] for each in named(found, "permission.dynamodb:UpdateItem")} == {"untried"}
