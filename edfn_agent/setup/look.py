"""What is there of a resource: missing, as wanted, different, or somebody else's.

In: a resource and clients. Out: `Seen`. Reads only. A thing is ours when it carries the plan's tag; entries in
documents are ours by their names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from functools import singledispatch
from typing import Any
from urllib.parse import unquote

from edfn_agent.setup.access import Aws
from edfn_agent.setup.calls import Call, Merge, Step, Tag, delivery_configuration, make, queue_attributes, text
from edfn_agent.setup.model import (
    TAG,
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
    Place,
    Queue,
    Resource,
    Role,
    Stream,
    SubscriptionFilter,
    policy,
)


class State(Enum):
    """What is to be done about a resource."""

    MISSING = "to make"
    DIFFERS = "to change"
    SAME = "is there"
    BORROWED = "was there before; used as it is"
    CONFLICT = "is somebody else's"


@dataclass(frozen=True)
class Seen:
    """How a resource was found."""

    state: State
    ours: bool = False  # --undo may remove it
    detail: str = ""
    mend: tuple[Step, ...] = ()
    handle: str = ""  # what AWS calls it: a queue's URL, a flow log's id


MISSING = Seen(State.MISSING)
SAME = Seen(State.SAME, ours=True)


def _foreign(what: str, tagged: str | None) -> Seen:
    made_by = f"it was made by {tagged}" if tagged else "it was there before"
    return Seen(State.CONFLICT, detail=f"{made_by}; choose another {what} name, or say that it exists")


def _is(error: Exception, *codes: str) -> bool:
    response = getattr(error, "response", {})
    return response.get("Error", {}).get("Code") in codes


@singledispatch
def look(resource: Resource, aws: Aws, tag: Tag) -> Seen:
    raise NotImplementedError(type(resource).__name__)


def _tagged(tags: Any) -> str | None:
    if isinstance(tags, dict):
        value = tags.get(TAG)
        return str(value) if value is not None else None
    for entry in tags or []:
        if entry.get("Key", entry.get("TagKey")) == TAG:
            return str(entry.get("Value", entry.get("TagValue")))
    return None


@look.register
def _(key: Key, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(key.place, "kms")
    for page in client.get_paginator("list_aliases").paginate():
        for alias in page["Aliases"]:
            if alias["AliasName"] != key.alias or "TargetKeyId" not in alias:
                continue
            described = client.describe_key(KeyId=alias["TargetKeyId"])["KeyMetadata"]
            tags = client.list_resource_tags(KeyId=alias["TargetKeyId"])["Tags"]
            if _tagged(tags) != tag.value:
                return _foreign("--name", _tagged(tags))
            aws.values[key.place, f"{key.id}.Arn"] = described["Arn"]
            current = json.loads(client.get_key_policy(KeyId=described["KeyId"], PolicyName="default")["Policy"])
            if _same(current, policy(key.statements)):
                return Seen(State.SAME, True, handle=described["KeyId"])
            put = {"KeyId": described["Arn"], "PolicyName": "default", "Policy": text(policy(key.statements))}
            return Seen(State.DIFFERS, True, mend=(Call("kms", "PutKeyPolicy", put),), handle=described["KeyId"])
    return MISSING


@look.register(KeyStatements)
@look.register(BucketPolicy)
@look.register(Notification)
def _(resource: Resource, aws: Aws, tag: Tag) -> Seen:
    [step] = make(resource, tag)
    assert isinstance(step, Merge)
    try:
        document = read_document(step, resource.place, aws)
    except Exception as error:
        if _is(error, "NoSuchBucket"):
            return MISSING  # of a bucket that this very plan makes
        raise
    if "%{" in json.dumps(step.entries) and not any(place == resource.place for place, _ in aws.values):
        return MISSING
    entries = aws.fill(resource.place, list(step.entries))
    by_name = {entry.get(step.named_by): entry for entry in document.get(step.entries_in, [])}
    found = [by_name.get(entry[step.named_by]) for entry in entries]
    if all(one is not None and _same(one, entry) for one, entry in zip(found, entries, strict=True)):
        return SAME
    if any(one is not None for one in found):
        return Seen(State.DIFFERS, True, mend=(step,))
    return MISSING


def read_document(step: Merge, place: Place, aws: Aws) -> dict[str, Any]:
    """The document as it is; empty only where AWS says that there is none."""
    try:
        answer = aws.call(place, step.read)
    except Exception as error:
        if _is(error, "NoSuchBucketPolicy"):
            return {}
        raise
    if step.as_text:
        document: dict[str, Any] = json.loads(answer[step.document])
        return document
    answer.pop("ResponseMetadata", None)
    return dict(answer)


@look.register
def _(bucket: Bucket, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(bucket.place, "s3")
    try:
        client.head_bucket(Bucket=bucket.name)
        tags = client.get_bucket_tagging(Bucket=bucket.name)["TagSet"]
    except Exception as error:
        if _is(error, "404", "NoSuchBucket"):
            return MISSING
        if _is(error, "NoSuchTagSet"):
            return _foreign("--bucket", None)
        if _is(error, "403", "AccessDenied"):
            return Seen(State.CONFLICT, detail="a bucket of this name is in another account, or may not be looked at")
        raise
    return SAME if _tagged(tags) == tag.value else _foreign("--bucket", _tagged(tags))


@look.register
def _(queue: Queue, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(queue.place, "sqs")
    try:
        url = client.get_queue_url(QueueName=queue.name)["QueueUrl"]
    except Exception as error:
        if _is(error, "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"):
            return MISSING
        raise
    tagged = _tagged(client.list_queue_tags(QueueUrl=url).get("Tags"))
    if tagged != tag.value:
        return _foreign("--queue", tagged)
    current = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    wanted = queue_attributes(queue)
    if (other := _announced_by(current.get("Policy"))) and not other & _announced_by(wanted.get("Policy")):
        detail = f"it is there for {', '.join(sorted(other))}; choose another --name for this bucket"
        return Seen(State.CONFLICT, detail=detail)
    if all(_same(_loaded(current.get(name)), _loaded(value)) for name, value in wanted.items()):
        return Seen(State.SAME, True, handle=url)
    put = Call("sqs", "SetQueueAttributes", {"QueueUrl": url, "Attributes": wanted})
    return Seen(State.DIFFERS, True, mend=(put,), handle=url)


@look.register
def _(role: Role, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(role.place, "iam")
    try:
        current = client.get_role(RoleName=role.name)["Role"]
    except Exception as error:
        if _is(error, "NoSuchEntity"):
            return MISSING
        raise
    tagged = _tagged(client.list_role_tags(RoleName=role.name)["Tags"])
    if tagged != tag.value:
        return _foreign("role", tagged)
    mend: list[Step] = []
    if not _same(_loaded(current["AssumeRolePolicyDocument"]), policy(role.trust)):
        put = {"RoleName": role.name, "PolicyDocument": text(policy(role.trust))}
        mend.append(Call("iam", "UpdateAssumeRolePolicy", put))
    for step in make(role, tag):
        if isinstance(step, Call) and step.operation == "PutRolePolicy":
            wanted = aws.fill(role.place, step.parameters) if not _unknown(step, role.place, aws) else step.parameters
            named = {name: wanted[name] for name in ("RoleName", "PolicyName")}
            try:
                found = _loaded(client.get_role_policy(**named)["PolicyDocument"])
            except Exception as error:
                if not _is(error, "NoSuchEntity"):
                    raise
                found = None
            if not _same(found, _loaded(wanted["PolicyDocument"])):
                mend.append(step)
    return Seen(State.DIFFERS, True, mend=tuple(mend)) if mend else SAME


def _unknown(step: Call, place: Place, aws: Aws) -> bool:
    from edfn_agent.setup.model import PLACEHOLDER

    wanted = {match[0][2:-1] for match in PLACEHOLDER.finditer(json.dumps(step.parameters))}
    return any((place, name) not in aws.values and name not in aws.secrets for name in wanted)


@look.register
def _(managed: ManagedPolicy, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(managed.place, "iam")
    try:
        current = client.get_policy(PolicyArn=managed.arn)["Policy"]
    except Exception as error:
        if _is(error, "NoSuchEntity", "NoSuchEntityException"):
            return MISSING
        raise
    tagged = _tagged(client.list_policy_tags(PolicyArn=managed.arn)["Tags"])
    if tagged != tag.value:
        return _foreign("policy", tagged)
    version = client.get_policy_version(PolicyArn=managed.arn, VersionId=current["DefaultVersionId"])
    mend: list[Step] = []
    if not _same(_loaded(version["PolicyVersion"]["Document"]), policy(managed.statements)):
        old = client.list_policy_versions(PolicyArn=managed.arn)["Versions"]
        if len(old) >= 5:  # IAM keeps five
            oldest = min((one for one in old if not one["IsDefaultVersion"]), key=lambda one: one["CreateDate"])
            named = {"PolicyArn": managed.arn, "VersionId": oldest["VersionId"]}
            mend.append(Call("iam", "DeletePolicyVersion", named))
        new = {"PolicyArn": managed.arn, "PolicyDocument": text(policy(managed.statements)), "SetAsDefault": True}
        mend.append(Call("iam", "CreatePolicyVersion", new))
    if managed.attach_to and managed.attach_to not in _attached(client, managed.arn):
        mend += make(managed, tag)[1:]
    return Seen(State.DIFFERS, True, mend=tuple(mend)) if mend else SAME


def _attached(client: Any, arn: str) -> set[str]:
    found = client.list_entities_for_policy(PolicyArn=arn)
    roles = {f"role/{one['RoleName']}" for one in found["PolicyRoles"]}
    return roles | {f"user/{one['UserName']}" for one in found["PolicyUsers"]}


@look.register
def _(group: LogGroup, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(group.place, "logs")
    for page in client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=group.name):
        for found in page["logGroups"]:
            if found["logGroupName"] != group.name:
                continue
            if _tagged(client.list_tags_log_group(logGroupName=group.name).get("tags")) != tag.value:
                return Seen(State.BORROWED)
            if found.get("retentionInDays") == group.retention_days:
                return SAME
            retention = {"logGroupName": group.name, "retentionInDays": group.retention_days}
            return Seen(State.DIFFERS, True, mend=(Call("logs", "PutRetentionPolicy", retention),))
    return MISSING


@look.register
def _(log: FlowLog, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(log.place, "ec2")
    filters = [{"Name": "resource-id", "Values": [log.resource_id]}]
    for page in client.get_paginator("describe_flow_logs").paginate(Filters=filters):
        for found in page["FlowLogs"]:
            destination = found.get("LogDestination")
            # For log groups AWS reports one of the two, and not always the one that was given.
            same_group = log.log_group and (
                found.get("LogGroupName") == log.log_group or str(destination).endswith(f":log-group:{log.log_group}")
            )
            same_place = log.destination and str(destination).rstrip("/") == log.destination.rstrip("/")
            if not (same_group or same_place):
                continue
            ours = _tagged(found.get("Tags")) == tag.value
            handle = found["FlowLogId"]
            if log.log_format and found.get("LogFormat") != log.log_format:
                detail = (
                    f"{handle} delivers {log.resource_id} there already, in another format, and a flow log cannot be "
                    "changed: delete it first (two would send every record twice)"
                )
                return Seen(State.CONFLICT, ours, detail=detail, handle=handle)
            return Seen(State.SAME if ours else State.BORROWED, ours, handle=handle)
    return MISSING


@look.register
def _(subscription: SubscriptionFilter, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(subscription.place, "logs")
    try:
        found = client.describe_subscription_filters(
            logGroupName=subscription.log_group, filterNamePrefix=subscription.name
        )["subscriptionFilters"]
    except Exception as error:
        if _is(error, "ResourceNotFoundException"):
            return MISSING
        raise
    for one in found:
        if one["filterName"] == subscription.name:
            if one["destinationArn"] == subscription.destination_arn:
                return SAME
            detail = f"a filter of this name sends to {one['destinationArn']}; choose another --filter"
            return Seen(State.CONFLICT, detail=detail)
    return MISSING


@look.register
def _(stream: Stream, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(stream.place, "kinesis")
    try:
        tags = client.list_tags_for_stream(StreamName=stream.name)["Tags"]
    except Exception as error:
        if _is(error, "ResourceNotFoundException"):
            return MISSING
        raise
    return SAME if _tagged(tags) == tag.value else _foreign("--stream", _tagged(tags))


def _announced_by(policy_text: str | None) -> set[str]:
    """The buckets for which a queue's policy is written."""
    found: set[str] = set()
    for statement in json.loads(policy_text or "{}").get("Statement", []):
        for operator in statement.get("Condition", {}).values():
            sources = operator.get("aws:SourceArn", [])
            found |= {sources} if isinstance(sources, str) else set(sources)
    return found


