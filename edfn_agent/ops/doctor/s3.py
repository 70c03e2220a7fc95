"""S3: queues and the buckets that announce their objects in them.

In: the plan of sources, trials. Out: checks. Never: a message taken for good, a listing of a bucket. A queue in which
nothing waits is really received from; where messages wait a receive would count as a try of one of them (and may send
it to the dead-letter queue), so then IAM is asked, unless the person wants it (`peek`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from edfn_agent.inventory.calls import BUCKET_LOCATION, BUCKET_NOTIFICATION
from edfn_agent.inventory.model import Bucket, FlowLog, Queue
from edfn_agent.inventory.problems import Kind
from edfn_agent.inventory.sources import SourcePlan
from edfn_agent.ops.doctor import keys, mending
from edfn_agent.ops.doctor.checks import ERROR, INFO, OK, UNTRIED, WARNING, Check
from edfn_agent.ops.doctor.trials import Target, Trials

SHORT = 60
"""Seconds of visibility timeout below which a large object may be announced again while it is still read."""

NO_HANDLE = "doctor"
"""A receipt handle that no message has."""

_NOTHING = "nothing is read from this queue"
_AGAIN = "every object is read again and again"
_OBJECTS = "no object is read"


def queue(plan: SourcePlan, trials: Trials, queue: Queue, peek: bool) -> list[Check]:
    """One queue that the agent reads."""
    where = (queue.account_id, queue.region, queue.arn)
    if queue.problem or queue.url is None:
        text = queue.problem or "its URL is not known"
        step = "check the name, or add the queue's account to the configuration"
        return [Check("queue.there", ERROR, text, *where, next_step=step)]
    checks = [Check("queue.there", OK, "it answers", *where)] if queue.visibility_timeout is not None else []
    if queue.dead_letter_arn is not None:
        checks.append(
            Check("queue.dead-letters", OK, f"{queue.max_receives} tries, then {queue.dead_letter_arn}", *where)
        )
    checks += _policy(plan, queue)
    checks += _timeout(queue)
    checks += _key(plan, trials, queue)
    target = Target(queue.via_account or queue.account_id, queue.region, queue.arn)
    return [*checks, *_reading(plan, trials, queue, target, peek)]


def _policy(plan: SourcePlan, queue: Queue) -> Iterator[Check]:
    """Whether S3 may send. Who may not at all is the plan's finding; a queue without any policy nobody can send to."""
    where = (queue.account_id, queue.region, queue.arn)
    buckets = [
        b for b in plan.snapshot.buckets if any(queue.arn in n.queues for n in b.notifications if n.kind == "sqs")
    ]
    if queue.visibility_timeout is None or not buckets:
        return
    if not queue.policy:
        text = "it has no policy, so S3 cannot announce objects in it"
        fix = "\n".join(mending.notified_queue(queue, bucket.bucket) for bucket in buckets)
        yield Check("queue.policy", ERROR, text, *where, "put this statement into the queue's policy", fix)
        return
    for bucket in buckets:
        if not _lets_in(queue.policy, bucket.bucket):
            text = f"its policy does not let bucket {bucket.bucket} send"
            fix = mending.notified_queue(queue, bucket.bucket)
            yield Check("queue.policy", WARNING, text, *where, "add this statement to the queue's policy", fix)
            return
    yield Check("queue.policy", OK, "S3 may send to it", *where)


def _lets_in(policy: str, bucket: str) -> bool:
    """As far as names go: an Allow that is for S3 or everybody, and whose source, if it names one, fits."""
    try:
        statements = json.loads(policy).get("Statement", [])
    except (ValueError, AttributeError):
        return True  # not ours to judge
    for statement in statements if isinstance(statements, list) else [statements]:
        if statement.get("Effect") != "Allow":
            continue
        principal = statement.get("Principal")
        named = list(principal.values()) if isinstance(principal, dict) else [principal]
        who = {name for each in named for name in (each if isinstance(each, list) else [each])}
        if not who & {"*", "s3.amazonaws.com"}:
            continue
        sources = [
            value
            for operator in (statement.get("Condition") or {}).values()
            for key, value in operator.items()
            if key.lower() == "aws:sourcearn"
        ]
        patterns = [one for value in sources for one in (value if isinstance(value, list) else [value])]
        if not patterns or any(_fits(one, bucket) for one in patterns):
            return True
    return False


def _fits(pattern: str, bucket: str) -> bool:
    from fnmatch import fnmatchcase

    return fnmatchcase(bucket, pattern.rpartition(":")[2])


def _timeout(queue: Queue) -> Iterator[Check]:
    where = (queue.account_id, queue.region, queue.arn)
    seconds = queue.visibility_timeout
    if seconds is None:
        return
    if seconds < SHORT:
        text = f"its visibility timeout is {seconds} s; the agent extends it in time, and has less room for trouble"
        yield Check("queue.timeout", INFO, text, *where, "set it to 300 s", mending.visibility(queue))
    else:
        yield Check("queue.timeout", OK, f"visibility timeout {seconds} s", *where)


