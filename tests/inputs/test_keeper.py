"""Extensions, deletions and returns, step by step with a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from edfn_agent.inputs.keeper import Keeper
from edfn_agent.ops.metrics import Metrics
from tests.inputs.conftest import TestClock, sample


class Sqs:
    """Notes the batches; says against an entry what it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[tuple[str, int | None]]]] = []
        self.against: dict[str, str] = {}
        self.error: Exception | None = None

    def change_message_visibility_batch(self, **request: Any) -> Any:
        return self._note("change", request["Entries"])

    def delete_message_batch(self, **request: Any) -> Any:
        return self._note("delete", request["Entries"])

    def _note(self, action: str, entries: list[Any]) -> Any:
        self.calls.append((action, [(each["ReceiptHandle"], each.get("VisibilityTimeout")) for each in entries]))
        if self.error is not None:
            raise self.error
        bad = [each for each in entries if each["ReceiptHandle"] in self.against]
        return {"Failed": [{"Id": each["Id"], "Code": self.against[each["ReceiptHandle"]]} for each in bad]}


@pytest.fixture
def sqs() -> Sqs:
    return Sqs()


@pytest.fixture
def keeper(sqs: Sqs, metrics: Metrics, clock: TestClock) -> Keeper:
    return Keeper("queue", lambda: (sqs, "url"), metrics, clock, delay=0.5)


def run(keeper: Keeper, clock: TestClock, seconds: float) -> None:
    """Step as the thread would, until so much time has passed."""
    end = clock.time + seconds
    while (pause := keeper.step()) is not None and clock.time + pause <= end:
        clock.time += max(pause, 0.001)
    clock.time = end
    keeper.step()


def test_a_message_is_extended_at_half_of_its_timeout_again_and_again(
    keeper: Keeper, sqs: Sqs, clock: TestClock
) -> None:
    keeper.take("r1", "m1", 300)
    run(keeper, clock, 149)
    assert sqs.calls == []
    run(keeper, clock, 1000)
    assert sqs.calls == [("change", [("r1", 300)])] * 7


def test_it_ends_before_twelve_hours(keeper: Keeper, sqs: Sqs, clock: TestClock, metrics: Metrics) -> None:
    keeper.take("r1", "m1", 3600)
    start = clock.time
    run(keeper, clock, 13 * 3600)
    calls = [seconds for _, entries in sqs.calls for _, seconds in entries]
    assert max(calls) == 3600
    assert calls[-1] < 60
    assert clock.time - start == 13 * 3600
    assert sample(metrics, "edfn_sqs_receipts_lost_total") == 1


def test_a_dead_receipt_is_not_extended_any_more(keeper: Keeper, sqs: Sqs, clock: TestClock, metrics: Metrics) -> None:
    keeper.take("r1", "m1", 300)
    sqs.against["r1"] = "ReceiptHandleIsInvalid"
    run(keeper, clock, 3600)
    assert len(sqs.calls) == 1
    assert sample(metrics, "edfn_sqs_receipts_lost_total") == 1


def test_an_extension_that_fails_in_passing_is_tried_again_in_time(keeper: Keeper, sqs: Sqs, clock: TestClock) -> None:
    keeper.take("r1", "m1", 30)
    sqs.error = EndpointConnectionError(endpoint_url="x")
    run(keeper, clock, 20)
    assert len(sqs.calls) >= 2
    sqs.error = None
    run(keeper, clock, 4)
    assert sqs.calls[-1] == ("change", [("r1", 30)])


def test_deletions_go_ten_at_a_time_and_the_rest_after_the_delay(
    keeper: Keeper, sqs: Sqs, clock: TestClock, metrics: Metrics
) -> None:
    held = [keeper.take(f"r{number}", "m", 300) for number in range(13)]
    for each in held:
        keeper.delete(each)
    keeper.step()
    assert [len(entries) for _, entries in sqs.calls] == [10]
    run(keeper, clock, 0.6)
    assert [len(entries) for _, entries in sqs.calls] == [10, 3]
    assert keeper.count == 0
    assert sample(metrics, "edfn_sqs_messages_deleted_total") == 13


def test_a_receipt_that_was_handed_over_twice_is_not_twice_in_one_call(keeper: Keeper, sqs: Sqs) -> None:
    """SQS refuses such a call whole, and all others in it with it."""
    for receipt in ("r1", "r2", "r1"):
        keeper.delete(keeper.take(receipt, "m", 300))
    keeper.stop(0)
    keeper.step()
    assert sqs.calls == [("delete", [("r1", None), ("r2", None)]), ("delete", [("r1", None)])]


def test_a_deletion_that_fails_for_one_is_tried_again_for_that_one_and_the_message_kept_meanwhile(
    keeper: Keeper, sqs: Sqs, clock: TestClock
) -> None:
    first, second = keeper.take("r1", "m1", 10), keeper.take("r2", "m2", 10)
    sqs.against["r2"] = "InternalError"
    keeper.delete(first)
    keeper.delete(second)
    run(keeper, clock, 6)
    deletes = [entries for action, entries in sqs.calls if action == "delete"]
    assert deletes[0] == [("r1", None), ("r2", None)]
    assert deletes[1] == [("r2", None)]
    assert ("change", [("r2", 10)]) in sqs.calls
    sqs.against.clear()
    run(keeper, clock, 10)
    assert keeper.count == 0


def test_a_whole_batch_refused_is_tried_again(keeper: Keeper, sqs: Sqs, clock: TestClock) -> None:
    keeper.delete(keeper.take("r1", "m1", 300))
    refusal: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    sqs.error = ClientError(refusal, "DeleteMessageBatch")
    run(keeper, clock, 5)
    assert keeper.count == 1
    sqs.error = None
    run(keeper, clock, 30)
    assert keeper.count == 0


def test_a_return_says_the_pause_and_a_stop_says_none(keeper: Keeper, sqs: Sqs, clock: TestClock) -> None:
    keeper.give_back(keeper.take("r1", "m1", 300), 60)
    late = keeper.take("r2", "m2", 300)
    assert keeper.give_back_all() == 1
    keeper.delete(late)  # its objects came out after all: too late, the queue has it back
    keeper.step()
    assert sqs.calls == [("change", [("r1", 60), ("r2", 0)])]
    assert keeper.count == 0


def test_what_is_left_is_not_touched(keeper: Keeper, sqs: Sqs, clock: TestClock) -> None:
    keeper.leave(keeper.take("r1", "m1", 300))
    run(keeper, clock, 1000)
    assert sqs.calls == []
