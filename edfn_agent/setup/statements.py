"""The policies, statement by statement: who may do what to which resource, and on whose behalf.

In: names and places. Out: statements. `as_documented` gives the wording of AWS's (and the vendor's) older examples,
which leave out conditions that AWS recommends today; docs/setup.md says what each of them guards against.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edfn_agent.setup.model import Place, Statement


def allow(
    actions: str | Sequence[str], resources: str | Sequence[str], sid: str = "", condition: Any = None
) -> Statement:
    """An Allow of an identity's policy."""
    statement: Statement = {"Sid": sid} if sid else {}
    statement |= {"Effect": "Allow", "Action": _listed(actions), "Resource": _listed(resources)}
    if condition:
        statement["Condition"] = condition
    return statement


def trust(principal: dict[str, Any], condition: Any = None) -> Statement:
    """Who may take a role."""
    statement: Statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    if condition:
        statement["Condition"] = condition
    return statement


def _listed(values: str | Sequence[str]) -> str | list[str]:
    return values if isinstance(values, str) else list(values)


def _one_or_more(values: Iterable[str]) -> str | list[str]:
    found = sorted(set(values))
    return found[0] if len(found) == 1 else found


# --- flow logs into CloudWatch Logs -------------------------------------------------------------------------------


def flow_log_role_trust(place: Place, as_documented: bool) -> Statement:
    condition = {
        "StringEquals": {"aws:SourceAccount": place.account},
        "ArnLike": {"aws:SourceArn": place.arn("ec2", "vpc-flow-log/*")},
    }
    return trust({"Service": "vpc-flow-logs.amazonaws.com"}, None if as_documented else condition)


def flow_log_role_policy(place: Place, log_group: str, as_documented: bool) -> tuple[Statement, ...]:
    if as_documented:
        actions = ["CreateLogGroup", "CreateLogStream", "PutLogEvents", "DescribeLogGroups", "DescribeLogStreams"]
        return (allow([f"logs:{action}" for action in actions], "*"),)
    group = place.log_group(log_group)
    # No CreateLogGroup: a group that somebody deleted must not come back without retention and key.
    return (
        allow(["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"], [group, f"{group}:*"]),
        allow("logs:DescribeLogGroups", "*"),  # AWS knows no narrower resource for a list
    )


# --- a bucket that flow logs are delivered to ---------------------------------------------------------------------


def delivered_bucket(
    bucket: Place, name: str, prefix: str, sources: Sequence[Place], hive: bool, as_documented: bool
) -> tuple[Statement, ...]:
    """The log delivery service may write, for these accounts and regions and below this prefix only."""
    accounts = sorted({source.account for source in sources})
    folders = ["aws-account-id={}" if hive else "{}"] if not as_documented else ["{}"]
    keys = [f"{prefix}AWSLogs/{folder.format(account)}/*" for account in accounts for folder in folders]
    on_behalf: dict[str, Any] = {}
    acl: dict[str, Any] = {"StringEquals": {"s3:x-amz-acl": "bucket-owner-full-control"}}
    if not as_documented:
        arns = [source.arn("logs", "*") for source in sources]
        on_behalf = {
            "StringEquals": {"aws:SourceAccount": _one_or_more(accounts)},
            "ArnLike": {"aws:SourceArn": _one_or_more(arns)},
        }
        acl = {"StringEquals": {**acl["StringEquals"], **on_behalf["StringEquals"]}, "ArnLike": on_behalf["ArnLike"]}
    write: Statement = {
        "Sid": "AWSLogDeliveryWrite",
        "Effect": "Allow",
        "Principal": {"Service": "delivery.logs.amazonaws.com"},
        "Action": "s3:PutObject",
        "Resource": _one_or_more(f"{bucket.bucket(name)}/{key}" for key in keys),
        "Condition": acl,
    }
    check: Statement = {
        "Sid": "AWSLogDeliveryAclCheck",
        "Effect": "Allow",
        "Principal": {"Service": "delivery.logs.amazonaws.com"},
        # ListBucket spares AccessDenied lines in CloudTrail (CloudWatch Logs user guide, "Logs sent to Amazon S3").
        "Action": "s3:GetBucketAcl" if as_documented else ["s3:GetBucketAcl", "s3:ListBucket"],
        "Resource": bucket.bucket(name),
    }
    if on_behalf:
        check["Condition"] = on_behalf
    return (write, check) if as_documented else (write, check, *encrypted_transport(bucket, name))


