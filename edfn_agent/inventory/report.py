"""What `run-now` and `exporters` show, as plain values.

In: the inventory in force. Out: the JSON object of `run-now --json`, the rows of the exporter table, findings put
together for people. Never: printing, AWS.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from edfn_agent.inventory.exporters import UNATTRIBUTED
from edfn_agent.inventory.model import Finding, Snapshot
from edfn_agent.inventory.sources import SourcePlan
from edfn_agent.inventory.survey import Survey

FAILED = 1
"""Exit status when something failed and the rest stands."""


def run_now(survey: Survey, config: Any) -> dict[str, Any]:
    """The JSON object of issue `run-now`; its keys are settled, more may join them."""
    snapshot, plan = survey.snapshot, survey.plan
    return {
        "accounts": [
            {
                "account_id": each.account_id,
                "name": each.name,
                "via": each.via,
                "status": each.status,
                "error": each.error,
            }
            for each in snapshot.accounts
        ],
        "vpcs": [row for row in exporter_rows(survey, config) if row["vpc_id"] in snapshot.vpc_by_id],
        "streams": _streams(snapshot, plan, config),
        "log_groups": [
            {
                "arn": each.arn,
                "name": each.name,
                "region": each.region,
                "account_id": each.account_id,
                "enabled": plan.inputs.reads_group(each.arn),
            }
            for each in snapshot.log_groups
        ],
        "buckets": _buckets(snapshot, plan),
        "findings": [asdict(each) for each in survey.findings],
        "api_calls": snapshot.api_calls,
        "seconds": snapshot.seconds,
    }


def exporter_rows(
    survey: Survey, config: Any, traffic: Mapping[str, tuple[int, float]] | None = None
) -> list[dict[str, Any]]:
    """One row for each exporter, by account, region and name; `unattributed` last."""
    snapshot, plan = survey.snapshot, survey.plan
    flow_logs: dict[str, list[str]] = {}
    for each in snapshot.flow_logs:
        flow_logs.setdefault(snapshot.vpc_of_resource(each.resource_id) or each.resource_id, []).append(
            each.flow_log_id
        )
    rows = []
    for exporter in survey.exporters.table:
        vpc = snapshot.vpc_by_id.get(exporter.key)
        row = {
            "vpc_id": exporter.key,
            "name": vpc.name if vpc else "" if exporter.name == exporter.key else exporter.name,
            "account_id": exporter.account_id,
            "region": exporter.region,
            "cidrs": [*vpc.cidrs, *vpc.cidrs6] if vpc else [],
            "exporter": str(exporter.address),
            "exporter_origin": exporter.address_origin,
            # What collectors see from this machine's first worker.
            "observation_domain": (config.worker_id << 24) | exporter.domain,
            "source": plan.source_of(exporter.key),
            "flow_logs": flow_logs.get(exporter.key, []),
        }
        if traffic is not None:
            flows, last = traffic.get(exporter.key, (0, None))
            row["flows"] = flows
            row["last_flow"] = datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds") if last else None
        rows.append(row)
    return sorted(
        rows,
        key=lambda row: (row["vpc_id"] == UNATTRIBUTED, row["account_id"], row["region"], row["name"], row["vpc_id"]),
    )


def _streams(snapshot: Snapshot, plan: SourcePlan, config: Any) -> list[dict[str, Any]]:
    kinesis = config.inputs.kinesis
    listed = kinesis.streams if kinesis is not None and kinesis.streams != "discovered" else ()
    fan_out = {each.arn for each in listed if each.enhanced_fan_out}
    return [
        {
            "arn": each.arn,
            "region": each.region,
            "account_id": each.account_id,
            "enabled": plan.inputs.reads_stream(each.arn),
            "enhanced_fan_out": each.arn in fan_out,
        }
        for each in snapshot.streams
    ]


def _buckets(snapshot: Snapshot, plan: SourcePlan) -> list[dict[str, Any]]:
    """One row for each bucket and queue; a bucket without a queue has one row, too."""
    queues = {each.arn: each for each in snapshot.queues}
    rows = []
    for bucket in snapshot.buckets:
        ways = [way for way in plan.ways if way.input == "s3" and way.end == bucket.bucket]
        trouble = next((way.trouble for way in ways if way.trouble is not None), None)
        works = any(way.works for way in ways)
        problem = None if works else trouble.problem if trouble else bucket.problem
        arns = dict.fromkeys(arn for notification in bucket.notifications for arn in notification.queues)
        for queue in [queues.get(arn) for arn in arns] or [None]:
            enabled = plan.inputs.reads_queue(queue) if queue is not None else works
            rows.append(
                {
                    "bucket": bucket.bucket,
                    "region": bucket.region,
                    "account_id": bucket.account_id,
                    "queue_url": queue.url if queue is not None else None,
                    "enabled": enabled,
                    "problem": problem,
                }
            )
    return rows


def failed(survey: Survey) -> bool:
    """Whether something failed: an account, a call that is needed, a source that does not reach the agent."""
    dead = any(each.status == "failed" for each in survey.snapshot.accounts)
    return dead or any(each.severity == "error" for each in survey.findings)


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """Findings that say the same of several places."""

    severity: str
    subjects: tuple[str, ...]
    places: tuple[str, ...]
    problem: str
    next_step: str


def grouped(findings: Iterable[Finding]) -> list[FindingGroup]:
    """The gravest first. An action that fifty accounts do not allow is one line for people."""
    alike: dict[tuple[str, str, str], list[Finding]] = {}
    for each in findings:
        alike.setdefault((each.severity, each.problem, each.next_step), []).append(each)
    return [
        FindingGroup(
            severity,
            tuple(dict.fromkeys(each.subject for each in group)),
            tuple(dict.fromkeys(place for each in group if (place := _place(each)))),
            problem,
            step,
        )
        for (severity, problem, step), group in alike.items()
    ]


def _place(finding: Finding) -> str:
    return " ".join(filter(None, (finding.account_id, finding.region)))
