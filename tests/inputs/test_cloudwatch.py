"""CloudWatch Logs by API against moto over HTTP: late events, cursors, permissions, groups that come and go."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edfn_agent.delivery import Outcome
from edfn_agent.inputs.allowance import Allowance
from edfn_agent.inputs.cloudwatch import CloudWatchInput
from edfn_agent.inputs.group_reader import PENDING, GroupReader, Settings
from edfn_agent.inputs.log_events import Stopping
from edfn_agent.inputs.log_groups import LogGroup, start_time
from edfn_agent.inputs.quota import RATES, Quotas
from edfn_agent.state import State, StateError
from tests.inputs import faults
from tests.inputs.conftest import ACCOUNT, REGION, Sink, TestClock, _names, client_of, sample, until
from tests.inputs.faults import FaultProxy, on

MINUTE = 60_000


class Group:
    """A log group, and readers of it that are driven by hand."""

    def __init__(self, url: str, proxy: FaultProxy, sink: Sink, state: State, metrics: Any, clock: TestClock) -> None:
        self.proxy, self.sink, self.state, self.metrics, self.clock = proxy, sink, state, metrics, clock
        self.name = f"/vpc/flow-logs-{next(_names)}"
        self.logs = client_of(url, "logs")
        self.client = client_of(proxy.url, "logs")
        self.streams: set[str] = set()
        self.allowance = Allowance(PENDING)
        self.create()
        # moto takes no events far from the machine's own time, so the tests' clock starts there.
        clock.time = float(int(time.time()))

    def create(self) -> None:
        self.logs.create_log_group(logGroupName=self.name)
        self.streams.clear()

    def put(self, *messages: str, at: float = 0.0, stream: str = "eni-1-all") -> None:
        """`at` in seconds from now."""
        if stream not in self.streams:
            self.logs.create_log_stream(logGroupName=self.name, logStreamName=stream)
            self.streams.add(stream)
        when = int((self.clock.time + at) * 1000)
        events = [{"timestamp": when, "message": message} for message in messages]
        self.logs.put_log_events(logGroupName=self.name, logStreamName=stream, logEvents=events)

    def reader(self, **settings: Any) -> GroupReader:
        group = LogGroup(ACCOUNT, REGION, self.name)
        quotas = Quotas(self.clock, dict.fromkeys(RATES, 1e6))
        given = Settings(**({"start_from": "1h"} | settings))
        return GroupReader(
            group,
            lambda *_: self.client,
            self.sink,
            self.state,
            self.metrics,
            given,
            quotas,
            self.allowance,
            self.clock,
        )

    def deny(self, *actions: str) -> None:
        self.proxy.rules += [on(action, faults.DENIED_JSON) for action in actions]

    def incidents(self, kind: str) -> float:
        return sample(self.metrics, "edfn_cloudwatch_incidents_total", kind=kind)


@pytest.fixture
def group(moto: str, logs_proxy: FaultProxy, sink: Sink, state: State, metrics: Any, clock: TestClock) -> Group:
    return Group(moto, logs_proxy, sink, state, metrics, clock)


@pytest.fixture(params=["FilterLogEvents", "GetLogEvents"])
def either(request: Any, group: Group) -> Group:
    """With FilterLogEvents allowed, and with the original product's policy."""
    if request.param == "GetLogEvents":
        group.deny("FilterLogEvents", "DescribeLogGroups")
    return group


def test_events_become_deliveries(either: Group) -> None:
    either.put("2 a", "2 b", stream="eni-1-all")
    either.put("2 c", stream="eni-2-all")
    either.reader().poll()
    assert sorted(either.sink.lines) == ["2 a", "2 b", "2 c"]
    origin = either.sink.deliveries[0].origin
    assert origin.input == "cloudwatch_logs"
    assert origin.source == f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{either.name}"
    assert (origin.account_id, origin.region, origin.log_group) == (ACCOUNT, REGION, either.name)


