"""`setup s3`: flow logs to a bucket, the bucket tells a queue, the agent reads the queue.

The bucket and its queue are in one place (AWS requires one region); flow logs may come from any account and region.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from edfn_agent.setup import statements as say
from edfn_agent.setup.flowlogs import FlowLogOptions, Watched, flow_logs, format_notes, places
from edfn_agent.setup.model import (
    Bucket,
    BucketPolicy,
    Key,
    KeyStatements,
    Notification,
    Place,
    Plan,
    Queue,
    Resource,
    SetupError,
    Statement,
)


@dataclass(frozen=True)
class BucketOptions:
    """The bucket that is read, its queue and its key."""

    bucket: str
    existing: bool = False
    prefix: str = ""  # ends with a slash unless empty
    suffix: str = ""
    queue: str = ""
    kms: str = ""  # "", new, or the ARN of a key
    expire_days: int = 30
    existing_queue: bool = False  # the bucket announces its objects already

    def __post_init__(self) -> None:
        if self.prefix.startswith("/") or "AWSLogs" in self.prefix:
            raise SetupError(f"prefix {self.prefix!r}: no slash in front, and no AWSLogs (AWS appends that itself)")
        if self.existing_queue and not self.existing:
            raise SetupError("--existing-queue goes with --existing-bucket: a new bucket announces nothing yet")
        if self.existing_queue and not self.queue:
            raise SetupError("which queue is there already? Say --queue NAME")
        if self.kms and self.kms != "new" and not self.kms.startswith("arn:"):
            raise SetupError("--kms takes 'new' or the ARN of a key")

    @property
    def key_arn(self) -> str | None:
        return "%{Key.Arn}" if self.kms == "new" else self.kms or None


def key(
    options_kms: str, place: Place, name: str, statements: Sequence[Statement], stage: int = 1, id: str = "Key"
) -> list[Resource]:
    """The key that was asked for: a new one with this policy, or statements for one that is there."""
    if not options_kms:
        return []
    if options_kms == "new":
        whole = (say.key_of_account(place), *statements)
        return [Key(id=id, place=place, stage=stage, alias=f"alias/{name}", statements=whole)]
    if not statements:
        return []
    added = named_after(name, statements)
    return [KeyStatements(id=f"{id}Statements", place=place, stage=stage, key_arn=options_kms, statements=added)]


def key_notes(kms: str) -> tuple[str, ...]:
    """What the agent needs to read what a key of one's own encrypts."""
    if not kms:
        return ()
    named = "the new key" if kms == "new" else kms
    arn = "ARN" if kms == "new" else kms
    return (f"The agent's role needs kms:Decrypt on {named} (setup policy --kms-key {arn}).",)


def named_after(name: str, statements: Sequence[Statement]) -> tuple[Statement, ...]:
    """Statements for a policy that others write too: their names must be nobody else's, and they must only allow."""
    mark = "".join(part.capitalize() for part in re.split(r"[^0-9A-Za-z]+", name))[:40]
    allowed = [statement for statement in statements if statement["Effect"] == "Allow"]
    return tuple({**each, "Sid": f"{mark}{each['Sid']}"} for each in told_apart(allowed))


def told_apart(statements: Sequence[Statement]) -> tuple[Statement, ...]:
    """Names that follow from what is allowed: what was set up before for another prefix or account stays beside it."""
    return tuple(
        {**each, "Sid": f"{each['Sid']}{digest(each)}"} if each["Effect"] == "Allow" else each for each in statements
    )


def digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def bucket_with_queue(
    place: Place,
    name: str,
    options: BucketOptions,
    policy: tuple[Statement, ...],
    prefix: str,
    suffix: str,
    as_documented: bool,
    stage: int = 1,
) -> list[Resource]:
    """A bucket, its policy, a queue with a dead-letter queue, and the notification between them."""
    queue = options.queue or name
    queues: list[Resource] = [
        Queue(id="DeadLetterQueue", place=place, stage=stage, name=f"{queue}-dead-letters", visibility=30),
        Queue(
            id="Queue",
            place=place,
            stage=stage,
            needs=("DeadLetterQueue",),
            name=queue,
            statements=say.notified_queue(place, queue, options.bucket, as_documented),
            dead_letter_arn=place.arn("sqs", f"{queue}-dead-letters"),
        ),
    ]
    made = [] if options.existing_queue else queues
    if not options.existing:
        made.append(
            Bucket(
                id="Bucket",
                place=place,
                stage=stage,
                needs=("Key",) if options.kms == "new" else (),
                name=options.bucket,
                key_arn=options.key_arn,
                expire_days=options.expire_days,
            )
        )
    needs = () if options.existing else ("Bucket",)
    if options.existing:
        policy = named_after(name, policy)
    elif not as_documented:
        policy = told_apart(policy)
    if policy:
        made.append(
            BucketPolicy(
                id="BucketPolicy",
                place=place,
                stage=stage,
                needs=needs,
                bucket=options.bucket,
                statements=policy,
                existing=options.existing,
            )
        )
    if options.existing_queue:
        return made
    made.append(
        Notification(
            id="Notification",
            place=place,
            stage=stage,
            needs=(*needs, "Queue"),
            bucket=options.bucket,
            name=f"{name}-{digest([queue, prefix, suffix])}",
            queue_arn=place.arn("sqs", queue),
            prefix=prefix,
            suffix=suffix,
            existing=options.existing,
        )
    )
    return made


def queue_configuration(place: Place, queue: str) -> str:
    return f"inputs:\n  s3:\n    queues:\n      - {place.arn('sqs', queue)}\n"


@dataclass(frozen=True)
class S3Options:
    """`setup s3`."""

    name: str
    place: Place  # of the bucket
    bucket: BucketOptions
    watched: tuple[Watched, ...]
    flow_log: FlowLogOptions = field(default_factory=FlowLogOptions)
    also_from: tuple[Place, ...] = ()  # places whose flow logs will be made otherwise
    parquet: bool = False
    hive: bool = False
    hourly: bool = False
    as_documented: bool = False


def plan(options: S3Options) -> Plan:
    home, bucket = options.place, options.bucket
    sources = list(dict.fromkeys([*places(options.watched), *options.also_from]))
    if not sources:
        raise SetupError("nothing is watched: name a --vpc, --subnet, --interface or --transit-gateway")
    policy = say.delivered_bucket(home, bucket.bucket, bucket.prefix, sources, options.hive, options.as_documented)
    resources = [
        *key(bucket.kms, home, options.name, [say.key_for_delivered_bucket(sources)]),
        *bucket_with_queue(
            home,
            options.name,
            bucket,
            policy,
            f"{bucket.prefix}AWSLogs/",
            bucket.suffix or (".log.parquet" if options.parquet else ".log.gz"),
            options.as_documented,
        ),
        *flow_logs(
            options.watched,
            options.flow_log,
            stage_of=lambda place: 1 if place == home else 2,
            needs=lambda place: ("BucketPolicy",) if place == home else (),
            destination_type="s3",
            destination=f"{home.bucket(bucket.bucket)}/{bucket.prefix}".rstrip("/"),
            options={
                "FileFormat": "parquet" if options.parquet else "plain-text",
                "HiveCompatiblePartitions": options.hive,
                "PerHourPartition": options.hourly,
            },
        ),
    ]
    notes = list(format_notes(options.watched, options.flow_log))
    notes.append(
        "Whoever creates the flow logs needs ec2:CreateFlowLogs, logs:CreateLogDelivery and logs:DeleteLogDelivery in "
        "the account of the VPC, and s3:GetBucketPolicy and s3:PutBucketPolicy on the bucket if AWS is to find its "
        "policy in order."
    )
    notes += key_notes(bucket.kms)
    return Plan(
        "s3",
        options.name,
        tuple(resources),
        configuration=queue_configuration(home, bucket.queue or options.name),
        notes=tuple(notes),
    )
