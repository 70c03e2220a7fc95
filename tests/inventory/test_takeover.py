"""What is made up for when a stream fails for good: from when on a log group is read, and which objects again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_sources import ALL, GROUP, QUEUE, STREAM, WORLD, to_group, to_s3

from edfn_agent.inventory.model import FlowLog
from edfn_agent.inventory.sources import SourcePlan
from edfn_agent.state import State
from edfn_agent.takeover import KEPT, LATE, Aside, Takeover

NOW = 1_768_471_200.0


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State(tmp_path) as state:
        yield state


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """`now`, and `passed` for what counts seconds."""
    clock = {"now": NOW, "passed": 1000.0}
    monkeypatch.setattr(time, "time", lambda: clock["now"])
    monkeypatch.setattr(time, "monotonic", lambda: clock["passed"])
    return clock


def plan(*flow_logs: FlowLog, failed: bool = False) -> SourcePlan:
    return SourcePlan(replace(WORLD, flow_logs=flow_logs), ALL, seen={STREAM: "it is gone"} if failed else {})


def names(asides: Iterator[Aside]) -> list[str]:
    return [each.name for each in asides]


class TestLogGroup:
    def test_begins_where_the_stream_ended(self, state: State, clock: dict[str, float]) -> None:
        takeover = Takeover(state, 0, 1)
        failed = plan(to_group(), failed=True)
        assert takeover.group_from(failed, GROUP) is None, "nothing was ever read of the stream"
        takeover.note(STREAM, NOW - 100)
        assert takeover.group_from(failed, GROUP) == NOW - 100
        assert Takeover(state, 0, 1).group_from(failed, GROUP) == NOW - 100, "also after a restart"
        assert takeover.group_from(plan(to_group()), GROUP) is None, "the stream is read, and the group is not"

    def test_what_is_older_than_streams_keep_records_is_forgotten(self, state: State, clock: dict[str, float]) -> None:
        takeover = Takeover(state, 0, 1)
        takeover.note(STREAM, NOW - 100)
        clock["now"] += KEPT
        assert takeover.group_from(plan(to_group(), failed=True), GROUP) is None

    def test_notes_are_ten_seconds_apart(self, state: State, clock: dict[str, float]) -> None:
        takeover = Takeover(state, 0, 1)
        takeover.note(STREAM, NOW - 100)
        takeover.note(STREAM, NOW - 98)
        assert takeover.exported_to([STREAM]) == NOW - 100
        clock["passed"] += 10
        takeover.note(STREAM, NOW - 96)
        assert takeover.exported_to([STREAM]) == NOW - 96

    def test_of_several_workers_the_one_that_is_furthest_behind(self, state: State, clock: dict[str, float]) -> None:
        for worker, behind in enumerate((5, 300, 7)):
            Takeover(state, worker, 3).note(STREAM, NOW - behind)
        assert Takeover(state, 0, 3).exported_to([STREAM]) == NOW - 300
        assert Takeover(state, 0, 1).exported_to([STREAM]) == NOW - 5, "there are no others any more"

    def test_nothing_is_passed_over_in_a_group_that_was_read_itself(
        self, state: State, clock: dict[str, float]
    ) -> None:
        """One of its VPCs came from a stream, the other from the group: how far that was read is the group's cursor."""
        takeover = Takeover(state, 0, 1)
        takeover.note(STREAM, NOW - 100)
        made = plan(to_group(), to_group("fl-2", "vpc-2"), failed=True)
        assert takeover.group_from(made, GROUP) == NOW - 100
        made.ways = [way for way in made.ways if way.input != "kinesis" or way.home == "vpc-1"]
        made.__dict__.pop("_ways_of_vpc", None)
        assert takeover.group_from(made, GROUP) is None


class TestObjects:
    def test_let_go_because_of_a_stream_and_read_when_it_fails(self, state: State, clock: dict[str, float]) -> None:
        takeover = Takeover(state, 0, 1)
        well, failed = plan(to_group(), to_s3()), plan(to_group(), to_s3(), failed=True)
        takeover.note(STREAM, NOW)
        takeover.remember(well, "fl-s3", "s3://logs/1", QUEUE)
        takeover.remember(well, "fl-cwl", "s3://logs/2", QUEUE)
        takeover.remember(well, "fl-nobody's", "s3://logs/3", QUEUE)
        takeover.remember(well, None, "s3://logs/4", QUEUE)
        takeover.remember(failed, "fl-s3", "s3://logs/5", QUEUE)
        assert names(takeover.again(well)) == []
        assert list(takeover.again(failed)) == [Aside("fl-s3", "s3://logs/1", QUEUE, NOW)]
        (aside,) = Takeover(state, 0, 1).again(failed)
        takeover.done(aside)
        assert names(takeover.again(failed)) == []

    def test_without_a_stream_nothing_is_remembered(self, state: State, clock: dict[str, float]) -> None:
        takeover = Takeover(state, 0, 1)
        shadowed = plan(to_s3(), to_s3("fl-subnet", "subnet-1"))
        assert "fl-subnet" not in shadowed.chosen
        takeover.remember(shadowed, "fl-subnet", "s3://logs/1", QUEUE)
        assert state.cursors.list("s3:aside:fl-subnet") == {}

    def test_those_that_the_stream_has_brought_are_not_read(self, state: State, clock: dict[str, float]) -> None:
        takeover = Takeover(state, 0, 1)
        well, failed = plan(to_group(), to_s3()), plan(to_group(), to_s3(), failed=True)
        takeover.remember(well, "fl-s3", "s3://logs/1", QUEUE)
        clock["now"] += LATE
        takeover.remember(well, "fl-s3", "s3://logs/2", QUEUE)
        takeover.note(STREAM, NOW + LATE + 1)
        assert names(takeover.again(failed)) == ["s3://logs/2"]

    def test_forgotten_as_the_stream_goes_on(self, state: State, clock: dict[str, float]) -> None:
        takeover = Takeover(state, 0, 1)
        well = plan(to_group(), to_s3())
        for number in range(3):
            takeover.remember(well, "fl-s3", f"s3://logs/{number}", QUEUE)
            clock["now"] += LATE
        takeover.note(STREAM, NOW + 2 * LATE)
        takeover.forget(well)
        assert list(state.cursors.list("s3:aside:fl-s3")) == ["s3://logs/1", "s3://logs/2"]
        clock["now"] += KEPT
        takeover.forget(well)
        assert list(state.cursors.list("s3:aside:fl-s3")) == []