def test_what_was_sent_is_not_sent_again(either: Group) -> None:
    either.put("2 a", "2 a", "2 b")  # two equal ones are two flows
    reader = either.reader()
    for _ in range(3):
        reader.poll()
        either.clock.time += 30
    either.put("2 c")
    reader.poll()
    assert sorted(either.sink.lines) == ["2 a", "2 a", "2 b", "2 c"]


def test_late_events_are_found_behind_the_newest(either: Group) -> None:
    reader = either.reader()
    either.put("2 new")
    reader.poll()
    for late in range(5):
        either.put(f"2 late {late}", at=-600 - late, stream=f"eni-{late}-all")
        either.clock.time += 60
        reader.poll()
    for _ in range(10):  # where sweeps are dear, the next one comes within a third of the overlap
        either.clock.time += 60
        reader.poll()
    assert sorted(either.sink.lines) == ["2 late 0", "2 late 1", "2 late 2", "2 late 3", "2 late 4", "2 new"]
    assert sample(either.metrics, "edfn_cloudwatch_late_events_total") == 5


def test_events_that_aws_shows_late_are_not_lost(either: Group) -> None:
    hidden = {"2 b", "2 d"}
    either.proxy.rules.append(faults.late_events(lambda message: message in hidden))
    either.put("2 a", "2 b", "2 c", "2 d", "2 e")
    reader = either.reader()
    reader.poll()
    assert sorted(either.sink.lines) == ["2 a", "2 c", "2 e"]
    hidden.clear()
    for _ in range(10):
        either.clock.time += 60
        reader.poll()
    assert sorted(either.sink.lines) == ["2 a", "2 b", "2 c", "2 d", "2 e"]


def test_a_restart_goes_on_and_sends_nothing_twice(either: Group) -> None:
    either.put("2 a", "2 b")
    either.reader().poll()
    either.put("2 c", at=1)
    either.clock.time += 30
    either.reader(start_from="now").poll()  # only a group never seen starts there
    assert either.sink.lines == ["2 a", "2 b", "2 c"]


def test_now_is_when_the_group_was_first_seen(group: Group) -> None:
    group.put("2 old", at=-10)
    group.reader(start_from="now").poll()
    group.put("2 new", at=5)
    group.clock.time += 60
    group.reader(start_from="now").poll()
    assert group.sink.lines == ["2 new"]


def test_the_cursor_moves_only_after_the_acknowledgement(either: Group) -> None:
    either.sink.hold = True
    either.put("2 a", at=-3000)
    reader = either.reader()
    reader.poll()
    before = reader.floor
    either.clock.time += 60
    reader.poll()
    assert reader.floor <= int((either.clock.time - 60 - 3000) * 1000)
    assert either.sink.lines == ["2 a"]  # in hand, so not handed over again
    # The agent is killed here: what was in hand comes again, and nothing else is needed.
    either.sink.hold = False
    other = either.reader()
    other.poll()
    assert either.sink.lines == ["2 a", "2 a"]
    assert other.floor > before


def test_what_is_returned_is_read_again(either: Group) -> None:
    either.put("2 a", at=-3000)
    either.sink.fail = (Outcome.RETURNED, "collector is away")
    reader = either.reader()
    reader.poll()
    reader.poll()
    assert reader.floor <= int((either.clock.time - 3000) * 1000)
    either.sink.fail = None
    either.sink.read.clear()
    reader.poll()
    reader.poll()
    assert either.sink.lines == ["2 a"]
    assert reader.floor > int((either.clock.time - 3000) * 1000)


def test_what_was_returned_is_not_forgotten_when_its_second_reading_fails(group: Group) -> None:
    group.sink.hold = True
    group.put("2 new")
    reader = group.reader()
    reader.poll()
    group.sink.hold, group.sink.fail = False, (Outcome.RETURNED, "collector is away")
    group.put("2 old", at=-1700, stream="eni-2-all")
    reader.poll()
    group.clock.time += 1200
    reader.poll()  # from here on, only that it was returned keeps the floor before it
    group.proxy.rules.append(on("FilterLogEvents", faults.BROKEN, times=6))
    with pytest.raises(Exception, match="InternalError"):
        reader.poll()
    group.sink.fail = None
    group.sink.deliveries[0].release()
    group.sink.read.clear()
    reader.poll()
    assert group.sink.lines == ["2 old"]


