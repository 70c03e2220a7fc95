"""The way back: remove what carries the plan's tag, and the entries that were added by name.

In: a plan's survey. Out: calls that delete. Never: something that is not ours; data, unless it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

from edfn_agent.setup.access import Aws
from edfn_agent.setup.apply import Item, describe, merge
from edfn_agent.setup.calls import Call, Merge, Tag, make
from edfn_agent.setup.look import Seen
from edfn_agent.setup.model import (
    Bucket,
    BucketPolicy,
    DeliveryStream,
    Destination,
    FlowLog,
    Key,
    KeyStatements,
    LogGroup,
    ManagedPolicy,
    Notification,
    Plan,
    Queue,
    Resource,
    Role,
    SetupError,
    Stream,
    SubscriptionFilter,
)


class Kept(Exception):
    """It stays, and why."""


def undo(plan: Plan, aws: Aws, items: list[Item], delete_data: bool, say: Callable[[str], None]) -> None:
    """Remove what is ours, the last first."""
    from botocore.exceptions import BotoCoreError, ClientError

    for item in reversed(items):
        if not item.seen.ours:
            continue
        try:
            remove(item.resource, item.seen, aws, Tag(plan.tag), delete_data)
            say(f"removed  {describe(item.resource)}")
        except Kept as kept:
            say(f"kept     {describe(item.resource)}: {kept}")
        except (BotoCoreError, ClientError) as error:
            raise SetupError(f"{describe(item.resource)} in {item.resource.place}: {error}") from error


@singledispatch
def remove(resource: Resource, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    raise NotImplementedError(type(resource).__name__)


@remove.register
def _(key: Key, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    if not delete_data:
        raise Kept("what it encrypted could never be read again; --delete-data schedules its deletion in 30 days")
    aws.call(key.place, Call("kms", "DeleteAlias", {"AliasName": key.alias}))
    aws.call(key.place, Call("kms", "ScheduleKeyDeletion", {"KeyId": seen.handle, "PendingWindowInDays": 30}))


@remove.register(KeyStatements)
@remove.register(BucketPolicy)
@remove.register(Notification)
def _(resource: Resource, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    [step] = make(resource, tag)
    assert isinstance(step, Merge)
    merge(step, resource.place, aws, remove=True)


@remove.register
def _(bucket: Bucket, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    client = aws.client(bucket.place, "s3")
    if client.list_objects_v2(Bucket=bucket.name, MaxKeys=1).get("KeyCount"):
        if not delete_data:
            raise Kept("it holds objects; --delete-data removes them")
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name):
            keys = [{"Key": one["Key"]} for one in page.get("Contents", [])]
            client.delete_objects(Bucket=bucket.name, Delete={"Objects": keys, "Quiet": True})
    client.delete_bucket(Bucket=bucket.name)


@remove.register
def _(queue: Queue, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    aws.call(queue.place, Call("sqs", "DeleteQueue", {"QueueUrl": seen.handle}))


@remove.register
def _(role: Role, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    client = aws.client(role.place, "iam")
    for name in client.list_role_policies(RoleName=role.name)["PolicyNames"]:
        client.delete_role_policy(RoleName=role.name, PolicyName=name)
    client.delete_role(RoleName=role.name)


@remove.register
def _(managed: ManagedPolicy, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    client = aws.client(managed.place, "iam")
    found = client.list_entities_for_policy(PolicyArn=managed.arn)
    for role in found["PolicyRoles"]:
        client.detach_role_policy(RoleName=role["RoleName"], PolicyArn=managed.arn)
    for user in found["PolicyUsers"]:
        client.detach_user_policy(UserName=user["UserName"], PolicyArn=managed.arn)
    for version in client.list_policy_versions(PolicyArn=managed.arn)["Versions"]:
        if not version["IsDefaultVersion"]:
            client.delete_policy_version(PolicyArn=managed.arn, VersionId=version["VersionId"])
    client.delete_policy(PolicyArn=managed.arn)


@remove.register
def _(group: LogGroup, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    client = aws.client(group.place, "logs")
    streams = client.describe_log_streams(logGroupName=group.name, limit=50)["logStreams"]
    has_events = any("lastEventTimestamp" in stream or "firstEventTimestamp" in stream for stream in streams)
    if has_events and not delete_data:
        raise Kept("it holds events; --delete-data removes them")
    client.delete_log_group(logGroupName=group.name)


@remove.register
def _(log: FlowLog, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    aws.call(log.place, Call("ec2", "DeleteFlowLogs", {"FlowLogIds": [seen.handle]}))


@remove.register
def _(subscription: SubscriptionFilter, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    named = {"logGroupName": subscription.log_group, "filterName": subscription.name}
    aws.call(subscription.place, Call("logs", "DeleteSubscriptionFilter", named))


@remove.register
def _(stream: Stream, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    aws.call(stream.place, Call("kinesis", "DeleteStream", {"StreamName": stream.name}))


@remove.register
def _(stream: DeliveryStream, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    aws.call(stream.place, Call("firehose", "DeleteDeliveryStream", {"DeliveryStreamName": stream.name}))


@remove.register
def _(destination: Destination, seen: Seen, aws: Aws, tag: Tag, delete_data: bool) -> None:
    aws.call(destination.place, Call("logs", "DeleteDestination", {"destinationName": destination.name}))
