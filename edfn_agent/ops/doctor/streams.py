"""Kinesis streams and what the Kinesis Client Library needs for them, and Firehose.

In: streams as discovery found them, trials. Out: checks. Never: a record taken from another reader's quota for long
(one read at the end of one shard), a consumer registered, a table made.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from edfn_agent.inputs.kinesis.stream import StreamError, StreamSettings
from edfn_agent.inventory.model import DeliveryStream, Stream
from edfn_agent.inventory.problems import Kind
from edfn_agent.ops.doctor import keys
from edfn_agent.ops.doctor.checks import ERROR, INFO, OK, WARNING, Check
from edfn_agent.ops.doctor.trials import Target, Trials

_NOTHING = "the stream is not read"
_LEASES = "the Kinesis Client Library cannot keep its leases, and the stream is not read"
_WRITES = {
    "": ("CreateTable", "UpdateTable", "PutItem", "UpdateItem", "DeleteItem"),
    "-CoordinatorState": ("CreateTable", "PutItem", "UpdateItem", "DeleteItem"),
    "-WorkerMetricStats": ("CreateTable", "UpdateItem", "DeleteItem"),
}
"""What KCL 3.1 does to the application's three tables, by the end of their names."""


def settings_of(config: Any, arn: str) -> StreamSettings | None:
    """As the configuration wants the stream read; None for an ARN that is none."""
    kinesis = config.inputs.kinesis
    listed = () if kinesis is None or kinesis.streams == "discovered" else kinesis.streams
    wanted = next((each for each in listed if each.arn == arn), None)
    try:
        if wanted is None:
            return StreamSettings(arn)
        return StreamSettings(arn, wanted.enhanced_fan_out, application_name=wanted.application_name)
    except StreamError:
        return None


def stream(trials: Trials, stream: Stream, settings: StreamSettings, metrics: bool) -> Iterator[Check]:
    """One stream that the agent reads."""
    where = (stream.account_id, stream.region, stream.arn)
    if stream.problem:
        step = "check the ARN, or add the stream's account to the configuration"
        yield Check("stream.active", ERROR, stream.problem, *where, step)
        return
    if stream.status and stream.status not in ("ACTIVE", "UPDATING"):
        yield Check("stream.active", WARNING, f"AWS says {stream.status}", *where, "wait until it is ACTIVE")
    elif stream.status:
        shards = "1 open shard" if stream.shards == 1 else f"{stream.shards} open shards"
        text = f"{stream.status}, {shards}, kept {stream.retention_hours} h"
        yield Check("stream.active", OK, text, *where)
    target = Target(stream.account_id, stream.region, stream.arn)
    described = trials.call(target, "kinesis", "DescribeStreamSummary", {"StreamName": stream.name}, _NOTHING)
    yield described.check
    yield from _reading(trials, stream, target)
    yield from _consumer(trials, target, settings)
    yield from _leases(trials, target, settings)
    key = (described.answer or {}).get("StreamDescriptionSummary", {}).get("KeyId") if stream.encrypted else None
    if key and not key.endswith("alias/aws/kinesis"):  # who may read the stream may decrypt with AWS's own key
        yield from keys.key(trials, target, key, "kinesis", "its records cannot be read", None)
    if metrics:
        place = Target(target.account_id, target.region, "", "*")
        name = {"cloudwatch:namespace": settings.application}
        without = "metrics_level has no effect"
        yield trials.ask_iam(place, "cloudwatch:PutMetricData", without, WARNING, context=name)


def _reading(trials: Trials, stream: Stream, target: Target) -> Iterator[Check]:
    name = {"StreamName": stream.name}
    listed = trials.call(target, "kinesis", "ListShards", {"MaxResults": 1, **name}, _NOTHING)
    yield listed.check
    shard = next(iter((listed.answer or {}).get("Shards") or ()), None)
    if shard is None:
        return
    where = {"ShardId": shard["ShardId"], "ShardIteratorType": "LATEST", **name}
    iterator = trials.call(target, "kinesis", "GetShardIterator", where, _NOTHING)
    yield iterator.check
    if iterator.answer is not None:
        place = {"ShardIterator": iterator.answer["ShardIterator"], "Limit": 1}
        yield trials.call(target, "kinesis", "GetRecords", place, _NOTHING).check


def _consumer(trials: Trials, target: Target, settings: StreamSettings) -> Iterator[Check]:
    where = (target.account_id, target.region, target.resource)
    severity = WARNING if settings.enhanced_fan_out else INFO
    without = "whether a fan-out consumer is registered is not known"
    listed = trials.call(target, "kinesis", "ListStreamConsumers", {"StreamARN": settings.arn}, without, severity)
    yield listed.check
    consumers = (listed.answer or {}).get("Consumers") or ()
    ours = next((each for each in consumers if each["ConsumerName"].startswith(settings.application)), None)
    if ours is not None and settings.enhanced_fan_out:
        yield Check("stream.consumer", OK, f"{ours['ConsumerName']} is {ours['ConsumerStatus']}", *where)
    elif ours is not None:
        text = f"fan-out is off, and its consumer {ours['ConsumerName']} is still registered: AWS bills it"
        fix = f"edfn-agent kinesis deregister {settings.arn}"
        yield Check("stream.consumer", INFO, text, *where, "remove it if no other agent reads through it", fix)
    if settings.enhanced_fan_out:
        yield trials.ask_iam(target, "kinesis:RegisterStreamConsumer", _NOTHING)
        each = Target(target.account_id, target.region, target.resource, f"{settings.arn}/consumer/*")
        for action in ("kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"):
            yield trials.ask_iam(each, action, _NOTHING, why="the library does it with its own consumer")