def test_quarantined_events_are_kept_and_passed(group: Group) -> None:
    group.put("no flow log")
    group.sink.fail = (Outcome.QUARANTINED, "no line could be read")
    reader = group.reader()
    reader.poll()
    reader.poll()
    entry = group.state.quarantine.get(group.state.quarantine.list()[0].id)
    assert entry is not None
    assert entry.payload == b"no flow log\n"
    assert (entry.source, entry.detail["log_group"]) == (reader.group.arn, group.name)
    assert len(group.sink.read) == 1


def test_a_state_that_does_not_work_costs_nothing_but_duplicates(group: Group, monkeypatch: Any) -> None:
    group.put("2 a")
    reader = group.reader()
    reader.poll()
    with monkeypatch.context() as patch:
        patch.setattr(group.state.cursors, "set_many", _refuse)
        group.put("2 b")
        group.clock.time += 30
        reader.poll()
        assert group.sink.lines == ["2 a", "2 b"]
    group.put("2 c")
    group.clock.time += 30
    reader.poll()
    group.reader().poll()  # once it works again, all of it is stored
    assert group.sink.lines == ["2 a", "2 b", "2 c"]


def _refuse(*_: Any) -> None:
    raise StateError("disk full")


def test_a_group_is_not_begun_without_a_state(group: Group, monkeypatch: Any) -> None:
    """Else `now` would move with every start, over events that nobody read."""
    monkeypatch.setattr(group.state.cursors, "set", _refuse)
    with pytest.raises(StateError):
        group.reader(start_from="now").poll()


def test_an_empty_page_in_the_middle_does_not_end_the_reading(group: Group) -> None:
    class Client:
        def __init__(self) -> None:
            self.pages = [
                {"events": [], "nextToken": "1"},
                {"events": [event("2 a")], "nextToken": "2"},
                {"events": []},
            ]

        def filter_log_events(self, **_: Any) -> Any:
            return self.pages.pop(0)

        def describe_log_groups(self, **_: Any) -> Any:
            return {}

    def event(message: str) -> Any:
        return {"logStreamName": "s", "timestamp": int(group.clock.time * 1000), "message": message, "eventId": "1"}

    group.client = Client()
    group.reader().poll()
    assert group.sink.lines == ["2 a"]


def test_far_behind_it_is_read_in_stretches(group: Group) -> None:
    for hour in range(10):
        group.put(f"2 hour {hour}", at=-3600 * (10 - hour))
    reader = group.reader(start_from="11h")
    while reader.poll():
        pass
    assert group.sink.lines == [f"2 hour {hour}" for hour in range(10)]
    assert reader.floor == int((group.clock.time - 1800) * 1000)
    ends = [request.body for request in group.proxy.calls("FilterLogEvents")]
    assert len(ends) >= 10


def test_ids_are_kept_for_the_overlap_only(group: Group) -> None:
    reader = group.reader()
    for _ in range(50):
        group.put("2 x", stream="eni-1-all")
        reader.poll()
        group.clock.time += 120
    stored = group.state.cursors.list(f"cloudwatch_logs:{reader.group.arn}")
    assert len(stored) < 1800 / 60 + 4


@pytest.mark.parametrize("action", ["FilterLogEvents", "GetLogEvents", "DescribeLogStreams"])
def test_throttling_slows_and_loses_nothing(group: Group, action: str) -> None:
    if action != "FilterLogEvents":
        group.deny("FilterLogEvents")
    group.proxy.rules.append(on(action, faults.THROTTLED, times=3))
    group.put("2 a")
    group.reader().poll()
    assert group.sink.lines == ["2 a"]
    assert len(group.proxy.calls(action)) >= 4
    assert len([pause for pause in group.clock.waits if pause > 0.3]) >= 3


