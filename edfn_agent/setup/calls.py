"""Each resource as calls of the AWS API: how it is made. `commandline` prints these steps, `apply` takes them.

In: a resource of `model`. Out: steps, as plain data, with the parameters by their names in the API.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

from edfn_agent.setup.model import (
    ACCESS_KEY,
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
    Queue,
    Resource,
    Role,
    Stream,
    SubscriptionFilter,
    policy,
)


@dataclass(frozen=True)
class Call:
    """One call of the AWS API."""

    service: str  # as boto3 names it
    operation: str  # as the API names it
    parameters: dict[str, Any]
    saves: tuple[str, str] | None = None  # (placeholder, where in the answer its value is)


@dataclass(frozen=True)
class Merge:
    """Entries put into a document that may hold other people's: read, replace those of the same name, write."""

    read: Call
    write: Call  # without the document
    document: str  # the parameter that holds it
    entries_in: str  # Statement, QueueConfigurations
    named_by: str  # Sid, Id
    entries: tuple[dict[str, Any], ...]
    as_text: bool  # the document is JSON in a string
    ours: bool = False  # nobody else has written it: the first time it can simply be put


@dataclass(frozen=True)
class Wait:
    """Until an answer of AWS says so."""

    call: Call
    path: tuple[str, ...]
    value: str


@dataclass(frozen=True)
class Pause:
    """For what AWS cannot be asked."""

    seconds: int
    why: str


Step = Call | Merge | Wait | Pause


@dataclass(frozen=True)
class Tag:
    """The tag that everything made for a plan carries, in the spellings that the services want."""

    value: str
    mapping: dict[str, str] = field(init=False)
    listed: list[dict[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "mapping", {TAG: self.value})
        object.__setattr__(self, "listed", [{"Key": TAG, "Value": self.value}])


def text(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))


@singledispatch
def make(resource: Resource, tag: Tag) -> list[Step]:
    """The steps that make a resource."""
    raise NotImplementedError(type(resource).__name__)


@make.register
def _(key: Key, tag: Tag) -> list[Step]:
    tags = [{"TagKey": name, "TagValue": value} for name, value in tag.mapping.items()]
    return [
        Call(
            "kms",
            "CreateKey",
            {"Description": f"Flow logs ({tag.value})", "Policy": text(policy(key.statements)), "Tags": tags},
            saves=(f"{key.id}.Arn", "KeyMetadata.Arn"),
        ),
        Call("kms", "EnableKeyRotation", {"KeyId": f"%{{{key.id}.Arn}}"}),
        Call("kms", "CreateAlias", {"AliasName": key.alias, "TargetKeyId": f"%{{{key.id}.Arn}}"}),
    ]


@make.register
def _(added: KeyStatements, tag: Tag) -> list[Step]:
    named = {"KeyId": added.key_arn, "PolicyName": "default"}
    return [
        Merge(
            Call("kms", "GetKeyPolicy", named),
            Call("kms", "PutKeyPolicy", named),
            document="Policy",
            entries_in="Statement",
            named_by="Sid",
            entries=added.statements,
            as_text=True,
        )
    ]


@make.register
def _(bucket: Bucket, tag: Tag) -> list[Step]:
    create: dict[str, Any] = {"Bucket": bucket.name}
    if bucket.place.region != "us-east-1":  # whose name S3 does not take
        create["CreateBucketConfiguration"] = {"LocationConstraint": bucket.place.region}
    encryption: dict[str, Any] = {"SSEAlgorithm": "AES256"}
    if bucket.key_arn:
        encryption = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": bucket.key_arn}
    rule = {"ApplyServerSideEncryptionByDefault": encryption, "BucketKeyEnabled": bool(bucket.key_arn)}
    named = {"Bucket": bucket.name}
    steps: list[Step] = [
        Call("s3", "CreateBucket", create),
        Call("s3", "PutBucketTagging", {**named, "Tagging": {"TagSet": tag.listed}}),
        Call("s3", "PutPublicAccessBlock", {**named, "PublicAccessBlockConfiguration": PUBLIC_ACCESS_BLOCK}),
        Call("s3", "PutBucketEncryption", {**named, "ServerSideEncryptionConfiguration": {"Rules": [rule]}}),
    ]
    if bucket.expire_days:
        lifecycle = {"Rules": [lifecycle_rule(bucket.expire_days)]}
        steps.append(Call("s3", "PutBucketLifecycleConfiguration", {**named, "LifecycleConfiguration": lifecycle}))
    return steps


PUBLIC_ACCESS_BLOCK = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}


def lifecycle_rule(days: int) -> dict[str, Any]:
    return {
        "ID": "expire",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "Expiration": {"Days": days},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }


@make.register
def _(added: BucketPolicy, tag: Tag) -> list[Step]:
    named = {"Bucket": added.bucket}
    return [
        Merge(
            Call("s3", "GetBucketPolicy", named),
            Call("s3", "PutBucketPolicy", named),
            document="Policy",
            entries_in="Statement",
            named_by="Sid",
            entries=added.statements,
            as_text=True,
            ours=not added.existing,
        )
    ]


