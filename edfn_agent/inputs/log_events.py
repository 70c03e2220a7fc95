"""Reading a log group by API: FilterLogEvents where it is allowed, else DescribeLogStreams and GetLogEvents.

In: a group and a stretch of event time. Out: pages of events, some of them empty. A reading is over when AWS gives no
(new) token, not when a page is empty: empty pages come in the middle. Never: a cursor, an acknowledgement
(group_reader.py).

AWS CloudWatch Logs API: FilterLogEvents gives event ids, GetLogEvents does not, so there an event is told by its
stream, both its times, its text, and how many the same came before it. A stream's `lastEventTimestamp` lags,
"typically" by less than an hour.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from edfn_agent.inputs.clock import Clock, Pauses
from edfn_agent.inputs.errors import Fault, Kind, fault
from edfn_agent.inputs.event_ids import event_id
from edfn_agent.inputs.quota import Quotas
from edfn_agent.ops.metrics import Metrics

PAGE = 10_000
"""Events in one answer: the most both APIs give (or 1 MiB, whichever comes first)."""

STREAM_LAG = 2 * 3_600_000
"""Milliseconds by which a stream's `lastEventTimestamp` may be behind its events: twice what AWS calls typical."""

STREAMS_FOR = 60.0
"""Seconds for which a list of streams is good: a new interface's first events are late by minutes anyway."""

TRIES = 6
"""Tries of a call that is throttled or fails in passing, beyond the client's own."""

log = structlog.get_logger("edfn.inputs.cloudwatch")


@dataclass(frozen=True, slots=True)
class LogEvent:
    stream: str
    time: int  # milliseconds
    message: str
    id: int  # event_ids.event_id


class Stopping(Exception):
    """The agent stops; the reading is not complete."""


class CallFailed(Exception):
    def __init__(self, action: str, found: Fault) -> None:
        super().__init__(f"{action}: {found}")
        self.action, self.fault = action, found