def test_errors_in_passing_are_tried_again_and_dead_ones_are_told(group: Group) -> None:
    group.put("2 a")
    group.proxy.rules.append(on("FilterLogEvents", faults.BROKEN, times=2))
    reader = group.reader()
    reader.poll()
    assert group.sink.lines == ["2 a"]
    group.deny("FilterLogEvents", "DescribeLogStreams")
    with pytest.raises(Exception, match="DescribeLogStreams") as failed:
        reader.poll()
    reader._failed(failed.value)
    health = reader.health()
    assert health.ok is False
    assert "logs:DescribeLogStreams is missing" in health.error
    assert f"account {ACCOUNT}" in health.error


def test_an_expired_token_is_an_error_and_costs_nothing(group: Group) -> None:
    group.put("2 a")
    group.proxy.rules.append(on("FilterLogEvents", faults.EXPIRED, times=1))
    reader = group.reader()
    with pytest.raises(Exception, match="ExpiredToken"):
        reader.poll()
    reader.poll()
    assert group.sink.lines == ["2 a"]


def test_a_group_made_again_is_said_and_gone_on_with(group: Group) -> None:
    group.put("2 a")
    reader = group.reader()
    reader.poll()
    group.logs.delete_log_group(logGroupName=group.name)
    for _ in range(2):
        group.clock.time += 30
        with pytest.raises(Exception, match="ResourceNotFound") as failed:
            reader.poll()
        reader._failed(failed.value)
    assert group.incidents("group_gone") == 1
    group.create()
    group.put("2 b")
    group.clock.time += 30
    reader.poll()
    reader.poll()
    assert group.sink.lines == ["2 a", "2 b"]
    assert group.incidents("group_made_again") == 1


def test_a_group_made_again_between_two_polls_is_noticed_by_its_creation(group: Group) -> None:
    group.put("2 a")
    reader = group.reader()
    reader.poll()
    group.logs.delete_log_group(logGroupName=group.name)
    time.sleep(0.01)
    group.create()
    group.put("2 b")
    group.clock.time += 700
    reader.poll()
    assert group.sink.lines == ["2 a", "2 b"]
    assert group.incidents("group_made_again") == 1


def test_a_stream_that_vanishes_is_said_and_passed(group: Group) -> None:
    group.deny("FilterLogEvents")
    group.put("2 a", stream="eni-1-all")
    group.put("2 b", stream="eni-2-all")
    reader = group.reader()
    reader.poll()
    group.logs.delete_log_stream(logGroupName=group.name, logStreamName="eni-1-all")
    group.put("2 c", stream="eni-2-all")
    for _ in range(10):
        group.clock.time += 30
        reader.poll()
    assert sorted(group.sink.lines) == ["2 a", "2 b", "2 c"]
    assert group.incidents("stream_gone") == 1


def test_retention_that_overtakes_the_cursor_is_said(group: Group) -> None:
    group.logs.put_retention_policy(logGroupName=group.name, retentionInDays=1)
    reader = group.reader(start_from="72h")
    reader.poll()
    assert group.incidents("retention_overtook") == 1
    assert reader.floor >= int((group.clock.time - 86400) * 1000)


