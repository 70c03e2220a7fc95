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
}

CHECKS: dict[str, str] = {
    "configuration.file": "the file can be used",
    "configuration.inputs": "an input is on",
    "machine.state": "the state directory can be used",
    "machine.space": "room in the state directory",
    "machine.clock": "the clock agrees with AWS",
    "machine.files": "open files allowed",
    "machine.scanner": "the compiled scanner",
    "machine.parquet": "Parquet can be read",
    "machine.ip-ranges": "aws.ip_ranges_file",
    "machine.java": "Java and the Kinesis Client Library",
    "collector.name": "its name resolves",
    "collector.route": "there is a route",
    "collector.port": "it can be reached",
    "collector.certificate": "its certificate, and the agent's own",
    "collector.mtu": "messages fit the path",
    "collector.source": "datagrams from exporter addresses",
    "account.identity": "who the agent is there",
    "account.session": "how long a session lasts",
    "account.once": "each account is reached one way",
    "region.reachable": "the region answers",
    "region.call": "calls succeed",
    "vpc.flow-log": "it has a flow log",
    "vpc.exporter": "it has an address of its own",
    "flow-log.delivery": "AWS delivers it",
    "flow-log.format": "its format is understood",
    "flow-log.source": "it reaches the agent",
    "flow-log.once": "its traffic is read once",
    "flow-log.vpc": "its VPC is known",
    "bucket.queue": "its objects are announced",
    "bucket.policy": "AWS may write to it",
    "bucket.encryption": "its key can be used",
    "bucket.object": "an object can be read",
    "queue.there": "the queue is there",
    "queue.policy": "S3 may send to it",
    "queue.dead-letters": "it has a dead-letter queue",
    "queue.encryption": "its key can be used",
    "queue.timeout": "its visibility timeout",
    "queue.backlog": "messages that wait",
    "log-group.there": "the log group is there",
    "log-group.events": "events arrive in it",
    "stream.active": "the stream is active",
    "stream.consumer": "its fan-out consumer",
    "stream.leases": "its lease table",
    "stream.encryption": "its key can be used",
    "firehose.endpoint": "the endpoint can be opened",
    "firehose.certificate": "the endpoint's certificate",
    "firehose.access-key": "the endpoint's access key",
    "firehose.stream": "where the stream delivers to",
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
    resources: tuple[str, ...]
    places: tuple[str, ...]

    @property
    def count(self) -> int:
        return max(len(self.resources), len(self.places))


def alike(checks: Sequence[Check]) -> list[Alike]:
    """The gravest first. What fifty accounts lack is one line for people."""
    found: dict[tuple[str, str, str, str], list[Check]] = {}
    for each in sorted(checks, key=lambda check: WEIGHTS.index(check.status)):
        found.setdefault((each.status, each.id, each.text, each.next_step), []).append(each)
    return [
        Alike(
            group[0],
            tuple(dict.fromkeys(each.resource for each in group if each.resource)),
            tuple(dict.fromkeys(each.place for each in group if each.place)),
        )
        for group in found.values()
    ]
