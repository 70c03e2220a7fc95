"""The `edfn-agent setup` commands that give flow logs to VPCs that have none.

In: the plan of sources and those VPCs. Out: commands. Never: a command that touches what another one made: names follow
from the VPCs, because a stack that is deployed again under its name with other VPCs would lose the first ones.

New flow logs go where those of their neighbours go and are read: to a log group of the same account and region, else to
a bucket, with its prefix and format. Where nothing is read yet, to a bucket of their own.
"""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edfn_agent.inventory.model import FlowLog, Snapshot, Vpc
from edfn_agent.inventory.sources import SourcePlan


@dataclass(frozen=True, slots=True)
class SetUp:
    """One command, and why so."""

    command: str
    why: str
    vpcs: tuple[str, ...]


def without_flow_log(snapshot: Snapshot) -> list[Vpc]:
    """Nothing of them is logged, not even a subnet."""
    logged = {snapshot.vpc_of_resource(each.resource_id) for each in snapshot.flow_logs}
    return sorted(
        (each for each in snapshot.vpcs if each.vpc_id not in logged),
        key=lambda each: (each.account_id, each.region, each.name, each.vpc_id),
    )


def is_idle(snapshot: Snapshot, vpc: Vpc) -> bool:
    """A default VPC, which every region has, without an interface in it."""
    return vpc.is_default and not any(each.vpc_id == vpc.vpc_id for each in snapshot.interfaces)


def commands(plan: SourcePlan, vpcs: Sequence[Vpc]) -> list[SetUp]:
    """For these VPCs, all of them."""
    made: list[SetUp] = []
    rest: list[Vpc] = []
    for place in dict.fromkeys((each.account_id, each.region) for each in vpcs):
        here = [each for each in vpcs if (each.account_id, each.region) == place]
        group = _log_group(plan, *place)
        if group is None:
            rest += here
            continue
        words = ["cloudwatch", *_named(here), "--account", place[0], "--region", place[1]]
        words += ["--log-group", group, "--existing-log-group", *_watched(here)]
        made.append(_set_up(words, f"log group {group} is read", here))
    if rest:
        made.append(_to_bucket(plan, rest))
    return made


def _to_bucket(plan: SourcePlan, vpcs: Sequence[Vpc]) -> SetUp:
    found = _bucket(plan)
    if found is None:
        # Where most of them are: traffic between regions costs.
        [((account, region), _)] = Counter((each.account_id, each.region) for each in vpcs).most_common(1)
        name = _name(vpcs)
        words = ["s3", "--name", name, "--account", account, "--region", region]
        words += ["--bucket", f"{name}-{account}-{region}", *_watched(vpcs)]
        return _set_up(words, "no bucket is read yet, so this makes one, with its queue", vpcs)
    log, account, region, queue = found
    words = ["s3", *_named(vpcs), "--account", account, "--region", region, "--bucket", log.bucket or ""]
    words += ["--existing-bucket", "--existing-queue", "--queue", queue]
    words += ["--prefix", log.prefix] if log.prefix else []
    options = {"--parquet": log.file_format == "parquet", "--hive": log.hive, "--hourly": log.hourly}
    words += [option for option, wanted in options.items() if wanted]
    return _set_up([*words, *_watched(vpcs)], f"bucket {log.bucket} is read", vpcs)


def _log_group(plan: SourcePlan, account: str, region: str) -> str | None:
    """The log group there that most flow logs write to whose records are read, by the API or through a stream."""
    read = (way.flow_log for way in plan.chosen.values())
    return _most(each.log_group for each in read if (each.account_id, each.region) == (account, region))


def _bucket(plan: SourcePlan) -> tuple[FlowLog, str, str, str] | None:
    """A flow log like the new ones, and the account, region and queue of its bucket."""
    direct = [way.flow_log for way in plan.chosen.values() if way.input == "s3" and way.flow_log.bucket]
    name = _most(each.bucket for each in direct)
    bucket = next((each for each in plan.snapshot.buckets if each.bucket == name), None)
    if bucket is None or bucket.account_id is None or bucket.region is None:
        return None
    queues = [arn for each in bucket.notifications for arn in each.queues]
    log = next(each for each in direct if each.bucket == name)
    return (log, bucket.account_id, bucket.region, queues[0].rpartition(":")[2]) if queues else None


def _most(names: Iterable[str | None]) -> str | None:
    counted = Counter(name for name in names if name)
    return max(sorted(counted), key=lambda name: counted[name], default=None)


def _named(vpcs: Sequence[Vpc]) -> list[str]:
    return ["--name", _name(vpcs)]


def _name(vpcs: Sequence[Vpc]) -> str:
    digest = hashlib.sha256(" ".join(sorted(each.vpc_id for each in vpcs)).encode()).hexdigest()
    return f"edfn-flow-logs-{digest[:8]}"


def _watched(vpcs: Sequence[Vpc]) -> list[str]:
    return [word for each in vpcs for word in ("--vpc", f"{each.account_id}/{each.region}/{each.vpc_id}")]


def _set_up(words: Sequence[str], why: str, vpcs: Sequence[Vpc]) -> SetUp:
    command = shlex.join(["edfn-agent", "setup", *words])
    return SetUp(command, why, tuple(each.vpc_id for each in vpcs))
