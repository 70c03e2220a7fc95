"""One log group: read it again and again, hand over what is new, and move its cursor behind what went out.

In: a group, clients, settings. Out: a Delivery per page of new events, handed to `submit`. Never: a cursor that is
ahead of an acknowledgement.

Event times are the starts of flows, so events come minutes late, and into the past. The *floor* is the time before
which everything is done; behind it lies the overlap, which is read again, and where events are told apart by id:

    ........done........|floor ------- overlap, by default 30 min ------- newest|
                        |======================= sweep ========================>|   now and then
                                                            |===== tail =======>|   every interval

A sweep reads everything from the floor on; when it came to its end, the floor may follow, up to `overlap` behind now,
but never past an event that is still on its way or was returned. A tail reads only what is near the newest event, for
promptness. Where a sweep is one or two calls, there are only sweeps. What is far behind (the agent was down, or starts
in the past) is read in stretches of twice the overlap, so that what is remembered by id stays bounded.

The cursor is in the state under `cloudwatch_logs:ARN`: the floor, and the ids behind it by minute. Both are written in
one transaction after each acknowledgement.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import structlog

from edfn_agent.delivery import Delivery, Origin, Outcome
from edfn_agent.formats.layout import Layout
from edfn_agent.inputs.allowance import Allowance
from edfn_agent.inputs.clock import Clock, Deadline
from edfn_agent.inputs.errors import Kind, fault
from edfn_agent.inputs.event_ids import MINUTE, EventIds, Page
from edfn_agent.inputs.health import Health, HealthRecord
from edfn_agent.inputs.log_events import CallFailed, Calls, FilteredEvents, LogEvent, Stopping, StreamEvents
from edfn_agent.inputs.log_groups import LogGroup, start_time
from edfn_agent.inputs.quota import Quotas
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State, StateError

INPUT = "cloudwatch_logs"

OVERLAP = 1800.0
"""Seconds behind now that are read again: 10 minutes of aggregation, 5 of delivery "best effort", and as much again."""

TAIL = 120.0
"""Seconds behind the newest event that are read at every interval: the streams of a group are not in step."""

SWEEP_SHARE = 15.0
"""Seconds a sweep's call has to last: at the default interval a sweep of two calls is made every time, one of twenty
every five minutes. At least three sweeps pass over every event before it leaves the overlap."""

PENDING = 64 << 20
"""Octets of events handed over and not settled, over all groups; more waits. A page is 10,000 events or 1 MiB."""

ASK_AGAIN = 3600.0
"""Seconds after which a call that was not allowed is tried again: permissions change, rarely."""

ABOUT_FOR = 600.0
"""Seconds for which what DescribeLogGroups said (creation, retention) is good."""

log = structlog.get_logger("edfn.inputs.cloudwatch")


@dataclass(frozen=True)
class Settings:
    interval: float = 30.0  # seconds, 1 to 86400
    overlap: float = OVERLAP
    start_from: str | datetime | timedelta = "now"


@dataclass(slots=True, eq=False)
class Handed:
    """A page on its way."""

    ids: Page
    oldest: int
    text: bytes
    about: dict[str, str | int]


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


class GroupReader:
    """Made, started and stopped by CloudWatchInput. A test calls `poll` itself."""

    def __init__(
        self,
        group: LogGroup,
        clients: Callable[[str, str, str], Any],
        submit: Callable[[Delivery], object],
        state: State,
        metrics: Metrics,
        settings: Settings,
        quotas: Quotas,
        allowance: Allowance,
        clock: Clock,
        layout_for: Callable[[str], Layout | None] = lambda arn: None,
        done_elsewhere: Callable[[str], float | None] = lambda arn: None,
    ) -> None:
        """`done_elsewhere(arn)`: Unix seconds; what came before was exported from another source, the rest was not."""
        self.group, self.settings = group, settings
        self._submit, self._state, self._metrics, self._clock = submit, state, metrics, clock
        self._allowance, self._layout_for = allowance, layout_for
        self._done_elsewhere = done_elsewhere
        self._stopping, self._settled = threading.Event(), threading.Event()
        self._record = HealthRecord(INPUT, group.arn, clock, log, metrics)
        where = (group.account_id, group.region)
        self._calls = Calls(lambda: clients(*where, "logs"), *where, quotas, metrics, clock, self._stopping)
        self._filtered = FilteredEvents(group.name, self._calls)
        self._streams = StreamEvents(group.name, self._calls, metrics)
        self._filter_from = 0.0  # monotonic: FilterLogEvents is not tried before
        self._about_from = 0.0
        self._sweep_at = 0.0
        self._key = f"{INPUT}:{group.arn}"
        self._lock = threading.Lock()
        self._loaded = self._gone = False
        self._floor = 0
        self._newest = 0
        self._created: int | None = None
        self._swept_to = 0  # everything before this has been read by a complete sweep
        self._again: int | None = None  # oldest event that was returned and not read again yet
        self._reading_again: int | None = None  # the same, while a sweep is about it
        self._reading_from: int | None = None  # where the reading under way began: its ids are needed from there on
        self._cursor: dict[str, Any] = {}  # as stored
        self._ids = EventIds()
        self._unstored: set[int] = set()
        self._pending: set[Handed] = set()
        self._thread = threading.Thread(target=self._run, name=f"poll {group.name}", daemon=True)

    # From outside

    def start(self) -> None:
        self._thread.start()

    def health(self) -> Health:
        return self._record.get()

    @property
    def floor(self) -> int:
        """Milliseconds: everything before is done."""
        return self._floor

    def stop_reading(self) -> None:
        self._stopping.set()

    def stop(self, deadline: Deadline) -> None:
        """Wait until `deadline` for what is on its way. What is not settled then is read again one day."""
        self.stop_reading()
        while self._pending and (left := deadline.left()) > 0:
            self._settled.clear()
            self._clock.wait(self._settled, min(left, 0.1))
        if self._thread.is_alive():
            self._thread.join(max(0.0, min(1.0, deadline.left())))
        with self._lock:
            self._store()

    # Polling

    def _run(self) -> None:
        while not self._stopping.is_set():
            started = self._clock.monotonic()
            try:
                pause = 0.0 if self.poll() else self.settings.interval - (self._clock.monotonic() - started)
            except Stopping:
                return
            except Exception as error:
                if self._stopping.is_set():
                    return  # the pipeline goes as well: what was handed over has been returned
                pause = max(self._failed(error), min(self.settings.interval, 60.0))
            self._clock.wait(self._stopping, max(0.0, pause))

    def poll(self) -> bool:
        """One reading. True when there is more to read at once (the group is far behind)."""
        self._load()
        self._ask_about()
        now = self._clock.now()
        reach = self._floor + int(2 * self.settings.overlap * 1000)
        end = reach if reach < now * 1000 else None
        sweep = end is not None or self._again is not None or self._newest == 0
        sweep = sweep or self._clock.monotonic() >= self._sweep_at
        start = self._floor if sweep else max(self._floor, self._newest - int(TAIL * 1000))
        calls = self._calls.made
        with self._lock:
            self._reading_from = start
            if sweep:
                self._reading_again, self._again = self._again, None
        try:
            self._read(start, end, tail=not sweep)
        except BaseException:
            with self._lock:
                self._return(self._reading_again)
                self._reading_again = None
            raise
        finally:
            with self._lock:
                self._reading_from = None
        self._came_back()
        self._record.succeeded("read")
        if not sweep:
            return False
        pause = min((self._calls.made - calls) * SWEEP_SHARE, self.settings.overlap / 3)
        self._sweep_at = self._clock.monotonic() + pause - min(self.settings.interval, pause) / 2
        with self._lock:
            self._reading_again = None
            self._swept_to = min(end or 2**62, int((now - self.settings.overlap) * 1000))
            self._advance()
            self._store()
        if end is not None:
            self._wait_for_pending()  # else the same stretch would be read again and again
        return end is not None and self._floor > start

    def _read(self, start: int, end: int | None, tail: bool) -> None:
        source: FilteredEvents | StreamEvents = self._streams
        if self._clock.monotonic() >= self._filter_from:
            source = self._filtered
        try:
            for page in source.pages(start, end, tail):
                self._hand_over(page)
        except CallFailed as failed:
            if source is self._streams or failed.fault.kind is not Kind.DENIED:
                raise
            log.info("FilterLogEvents is not allowed, reading stream by stream", log_group=self.group.arn)
            self._filter_from = self._clock.monotonic() + ASK_AGAIN
            self._read(start, end, tail)

    def _hand_over(self, events: Sequence[LogEvent]) -> None:
        """One page: what is new of it becomes a delivery."""
        if not events:
            return
        times = np.array([event.time for event in events], dtype=np.int64)
        ids = np.array([event.id for event in events], dtype=np.uint64)
        with self._lock:
            fresh = self._ids.new(times, ids)
            self._metrics.events_again.inc(int(len(events) - fresh.sum()))
            if not fresh.any():
                return
            self._metrics.events_late.inc(int((times[fresh] < self._newest - TAIL * 1000).sum()))
            new = [event for event, is_new in zip(events, fresh, strict=True) if is_new]
            text = "".join(event.message.rstrip("\r\n") + "\n" for event in new).encode("utf-8", "replace")
            oldest, newest = int(times[fresh].min()), int(times[fresh].max())
            where = {"account_id": self.group.account_id, "region": self.group.region, "log_group": self.group.name}
            about = where | {"from": oldest, "to": newest, "events": len(new)}
            handed = Handed(self._ids.hand_over(times[fresh], ids[fresh]), oldest, text, about)
            self._pending.add(handed)
            self._newest = max(self._newest, newest)
        if not self._allowance.take(len(handed.text), self._stopping):
            self._not_settled(handed)
            raise Stopping
        self._metrics.deliveries_in_flight.labels(INPUT).inc()
        self._submit(self._delivery(handed, new[0].stream))

    def _delivery(self, handed: Handed, stream: str) -> Delivery:
        def chunks() -> Sequence[bytes]:
            self._metrics.bytes_read.labels(INPUT).inc(len(handed.text))
            return [handed.text]

        group = self.group
        origin = Origin(INPUT, group.arn, group.account_id, group.region, log_group=group.name)
        return Delivery(
            origin,
            f"{group.name}:{stream}",
            chunks,
            lambda outcome, reason: self._settle(handed, outcome, reason),
            self._layout_for(group.arn),
        )

    def _wait_for_pending(self) -> None:
        while self._pending and not self._stopping.is_set():
            self._settled.clear()
            if self._pending:
                self._clock.wait(self._settled, 1.0)

    # Settling

    def _settle(self, handed: Handed, outcome: Outcome, reason: str) -> None:
        """A page has come out: on whatever thread let go of it."""
        if outcome is Outcome.QUARANTINED and not self._quarantine(handed, reason):
            outcome = Outcome.RETURNED
        if outcome is Outcome.RETURNED:
            self._not_settled(handed)
        with self._lock:
            if outcome is not Outcome.RETURNED:
                self._pending.discard(handed)
                self._unstored.update(self._ids.done(handed.ids))
            self._advance()
            self._store()
        self._allowance.give(len(handed.text))
        self._metrics.deliveries.labels(INPUT, outcome.value).inc()
        self._metrics.deliveries_in_flight.labels(INPUT).dec()
        if outcome is Outcome.RETURNED:
            log.warning("log events returned, will be read again", **handed.about, reason=reason)
        self._settled.set()

    def _not_settled(self, handed: Handed) -> None:
        """It has to be read again."""
        with self._lock:
            self._pending.discard(handed)
            self._ids.returned(handed.ids)
            self._return(handed.oldest)

    def _quarantine(self, handed: Handed, reason: str) -> bool:
        name = f"{self.group.name} {handed.about['from']}..{handed.about['to']}"
        try:
            self._state.quarantine.add(
                INPUT, self.group.arn, name, reason, self._clock.now(), handed.text, handed.about
            )
        except StateError as error:
            self._state_failed(error)
            return False
        log.error("log events quarantined", **handed.about, reason=reason)
        return True

    def _return(self, oldest: int | None) -> None:
        if oldest is not None:
            self._again = oldest if self._again is None else min(self._again, oldest)

    def _advance(self) -> None:
        """The floor follows the sweeps, but not past what is on its way or has to come again."""
        held = [handed.oldest for handed in self._pending]
        held += [oldest for oldest in (self._again, self._reading_again, self._reading_from) if oldest is not None]
        self._floor = max(self._floor, min([self._swept_to, *held]))

    # The cursor

    def _load(self) -> None:
        """Once; and where there is nothing to load, say at once where this group begins: `now` must not move."""
        if self._loaded:
            return
        stored = self._state.cursors.list(self._key)
        with self._lock:
            cursor = stored.pop("cursor", None)
            done = int(((self._done_elsewhere(self.group.arn) or 0.0) - self.settings.overlap) * 1000)
            if done > (cursor["floor"] if cursor is not None else 0):
                self._floor = done
                log.info("log group is read for another source", log_group=self.group.arn, read_from=_time(self._floor))
            elif cursor is None:
                self._floor = start_time(self.settings.start_from, self._clock.now())
                log.info("log group is new", log_group=self.group.arn, read_from=_time(self._floor))
            if cursor is not None:
                self._floor, self._created = max(self._floor, int(cursor["floor"])), cursor.get("created")
            self._ids.load({int(minute): text for minute, text in stored.items()})
            if cursor is None:
                self._state.cursors.set(self._key, "cursor", {"floor": self._floor, "created": None})
            self._loaded = True

    def _store(self) -> None:
        """Floor and ids in one transaction. A state that does not work costs duplicates after a restart."""
        cursor = {"floor": self._floor, "created": self._created}
        if not self._loaded or (cursor == self._cursor and not self._unstored):
            return
        values: dict[str, Any] = {"cursor": cursor}
        first = self._floor // MINUTE
        self._unstored = {minute for minute in self._unstored if minute >= first}
        values |= {str(minute): self._ids.stored(minute) for minute in self._unstored}
        try:
            self._state.cursors.set_many(self._key, values)
            self._unstored.clear()
            self._cursor = cursor
            for minute in self._ids.forget_before(self._floor):
                self._state.cursors.delete(self._key, str(minute))
        except StateError as error:
            self._state_failed(error)

    def _state_failed(self, error: StateError) -> None:
        self._metrics.state_errors.inc()
        log.error("state does not work, duplicates are possible", log_group=self.group.arn, error=str(error))

    # What happens to groups

    def _ask_about(self) -> None:
        """Creation and retention, where DescribeLogGroups is allowed; without it, less is said, nothing is lost."""
        if self._clock.monotonic() < self._about_from:
            return
        self._about_from = self._clock.monotonic() + ABOUT_FOR
        try:
            answer = self._calls.call(
                "DescribeLogGroups", "describe_log_groups", logGroupNamePrefix=self.group.name, limit=50
            )
        except CallFailed as failed:
            self._about_from += ASK_AGAIN if failed.fault.kind is Kind.DENIED else 0.0
            return
        about = next((each for each in answer.get("logGroups", []) if each["logGroupName"] == self.group.name), None)
        if about is None:
            return
        created = about.get("creationTime")
        if self._created is not None and created is not None and created != self._created:
            self._made_again()
        self._created = created
        if about.get("retentionInDays"):
            self._check_retention(int(about["retentionInDays"]))

    def _check_retention(self, days: int) -> None:
        edge = int((self._clock.now() - days * 86400) * 1000)
        with self._lock:
            if edge <= self._floor:
                return
            lost, self._floor = (edge - self._floor) / 1000, edge
        self._metrics.log_incidents.labels("retention_overtook").inc()
        log.error("retention overtook the cursor", log_group=self.group.arn, days=days, seconds_not_read=round(lost))

    def _failed(self, error: Exception) -> float:
        found = error.fault if isinstance(error, CallFailed) else fault(error)
        if found.kind is Kind.MISSING and not self._gone:
            self._gone = True
            self._metrics.log_incidents.labels("group_gone").inc()
        self._about_from = 0.0
        text = f"{error} (account {self.group.account_id}, region {self.group.region})"
        if found.kind is Kind.DENIED and isinstance(error, CallFailed):
            text = f"logs:{error.action} is missing: {text}"
        return self._record.failed("read", text)

    def _came_back(self) -> None:
        if self._gone:
            self._made_again()

    def _made_again(self) -> None:
        """Its events are all newer than the floor; only positions in its old streams mean nothing now."""
        self._gone = False
        self._created = None
        self._streams.forget_positions()
        self._sweep_at = 0.0
        self._metrics.log_incidents.labels("group_made_again").inc()
        log.warning("log group was deleted and made again, going on with the new one", log_group=self.group.arn)
