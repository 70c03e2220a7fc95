"""What was sent already: known at once, written in groups, kept while the state does not work."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from edfn_agent.inputs import sent as module
from edfn_agent.inputs.clock import Clock
from edfn_agent.inputs.notifications import ObjectRef
from edfn_agent.inputs.sent import Sent
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State, StateError
from tests.inputs.conftest import sample, until

WINDOW = 3600.0


def ref(number: int) -> ObjectRef:
    return ObjectRef("bucket", f"key-{number}")


class Slow:
    """A disk that can be held up, and fail."""

    def __init__(self, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, self.fails, self.calls = threading.Event(), False, list[int]()
        self.go_on.set()
        add_many = state.seen.add_many

        def slow(input: str, keys: Any, now: float, window: float) -> set[str]:
            self.calls.append(len(keys))
            assert self.go_on.wait(20)
            if self.fails:
                raise StateError("the disk is full")
            return add_many(input, keys, now, window)

        monkeypatch.setattr(state.seen, "add_many", slow)


@pytest.fixture
def disk(state: State, monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(state, monkeypatch)


def test_a_thousand_marks_wait_for_one_commit_and_nobody_for_them(state: State, metrics: Metrics, disk: Slow) -> None:
    sent = Sent("s3", state, metrics, Clock())
    disk.go_on.clear()
    sent.add(ref(0), "m", False, WINDOW)
    until(lambda: disk.calls)
    for number in range(1, 1001):
        sent.add(ref(number), "m", False, WINDOW)
    assert sent.contains(ref(1000), "m", False, WINDOW), "not written yet, and known all the same"
    disk.go_on.set()
    until(lambda: state.seen.count("s3") == 1001)
    assert len(disk.calls) <= 3
    sent.stop()
    assert Sent("s3", state, metrics, Clock()).contains(ref(1), "m", False, WINDOW)


def test_while_the_state_does_not_work_marks_wait(
    state: State, metrics: Metrics, disk: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRY_AGAIN", 0.05)
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    sent = Sent("s3", state, metrics, Clock())
    disk.fails = True
    for number in range(5):
        sent.add(ref(number), "m", False, WINDOW)
    until(lambda: sample(metrics, "edfn_state_errors_total") > 1)
    assert sent.contains(ref(4), "m", False, WINDOW)
    assert not sent.contains(ref(0), "m", False, WINDOW), "the oldest is forgotten, that costs a repetition"
    disk.fails = False
    until(lambda: state.seen.count("s3") == 3)
    sent.stop()


def test_what_was_added_is_written_at_the_end(state: State, metrics: Metrics) -> None:
    sent = Sent("s3", state, metrics, Clock())
    sent.add(ref(1), "m", False, WINDOW)
    sent.add(ref(2), "m", True, 0.0)  # no window: remembered for its message alone
    sent.add(ref(3), "m", False, 0.0)
    sent.stop()
    assert (state.seen.count("s3"), state.seen.count("s3:partial")) == (1, 1)
    sent.add(ref(4), "m", False, WINDOW)
    assert state.seen.count("s3") == 2, "the pipeline sends its last records after the inputs have stopped"
    assert sent.contains(ref(2), "m", True, 0.0)
    assert not sent.contains(ref(2), "other", True, 0.0)