def _leases(trials: Trials, target: Target, settings: StreamSettings) -> Iterator[Check]:
    """The lease table is in the stream's account and region: the library has the keys of that account."""
    where = (target.account_id, target.region, target.resource)
    for suffix, writes in _WRITES.items():
        table = settings.application + suffix
        arn = f"arn:{settings.partition}:dynamodb:{settings.region}:{settings.account_id}:table/{table}"
        place = Target(target.account_id, target.region, arn)
        name = {"TableName": table}
        trial = trials.call(place, "dynamodb", "DescribeTable", name, _LEASES, expected=(Kind.MISSING,))
        yield trial.check
        if trial.denied:
            continue
        if not suffix:
            text = f"{table} is there" if trial.answer else f"{table} is made by the library at its first start"
            yield Check("stream.leases", OK, text, *where)
        yield trials.call(place, "dynamodb", "Scan", {"Limit": 1, **name}, _LEASES, expected=(Kind.MISSING,)).check
        key = {"Key": {"leaseKey": {"S": "doctor"}}} if not suffix else None
        if key is not None:
            # A key of another shape than the table's is refused as such, which only who is allowed hears.
            kinds = (Kind.MISSING, Kind.OTHER)
            yield trials.call(place, "dynamodb", "GetItem", {**name, **key}, _LEASES, expected=kinds).check
        for operation in writes:
            yield trials.ask_iam(place, f"dynamodb:{operation}", _LEASES)
        if not suffix:
            index = Target(target.account_id, target.region, arn, f"{arn}/index/*")
            yield trials.ask_iam(index, "dynamodb:Query", _LEASES, why="the index is the library's to make")


def java() -> Check:
    """Java, and the library's jars."""
    from edfn_agent.inputs.kinesis.java import Missing, find, versions

    try:
        found = find()
    except Missing as missing:
        what, _, step = str(missing).partition(". ")
        return Check("machine.java", ERROR, what, next_step=step, resource="Java and the Kinesis Client Library")
    library = versions().get("Kinesis Client Library", "?")
    return Check("machine.java", OK, f"Java {found.java_version}, library {library}", resource=str(found.java))


def endpoint(firehose: Any) -> Iterator[Check]:
    """The HTTP endpoint that Firehose posts to."""
    from edfn_agent.inputs.firehose.credentials import AccessKeys, Certificate, EndpointError
    from edfn_agent.ops.doctor.certificates import lasting

    listen = firehose.listen
    name = str(listen)
    try:
        with socket.create_server((listen.host, listen.port), family=_family(listen.host)):
            yield Check("firehose.endpoint", OK, "it can be listened on", resource=name)
    except OSError as error:
        import errno

        taken = error.errno == errno.EADDRINUSE
        text = "somebody listens there already: the running agent, most likely" if taken else f"{error.strerror}"
        step = "see who with `ss -ltnp`" if taken else "choose an address of this machine, and a port it may use"
        yield Check("firehose.endpoint", INFO if taken else ERROR, text, resource=name, next_step=step)
    if firehose.certificate is not None and firehose.key is not None:
        try:
            Certificate(firehose.certificate, firehose.key)
        except EndpointError as error:
            step = "give the PEM files of certificate and key, readable by the agent's user"
            yield Check("firehose.certificate", ERROR, str(error), resource=str(firehose.certificate), next_step=step)
        else:
            yield lasting("firehose.certificate", firehose.certificate)
    if firehose.access_key_file is not None:
        resource = str(firehose.access_key_file)
        try:
            AccessKeys(firehose.access_key_file)
        except EndpointError as error:
            step = "write the key that Firehose sends into it, readable by the agent's user"
            yield Check("firehose.access-key", ERROR, str(error), resource=resource, next_step=step)
        else:
            yield Check("firehose.access-key", OK, "it holds a key", resource=resource)


def delivery(stream: DeliveryStream) -> Check:
    """A delivery stream that flow logs go to."""
    where = (stream.account_id, stream.region, stream.arn)
    if stream.bucket:
        return Check("firehose.stream", OK, f"{stream.status}, delivers to bucket {stream.bucket}", *where)
    if stream.endpoint:
        return Check("firehose.stream", OK, f"{stream.status}, delivers to {stream.endpoint}", *where)
    text = f"where it delivers to is not known: {stream.problem or 'neither S3 nor an HTTP endpoint'}"
    step = (
        "allow firehose:DescribeDeliveryStream; if it delivers to the agent or a bucket that is read, nothing is wrong"
    )
    return Check("firehose.stream", INFO, text, *where, step)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