def queue_attributes(queue: Queue) -> dict[str, str]:
    attributes = {
        "MessageRetentionPeriod": str(queue.retention),
        "VisibilityTimeout": str(queue.visibility),
        "ReceiveMessageWaitTimeSeconds": "20",
        # S3 cannot send to a queue under the AWS-managed KMS key; SQS's own encryption needs no permission.
        "SqsManagedSseEnabled": "true",
    }
    if queue.statements:
        attributes["Policy"] = text(policy(queue.statements))
    if queue.dead_letter_arn:
        redrive = {"deadLetterTargetArn": queue.dead_letter_arn, "maxReceiveCount": queue.max_receives}
        attributes["RedrivePolicy"] = text(redrive)
    return attributes


@make.register
def _(queue: Queue, tag: Tag) -> list[Step]:
    parameters = {"QueueName": queue.name, "Attributes": queue_attributes(queue), "tags": tag.mapping}
    return [Call("sqs", "CreateQueue", parameters)]


@make.register
def _(notification: Notification, tag: Tag) -> list[Step]:
    rules = [
        {"Name": name, "Value": value}
        for name, value in (("prefix", notification.prefix), ("suffix", notification.suffix))
        if value
    ]
    entry: dict[str, Any] = {
        "Id": notification.name,
        "QueueArn": notification.queue_arn,
        "Events": ["s3:ObjectCreated:*"],
    }
    if rules:
        entry["Filter"] = {"Key": {"FilterRules": rules}}
    named = {"Bucket": notification.bucket}
    return [
        Merge(
            Call("s3", "GetBucketNotificationConfiguration", named),
            Call("s3", "PutBucketNotificationConfiguration", named),
            document="NotificationConfiguration",
            entries_in="QueueConfigurations",
            named_by="Id",
            entries=(entry,),
            as_text=False,
            ours=not notification.existing,
        )
    ]


@make.register
def _(role: Role, tag: Tag) -> list[Step]:
    path = {"Path": role.path} if role.path != "/" else {}
    steps: list[Step] = [
        Call(
            "iam",
            "CreateRole",
            {
                "RoleName": role.name,
                **path,
                "Description": role.description,
                "AssumeRolePolicyDocument": text(policy(role.trust)),
                "MaxSessionDuration": role.max_session,
                "Tags": tag.listed,
            },
        )
    ]
    steps += [
        Call(
            "iam",
            "PutRolePolicy",
            {"RoleName": role.name, "PolicyName": name, "PolicyDocument": text(policy(statements))},
        )
        for name, statements in role.policies
    ]
    return [*steps, Pause(10, "a new role takes some seconds to be known everywhere")]


@make.register
def _(managed: ManagedPolicy, tag: Tag) -> list[Step]:
    document = text(policy(managed.statements))
    steps: list[Step] = [
        Call("iam", "CreatePolicy", {"PolicyName": managed.name, "PolicyDocument": document, "Tags": tag.listed})
    ]
    kind, _, name = managed.attach_to.partition("/")
    if kind == "role":
        steps.append(Call("iam", "AttachRolePolicy", {"RoleName": name, "PolicyArn": managed.arn}))
    elif kind == "user":
        steps.append(Call("iam", "AttachUserPolicy", {"UserName": name, "PolicyArn": managed.arn}))
    return steps


@make.register
def _(group: LogGroup, tag: Tag) -> list[Step]:
    create: dict[str, Any] = {"logGroupName": group.name, "tags": tag.mapping}
    if group.key_arn:
        create["kmsKeyId"] = group.key_arn
    return [
        Call("logs", "CreateLogGroup", create),
        Call("logs", "PutRetentionPolicy", {"logGroupName": group.name, "retentionInDays": group.retention_days}),
        *(
            Call("logs", "CreateLogStream", {"logGroupName": group.name, "logStreamName": stream})
            for stream in group.streams
        ),
    ]


@make.register
def _(log: FlowLog, tag: Tag) -> list[Step]:
    parameters: dict[str, Any] = {
        "ResourceType": log.resource_type,
        "ResourceIds": [log.resource_id],
        "TrafficType": log.traffic,
        "LogDestinationType": log.destination_type,
        "LogDestination": log.destination,
        "LogGroupName": log.log_group,
        "DeliverLogsPermissionArn": log.role_arn,
        "DeliverCrossAccountRole": log.cross_account_role_arn,
        "LogFormat": log.log_format,
        "MaxAggregationInterval": log.interval,
        "DestinationOptions": dict(log.options) if log.options else None,
        "TagFieldSpecifications": [{"ResourceType": kind, "TagKeys": list(keys)} for kind, keys in log.tag_fields]
        or None,
        "TagSpecifications": [{"ResourceType": "vpc-flow-log", "Tags": tag.listed}],
    }
    return [Call("ec2", "CreateFlowLogs", {name: value for name, value in parameters.items() if value is not None})]


