"""The small parts: quotas, ids, queue names, health, what is received, metrics."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter

from edfn_agent.inputs.clock import Pauses
from edfn_agent.inputs.event_ids import EventIds, event_id
from edfn_agent.inputs.health import HealthRecord
from edfn_agent.inputs.log_groups import LogGroup
from edfn_agent.inputs.queue_reader import receive_size
from edfn_agent.inputs.queues import Facts, Queue
from edfn_agent.inputs.quota import Bucket, Quotas
from edfn_agent.ops.metrics import Labelled, Metrics, call_outcome
from edfn_agent.ops.metrics_table import metrics_markdown
from edfn_agent.sources import Sources
from tests.inputs.conftest import TestClock, sample

GO_ON = threading.Event()


def test_a_bucket_keeps_its_rate_and_gives_way(clock: TestClock) -> None:
    bucket = Bucket(4.0, clock)
    start = clock.time
    for _ in range(41):
        bucket.take(GO_ON)
    assert clock.time - start == pytest.approx(10.0, abs=0.3)
    bucket.throttled()
    bucket.throttled()
    start = clock.time
    for _ in range(5):
        bucket.take(GO_ON)
    assert clock.time - start == pytest.approx(5.0, abs=1.0)
    for _ in range(1000):
        bucket.take(GO_ON)
    assert bucket.rate == 4.0


def test_a_bucket_never_stops_altogether(clock: TestClock) -> None:
    bucket = Bucket(4.0, clock)
    for _ in range(100):
        bucket.throttled()
    assert bucket.rate == pytest.approx(0.2)


def test_workers_share_an_accounts_rate(clock: TestClock) -> None:
    quotas = Quotas(clock)
    alone = quotas.bucket("1", "us-east-1", "FilterLogEvents")
    assert alone.full == 4.0
    alone.throttled()
    quotas.set_sharers({("1", "us-east-1"): 2, ("2", "us-east-1"): 4})
    assert (alone.full, alone.rate) == (2.0, 1.0)
    assert quotas.bucket("2", "us-east-1", "GetLogEvents").full == 2.0
    assert quotas.bucket("2", "eu-west-1", "GetLogEvents").full == 8.0
    quotas.set_sharers({})
    assert (alone.full, alone.rate) == (4.0, 2.0)


def test_the_workers_of_log_groups_are_counted_by_account_and_region() -> None:
    groups = [LogGroup("1", "us-east-1", f"group-{number}") for number in range(40)] + [LogGroup("2", "us-east-1", "g")]
    sources = [Sources.__new__(Sources) for _ in range(4)]
    for number, each in enumerate(sources):
        each._worker, each._workers = number, 4
    assert all(each._sharers(groups) == {("1", "us-east-1"): 4, ("2", "us-east-1"): 1} for each in sources)


def test_ids_are_new_once_until_they_are_returned() -> None:
    ids = EventIds()
    times = np.array([60_000, 60_001, 180_000], dtype=np.int64)
    hashes = np.array([1, 2, 3], dtype=np.uint64)
    page = ids.hand_over(times, hashes)
    assert not ids.new(times, hashes).any()
    ids.returned(page)
    assert ids.new(times, hashes).all()
    page = ids.hand_over(times, hashes)
    assert sorted(ids.done(page)) == [1, 3]
    assert not ids.new(times, hashes).any()
    other = EventIds()
    other.load({1: ids.stored(1), 3: ids.stored(3)})
    assert not other.new(times, hashes).any()
    assert other.forget_before(120_000) == [1]
    assert list(other.new(times, hashes)) == [True, True, False]


def test_an_id_twice_in_one_page_is_new_once() -> None:
    hashes = np.array([7, 7, 8], dtype=np.uint64)
    assert list(EventIds().new(np.zeros(3, dtype=np.int64), hashes)) == [True, False, True]


def test_ids_tell_parts_apart() -> None:
    assert event_id("a", 1, "b") != event_id("a", 1, "c")
    assert event_id("ab", "c") != event_id("a", "bc")


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [
        (
            "arn:aws:sqs:eu-west-1:123456789012:flow",
            None,
            Queue("123456789012", "eu-west-1", "arn:aws:sqs:eu-west-1:123456789012:flow"),
        ),
        (
            "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/flow",
            None,
            Queue(
                "123456789012",
                "cn-north-1",
                "arn:aws-cn:sqs:cn-north-1:123456789012:flow",
                "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/flow",
            ),
        ),
        (
            "https://eu-west-1.queue.amazonaws.com/123456789012/flow",
            None,
            Queue(
                "123456789012",
                "eu-west-1",
                "arn:aws:sqs:eu-west-1:123456789012:flow",
                "https://eu-west-1.queue.amazonaws.com/123456789012/flow",
            ),
        ),
        (
            "http://127.0.0.1:4566/123456789012/flow",
            "us-east-1",
            Queue(
                "123456789012",
                "us-east-1",
                "arn:aws:sqs:us-east-1:123456789012:flow",
                "http://127.0.0.1:4566/123456789012/flow",
            ),
        ),
    ],
)
def test_queues_are_parsed(text: str, region: str | None, expected: Queue) -> None:
    assert Queue.parse(text, region=region) == expected


def test_a_queue_of_another_account_is_read_with_the_credentials_given() -> None:
    queue = Queue.parse("arn:aws:sqs:eu-west-1:999999999999:flow", "123456789012")
    assert (queue.account_id, queue.owner) == ("123456789012", "999999999999")


@pytest.mark.parametrize("text", ["flow", "https://sqs.eu-west-1.amazonaws.com/flow", "arn:aws:sns:x:1:y"])
def test_what_is_no_queue_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        Queue.parse(text)


def test_the_queues_own_timeout_stands_unless_it_is_unknown_or_nought() -> None:
    assert (Facts(True, 45).asked_timeout, Facts(True, 45).visibility) == (None, 45)
    assert (Facts(True, 0).asked_timeout, Facts(True, 0).visibility) == (300, 300)
    assert (Facts(False).asked_timeout, Facts(False).visibility) == (300, 300)


@pytest.mark.parametrize(
    ("concurrency", "busy", "waiting", "seconds", "size"),
    [
        (2, 0, 0, 0.0, 2),  # nothing known yet: what the workers can take
        (2, 2, 0, 0.0, 0),
        (2, 2, 0, 0.01, 10),  # small objects: a second of work ahead, ten at most
        (2, 2, 200, 0.01, 0),
        (2, 2, 0, 60.0, 0),  # big ones: left to others
        (2, 1, 0, 60.0, 1),
    ],
)
def test_no_more_is_received_than_can_be_worked_on(
    concurrency: int, busy: int, waiting: int, seconds: float, size: int
) -> None:
    assert receive_size(concurrency, busy, waiting, seconds, 256) == size


def test_health_has_growing_pauses_by_what_fails(clock: TestClock, metrics: Metrics) -> None:
    record = HealthRecord("s3", "q", clock, structlog.get_logger(), metrics, lambda: Pauses(chance=lambda: 1.0))
    assert record.get().ok is None
    assert [record.failed("receive", "down") for _ in range(12)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    clock.time += 10
    assert record.failed("objects", "denied") == 1
    record.succeeded("receive")
    assert (record.get().ok, record.get().error) == (False, "denied")
    assert sample(metrics, "edfn_source_failing", input="s3", source="q") == 1
    record.succeeded("objects")
    assert record.get().ok
    assert sample(metrics, "edfn_source_failing", input="s3", source="q") == 0
    assert record.failed("receive", "down") == 1


def test_metrics_have_the_names_and_labels_people_were_promised() -> None:
    table = metrics_markdown()
    for name, labels in (
        ("edfn_records_exported_total", "`vpc_id`, `exporter`"),
        ("edfn_records_skipped_total", "`status`"),
        ("edfn_lines_malformed_total", "`input`"),
        ("edfn_deliveries_total", "`input`, `outcome`"),
        ("edfn_deliveries_in_flight", "`input`"),
        ("edfn_input_lag_seconds", "`input`, `source`"),
        ("edfn_bytes_in_flight", ""),
        ("edfn_messages_sent_total", "`collector`"),
        ("edfn_send_errors_total", "`collector`"),
        ("edfn_aws_calls_total", "`service`, `action`, `outcome`"),
        ("edfn_discovery_last_success_timestamp_seconds", ""),
        ("edfn_quarantined", ""),
    ):
        kind = "counter" if name.endswith("_total") else "gauge"
        assert f"| `{name}` | {kind} | {labels} |" in table


def test_labels_from_outside_are_bounded() -> None:
    registry = CollectorRegistry()
    metric = Labelled(Counter("x", "x", ["vpc_id", "exporter"], registry=registry), limit=2)
    for number in range(5):
        metric.labels(f"vpc-{number}", "10.0.0.1").inc()
    assert registry.get_sample_value("x_total", {"vpc_id": "other", "exporter": "other"}) == 3
    metric.remove("vpc-0", "10.0.0.1")
    metric.labels("vpc-9", "10.0.0.1").inc()
    assert registry.get_sample_value("x_total", {"vpc_id": "vpc-9", "exporter": "10.0.0.1"}) == 1


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("ok", "ok"),
        ("ThrottlingException", "throttled"),
        ("SlowDown", "throttled"),
        ("EC2ThrottledException", "throttled"),
        ("ExpiredToken", "expired"),
        ("403", "denied"),
        ("AccessDeniedException", "denied"),
        ("UnauthorizedOperation", "denied"),
        ("InvalidClientTokenId", "denied"),
        ("NoCredentialsError", "denied"),
        ("NoSuchKey", "missing"),
        ("AWS.SimpleQueueService.NonExistentQueue", "missing"),
        ("ResourceNotFoundException", "missing"),
        ("EndpointConnectionError", "unreachable"),
        ("ReadTimeoutError", "unreachable"),
        ("InternalError", "error"),
        ("ValidationException", "error"),
        ("error", "error"),
    ],
)
def test_outcomes_of_calls(code: str, outcome: str) -> None:
    """Alerts look for these words."""
    assert call_outcome(code) == outcome