def test_hundreds_of_streams_stay_within_the_quota(group: Group) -> None:
    class Client:
        def __init__(self) -> None:
            self.calls: list[tuple[str, float]] = []

        def _note(self, action: str) -> None:
            self.calls.append((action, group.clock.time))

        def filter_log_events(self, **_: Any) -> Any:
            self._note("filter")
            raise _denied()

        def describe_log_groups(self, **_: Any) -> Any:
            raise _denied()

        def describe_log_streams(self, nextToken: str = "0", **_: Any) -> Any:
            self._note("list")
            first = int(nextToken)
            now = int(group.clock.time * 1000)
            page = [
                {"logStreamName": f"eni-{number}", "lastEventTimestamp": now} for number in range(first, first + 50)
            ]
            return {"logStreams": page} | ({"nextToken": str(first + 50)} if first < 250 else {})

        def get_log_events(self, logStreamName: str, nextToken: str | None = None, **_: Any) -> Any:
            self._note("get")
            event = {"timestamp": int(group.clock.time * 1000), "ingestionTime": 0, "message": f"2 {logStreamName}"}
            return {"events": [] if nextToken else [event], "nextForwardToken": "end"}

    client = group.client = Client()
    reader = GroupReader(
        LogGroup(ACCOUNT, REGION, group.name),
        lambda *_: client,
        group.sink,
        group.state,
        group.metrics,
        Settings(start_from="1h"),
        Quotas(group.clock),
        group.allowance,
        group.clock,
    )
    reader.poll()
    assert len(set(group.sink.lines)) == 300
    times = [when for action, when in client.calls if action == "get"]
    for first, tenth in zip(times, times[10:], strict=False):
        assert tenth - first > 1.0  # fewer than ten in any second


def _denied() -> Exception:
    from botocore.exceptions import ClientError

    return ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "X")


def test_what_is_handed_over_and_not_settled_is_bounded_in_octets(group: Group) -> None:
    """Over all readers; and a stop does not wait for it: what could not be handed over is read again."""
    group.allowance = Allowance(100)
    group.sink.hold = True
    group.put("2 " + "a" * 60, stream="one")
    first, second, third = group.reader(), group.reader(), group.reader()
    first.poll()
    waiting = threading.Thread(target=second.poll, daemon=True)
    waiting.start()
    third.stop_reading()
    with pytest.raises(Stopping):
        third.poll()
    assert (len(group.sink.lines), group.allowance.held) == (1, 63)
    group.sink.deliveries[0].release()
    waiting.join(20)
    assert len(group.sink.lines) == 2
    group.sink.deliveries[1].release()
    assert group.allowance.held == 0


def test_the_threads_read_and_stop(group: Group, tmp_path: Path) -> None:
    group.put("2 a", at=-5)
    settings = Settings(interval=1, start_from="1h")
    input = CloudWatchInput(lambda *_: group.client, group.sink, group.state, group.metrics, settings)
    nowhere = LogGroup(ACCOUNT, REGION, "/nowhere")
    input.set_sources([nowhere, LogGroup(ACCOUNT, REGION, group.name)])
    until(lambda: group.sink.lines == ["2 a"])
    group.sink.hold = True
    group.put("2 b")
    until(lambda: group.sink.lines == ["2 a", "2 b"])
    until(lambda: {health.ok for health in input.health()} == {True, False})
    group.sink.deliveries[-1].release()
    started = time.monotonic()
    input.stop(5)
    assert time.monotonic() - started < 4
    group.reader().poll()
    assert group.sink.lines == ["2 a", "2 b"]


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("now", 1_700_000_000_000),
        ("1h", 1_699_996_400_000),
        ("90", 1_699_999_910_000),
        ("2023-11-14T00:00:00Z", 1_699_920_000_000),
        ("2023-11-14", 1_699_920_000_000),
        (timedelta(days=1), 1_699_913_600_000),
        (datetime(2023, 11, 14, tzinfo=UTC), 1_699_920_000_000),
    ],
)
def test_start_from(text: Any, milliseconds: int) -> None:
    assert start_time(text, 1_700_000_000) == milliseconds


def test_start_from_says_what_it_takes() -> None:
    with pytest.raises(ValueError, match=r"yesterday.*neither"):
        start_time("yesterday", 0)


def test_groups_are_parsed() -> None:
    arn = "arn:aws:logs:eu-west-1:111122223333:log-group:/vpc/flow:*"
    assert LogGroup.parse(arn) == LogGroup("111122223333", "eu-west-1", "/vpc/flow")
    assert LogGroup.parse("flow", "111122223333", "eu-west-1").arn.endswith(":log-group:flow")
    with pytest.raises(ValueError, match="account and region"):
        LogGroup.parse("flow")
