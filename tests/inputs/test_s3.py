"""S3 through SQS against ministack over HTTP, with faults in between: nothing lost, nothing deleted too early."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from edfn_agent.delivery import Outcome
from edfn_agent.inputs.claims import Claims
from edfn_agent.inputs.clock import Clock
from edfn_agent.inputs.queue_reader import QueueReader
from edfn_agent.inputs.queues import Queue
from edfn_agent.inputs.s3 import S3Input, Settings
from edfn_agent.inputs.sent import Sent
from tests.inputs import faults
from tests.inputs.conftest import ACCOUNT, REGION, Sink, World, sample, until
from tests.inputs.faults import Cut, on

FILE = f"{ACCOUNT}_vpcflowlogs_us-east-1_fl-0a1_20261121T1000Z_{{}}.log.gz"
KEY = f"AWSLogs/{ACCOUNT}/vpcflowlogs/us-east-1/2026/11/21/{FILE}"


@pytest.fixture
def start(world: World, sink: Sink, state: Any, metrics: Any) -> Any:
    made: list[S3Input] = []

    def start(**settings: Any) -> S3Input:
        settings = {"wait": 1, "delete_delay": 0.05} | settings
        input = S3Input(world.clients, sink, state, metrics, Settings(**settings))
        input.set_sources([Queue.parse(world.arn)])
        made.append(input)
        return input

    yield start
    for input in made:
        input.stop(3)


def event(bucket: str, *keys: str, **about: str) -> str:
    """A notification of objects created."""
    records = [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": REGION,
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": bucket}, "object": {"key": key} | about},
        }
        for key in keys
    ]
    return json.dumps({"Records": records})


def idle(world: World) -> bool:
    return world.depth() == (0, 0)


def test_an_announced_object_is_read_and_its_message_deleted(
    world: World, sink: Sink, start: Any, metrics: Any
) -> None:
    world.announce()
    world.put(KEY.format("a1b2"), b"hello")
    start()
    until(lambda: idle(world) and sink.read)
    assert sink.read == [(f"s3://{world.bucket}/{KEY.format('a1b2')}", b"hello")]
    origin = sink.deliveries[0].origin
    assert (origin.input, origin.source) == ("s3", world.arn)
    assert (origin.account_id, origin.region, origin.flow_log_id) == ("123456789012", "us-east-1", "fl-0a1")
    assert sample(metrics, "edfn_deliveries_total", input="s3", outcome="acknowledged") == 1
    assert sample(metrics, "edfn_deliveries_in_flight", input="s3") == 0
    assert not [request for request in world.proxy.requests if request.method in ("PUT", "DELETE")]
    assert not [request for request in world.proxy.calls("GET") if "list-type" in request.path]


def test_no_deletion_before_the_acknowledgement(world: World, sink: Sink, start: Any) -> None:
    sink.hold = True
    world.announce()
    world.put(KEY.format("a1"))
    start()
    until(lambda: sink.deliveries)
    threading.Event().wait(0.3)
    assert world.depth() == (0, 1)
    assert not world.proxy.calls("DeleteMessageBatch")
    sink.deliveries[0].release()
    until(lambda: idle(world))


def test_visibility_is_extended_at_half_of_the_queues_own_timeout(
    world: World, sink: Sink, start: Any, metrics: Any
) -> None:
    world.set_attributes(VisibilityTimeout="2")
    sink.hold = True
    world.announce()
    world.put(KEY.format("a1"))
    start()
    until(lambda: len(world.proxy.calls("ChangeMessageVisibilityBatch")) >= 3)  # 3 s: one more than the timeout
    assert len(sink.read) == 1
    sent = json.loads(world.proxy.calls("ChangeMessageVisibilityBatch")[0].body)["Entries"][0]["VisibilityTimeout"]
    assert sent == 2
    sink.deliveries[0].release()
    until(lambda: idle(world))
    assert sample(metrics, "edfn_sqs_receipts_lost_total") == 0


def test_a_returned_object_leaves_the_message_with_a_pause(world: World, sink: Sink, start: Any, metrics: Any) -> None:
    sink.fail = (Outcome.RETURNED, "collector is away")
    world.announce()
    world.put(KEY.format("a1"))
    start()
    until(lambda: world.proxy.calls("ChangeMessageVisibilityBatch"))
    entry = json.loads(world.proxy.calls("ChangeMessageVisibilityBatch")[0].body)["Entries"][0]
    assert entry["VisibilityTimeout"] == 30
    assert world.depth() == (0, 1)
    assert sample(metrics, "edfn_deliveries_total", input="s3", outcome="returned") == 1
    assert not world.proxy.calls("DeleteMessageBatch")


def test_a_connection_that_breaks_in_mid_object_is_gone_on_with_by_range(
    world: World, sink: Sink, start: Any, metrics: Any
) -> None:
    body = bytes(range(256)) * 8192  # 2 MiB
    world.announce()
    etag = world.put(KEY.format("a1"), body)
    world.proxy.rules.append(on("GET", Cut(700_000), times=2))
    start()
    until(lambda: idle(world) and sink.read)
    assert [data for _, data in sink.read] == [body]
    again = world.proxy.calls("GET")[1:]
    assert again[0].headers["range"].startswith("bytes=")
    assert again[0].headers["if-match"] == etag
    assert int(again[0].headers["range"][6:-1]) > 0
    assert sample(metrics, "edfn_s3_reads_resumed_total") == 2


def test_an_object_overwritten_in_mid_read_is_returned_not_spliced(world: World, sink: Sink, start: Any) -> None:
    world.announce()
    world.put(KEY.format("a1"), b"a" * 900_000)
    world.proxy.rules.append(on("GET", Cut(400_000), times=1))
    world.proxy.rules.append(
        lambda request: (
            faults.Answer(412, "PreconditionFailed", "At least one of the pre-conditions did not hold")
            if "range" in request.headers
            else None
        )
    )
    start()
    until(lambda: world.proxy.calls("ChangeMessageVisibilityBatch"))
    assert sink.read == []


def test_an_object_that_is_gone_is_acknowledged_and_counted(world: World, sink: Sink, start: Any, metrics: Any) -> None:
    world.announce()
    world.put(KEY.format("a1"))
    world.s3.delete_object(Bucket=world.bucket, Key=KEY.format("a1"))
    start()
    until(lambda: sample(metrics, "edfn_objects_gone_total") == 1)
    until(lambda: idle(world))
    assert sink.read == []


def test_access_denied_is_returned_with_the_missing_action(
    world: World, sink: Sink, start: Any, metrics: Any, state: Any
) -> None:
    world.announce()
    world.proxy.rules.append(on("GET", faults.DENIED))
    world.put(KEY.format("a1"))
    start(max_receives=1)  # and no redrive policy: the first failure is the last
    until(lambda: idle(world) and state.quarantine.count())
    entry = state.quarantine.list()[0]
    assert "s3:GetObject is missing" in entry.reason
    assert f"account {ACCOUNT}" in entry.reason
    assert entry.detail["bucket"] == world.bucket
    assert entry.detail["key"] == KEY.format("a1")
    assert world.s3.head_object(Bucket=world.bucket, Key=KEY.format("a1"))  # the object itself stays
    assert sample(metrics, "edfn_deliveries_total", input="s3", outcome="quarantined") == 1


def test_with_a_redrive_policy_the_dead_letter_queue_does_its_work(world: World, start: Any, state: Any) -> None:
    dead = world.sqs.create_queue(QueueName=world.queue_name + "-dead")["QueueUrl"]
    arn = world.arn + "-dead"
    world.set_attributes(RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "5"}))
    world.announce()
    world.proxy.rules.append(on("GET", faults.DENIED))
    world.put(KEY.format("a1"))
    start(max_receives=1)
    until(lambda: world.proxy.calls("ChangeMessageVisibilityBatch"))
    assert state.quarantine.count() == 0
    assert world.depth() == (0, 1)
    assert dead


def test_a_denied_key_names_the_key() -> None:
    from edfn_agent.inputs.errors import Kind, fault, key_named

    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    error = _client_error(403, "AccessDenied", f"User: x is not authorized to perform: kms:Decrypt on resource: {key}")
    assert fault(error).kind is Kind.KEY_DENIED
    assert key_named(fault(error).message) == key


def _client_error(status: int, code: str, message: str) -> Exception:
    from botocore.exceptions import ClientError

    error = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(error, "GetObject")  # type: ignore[arg-type]


def test_unreadable_messages_are_recorded_before_they_are_deleted(world: World, start: Any, state: Any) -> None:
    world.send("no JSON at all")
    start()
    until(lambda: idle(world) and state.quarantine.count())
    entry = state.quarantine.get(state.quarantine.list()[0].id)
    assert entry.payload == b"no JSON at all"
    assert "not JSON" in entry.reason


def test_what_cannot_be_recorded_is_not_deleted(world: World, start: Any, state: Any, monkeypatch: Any) -> None:
    from edfn_agent.state import StateError

    def refuse(*_: Any) -> int:
        raise StateError("disk full")

    monkeypatch.setattr(state.quarantine, "add", refuse)
    world.send("no JSON at all")
    start()
    until(lambda: world.proxy.calls("ChangeMessageVisibilityBatch"))
    assert world.depth() == (0, 1)


def test_test_events_go_and_foreign_ones_stay(world: World, start: Any, metrics: Any) -> None:
    world.set_attributes(VisibilityTimeout="600")
    world.send(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}))
    removed = {"eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete", "s3": {}}
    world.send(json.dumps({"Records": [removed]}))
    world.send(json.dumps({"order": 4711}))
    start()
    until(lambda: sample(metrics, "edfn_notifications_ignored_total", reason="foreign") == 2)
    until(lambda: sample(metrics, "edfn_sqs_messages_deleted_total") == 1)
    assert world.depth() == (0, 2)


def test_foreign_ones_go_where_the_setting_says_so(world: World, start: Any) -> None:
    world.send(json.dumps({"order": 4711}))
    start(delete_foreign=True)
    until(lambda: world.depth() == (0, 0))


def test_an_object_announced_twice_is_sent_once_even_after_a_restart(
    world: World, sink: Sink, start: Any, metrics: Any
) -> None:
    world.announce()
    world.put(KEY.format("a1"))
    body = world.take()
    world.send(body)
    first = start()
    until(lambda: idle(world) and sink.read)
    first.stop(3)
    world.send(body)
    start()
    until(lambda: sample(metrics, "edfn_deliveries_total", input="s3", outcome="duplicate") == 1)
    until(lambda: idle(world))
    assert len(sink.read) == 1


def test_an_object_announced_twice_at_once_waits_for_the_first(
    world: World, sink: Sink, start: Any, metrics: Any
) -> None:
    sink.hold = True
    world.announce()
    world.put(KEY.format("a1"))
    body = world.take()
    world.send(body)
    world.send(body)
    start()
    until(lambda: world.depth() == (0, 2))
    until(lambda: sink.deliveries)
    assert len(sink.read) == 1
    sink.deliveries[0].release()
    until(lambda: idle(world))
    assert len(sink.read) == 1
    assert sample(metrics, "edfn_deliveries_total", input="s3", outcome="duplicate") == 1


def test_a_mark_is_made_only_after_the_acknowledgement(world: World, sink: Sink, start: Any, state: Any) -> None:
    sink.fail = (Outcome.RETURNED, "collector is away")
    world.announce()
    world.put(KEY.format("a1"))
    start()
    until(lambda: sink.read and world.proxy.calls("ChangeMessageVisibilityBatch"))
    assert state.seen.count("s3") == 0


def test_a_message_of_several_objects_goes_when_all_are_out_and_sends_none_twice(
    world: World, sink: Sink, start: Any, metrics: Any
) -> None:
    world.set_attributes(VisibilityTimeout="2")
    for name in ("a1", "a2", "a3"):
        world.put(KEY.format(name), name.encode())
    denied = {"on": True}
    world.proxy.rules.append(
        lambda request: faults.DENIED if denied["on"] and request.method == "GET" and "_a2." in request.path else None
    )
    world.send(event(world.bucket, *(KEY.format(name) for name in ("a1", "a2", "a3"))))
    start(duplicate_window=0)
    until(lambda: world.proxy.calls("ChangeMessageVisibilityBatch") and len(sink.read) == 2)
    assert sorted(data for _, data in sink.read) == [b"a1", b"a3"]
    assert not world.proxy.calls("DeleteMessageBatch")
    denied["on"] = False
    message = json.loads(world.proxy.calls("ChangeMessageVisibilityBatch")[-1].body)["Entries"][0]
    world.sqs.change_message_visibility(QueueUrl=world.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    until(lambda: idle(world))
    assert sorted(data for _, data in sink.read) == [b"a1", b"a2", b"a3"]
    # a slow machine may see the message come back more than once before the object is allowed
    assert sample(metrics, "edfn_deliveries_total", input="s3", outcome="duplicate") >= 2


def test_at_stop_what_is_in_hand_goes_back_at_once(world: World, sink: Sink, start: Any) -> None:
    sink.hold = True
    world.set_attributes(VisibilityTimeout="600")
    world.announce()
    world.put(KEY.format("a1"))
    input = start()
    until(lambda: sink.deliveries)
    input.stop(4)  # time enough for its last calls on a slow machine
    assert world.depth() == (1, 0)
    sink.deliveries[0].release()  # too late for the message; the mark makes its return a duplicate
    assert world.depth() == (1, 0)


def test_at_stop_what_is_finished_in_time_is_deleted(world: World, sink: Sink, start: Any) -> None:
    sink.hold = True
    world.announce()
    world.put(KEY.format("a1"))
    input = start()
    until(lambda: sink.deliveries)
    threading.Timer(0.3, sink.deliveries[0].release).start()
    input.stop(5)
    assert idle(world)


def test_a_dead_queue_stops_no_other(world: World, sink: Sink, start: Any, metrics: Any) -> None:
    world.announce()
    world.put(KEY.format("a1"))
    input = start()
    nowhere = Queue.parse(f"arn:aws:sqs:{REGION}:{ACCOUNT}:nowhere")
    input.set_sources([nowhere, Queue.parse(world.arn)])
    until(lambda: idle(world) and sink.read)
    until(lambda: any(health.ok is False for health in input.health()))
    health = {each.source: each for each in input.health()}
    assert health[world.arn].ok
    dead = health[nowhere.name]
    assert not dead.ok
    assert dead.next_try is not None
    assert f"account {ACCOUNT}" in dead.error
    assert sample(metrics, "edfn_source_failing", input="s3", source=nowhere.name) == 1


def test_a_permission_that_is_missing_pauses_the_queue_not_only_the_objects(
    world: World, sink: Sink, start: Any
) -> None:
    world.announce()
    world.set_attributes(VisibilityTimeout="600")
    world.proxy.rules.append(on("GET", faults.DENIED))
    for number in range(12):
        world.put(KEY.format(f"{number:04x}"))
    input = start(concurrency=1)
    until(lambda: input.health()[0].ok is False)
    threading.Event().wait(0.4)  # the first pause is about a second
    assert len(world.proxy.calls("GET")) < 12
    assert "s3:GetObject is missing" in input.health()[0].error
    world.proxy.rules.clear()
    until(lambda: input.health()[0].ok)
    assert sink.read


def test_what_never_comes_to_its_end_is_not_read_again(world: World, sink: Sink, state: Any, metrics: Any) -> None:
    """A message that kills the agent each time has no dead-letter queue to go to."""
    world.send(event(world.bucket, KEY.format("a1")))
    received = world.sqs.receive_message(QueueUrl=world.url)["Messages"][0]
    settings = Settings(max_receives=3)
    sent = Sent("s3", state, metrics, Clock())
    reader = QueueReader(Queue.parse(world.arn), world.clients, sink, state, metrics, settings, Claims(), sent, Clock())
    reader.take(received | {"Attributes": {"ApproximateReceiveCount": "10"}})
    assert "never came to an end" in state.quarantine.list()[0].reason
    assert sink.read == []


def test_a_bucket_in_another_region_is_read_there(world: World, sink: Sink, start: Any) -> None:
    elsewhere = faults.Answer(
        301, "PermanentRedirect", "use the specified endpoint", {"x-amz-bucket-region": "eu-west-1"}
    )
    world.announce()
    world.put(KEY.format("a1"))
    world.proxy.rules.append(
        lambda request: (
            elsewhere if request.method == "GET" and "/us-east-1/s3/" in request.headers["authorization"] else None
        )
    )
    start()
    until(lambda: idle(world) and sink.read)
    assert "/eu-west-1/s3/" in world.proxy.calls("GET")[-1].headers["authorization"]


def test_requester_pays_and_access_points_are_in_the_request(state: Any, metrics: Any) -> None:
    from edfn_agent.inputs.clock import Clock
    from edfn_agent.inputs.notifications import ObjectRef
    from edfn_agent.inputs.objects import Objects

    asked: list[tuple[str, dict[str, Any]]] = []

    class Client:
        def __init__(self, region: str) -> None:
            self.region = region

        def get_object(self, **request: Any) -> Any:
            asked.append((self.region, request))
            return {"Body": None, "ContentLength": 0}

    point = "arn:aws:s3:eu-west-1:123456789012:accesspoint/agent"
    objects = Objects(
        Client,
        ACCOUNT,
        REGION,
        metrics,
        clock=Clock(),
        abort=threading.Event(),
        requester_pays=True,
        read_through={"central": point},
    )
    objects.open(ObjectRef("central", "k", region="us-east-1"))
    assert asked == [("eu-west-1", {"Bucket": point, "Key": "k", "RequestPayer": "requester"})]


def test_a_version_is_read_as_that_version(world: World, sink: Sink, start: Any) -> None:
    world.s3.put_bucket_versioning(Bucket=world.bucket, VersioningConfiguration={"Status": "Enabled"})
    for body in (b"first", b"second"):
        made = world.s3.put_object(Bucket=world.bucket, Key=KEY.format("a1"), Body=body)
        world.send(event(world.bucket, KEY.format("a1"), eTag=made["ETag"].strip('"'), versionId=made["VersionId"]))
    start()
    until(lambda: idle(world) and len(sink.read) == 2)
    assert sorted(data for _, data in sink.read) == [b"first", b"second"]
    # The current one was asked for by its ETag: s3:GetObject is enough. Only the older one takes s3:GetObjectVersion.
    assert len([request for request in world.proxy.calls("GET") if "versionId=" in request.path]) == 1


def test_write_tests_are_not_sent(world: World, sink: Sink, start: Any, metrics: Any) -> None:
    world.announce()
    world.put("export/aws-logs-write-test")
    world.put("AWSLogs/123456789012/CloudTrail/us-east-1/2026/11/21/x.json.gz")
    start()
    until(lambda: sample(metrics, "edfn_notifications_ignored_total", reason="filtered") == 1)
    until(lambda: world.depth() == (0, 1))  # CloudTrail's stays for whoever reads it
    assert sample(metrics, "edfn_notifications_ignored_total", reason="write_test") == 1
    assert sink.read == []


def test_on_a_bad_day_nothing_is_lost_and_nothing_is_sent_twice(
    world: World, sink: Sink, start: Any, metrics: Any
) -> None:
    world.announce()
    rules = world.proxy.rules
    rules.append(on("GET", faults.EXPIRED, times=2))
    rules.append(faults.sometimes(faults.SLOW_DOWN, 0.15, 1, "GET"))
    rules.append(faults.sometimes(faults.BROKEN, 0.15, 2, "GET", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"))
    rules.append(faults.sometimes(faults.Cut(40_000), 0.2, 3, "GET"))
    rules.append(faults.sometimes(faults.Cut(10), 0.1, 4, "ReceiveMessage"))
    rules.append(faults.disorder(5))
    world.set_attributes(VisibilityTimeout="15")
    bodies = {KEY.format(f"{number:04x}"): bytes([number]) * 60_000 for number in range(60)}
    for key, body in bodies.items():
        world.put(key, body)
    start(concurrency=8)
    until(lambda: idle(world) and len(sink.read) >= 60, 150)
    assert sorted(sink.read) == sorted((f"s3://{world.bucket}/{key}", body) for key, body in bodies.items())
    assert sample(metrics, "edfn_deliveries_in_flight", input="s3") == 0