@make.register
def _(subscription: SubscriptionFilter, tag: Tag) -> list[Step]:
    parameters: dict[str, Any] = {
        "logGroupName": subscription.log_group,
        "filterName": subscription.name,
        "filterPattern": subscription.pattern,
        "destinationArn": subscription.destination_arn,
    }
    if subscription.role_arn:
        parameters["roleArn"] = subscription.role_arn
    return [Call("logs", "PutSubscriptionFilter", parameters)]


@make.register
def _(stream: Stream, tag: Tag) -> list[Step]:
    named = {"StreamName": stream.name}
    create: dict[str, Any] = {**named, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}}
    if stream.shards:
        create = {**named, "ShardCount": stream.shards}
    status = ("StreamDescriptionSummary", "StreamStatus")
    ready = Wait(Call("kinesis", "DescribeStreamSummary", named), status, "ACTIVE")
    steps: list[Step] = [
        Call("kinesis", "CreateStream", create),
        ready,
        Call("kinesis", "AddTagsToStream", {**named, "Tags": tag.mapping}),
    ]
    if stream.retention_hours > 24:
        hours = {**named, "RetentionPeriodHours": stream.retention_hours}
        steps += [Call("kinesis", "IncreaseStreamRetentionPeriod", hours), ready]
    key = stream.key_arn or "alias/aws/kinesis"
    steps += [Call("kinesis", "StartStreamEncryption", {**named, "EncryptionType": "KMS", "KeyId": key}), ready]
    return steps


def delivery_configuration(stream: DeliveryStream) -> tuple[str, dict[str, Any]]:
    """The destination of a delivery stream, and the name of the parameter it stands in."""
    bucket: dict[str, Any] = {
        "RoleARN": stream.role_arn,
        "BucketARN": stream.place.bucket(stream.bucket),
        "ErrorOutputPrefix": stream.error_prefix,
        "BufferingHints": {"SizeInMBs": stream.buffer_mib, "IntervalInSeconds": stream.buffer_seconds},
        "CompressionFormat": stream.compression,
        "CloudWatchLoggingOptions": _errors(stream, "BackupDelivery" if stream.endpoint else "DestinationDelivery"),
    }
    if stream.key_arn:
        bucket["EncryptionConfiguration"] = {"KMSEncryptionConfig": {"AWSKMSKeyARN": stream.key_arn}}
    if stream.endpoint is None:
        return "ExtendedS3DestinationConfiguration", {**bucket, "Prefix": stream.prefix}
    endpoint: dict[str, Any] = {"Url": stream.endpoint.url, "Name": stream.endpoint.name}
    configuration: dict[str, Any] = {
        "EndpointConfiguration": endpoint,
        "RoleARN": stream.role_arn,
        "RequestConfiguration": {"ContentEncoding": "GZIP"},
        "BufferingHints": {"SizeInMBs": stream.buffer_mib, "IntervalInSeconds": stream.buffer_seconds},
        "RetryOptions": {"DurationInSeconds": stream.endpoint.retry_seconds},
        "CloudWatchLoggingOptions": _errors(stream, "DestinationDelivery"),
        "S3BackupMode": "FailedDataOnly",
        "S3Configuration": bucket,
    }
    if stream.endpoint.secret_arn:
        secret = {"Enabled": True, "SecretARN": stream.endpoint.secret_arn, "RoleARN": stream.role_arn}
        configuration["SecretsManagerConfiguration"] = secret
    else:
        endpoint["AccessKey"] = ACCESS_KEY
    return "HttpEndpointDestinationConfiguration", configuration


def _errors(stream: DeliveryStream, log_stream: str) -> dict[str, Any]:
    return {"Enabled": True, "LogGroupName": stream.error_log_group, "LogStreamName": log_stream}


# Flow logs find out by this tag that they may deliver; AWS sets it too, if whoever creates the flow log may tag.
DELIVERY_TAG = {"Key": "LogDeliveryEnabled", "Value": "true"}


@make.register
def _(stream: DeliveryStream, tag: Tag) -> list[Step]:
    parameter, configuration = delivery_configuration(stream)
    create = {
        "DeliveryStreamName": stream.name,
        "DeliveryStreamType": "DirectPut",
        parameter: configuration,
        "Tags": [*tag.listed, DELIVERY_TAG],
    }
    look = Call("firehose", "DescribeDeliveryStream", {"DeliveryStreamName": stream.name})
    status = ("DeliveryStreamDescription", "DeliveryStreamStatus")
    return [Call("firehose", "CreateDeliveryStream", create), Wait(look, status, "ACTIVE")]


@make.register
def _(destination: Destination, tag: Tag) -> list[Step]:
    named = {"destinationName": destination.name}
    put = {**named, "targetArn": destination.target_arn, "roleArn": destination.role_arn, "tags": tag.mapping}
    access = {**named, "accessPolicy": text(policy(destination.statements))}
    return [Call("logs", "PutDestination", put), Call("logs", "PutDestinationPolicy", access)]