def encrypted_transport(bucket: Place, name: str) -> tuple[Statement, ...]:
    return (
        {
            "Sid": "EncryptedTransportOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [bucket.bucket(name), f"{bucket.bucket(name)}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        },
    )


def notified_queue(queue: Place, name: str, bucket_name: str, as_documented: bool) -> tuple[Statement, ...]:
    """The bucket may send to the queue. S3 says a bucket's name, not its owner: the account has to be asked for."""
    arn = queue.arn("sqs", name)
    if as_documented:
        return (
            {
                "Sid": "S3Notifications",
                "Effect": "Allow",
                "Principal": {"AWS": "*"},
                "Action": ["SQS:SendMessage"],
                "Resource": arn,
                "Condition": {"ArnLike": {"aws:SourceArn": f"arn:{queue.partition}:s3:*:*:{bucket_name}"}},
            },
        )
    return (
        {
            "Sid": "S3Notifications",
            "Effect": "Allow",
            "Principal": {"Service": "s3.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {
                "ArnEquals": {"aws:SourceArn": queue.bucket(bucket_name)},
                "StringEquals": {"aws:SourceAccount": queue.account},
            },
        },
    )


# --- KMS ----------------------------------------------------------------------------------------------------------

_ENCRYPT = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]


def key_of_account(key: Place) -> Statement:
    """IAM policies of the account decide over the key; without this nobody could ever change its policy."""
    return {
        "Sid": "AccountOwnsKey",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:{key.partition}:iam::{key.account}:root"},
        "Action": "kms:*",
        "Resource": "*",
    }


def key_for_delivered_bucket(sources: Sequence[Place]) -> Statement:
    return {
        "Sid": "FlowLogsToS3",
        "Effect": "Allow",
        "Principal": {"Service": "delivery.logs.amazonaws.com"},
        "Action": _ENCRYPT,
        "Resource": "*",  # in a key's policy: this key
        "Condition": {
            "StringEquals": {"aws:SourceAccount": _one_or_more(source.account for source in sources)},
            "ArnLike": {"aws:SourceArn": _one_or_more(source.arn("logs", "*") for source in sources)},
        },
    }


def key_for_notified_queue(queue: Place, buckets: Sequence[str]) -> Statement:
    """S3 may send to a queue that is encrypted with the key, for these buckets."""
    return {
        "Sid": "S3Notifications",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": "*",
        "Condition": {
            "ArnEquals": {"aws:SourceArn": _one_or_more(queue.bucket(name) for name in buckets)},
            "StringEquals": {"aws:SourceAccount": queue.account},
        },
    }


def key_for_log_group(place: Place, log_group: str) -> Statement:
    return {
        "Sid": "LogGroup",
        "Effect": "Allow",
        "Principal": {"Service": f"logs.{place.region}.{place.domain}"},
        "Action": _ENCRYPT,
        "Resource": "*",
        "Condition": {"ArnEquals": {"kms:EncryptionContext:aws:logs:arn": place.log_group(log_group)}},
    }


# --- CloudWatch Logs onwards --------------------------------------------------------------------------------------


def subscription_role_trust(place: Place, sources: Sequence[Place], as_documented: bool) -> Statement:
    """CloudWatch Logs may take the role, for log groups of these accounts."""
    if as_documented:
        return trust({"Service": f"logs.{place.region}.{place.domain}"})
    arns = _one_or_more(source.arn("logs", "*") for source in (*sources, place))
    return trust({"Service": "logs.amazonaws.com"}, {"StringLike": {"aws:SourceArn": arns}})