def _key(plan: SourcePlan, trials: Trials, queue: Queue) -> Iterator[Check]:
    if queue.kms_key is None:
        return
    where = (queue.account_id, queue.region, queue.arn)
    if queue.kms_key.endswith("alias/aws/sqs"):
        # AWS SQS developer guide, "Configure KMS permissions for AWS services".
        text = "it is encrypted with AWS's own key (alias/aws/sqs), with which S3 cannot send to it"
        step = "use SSE-SQS, or a key of your own whose policy allows s3.amazonaws.com kms:GenerateDataKey, kms:Decrypt"
        yield Check("queue.encryption", ERROR, text, *where, step)
        return
    buckets = [each.bucket for each in plan.snapshot.buckets if any(queue.arn in n.queues for n in each.notifications)]
    statement = mending.notifying_key(queue, buckets) if buckets else ""
    writer = keys.Writer("s3.amazonaws.com", f"the messages of {queue.arn}", statement)
    target = Target(queue.via_account or queue.account_id, queue.region, queue.arn)
    yield from keys.key(trials, target, queue.kms_key, "sqs", "its messages cannot be read", writer)


def _reading(plan: SourcePlan, trials: Trials, queue: Queue, target: Target, peek: bool) -> Iterator[Check]:
    url = {"QueueUrl": queue.url}
    waiting = _waiting(trials, target, url)
    where = (queue.account_id, queue.region, queue.arn)
    if waiting is not None and waiting > 0:
        text = f"messages that wait: {waiting}"
        yield Check("queue.backlog", INFO if waiting > 1000 else OK, text, *where)
    elif waiting == 0:
        yield Check("queue.backlog", OK, "no message waits", *where)
    body = ""
    if waiting == 0 or peek:
        one = {"MaxNumberOfMessages": 1, "VisibilityTimeout": 0, "WaitTimeSeconds": 0, **url}
        trial = trials.call(target, "sqs", "ReceiveMessage", one, _NOTHING)
        yield trial.check
        messages = (trial.answer or {}).get("Messages") or []
        body = messages[0]["Body"] if messages else ""
    else:
        why = "messages wait, and a receive counts as a try of one; --peek does it all the same"
        yield trials.ask_iam(target, "sqs:ReceiveMessage", _NOTHING, why=why)
    ways: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("DeleteMessage", _AGAIN, {}),
        ("ChangeMessageVisibility", "objects that take long are read twice", {"VisibilityTimeout": 0}),
    )
    for operation, without, more in ways:
        if trials.may_simulate(target):
            yield trials.ask_iam(target, f"sqs:{operation}", without)
            continue
        # Nothing can happen to a message by a handle that is none, and who is not allowed hears that instead.
        handle = {"ReceiptHandle": NO_HANDLE, **url, **more}
        trial = trials.call(target, "sqs", operation, handle, without, expected=(Kind.OTHER,))
        text = "allowed, as far as a receipt handle that no message has can show"
        yield trial.check if trial.check.status != OK else _with_text(trial.check, text)
    yield from _object(plan, trials, target, body, peek)


def _waiting(trials: Trials, target: Target, url: dict[str, Any]) -> int | None:
    names = ["ApproximateNumberOfMessages"]
    trial = trials.call(target, "sqs", "GetQueueAttributes", {"AttributeNames": names, **url})
    if trial.answer is None:
        return None  # a finding of discovery
    return int(trial.answer.get("Attributes", {}).get("ApproximateNumberOfMessages", 0))


def _with_text(check: Check, text: str) -> Check:
    from dataclasses import replace

    return replace(check, text=text)


def _object(plan: SourcePlan, trials: Trials, target: Target, body: str, peek: bool) -> Iterator[Check]:
    """An object that a message announces, its first octet."""
    from edfn_agent.inputs.notifications import parse

    objects = parse(body).objects if body else ()
    if objects:
        first = objects[0]
        arn = f"arn:{target.resource.split(':')[1]}:s3:::{first.bucket}/{first.key}"
        place = Target(target.account_id, first.region or target.region, first.name, arn)
        octet = {"Bucket": first.bucket, "Key": first.key, "Range": "bytes=0-0"}
        trial = trials.call(place, "s3", "GetObject", octet, _OBJECTS, expected=(Kind.MISSING,))
        yield trial.check
        if trial.check.status == OK:
            yield Check(
                "bucket.object", OK, "an object of it can be read", place.account_id, place.region, first.bucket
            )
        return
    for bucket in plan.snapshot.buckets:
        if not any(target.resource in each.queues for each in bucket.notifications):
            continue
        arn = f"arn:{target.resource.split(':')[1]}:s3:::{bucket.bucket}/*"
        place = Target(target.account_id, bucket.region or target.region, f"s3://{bucket.bucket}", arn)
        why = (
            "no message is there to name one of its objects" if peek else "--peek takes an object's name from a message"
        )
        yield trials.ask_iam(place, "s3:GetObject", _OBJECTS, why=why)


