"""A plan as CloudFormation templates: one for each stack (an account and region, and what must come before what).

In: a Plan. Out: templates as plain data or YAML, and remarks about what a template cannot do: change the policy or the
notifications of a bucket, or the policy of a key, that belong to no stack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import singledispatch
from typing import Any

from edfn_agent.setup import calls
from edfn_agent.setup.model import (
    ACCESS_KEY,
    PLACEHOLDER,
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
    Plan,
    Queue,
    Resource,
    Role,
    Stream,
    SubscriptionFilter,
    policy,
)

Template = dict[str, Any]
Made = Iterator[tuple[str, str, dict[str, Any]]]  # logical id, type, properties


def templates(plan: Plan) -> list[tuple[str, Place, Template]]:
    """Every stack: its name, where it belongs, its template. In the order in which they are to be created."""
    stacks = plan.stacks()
    made = []
    for number, ((_, place), resources) in enumerate(stacks.items(), 1):
        name = f"{plan.name}-{plan.path}" + (f"-{number}" if len(stacks) > 1 else "")
        template = _template(plan, resources)
        if template["Resources"]:
            made.append((name, place, template))
    return made


def remarks(plan: Plan) -> list[str]:
    """What no template does."""
    said = []
    for resource in plan.resources:
        if isinstance(resource, KeyStatements):
            said.append(f"the key {resource.key_arn} is in no stack of ours: its policy needs a statement")
        elif isinstance(resource, BucketPolicy) and resource.existing:
            said.append(f"the bucket {resource.bucket} is in no stack of ours: its policy needs statements")
        elif isinstance(resource, Notification) and resource.existing:
            said.append(f"the bucket {resource.bucket} is in no stack of ours: it has to notify the queue")
    return said


def _template(plan: Plan, resources: list[Resource]) -> Template:
    tag = {TAG: f"cloudformation:{plan.tag}"}
    template: Template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"Flow logs for edfn-agent: {plan.path} ({plan.name})",
    }
    content: dict[str, Any] = {}
    notifications = {one.bucket: one for one in resources if isinstance(one, Notification)}
    for resource in resources:
        for logical_id, kind, properties in render(resource, tag):
            if kind == "AWS::S3::Bucket" and (told := notifications.get(properties["BucketName"])):
                properties["NotificationConfiguration"] = _notification(told)
            entry: dict[str, Any] = {"Type": kind}
            needs = [name for name in resource.needs if name != logical_id]
            if kind == "AWS::S3::Bucket" and "NotificationConfiguration" in properties:
                needs.append("QueuePolicy")  # S3 tries the queue when it is told of it
            if kind == "AWS::KMS::Key":
                needs = []
            if needs:
                entry["DependsOn"] = needs
            if kind in _KEPT:
                entry |= {"DeletionPolicy": "Retain", "UpdateReplacePolicy": "Retain"}
            entry["Properties"] = {name: value for name, value in properties.items() if value not in (None, [], {})}
            content[logical_id] = entry
    for entry in content.values():  # needs that no template can meet, and those a reference meets already
        kept = [name for name in entry.get("DependsOn", []) if name in content and not _refers(entry, name)]
        entry.pop("DependsOn", None)
        if kept:
            entry["DependsOn"] = kept[0] if len(kept) == 1 else kept
    text = repr(content)
    if ACCESS_KEY in text:
        template["Parameters"] = {
            "FirehoseAccessKey": {
                "Type": "String",
                "NoEcho": True,
                "MinLength": 20,
                "MaxLength": 4096,
                "Description": "The access key that the agent asks for (the content of its access_key_file)",
            }
        }
    template["Resources"] = _resolve(content)
    return template


_KEPT = {"AWS::S3::Bucket", "AWS::KMS::Key", "AWS::Logs::LogGroup"}
"""What holds data, or the key to it, outlives its stack."""


def _refers(entry: dict[str, Any], logical_id: str) -> bool:
    return f"%{{{logical_id}." in repr(entry["Properties"])


def _resolve(value: Any) -> Any:
    """Placeholders as references; a string that only contains one as Fn::Sub."""
    if isinstance(value, dict):
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(item) for item in value]
    if not isinstance(value, str) or not PLACEHOLDER.search(value):
        return value
    if match := PLACEHOLDER.fullmatch(value):
        return {"Ref": match[1]} if match[2] == "Secret" else {"Fn::GetAtt": [match[1], match[2]]}
    return {"Fn::Sub": PLACEHOLDER.sub(r"${\1.\2}", value)}


def to_yaml(template: Template) -> str:
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(template, Dumper=Plain, sort_keys=False, width=120, allow_unicode=True)


def _tags(tag: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tag.items()]


@singledispatch
def render(resource: Resource, tag: dict[str, str]) -> Made:
    """The resource as CloudFormation has it; it may be several there, or none."""
    raise NotImplementedError(type(resource).__name__)


@render.register
def _(key: Key, tag: dict[str, str]) -> Made:
    yield (
        key.id,
        "AWS::KMS::Key",
        {
            "Description": "Flow logs",
            "EnableKeyRotation": True,
            "KeyPolicy": policy(key.statements),
            "Tags": _tags(tag),
        },
    )
    yield f"{key.id}Alias", "AWS::KMS::Alias", {"AliasName": key.alias, "TargetKeyId": f"%{{{key.id}.Arn}}"}


@render.register(KeyStatements)
@render.register(Notification)  # a property of its bucket
def _(resource: Resource, tag: dict[str, str]) -> Made:
    yield from ()


@render.register
def _(bucket: Bucket, tag: dict[str, str]) -> Made:
    rule = calls.lifecycle_rule(bucket.expire_days)
    lifecycle = {
        "Rules": [
            {
                "Id": rule["ID"],
                "Status": rule["Status"],
                "ExpirationInDays": bucket.expire_days,
                "AbortIncompleteMultipartUpload": rule["AbortIncompleteMultipartUpload"],
            }
        ]
    }
    encryption: dict[str, Any] = {"SSEAlgorithm": "AES256"}
    if bucket.key_arn:
        encryption = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": bucket.key_arn}
    by_default = {"ServerSideEncryptionByDefault": encryption, "BucketKeyEnabled": bool(bucket.key_arn)}
    yield (
        bucket.id,
        "AWS::S3::Bucket",
        {
            "BucketName": bucket.name,
            "PublicAccessBlockConfiguration": calls.PUBLIC_ACCESS_BLOCK,
            "BucketEncryption": {"ServerSideEncryptionConfiguration": [by_default]},
            "LifecycleConfiguration": lifecycle if bucket.expire_days else None,
            "Tags": _tags(tag),
        },
    )


def _notification(notification: Notification) -> dict[str, Any]:
    rules = [
        {"Name": name, "Value": value}
        for name, value in (("prefix", notification.prefix), ("suffix", notification.suffix))
        if value
    ]
    told: dict[str, Any] = {"Event": "s3:ObjectCreated:*", "Queue": notification.queue_arn}
    if rules:
        told["Filter"] = {"S3Key": {"Rules": rules}}
    return {"QueueConfigurations": [told]}


@render.register
def _(added: BucketPolicy, tag: dict[str, str]) -> Made:
    if not added.existing:
        yield (
            added.id,
            "AWS::S3::BucketPolicy",
            {"Bucket": added.bucket, "PolicyDocument": policy(added.statements)},
        )


@render.register
def _(queue: Queue, tag: dict[str, str]) -> Made:
    redrive = {"deadLetterTargetArn": queue.dead_letter_arn, "maxReceiveCount": queue.max_receives}
    yield (
        queue.id,
        "AWS::SQS::Queue",
        {
            "QueueName": queue.name,
            "MessageRetentionPeriod": queue.retention,
            "VisibilityTimeout": queue.visibility,
            "ReceiveMessageWaitTimeSeconds": 20,
            "SqsManagedSseEnabled": True,
            "RedrivePolicy": redrive if queue.dead_letter_arn else None,
            "Tags": _tags(tag),
        },
    )
    if queue.statements:
        yield (
            f"{queue.id}Policy",
            "AWS::SQS::QueuePolicy",
            {"Queues": [{"Ref": queue.id}], "PolicyDocument": policy(queue.statements)},
        )


@render.register
def _(role: Role, tag: dict[str, str]) -> Made:
    yield (
        role.id,
        "AWS::IAM::Role",
        {
            "RoleName": role.name,
            "Path": role.path if role.path != "/" else None,
            "Description": role.description,
            "AssumeRolePolicyDocument": policy(role.trust),
            "MaxSessionDuration": role.max_session,
            "Policies": [
                {"PolicyName": name, "PolicyDocument": policy(statements)} for name, statements in role.policies
            ],
            "Tags": _tags(tag),
        },
    )


@render.register
def _(managed: ManagedPolicy, tag: dict[str, str]) -> Made:
    kind, _, name = managed.attach_to.partition("/")
    yield (
        managed.id,
        "AWS::IAM::ManagedPolicy",
        {
            "ManagedPolicyName": managed.name,
            "PolicyDocument": policy(managed.statements),
            "Roles": [name] if kind == "role" else None,
            "Users": [name] if kind == "user" else None,
        },
    )


@render.register
def _(group: LogGroup, tag: dict[str, str]) -> Made:
    yield (
        group.id,
        "AWS::Logs::LogGroup",
        {
            "LogGroupName": group.name,
            "RetentionInDays": group.retention_days,
            "KmsKeyId": group.key_arn,
            "Tags": _tags(tag),
        },
    )
    for stream in group.streams:
        name = re.sub(r"[^0-9A-Za-z]", "", f"{group.id}{stream}")
        yield name, "AWS::Logs::LogStream", {"LogGroupName": {"Ref": group.id}, "LogStreamName": stream}


@render.register
def _(log: FlowLog, tag: dict[str, str]) -> Made:
    fields = [{"ResourceType": kind, "TagKeys": list(keys)} for kind, keys in log.tag_fields]
    yield (
        log.id,
        "AWS::EC2::FlowLog",
        {
            "ResourceType": log.resource_type,
            "ResourceId": log.resource_id,
            "TrafficType": log.traffic,
            "LogDestinationType": log.destination_type,
            "LogDestination": log.destination,
            "LogGroupName": log.log_group,
            "DeliverLogsPermissionArn": log.role_arn,
            "DeliverCrossAccountRole": log.cross_account_role_arn,
            "LogFormat": log.log_format,
            "MaxAggregationInterval": log.interval,
            "DestinationOptions": dict(log.options) if log.options else None,
            "TagFieldSpecifications": fields,
            "Tags": _tags(tag),
        },
    )


@render.register
def _(subscription: SubscriptionFilter, tag: dict[str, str]) -> Made:
    yield (
        subscription.id,
        "AWS::Logs::SubscriptionFilter",
        {
            "LogGroupName": subscription.log_group,
            "FilterName": subscription.name,
            "FilterPattern": subscription.pattern,
            "DestinationArn": subscription.destination_arn,
            "RoleArn": subscription.role_arn,
        },
    )


@render.register
def _(stream: Stream, tag: dict[str, str]) -> Made:
    yield (
        stream.id,
        "AWS::Kinesis::Stream",
        {
            "Name": stream.name,
            "ShardCount": stream.shards,
            "StreamModeDetails": None if stream.shards else {"StreamMode": "ON_DEMAND"},
            "RetentionPeriodHours": stream.retention_hours,
            "StreamEncryption": {"EncryptionType": "KMS", "KeyId": stream.key_arn or "alias/aws/kinesis"},
            "Tags": _tags(tag),
        },
    )


@render.register
def _(stream: DeliveryStream, tag: dict[str, str]) -> Made:
    parameter, configuration = calls.delivery_configuration(stream)
    yield (
        stream.id,
        "AWS::KinesisFirehose::DeliveryStream",
        {
            "DeliveryStreamName": stream.name,
            "DeliveryStreamType": "DirectPut",
            parameter: configuration,
            "Tags": [*_tags(tag), calls.DELIVERY_TAG],
        },
    )


@render.register
def _(destination: Destination, tag: dict[str, str]) -> Made:
    yield (
        destination.id,
        "AWS::Logs::Destination",
        {
            "DestinationName": destination.name,
            "TargetArn": destination.target_arn,
            "RoleArn": destination.role_arn,
            "DestinationPolicy": calls.text(policy(destination.statements)),
            "Tags": _tags(tag),
        },
    )
