"""What mends a fault, ready to be copied: statements and commands, taken from `edfn_agent.setup`.

In: the configuration and the place. Out: JSON of a statement, a line of shell. Never: a policy written by hand here
that setup knows; a secret.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from edfn_agent.inventory.model import Bucket, FlowLog, Queue
from edfn_agent.setup.agent_policy import Access, StreamUse, member
from edfn_agent.setup.calls import Call
from edfn_agent.setup.model import Place, Statement
from edfn_agent.setup.statements import (
    allow,
    delivered_bucket,
    flow_log_role_policy,
    key_for_delivered_bucket,
    key_for_notified_queue,
)
from edfn_agent.setup.statements import notified_queue as _notified_queue


class Mending:
    """For one configuration."""

    def __init__(self, config: Any, file: str) -> None:
        self.file = file
        self._access = access_of(config)
        everything = frozenset(("s3", "cloudwatch_logs", "kinesis", "firehose"))
        # Also what the inputs in use do not need: discovery asks more than one input's questions.
        self._wide = Access(everything, kinesis_metrics=True, simulate=True)

    def statement(self, account: str, action: str, resource: str = "", partition: str = "aws") -> str:
        """The statement that allows one action, with the resources that setup would give it."""
        if action == "kms:Decrypt":
            return _json(allow(action, resource or "*"))
        for access in (self._access, self._wide):
            for found in member(access, account, partition):
                actions = [found["Action"]] if isinstance(found["Action"], str) else found["Action"]
                if any(fnmatchcase(action, each) for each in actions):
                    return _json({**found, "Action": action, "Resource": resource or found["Resource"]})
        return _json(allow(action, resource or "*"))

    @property
    def whole_policy(self) -> str:
        return f"edfn-agent setup policy -c {shlex.quote(self.file)}"


def access_of(config: Any) -> Access:
    """What the configuration reads, as setup wants it."""
    inputs = config.inputs
    kinesis = inputs.kinesis
    listed = () if kinesis is None or kinesis.streams == "discovered" else kinesis.streams
    return Access(
        frozenset(
            name for name in ("s3", "cloudwatch_logs", "kinesis", "firehose") if getattr(inputs, name) is not None
        ),
        streams=tuple(StreamUse(each.arn, each.enhanced_fan_out, each.application_name or "") for each in listed),
        kinesis_metrics=kinesis is not None and kinesis.metrics_level != "NONE",
    )


def assume_role(role_arn: str) -> str:
    """For the agent's own identity."""
    return _json(allow("sts:AssumeRole", role_arn))


def notified_queue(queue: Queue, bucket: str) -> str:
    return _json(_notified_queue(_place(queue), queue.arn.rpartition(":")[2], bucket, False)[0])


def written_bucket(bucket: Bucket, logs: Sequence[FlowLog]) -> str:
    """Statements for the bucket's policy: AWS's log delivery may write what these flow logs bring."""
    first = logs[0]
    place = Place(bucket.account_id or first.account_id, bucket.region or first.region)
    sources = sorted({Place(each.account_id, each.region) for each in logs})
    prefix = f"{first.prefix}/" if first.prefix else ""
    statements = delivered_bucket(place, bucket.bucket, prefix, sources, first.hive, False)
    return "\n".join(map(_json, statements[:2]))


def encrypting_key(logs: Sequence[FlowLog]) -> str:
    """A statement for the key's policy: AWS's log delivery may encrypt with it for these flow logs."""
    return _json(key_for_delivered_bucket([Place(each.account_id, each.region) for each in logs]))


def notifying_key(queue: Queue, buckets: Sequence[str]) -> str:
    """A statement for the key's policy: S3 may encrypt what it tells the queue."""
    return _json(key_for_notified_queue(_place(queue), buckets))


def enabled_key(arn: str, state: str) -> str:
    """aws commands: the key can be used again."""
    place = Place(arn.split(":")[4], arn.split(":")[3])
    steps = [Call("kms", "EnableKey", {"KeyId": arn})]
    if state == "PendingDeletion":
        steps.insert(0, Call("kms", "CancelKeyDeletion", {"KeyId": arn}))
    return _commands(place, *steps)


def delivering_role(log: FlowLog) -> str:
    """Statements for the role of a flow log that writes to a log group."""
    place = Place(log.account_id, log.region)
    return "\n".join(map(_json, flow_log_role_policy(place, log.log_group or "*", False)))


def announce(bucket: Bucket, sources: Iterable[str]) -> str:
    """A queue for the bucket, its policy and the notification."""
    words = ["edfn-agent", "setup", "s3"]
    words += ["--account", bucket.account_id or "ACCOUNT", "--region", bucket.region or "REGION"]
    words += ["--bucket", bucket.bucket, "--existing-bucket"]
    for source in sorted(set(sources)):
        words += ["--source-account", source]
    return shlex.join(words)


def subscribe(log: FlowLog) -> str:
    """A stream for the log group, and the subscription filter."""
    words = ["edfn-agent", "setup", "kinesis", "--account", log.account_id, "--region", log.region]
    words += ["--log-group", log.log_group or "", "--existing-log-group", *_watching(log)]
    if log.format:
        words += ["--log-format", log.format]
    return shlex.join(words)


_OPTIONS = {"vpc": "--vpc", "subnet": "--subnet", "eni": "--interface", "tgw": "--transit-gateway"}


def _watching(log: FlowLog) -> list[str]:
    return [_OPTIONS[log.resource_id.split("-")[0]], f"{log.account_id}/{log.region}/{log.resource_id}"]


def dead_letters(queue: Queue) -> str:
    """aws commands: a queue for what cannot be read, and the redrive policy."""
    place = _place(queue)
    name = f"{queue.arn.rpartition(':')[2]}-dead-letters"
    redrive = json.dumps({"deadLetterTargetArn": place.arn("sqs", name), "maxReceiveCount": "5"})
    make = Call("sqs", "CreateQueue", {"QueueName": name, "Attributes": {"MessageRetentionPeriod": "1209600"}})
    return "\n".join((_commands(place, make), _set(queue, "RedrivePolicy", redrive)))


def visibility(queue: Queue, seconds: int = 300) -> str:
    return _set(queue, "VisibilityTimeout", str(seconds))


def _set(queue: Queue, attribute: str, value: str) -> str:
    parameters = {"QueueUrl": queue.url or "URL", "Attributes": {attribute: value}}
    return _commands(_place(queue), Call("sqs", "SetQueueAttributes", parameters))


def _place(queue: Queue) -> Place:
    return Place(queue.account_id, queue.region)


def _commands(place: Place, *steps: Call) -> str:
    from edfn_agent.setup.commandline import render

    return "\n".join(line for step in steps for line in render(step, place))


def _json(statement: Statement) -> str:
    return json.dumps(statement)
