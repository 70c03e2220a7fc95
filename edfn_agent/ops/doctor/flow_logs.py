"""VPCs and flow logs: which has one, how AWS delivers it, how it reaches the agent.

In: the plan of sources. Out: checks, faults with what mends them. Never: calls to AWS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edfn_agent.inventory.model import Finding, FlowLog, Notification
from edfn_agent.inventory.sources import SourcePlan, Way, layout_of
from edfn_agent.ops.doctor import mending
from edfn_agent.ops.doctor.checks import OK, Check
from edfn_agent.ops.doctor.missing import commands, without_flow_log


def checks(plan: SourcePlan, exporters: Iterable[Finding] = ()) -> Iterator[Check]:
    """All of them; `exporters`: findings about addresses."""
    faults = [_fault(plan, each) for each in (*plan.findings, *exporters)]
    yield from faults
    faulty = {(each.id, each.resource) for each in faults}
    for log in plan.snapshot.flow_logs:
        for check in _well(plan, log):
            if (check.id, log.flow_log_id) not in faulty:
                yield check
    logged = {plan.snapshot.vpc_of_resource(each.resource_id) for each in plan.snapshot.flow_logs}
    for vpc in plan.snapshot.vpcs:
        if vpc.vpc_id in logged and ("vpc.flow-log", vpc.vpc_id) not in faulty:
            yield Check("vpc.flow-log", OK, "it has a flow log", vpc.account_id, vpc.region, vpc.vpc_id)


def _well(plan: SourcePlan, log: FlowLog) -> Iterator[Check]:
    place = (log.account_id, log.region, log.flow_log_id)
    status = log.delivery_status or log.status or "no word of it"
    yield Check("flow-log.delivery", OK, f"{log.resource_id} to {log.destination}: {status}", *place)
    layout = layout_of(log)
    if layout is not None:
        kind = "the default format" if not log.format else "its format"
        yield Check("flow-log.format", OK, f"{kind} has {len(layout.names)} fields, all understood", *place)
    way = plan.chosen.get(log.flow_log_id)
    if way is not None:
        yield Check("flow-log.source", OK, f"{log.resource_id} is read from {way.source}", *place)


def _fault(plan: SourcePlan, finding: Finding) -> Check:
    return Check(
        finding.code,
        finding.severity,
        finding.problem,
        finding.account_id,
        finding.region,
        finding.subject,
        finding.next_step,
        _fix(plan, finding.code, finding),
    )


def _fix(plan: SourcePlan, id: str, finding: Finding) -> str:
    snapshot = plan.snapshot
    vpc = snapshot.vpc_by_id.get(finding.subject)
    if id == "vpc.flow-log" and vpc is not None and vpc in without_flow_log(snapshot):
        return commands(plan, [vpc])[0].command
    if id.startswith("queue."):
        queue = next((each for each in snapshot.queues if each.arn == finding.subject), None)
        if queue is None:
            return ""
        if id == "queue.dead-letters":
            return mending.dead_letters(queue)
        bucket = next((each for each in snapshot.buckets if _tells(each.notifications, queue.arn)), None)
        return mending.notified_queue(queue, bucket.bucket) if bucket else ""
    log = snapshot.flow_log_by_id.get(finding.subject)
    if log is None:
        return ""
    if id == "flow-log.delivery":
        return _delivery(plan, log)
    if id == "flow-log.source":
        ways = [way for way in plan.ways if way.flow_log is log and way.enabled and way.trouble is not None]
        way = next((way for way in ways if way.trouble and way.trouble.problem in finding.problem), None)
        return _reach(plan, way) if way else ""
    return ""


def _tells(notifications: Iterable[Notification], queue_arn: str) -> bool:
    return any(queue_arn in each.queues for each in notifications)


def _delivery(plan: SourcePlan, log: FlowLog) -> str:
    """What lets AWS write: statements of the role, or of the bucket's policy."""
    if log.log_group is not None:
        return mending.delivering_role(log)
    bucket = next((each for each in plan.snapshot.buckets if each.bucket == log.bucket), None)
    return mending.written_bucket(bucket, [log]) if bucket is not None else ""


def _reach(plan: SourcePlan, way: Way) -> str:
    if way.input == "s3":
        bucket = next((each for each in plan.snapshot.buckets if each.bucket == way.end), None)
        if bucket is not None and bucket.account_id and not bucket.notifications:
            writers = {each.account_id for each in plan.snapshot.flow_logs if each.bucket == bucket.bucket}
            return mending.announce(bucket, writers or {way.flow_log.account_id})
    if way.input == "kinesis" and not way.end:
        return mending.subscribe(way.flow_log)
    return ""