def bucket(plan: SourcePlan, trials: Trials, bucket: Bucket) -> Iterator[Check]:
    """One bucket that flow logs are written to. The calls made here are beyond the original policy: a bonus."""
    where = (bucket.account_id, bucket.region, bucket.bucket)
    ways = [way for way in plan.ways if way.input == "s3" and way.end == bucket.bucket]
    if any(way.works for way in ways):
        queues = ", ".join(dict.fromkeys(arn for each in bucket.notifications for arn in each.queues))
        yield Check(
            "bucket.queue", OK, f"new objects are announced in {queues or 'a queue of the configuration'}", *where
        )
    yield from _never_allowed(trials, bucket)
    if bucket.account_id is None or not trials.accounts.alive(bucket.account_id):
        return
    target = Target(bucket.account_id, bucket.region or trials.accounts.home_region(bucket.account_id), bucket.bucket)
    direct = [each for each in plan.snapshot.flow_logs if each.bucket == bucket.bucket]
    yield from _bucket_policy(trials, bucket, target, direct)
    yield from _bucket_key(trials, bucket, target, direct)


def _never_allowed(trials: Trials, bucket: Bucket) -> Iterator[Check]:
    """Discovery expects to be refused by buckets of strangers. Refused by its own account's too, it is the policy."""
    living = [each.account_id for each in trials.accounts.living]
    account = bucket.account_id or (living[0] if len(living) == 1 else None)
    for call in (BUCKET_LOCATION, BUCKET_NOTIFICATION):
        outcome = trials.accounts.outcomes.get((account or "", call.action))
        if account is not None and outcome is not None and outcome.refused and not outcome.answered:
            fix = trials.mending.statement(account, call.action)
            text = f"{call.action} is not allowed: {call.without}"
            step = f"allow {call.action} in the policy of the role or user, unless the bucket is another account's"
            where = (account, bucket.region, bucket.bucket)
            yield Check(f"permission.{call.action}", call.severity, text, *where, step, fix)


def _bucket_policy(trials: Trials, bucket: Bucket, target: Target, logs: list[FlowLog]) -> Iterator[Check]:
    if not logs:
        return
    where = (bucket.account_id, bucket.region, bucket.bucket)
    trial = trials.call(target, "s3", "GetBucketPolicy", {"Bucket": bucket.bucket})
    missing = trial.problem is not None and trial.problem.code == "NoSuchBucketPolicy"
    if trial.answer is None and not missing:
        text = (
            "its policy cannot be looked at (s3:GetBucketPolicy); the state of the flow logs shows whether AWS writes"
        )
        yield Check("bucket.policy", UNTRIED, text, *where)
        return
    policy = str((trial.answer or {}).get("Policy") or "")
    if "delivery.logs.amazonaws.com" in policy:
        yield Check("bucket.policy", OK, "it names AWS's log delivery", *where)
        return
    if all(each.delivery_status == "SUCCESS" for each in logs):
        # Through a statement that does not name the service, most likely.
        yield Check("bucket.policy", OK, "it does not name AWS's log delivery, and AWS says that it delivers", *where)
        return
    text = "its policy does not let AWS's log delivery write flow logs"
    step = "add these statements to the bucket's policy"
    yield Check("bucket.policy", WARNING, text, *where, step, mending.written_bucket(bucket, logs))


def _bucket_key(trials: Trials, bucket: Bucket, target: Target, logs: Iterable[FlowLog]) -> Iterator[Check]:
    where = (bucket.account_id, bucket.region, bucket.bucket)
    trial = trials.call(target, "s3", "GetBucketEncryption", {"Bucket": bucket.bucket})
    if trial.answer is None:
        none = trial.problem is not None and "EncryptionConfigurationNotFound" in trial.problem.code
        if not none:
            text = "whether it is encrypted with a KMS key cannot be seen (s3:GetEncryptionConfiguration)"
            yield Check("bucket.encryption", UNTRIED, text, *where)
        return
    rules = (trial.answer.get("ServerSideEncryptionConfiguration") or {}).get("Rules") or ()
    defaults = [each.get("ApplyServerSideEncryptionByDefault") or {} for each in rules]
    kms = next((each for each in defaults if str(each.get("SSEAlgorithm", "")).startswith("aws:kms")), None)
    if kms is None:
        yield Check("bucket.encryption", OK, "no KMS key is needed", *where)
        return
    arn = str(kms.get("KMSMasterKeyID") or "")
    if not arn or arn.endswith("alias/aws/s3"):
        text = "it is encrypted with AWS's own key (aws/s3), with which flow logs cannot be delivered to it"
        yield Check("bucket.encryption", ERROR, text, *where, "use SSE-S3, or a KMS key of your own")
        return
    writer = None
    if logs := list(logs):
        what = f"the flow logs in bucket {bucket.bucket}"
        writer = keys.Writer("delivery.logs.amazonaws.com", what, mending.encrypting_key(logs))
    yield from keys.key(trials, target, arn, "s3", "its objects cannot be read", writer)
