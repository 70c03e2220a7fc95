"""Log groups that are read by the API.

In: log groups, trials. Out: checks. Never: more than one event of a group; what is read stays where it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from edfn_agent.inventory.model import LogGroup
from edfn_agent.inventory.problems import Kind
from edfn_agent.ops.doctor.checks import ERROR, INFO, OK, WARNING, Check
from edfn_agent.ops.doctor.trials import Target, Trials

SILENT = 3600.0
"""Seconds without an event: a flow log writes at least every 10 to 15 minutes, if only NODATA."""

_SLOWER = "each log stream is asked by itself, which takes more calls"
_NOTHING = "nothing is read where logs:FilterLogEvents is denied, too"


def group(trials: Trials, group: LogGroup) -> Iterator[Check]:
    """One log group that the agent reads."""
    where = (group.account_id, group.region, group.arn)
    target = Target(group.account_id, group.region, group.arn, f"{group.arn}:*")
    if group.missing:
        step = "make the log group; AWS does so at the next delivery"
        yield Check("log-group.there", ERROR, "the log group does not exist", *where, next_step=step)
        return
    since = int((time.time() - SILENT) * 1000)
    name = {"logGroupName": group.name}
    filtered = trials.call(target, "logs", "FilterLogEvents", {"limit": 1, "startTime": since, **name}, _SLOWER, INFO)
    gone = filtered.problem is not None and filtered.problem.kind is Kind.MISSING
    if gone:
        step = "check the name; AWS makes the group at the next delivery"
        yield Check("log-group.there", ERROR, "the log group does not exist", *where, next_step=step)
        return
    yield Check(
        "log-group.there",
        OK,
        f"kept for {group.retention_days or 'ever'}" + (" days" if group.retention_days else ""),
        *where,
    )
    yield filtered.check
    severity = ERROR if filtered.answer is None else WARNING
    newest_first = {"orderBy": "LastEventTime", "descending": True, "limit": 1, **name}
    streams = trials.call(target, "logs", "DescribeLogStreams", newest_first, _NOTHING, severity)
    yield streams.check
    if streams.answer is None:
        return
    newest = next(iter(streams.answer.get("logStreams") or ()), None)
    if newest is None:
        step = "wait some minutes, then see whether AWS delivers the flow log"
        yield Check("log-group.events", WARNING, "it has no log stream: nothing was ever written to it", *where, step)
        return
    stream = {"logStreamName": newest["logStreamName"], "limit": 1, **name}
    yield trials.call(target, "logs", "GetLogEvents", stream, _NOTHING, severity).check
    # AWS is slow to say the time of the last event; that of its arrival is kept more promptly.
    at = max(newest.get("lastIngestionTime") or 0, newest.get("lastEventTimestamp") or 0) / 1000
    young = time.time() - (newest.get("creationTime") or 0) / 1000 < SILENT
    if time.time() - at <= SILENT:
        yield Check("log-group.events", OK, "events arrive", *where)
        return
    when = f"none since {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if at else "none yet"
    step = "see whether AWS delivers the flow log (edfn-agent flow-logs); a new one takes 15 minutes"
    yield Check("log-group.events", INFO if young and not at else WARNING, when, *where, step)