def to_stream(stream_arn: str, key_arn: str | None) -> tuple[Statement, ...]:
    statements = [allow(["kinesis:PutRecord", "kinesis:PutRecords"], stream_arn)]
    if key_arn:
        statements.append(allow("kms:GenerateDataKey", key_arn))
    return tuple(statements)


def to_delivery_stream(delivery_stream_arn: str) -> tuple[Statement, ...]:
    return (allow(["firehose:PutRecord", "firehose:PutRecordBatch"], delivery_stream_arn),)


def destination_access(
    place: Place, name: str, accounts: Sequence[str], organization: str | None
) -> tuple[Statement, ...]:
    """Which accounts may point a subscription filter at the destination."""
    statement: Statement = {
        "Effect": "Allow",
        "Principal": {"AWS": _one_or_more(accounts)},
        "Action": "logs:PutSubscriptionFilter",
        "Resource": place.arn("logs", f"destination:{name}"),
    }
    if organization:
        statement["Principal"] = "*"
        statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": organization}}
    return (statement,)


# --- Firehose -----------------------------------------------------------------------------------------------------


def firehose_role_trust(place: Place, as_documented: bool) -> Statement:
    condition = {"StringEquals": {"sts:ExternalId": place.account}}
    return trust({"Service": "firehose.amazonaws.com"}, None if as_documented else condition)


def firehose_role_policy(
    place: Place, bucket: str, key_arn: str | None, error_log_group: str, secret_arn: str | None = None
) -> tuple[Statement, ...]:
    arn = place.bucket(bucket)
    statements = [
        allow(["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"], arn, "Bucket"),
        allow(["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"], f"{arn}/*", "Objects"),
        allow("logs:PutLogEvents", f"{place.log_group(error_log_group)}:log-stream:*", "Errors"),
    ]
    if key_arn:
        via = {
            "StringEquals": {"kms:ViaService": f"s3.{place.region}.{place.domain}"},
            "StringLike": {"kms:EncryptionContext:aws:s3:arn": [arn, f"{arn}/*"]},
        }
        statements.append(allow(["kms:Decrypt", "kms:GenerateDataKey"], key_arn, "Key", via))
    if secret_arn:
        statements.append(allow("secretsmanager:GetSecretValue", secret_arn, "AccessKey"))
    return tuple(statements)


def cross_account_source(
    source: Place, role: str, destination_role_arn: str, resource_arns: Sequence[str]
) -> tuple[Statement, ...]:
    """The role in the flow log's account, as AWS documents it ("IAM roles for cross account delivery")."""
    passed = {
        "StringEquals": {"iam:PassedToService": "delivery.logs.amazonaws.com"},
        "StringLike": {"iam:AssociatedResourceARN": list(resource_arns)},
    }
    actions = ["CreateLogDelivery", "DeleteLogDelivery", "ListLogDeliveries", "GetLogDelivery"]
    return (
        allow("iam:PassRole", source.role(role), condition=passed),
        allow([f"logs:{action}" for action in actions], "*"),
        allow("sts:AssumeRole", destination_role_arn),
    )


def cross_account_destination(place: Place, delivery_stream_arn: str, as_documented: bool) -> tuple[Statement, ...]:
    """The role in the delivery stream's account."""
    if as_documented:
        return (allow(["iam:CreateServiceLinkedRole", "firehose:TagDeliveryStream"], "*"),)
    service = "delivery.logs.amazonaws.com"
    return (
        allow(
            "iam:CreateServiceLinkedRole",
            f"arn:{place.partition}:iam::{place.account}:role/aws-service-role/{service}/*",
            condition={"StringEquals": {"iam:AWSServiceName": service}},
        ),
        allow("firehose:TagDeliveryStream", delivery_stream_arn),
    )