class Calls:
    """Calls of CloudWatch Logs for one account and region: within the quota, and again when throttled."""

    def __init__(
        self,
        client: Callable[[], Any],
        account_id: str,
        region: str,
        quotas: Quotas,
        metrics: Metrics,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._client, self._account_id, self._region = client, account_id, region
        self._quotas, self._metrics, self.clock, self.stop = quotas, metrics, clock, stop
        self.made = 0

    def call(self, action: str, method: str, **parameters: Any) -> Any:
        """Raises CallFailed, or Stopping."""
        bucket = self._quotas.bucket(self._account_id, self._region, action)
        pauses = Pauses(first=0.5, most=15.0)
        for tried in range(1, TRIES + 1):
            if bucket.take(self.stop) > 0:
                self._metrics.throttled.labels(action).inc()
            if self.stop.is_set():
                raise Stopping
            try:
                self.made += 1
                return getattr(self._client(), method)(**parameters)
            except Exception as error:
                found = fault(error)
                if found.kind is Kind.THROTTLED:
                    bucket.throttled()
                elif found.kind is not Kind.PASSING:
                    raise CallFailed(action, found) from error
                if tried == TRIES:
                    raise CallFailed(action, found) from error
            if self.clock.wait(self.stop, pauses.next()):
                raise Stopping
        raise AssertionError("unreachable")


class FilteredEvents:
    """A whole group by FilterLogEvents: one reading for all streams, however many."""

    def __init__(self, group: str, calls: Calls) -> None:
        self._group, self._calls = group, calls

    def pages(self, start: int, end: int | None, tail: bool) -> Iterator[list[LogEvent]]:
        """Events of `start` <= time (<= `end`)."""
        request: dict[str, Any] = {"logGroupName": self._group, "startTime": start, "limit": PAGE}
        if end is not None:
            request["endTime"] = end
        while True:
            answer = self._calls.call("FilterLogEvents", "filter_log_events", **request)
            yield [
                LogEvent(
                    event["logStreamName"],
                    event["timestamp"],
                    event["message"],
                    event_id(event["logStreamName"], event["timestamp"], event["eventId"]),
                )
                for event in answer.get("events", [])
            ]
            token = answer.get("nextToken")
            if not token:
                return
            request["nextToken"] = token

    def forget_positions(self) -> None:
        """Nothing is remembered between readings."""


@dataclass(slots=True)
class _Stream:
    last: int  # newest event known, milliseconds: AWS's word or what was read, whichever is later
    position: str | None = None  # forward token at the end of the last reading


class StreamEvents:
    """A group stream by stream, with nothing but what EDFN's original policy allows."""

    def __init__(self, group: str, calls: Calls, metrics: Metrics) -> None:
        self._group, self._calls, self._metrics = group, calls, metrics
        self._streams: dict[str, _Stream] = {}
        self._listed = -STREAMS_FOR

    def pages(self, start: int, end: int | None, tail: bool) -> Iterator[list[LogEvent]]:
        """`tail`: only what came behind the last reading's end (or from `start` where there was none)."""
        self._list()
        for name, stream in list(self._streams.items()):
            if stream.last < start - STREAM_LAG:
                continue
            try:
                yield from self._read(name, stream, start, end, tail)
            except CallFailed as failed:
                if failed.fault.kind is not Kind.MISSING:
                    raise
                self._streams.pop(name, None)
                self._metrics.log_incidents.labels("stream_gone").inc()
                log.warning("log stream is gone", log_group=self._group, stream=name)

    def forget_positions(self) -> None:
        self._streams.clear()
        self._listed = -STREAMS_FOR

    def _list(self) -> None:
        now = self._calls.clock.monotonic()
        if now - self._listed < STREAMS_FOR:
            return
        request: dict[str, Any] = {"logGroupName": self._group}
        found: dict[str, int] = {}
        while True:
            answer = self._calls.call("DescribeLogStreams", "describe_log_streams", **request)
            for stream in answer.get("logStreams", []):
                times = [stream.get(name, 0) for name in ("lastEventTimestamp", "creationTime", "lastIngestionTime")]
                found[stream["logStreamName"]] = max(times)
            if not answer.get("nextToken"):
                break
            request["nextToken"] = answer["nextToken"]
        for name in self._streams.keys() - found.keys():
            del self._streams[name]
            self._metrics.log_incidents.labels("stream_gone").inc()
            log.warning("log stream is gone", log_group=self._group, stream=name)
        for name, last in found.items():
            stream = self._streams.setdefault(name, _Stream(last))
            stream.last = max(stream.last, last)
        self._listed = now

    def _read(self, name: str, stream: _Stream, start: int, end: int | None, tail: bool) -> Iterator[list[LogEvent]]:
        token = stream.position if tail else None
        request: dict[str, Any] = {"logGroupName": self._group, "logStreamName": name, "startFromHead": True}
        same: dict[tuple[int, int, str], int] = {}
        at = -1
        while True:
            position = {"nextToken": token} if token else {"startTime": start}
            limits = {"limit": PAGE} | ({"endTime": end} if end is not None else {})
            try:
                answer = self._calls.call("GetLogEvents", "get_log_events", **request, **position, **limits)
            except CallFailed as failed:
                if token and failed.fault.code == "InvalidParameterException":
                    token = None  # positions are good for 24 hours, and for one life of a stream
                    continue
                raise
            page = []
            for event in answer.get("events", []):
                if event["timestamp"] != at:
                    at = event["timestamp"]
                    same.clear()
                key = (at, event.get("ingestionTime", 0), event["message"])
                same[key] = same.get(key, -1) + 1
                page.append(LogEvent(name, at, event["message"], event_id(name, *key, same[key])))
            if page:
                stream.last = max(stream.last, at)
            yield page
            following = answer.get("nextForwardToken")
            if following is None or following == token:
                break
            token = following
        stream.position = token if end is None else None
