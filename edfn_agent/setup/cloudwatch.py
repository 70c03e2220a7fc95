"""`setup cloudwatch` and `setup kinesis`: flow logs to a log group; for Kinesis, the group sends them on to a stream.

A log group belongs to one account and region, and so does everything here: each place that is named gets its own set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edfn_agent.setup import statements as say
from edfn_agent.setup.flowlogs import FlowLogOptions, Watched, flow_logs, format_notes, places
from edfn_agent.setup.model import (
    LogGroup,
    Place,
    Plan,
    Resource,
    Role,
    SetupError,
    Statement,
    Stream,
    SubscriptionFilter,
)
from edfn_agent.setup.s3 import key, key_notes

# What CloudWatch Logs takes for the retention of a group, in days.
RETENTION_DAYS = (
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)


@dataclass(frozen=True)
class LogGroupOptions:
    """The log group and the role that writes to it."""

    log_group: str
    role: str = ""  # made from the name and the region: roles are global, log groups are not
    retention_days: int = 30
    existing: bool = False
    kms: str = ""
    key_id: str = "Key"  # its logical id

    def __post_init__(self) -> None:
        if self.retention_days not in RETENTION_DAYS:
            near = min(RETENTION_DAYS, key=lambda days: abs(days - self.retention_days))
            raise SetupError(f"CloudWatch Logs keeps events for set numbers of days; {near} is the nearest")

    @property
    def key_arn(self) -> str | None:
        return f"%{{{self.key_id}.Arn}}" if self.kms == "new" else self.kms or None


def flow_log_group(
    place: Place, name: str, options: LogGroupOptions, as_documented: bool, stage: int = 1
) -> tuple[list[Resource], str]:
    """The log group, and the role that flow logs write with; and that role's name."""
    role = options.role or f"{name}-publish-{place.region}"
    made: list[Resource] = []
    if not options.existing:
        made.append(
            LogGroup(
                id="LogGroup",
                place=place,
                stage=stage,
                needs=(options.key_id,) if options.kms == "new" else (),
                name=options.log_group,
                retention_days=options.retention_days,
                key_arn=options.key_arn,
            )
        )
    made.append(
        Role(
            id="FlowLogRole",
            place=place,
            stage=stage,
            name=role,
            description=f"VPC flow logs write to the log group {options.log_group}",
            trust=(say.flow_log_role_trust(place, as_documented),),
            policies=(("publish", say.flow_log_role_policy(place, options.log_group, as_documented)),),
        )
    )
    return made, role


@dataclass(frozen=True)
class CloudWatchOptions:
    """`setup cloudwatch`."""

    name: str
    group: LogGroupOptions
    watched: tuple[Watched, ...]
    home: Place
    flow_log: FlowLogOptions = field(default_factory=FlowLogOptions)
    as_documented: bool = False


@dataclass(frozen=True)
class KinesisOptions(CloudWatchOptions):
    """`setup kinesis`: the same, with a stream behind it."""

    stream: str = ""
    stream_exists: bool = False
    shards: int | None = 1
    stream_hours: int = 24
    filter_name: str = "edfn-agent"
    role_to_stream: str = ""

    def __post_init__(self) -> None:
        if not 24 <= self.stream_hours <= 8760:
            raise SetupError("a stream keeps records for 24 to 8760 hours")


def _group_and_flow_logs(
    options: CloudWatchOptions, place: Place, key_statements: Sequence[Statement] = ()
) -> list[Resource]:
    group, role = flow_log_group(place, options.name, options.group, options.as_documented)
    return [
        *key(
            options.group.kms,
            place,
            options.name,
            [say.key_for_log_group(place, options.group.log_group), *key_statements],
        ),
        *group,
        *flow_logs(
            [thing for thing in options.watched if thing.place == place],
            options.flow_log,
            stage_of=lambda place: 1,
            needs=lambda place: tuple(resource.id for resource in group),
            destination_type="cloud-watch-logs",
            log_group=options.group.log_group,
            role_arn=place.role(role),
        ),
    ]


def _places(options: CloudWatchOptions) -> list[Place]:
    """Without a thing to watch the group and its role are made all the same: the vendor's template does only that."""
    return places(options.watched) or [options.home]


def plan_cloudwatch(options: CloudWatchOptions) -> Plan:
    resources = [resource for place in _places(options) for resource in _group_and_flow_logs(options, place)]
    groups = "".join(f"      - {place.log_group(options.group.log_group)}\n" for place in _places(options))
    return Plan(
        "cloudwatch",
        options.name,
        tuple(resources),
        configuration=f"inputs:\n  cloudwatch_logs:\n    log_groups:\n{groups}",
        notes=format_notes(options.watched, options.flow_log),
    )


def plan_kinesis(options: KinesisOptions) -> Plan:
    resources: list[Resource] = []
    streams = []
    for place in _places(options):
        name = options.stream or options.name
        arn = place.arn("kinesis", f"stream/{name}")
        streams.append(arn)
        key_arn = options.group.key_arn
        resources += _group_and_flow_logs(options, place)
        if not options.stream_exists:
            resources.append(
                Stream(
                    id="Stream",
                    place=place,
                    needs=("Key",) if options.group.kms == "new" else (),
                    name=name,
                    shards=options.shards,
                    retention_hours=options.stream_hours,
                    key_arn=key_arn,
                )
            )
        role = options.role_to_stream or f"{options.name}-to-stream-{place.region}"
        resources.append(
            Role(
                id="ToStreamRole",
                place=place,
                name=role,
                description=f"CloudWatch Logs writes to the stream {name}",
                trust=(say.subscription_role_trust(place, (), options.as_documented),),
                policies=(("put", say.to_stream(arn, key_arn)),),
            )
        )
        resources.append(
            SubscriptionFilter(
                id="SubscriptionFilter",
                place=place,
                needs=(
                    *(() if options.group.existing else ("LogGroup",)),
                    *(() if options.stream_exists else ("Stream",)),
                    "ToStreamRole",
                ),
                log_group=options.group.log_group,
                name=options.filter_name,
                destination_arn=arn,
                role_arn=place.role(role),
            )
        )
    listed = "".join(f"      - {arn}\n" for arn in streams)
    return Plan(
        "kinesis",
        options.name,
        tuple(resources),
        configuration=f"inputs:\n  kinesis:\n    streams:\n{listed}",
        notes=(
            *format_notes(options.watched, options.flow_log),
            "A shard takes 1 MB/s and 1000 records/s of envelopes; watch WriteProvisionedThroughputExceeded.",
            *key_notes(options.group.kms),
        ),
    )
