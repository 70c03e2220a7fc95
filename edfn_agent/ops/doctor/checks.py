"""One check: what was looked at, where, how it stands, and what mends it.

In: facts. Out: `Check`, in the order in which people read them, and faults that say the same put together. Never: a
secret; printing.

The names in CHECKS are settled: scripts and docs/doctor.md lean on them. `permission.ACTION` stands for one action of
IAM each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OK, UNTRIED, INFO, WARNING, ERROR = "ok", "untried", "info", "warning", "error"
WEIGHTS = (ERROR, WARNING, INFO, UNTRIED, OK)

GROUPS: dict[str, str] = {
    "configuration": "Configuration",
    "machine": "This machine",
    "collector": "Collectors",
    "account": "Accounts",
    "region": "Regions",
    "permission": "Permissions",
    "vpc": "VPCs",
    "flow-log": "Flow logs",
    "bucket": "Buckets",
    "queue": "Queues",
    "log-group": "Log groups",
    "stream": "Kinesis streams",
    "firehose": "Firehose",
    "key": "KMS keys",
}

CHECKS: dict[str, str] = {
    "configuration.file": "file",
    "configuration.inputs": "inputs",
    "machine.state": "state directory",
    "machine.space": "room for the state",
    "machine.clock": "clock",
    "machine.files": "open files",
    "machine.scanner": "compiled scanner",
    "machine.parquet": "Parquet",
    "machine.ip-ranges": "AWS address ranges",
    "machine.java": "Java and Kinesis library",
    "collector.name": "name",
    "collector.route": "route",
    "collector.port": "port",
    "collector.certificate": "certificate",
    "collector.mtu": "message size and MTU",
    "collector.source": "exporters as source",
    "account.identity": "identity",
    "account.session": "session",
    "account.once": "reached once",
    "region.reachable": "answers",
    "region.call": "calls",
    "vpc.flow-log": "flow log",
    "vpc.exporter": "exporter address",
    "flow-log.delivery": "delivery by AWS",
    "flow-log.format": "format",
    "flow-log.source": "way to the agent",
    "flow-log.once": "read once",
    "flow-log.vpc": "VPC",
    "bucket.queue": "announcement of objects",
    "bucket.policy": "policy for AWS's delivery",
    "bucket.encryption": "encryption",
    "bucket.object": "reading an object",
    "queue.there": "queue",
    "queue.policy": "policy for S3",
    "queue.dead-letters": "dead-letter queue",
    "queue.encryption": "encryption",
    "queue.timeout": "visibility timeout",
    "queue.backlog": "messages that wait",
    "log-group.there": "log group",
    "log-group.events": "newest events",
    "stream.active": "stream",
    "stream.consumer": "fan-out consumer",
    "stream.leases": "lease table",
    "firehose.endpoint": "endpoint",
    "firehose.certificate": "certificate",
    "firehose.access-key": "access key",
    "firehose.stream": "delivery stream",
    "key.state": "state",
    "key.policy": "policy for AWS's services",
}

PERMISSION = "permission."


@dataclass(frozen=True, slots=True)
class Check:
    id: str
    status: str
    text: str  # what was found; the same words for the same thing, so that faults can be put together
    account_id: str | None = None
    region: str | None = None
    resource: str = ""
    next_step: str = ""
    fix: str = ""  # a command, or a statement for a policy, to be copied

    def __post_init__(self) -> None:
        if not self.id.startswith(PERMISSION) and self.id not in CHECKS:
            raise ValueError(f"{self.id} is no check")

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]

    @property
    def title(self) -> str:
        return CHECKS.get(self.id) or self.id.removeprefix(PERMISSION)

    @property
    def place(self) -> str:
        return " ".join(filter(None, (self.account_id, self.region)))

    @property
    def is_fault(self) -> bool:
        return self.status in (ERROR, WARNING)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def in_order(checks: Iterable[Check]) -> list[Check]:
    """By group, then by name and place; each once."""
    groups = list(GROUPS)
    names = list(CHECKS)

    def key(check: Check) -> tuple[int, int, str, str, str, str]:
        named = names.index(check.id) if check.id in CHECKS else 0
        return (
            groups.index(check.group),
            named,
            check.id,
            check.account_id or "",
            check.region or "",
            check.resource,
        )

    return sorted(dict.fromkeys(checks), key=key)


@dataclass(frozen=True, slots=True)
class Alike:
    """Checks that say the same of several places."""

    first: Check
    titles: tuple[str, ...]
    resources: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def count(self) -> int:
        return max(len(self.resources), len(self.places))


def alike(checks: Sequence[Check]) -> list[Alike]:
    """The gravest first. What fifty accounts lack is one line for people."""
    found: dict[tuple[str, str, str, str], list[Check]] = {}
    for each in sorted(checks, key=lambda check: WEIGHTS.index(check.status)):
        # Ten actions that were not tried for one reason are one line, too.
        id = "" if each.status == UNTRIED else each.id
        found.setdefault((each.status, id, each.text, each.next_step), []).append(each)
    return [
        Alike(
            group[0],
            tuple(dict.fromkeys(each.id.removeprefix(PERMISSION) for each in group)),
            tuple(dict.fromkeys(each.resource for each in group if each.resource)),
            tuple(dict.fromkeys(each.place for each in group if each.place)),
        )
        for group in found.values()
    ]