@look.register
def _(stream: DeliveryStream, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(stream.place, "firehose")
    try:
        tags = client.list_tags_for_delivery_stream(DeliveryStreamName=stream.name)["Tags"]
    except Exception as error:
        if _is(error, "ResourceNotFoundException"):
            return MISSING
        raise
    if _tagged(tags) != tag.value:
        return _foreign("--delivery-stream", _tagged(tags))
    described = client.describe_delivery_stream(DeliveryStreamName=stream.name)["DeliveryStreamDescription"]
    _, wanted = delivery_configuration(stream)
    for where in described["Destinations"]:
        found, needed = _ends(where), _ends({"Wanted": wanted})
        if found != needed:
            detail = f"it delivers to {' and '.join(sorted(found - needed))}; choose another --name"
            return Seen(State.CONFLICT, detail=detail)
    return SAME


def _ends(configuration: Any) -> set[str]:
    """Where a destination, wanted or described, delivers to: buckets and the endpoint."""
    found: set[str] = set()
    for key, value in configuration.items():
        if key in ("BucketARN", "Url"):
            found.add(value)
        elif isinstance(value, dict):
            found |= _ends(value)
    return found


@look.register
def _(destination: Destination, aws: Aws, tag: Tag) -> Seen:
    client = aws.client(destination.place, "logs")
    found = client.describe_destinations(DestinationNamePrefix=destination.name).get("destinations", [])
    for one in found:
        if one["destinationName"] != destination.name:
            continue
        tagged = _tagged(client.list_tags_for_resource(resourceArn=one["arn"]).get("tags"))
        if tagged != tag.value:
            return _foreign("--destination", tagged)
        if one["targetArn"] != destination.target_arn:
            return Seen(State.CONFLICT, detail=f"it sends to {one['targetArn']}; choose another --destination")
        if _same(_loaded(one.get("accessPolicy")), policy(destination.statements)):
            return SAME
        return Seen(State.DIFFERS, True, mend=tuple(make(destination, tag))[1:])
    return MISSING


def _loaded(value: Any) -> Any:
    """A policy as data, however the service hands it back (IAM quotes it for a URL)."""
    if not isinstance(value, str):
        return value
    for candidate in (value, unquote(value)):
        try:
            return json.loads(candidate)
        except ValueError:
            continue
    return value


def _same(one: Any, other: Any) -> bool:
    return bool(_plain(one) == _plain(other))


def _plain(value: Any) -> Any:
    """Lists of one and single values are one thing to IAM, order is nothing, and services add empty things."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item not in ([], {}, None)}
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return items[0] if len(items) == 1 else sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    return value if isinstance(value, bool) else str(value)
