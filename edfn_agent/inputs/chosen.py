"""Which queues and log groups are read: what the plan of sources chose, and what the configuration lists.

In: the configuration, and what is known of AWS. Out: queues and log groups, of all workers. Never: a call of AWS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from edfn_agent.inputs.log_groups import LogGroup
from edfn_agent.inputs.queues import Queue

if TYPE_CHECKING:
    from edfn_agent.config import Config
    from edfn_agent.inventory.current import Known

log = structlog.get_logger("edfn.sources")


def queues(config: Config, known: Known) -> Sequence[Queue]:
    wanted = config.inputs.s3
    assert wanted is not None
    found: dict[str, Queue] = {}
    for each in known.snapshot.queues:
        if known.plan.inputs.reads_queue(each) and not each.problem:
            found[each.arn] = Queue(each.via_account or each.account_id, each.region, each.arn, each.url)
    if wanted.queues != "discovered":
        for text in wanted.queues:  # also what discovery could not see
            try:
                queue = Queue.parse(text, region=config.aws.region)
            except ValueError as error:
                log.error("queue cannot be read", queue=text, error=str(error))
                continue
            found.setdefault(queue.name, queue)
    return list(found.values())


def log_groups(config: Config, known: Known) -> Sequence[LogGroup]:
    """In the order of their ARNs."""
    wanted = config.inputs.cloudwatch_logs
    assert wanted is not None
    chosen = {way.end for way in known.plan.chosen.values() if way.input == "cloudwatch_logs"}
    groups = {group.arn: group for group in map(LogGroup.parse, chosen)}
    if wanted.log_groups != "discovered":
        for text in wanted.log_groups:
            for group in _named_groups(text, config, known):
                if group.arn not in groups and not _is_read_otherwise(group.arn, known):
                    groups[group.arn] = group
    return [group for _, group in sorted(groups.items())]


def _named_groups(text: str, config: Config, known: Known) -> list[LogGroup]:
    seen = [each for each in known.snapshot.log_groups if each.name == text and not each.missing]
    if seen:
        return [LogGroup(each.account_id, each.region, each.name) for each in seen]
    accounts = [each.account_id for each in known.snapshot.accounts if each.status == "ok" and each.account_id]
    try:
        return [LogGroup.parse(text, accounts[0] if len(accounts) == 1 else None, config.aws.region)]
    except ValueError as error:
        log.error("log group cannot be read", log_group=text, error=str(error))
        return []


def _is_read_otherwise(arn: str, known: Known) -> bool:
    """Whether all flow logs that write to a group are read by a better way (its Kinesis stream, say)."""
    writers = [way.flow_log.flow_log_id for way in known.plan.ways if way.end == arn]
    return bool(writers) and all(
        (way := known.plan.chosen.get(id)) is not None and way.input != "cloudwatch_logs" for id in writers
    )
