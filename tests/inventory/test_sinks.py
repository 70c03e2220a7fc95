"""The longer ways from a flow log to the agent: SNS, EventBridge, CloudWatch Logs destinations; what is gone."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from faultproxy import FaultProxy, Reply
from organisation import LOGGING, NETWORK, Cloud, role

from edfn_agent.inventory.accounts import Accounts, AwsSettings, RoleSource
from edfn_agent.inventory.discovery import Discovery
from edfn_agent.inventory.model import Snapshot
from edfn_agent.inventory.sinks import Wishes
from edfn_agent.inventory.sources import EnabledInputs, SourcePlan

REGION = "us-east-1"


@pytest.fixture
def vpc(empty_cloud: Cloud, proxy: FaultProxy) -> str:
    proxy.bucket_owners = {"logs": LOGGING}
    return empty_cloud.vpc(NETWORK, REGION, "one", "10.1.0.0/16")


@pytest.fixture
def discover(settings: Callable[..., AwsSettings]) -> Callable[..., Snapshot]:
    def run(wishes: Wishes | None = None) -> Snapshot:
        roles = (RoleSource(role(NETWORK)), RoleSource(role(LOGGING)))
        return Discovery(Accounts(settings(roles=roles, regions=(REGION,))), wishes or Wishes()).run()

    return run


def queue(cloud: Cloud, name: str) -> str:
    sqs = cloud.client(LOGGING, REGION, "sqs")
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn: str = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return arn


def source_of(snapshot: Snapshot, vpc: str) -> str | None:
    inputs = EnabledInputs(s3="discovered", kinesis="discovered", cloudwatch_logs="discovered")
    return SourcePlan(snapshot, inputs).source_of(vpc)


def test_a_bucket_that_announces_through_sns(
    empty_cloud: Cloud, vpc: str, discover: Callable[..., Snapshot], proxy: FaultProxy
) -> None:
    arn = queue(empty_cloud, "through-sns")
    sns, s3 = (empty_cloud.client(LOGGING, REGION, service) for service in ("sns", "s3"))
    topic = sns.create_topic(Name="objects")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    s3.create_bucket(Bucket="logs")
    topics = [{"TopicArn": topic, "Events": ["s3:ObjectCreated:Put"]}]
    s3.put_bucket_notification_configuration(Bucket="logs", NotificationConfiguration={"TopicConfigurations": topics})
    empty_cloud.flow_log(NETWORK, REGION, vpc, LogDestinationType="s3", LogDestination="arn:aws:s3:::logs")
    snapshot = discover()
    assert [(each.kind, each.queues) for each in snapshot.buckets[0].notifications] == [("sns", (arn,))]
    assert [each.arn for each in snapshot.queues] == [arn]
    assert source_of(snapshot, vpc) == "s3:logs"
    proxy.deny("ListSubscriptionsByTopic")
    denied = discover()
    assert ("info", topic) in [(each.severity, each.subject) for each in denied.findings]
    assert source_of(denied, vpc) is None


def test_a_bucket_that_announces_through_event_bridge(
    empty_cloud: Cloud, vpc: str, discover: Callable[..., Snapshot], proxy: FaultProxy
) -> None:
    arn = queue(empty_cloud, "through-events")
    other = queue(empty_cloud, "of-somebody-else")
    events, s3 = (empty_cloud.client(LOGGING, REGION, service) for service in ("events", "s3"))
    for name, bucket, target in (("mine", "logs", arn), ("theirs", "pictures", other)):
        pattern = {"source": ["aws.s3"], "detail-type": ["Object Created"], "detail": {"bucket": {"name": [bucket]}}}
        events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        events.put_targets(Rule=name, Targets=[{"Id": "1", "Arn": target}])
    s3.create_bucket(Bucket="logs")
    # moto takes this setting and does not give it back.
    answer = b"<NotificationConfiguration><EventBridgeConfiguration/></NotificationConfiguration>"
    proxy.rules.append(lambda call: Reply(200, answer) if call.operation == "GetBucketNotification" else None)
    empty_cloud.flow_log(NETWORK, REGION, vpc, LogDestinationType="s3", LogDestination="arn:aws:s3:::logs")
    snapshot = discover()
    assert [(each.kind, each.queues) for each in snapshot.buckets[0].notifications] == [("eventbridge", (arn,))]
    assert source_of(snapshot, vpc) == "s3:logs"


def test_a_log_group_that_sends_to_a_destination_of_another_account(
    empty_cloud: Cloud, vpc: str, discover: Callable[..., Snapshot]
) -> None:
    from moto.backends import get_backend

    kinesis = empty_cloud.client(LOGGING, REGION, "kinesis")
    kinesis.create_stream(StreamName="central", ShardCount=1)
    stream = kinesis.describe_stream_summary(StreamName="central")["StreamDescriptionSummary"]["StreamARN"]
    destination = empty_cloud.client(LOGGING, REGION, "logs").put_destination(
        destinationName="central", targetArn=stream, roleArn=f"arn:aws:iam::{LOGGING}:role/x"
    )["destination"]["arn"]
    empty_cloud.client(NETWORK, REGION, "logs").create_log_group(logGroupName="flows")
    get_backend("logs")[NETWORK][REGION].groups["flows"].put_subscription_filter("f", "", destination, "")
    empty_cloud.flow_log(NETWORK, REGION, vpc, LogDestinationType="cloud-watch-logs", LogGroupName="flows")
    snapshot = discover()
    assert [(each.arn, each.target) for each in snapshot.log_destinations] == [(destination, stream)]
    assert source_of(snapshot, vpc) == f"kinesis:{stream}"


def test_what_is_gone_is_said(empty_cloud: Cloud, vpc: str, discover: Callable[..., Snapshot]) -> None:
    empty_cloud.client(LOGGING, REGION, "s3").create_bucket(Bucket="logs")
    empty_cloud.client(NETWORK, REGION, "logs").create_log_group(logGroupName="flows")
    empty_cloud.flow_log(NETWORK, REGION, vpc, LogDestinationType="s3", LogDestination="arn:aws:s3:::logs")
    empty_cloud.flow_log(NETWORK, REGION, vpc, LogDestinationType="cloud-watch-logs", LogGroupName="flows")
    empty_cloud.client(LOGGING, REGION, "s3").delete_bucket(Bucket="logs")
    empty_cloud.client(NETWORK, REGION, "logs").delete_log_group(logGroupName="flows")
    snapshot = discover()
    assert [each.problem for each in snapshot.buckets] == ["the bucket does not exist"]
    assert [each.missing for each in snapshot.log_groups] == [True]
    plan = SourcePlan(snapshot, EnabledInputs(s3="discovered", cloudwatch_logs="discovered"))
    said = {each.problem.rpartition(": ")[2] for each in plan.findings if each.severity == "error"}
    assert said == {"the bucket does not exist", "the log group does not exist"}


def test_what_the_configuration_names_is_asked_without_any_flow_log(
    empty_cloud: Cloud, discover: Callable[..., Snapshot]
) -> None:
    arn = queue(empty_cloud, "named")
    empty_cloud.client(LOGGING, REGION, "kinesis").create_stream(StreamName="named", ShardCount=1)
    empty_cloud.client(LOGGING, REGION, "logs").create_log_group(logGroupName="named")
    stream = f"arn:aws:kinesis:{REGION}:{LOGGING}:stream/named"
    group = f"arn:aws:logs:{REGION}:{LOGGING}:log-group:named"
    url = f"https://sqs.{REGION}.amazonaws.com/{LOGGING}/gone"
    snapshot = discover(Wishes((group, f"{group}-2:*"), (stream, stream + "-2"), (arn, url)))
    assert {each.arn: each.missing for each in snapshot.log_groups} == {group: False, f"{group}-2": True}
    assert {each.arn: each.problem for each in snapshot.streams} == {
        stream: None,
        stream + "-2": "the stream does not exist",
    }
    assert {each.arn.rpartition(":")[2]: each.problem for each in snapshot.queues} == {
        "named": None,
        "gone": "the queue does not exist",
    }
