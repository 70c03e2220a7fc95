"""`setup central`: flow logs of many accounts, through CloudWatch Logs, to one account (Firehose and S3, or Kinesis).

Central account: a CloudWatch Logs destination in front of a delivery stream with a bucket and a queue, or of a Kinesis
stream. Source accounts: log group, role, flow logs, and a subscription filter that points at the destination. A
destination takes log groups of its own region; its target may be elsewhere, here it is beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edfn_agent.setup import statements as say
from edfn_agent.setup.cloudwatch import LogGroupOptions, flow_log_group
from edfn_agent.setup.firehose import delivery_stream
from edfn_agent.setup.flowlogs import FlowLogOptions, Watched, flow_logs, format_notes, places
from edfn_agent.setup.model import Destination, Place, Plan, Resource, Role, SetupError, Stream, SubscriptionFilter
from edfn_agent.setup.s3 import BucketOptions, bucket_with_queue, key, key_notes, queue_configuration


@dataclass(frozen=True)
class CentralOptions:
    """`setup central`."""

    name: str
    place: Place  # of the destination
    group: LogGroupOptions
    watched: tuple[Watched, ...]
    bucket: BucketOptions | None = None  # with a bucket through Firehose, without one to a Kinesis stream
    flow_log: FlowLogOptions = field(default_factory=FlowLogOptions)
    also_from: tuple[str, ...] = ()  # accounts whose side is set up otherwise
    organization: str | None = None
    destination: str = "VPCFlowLogsDestination"
    filter_name: str = "AllTraffic"
    delivery_stream: str = ""
    delivery_role: str = ""
    stream: str = ""
    shards: int | None = 1
    stream_hours: int = 24
    stream_kms: str = ""  # of the stream, where there is no bucket
    role_to_target: str = ""
    buffer_seconds: int = 60
    buffer_mib: int = 16
    as_documented: bool = False

    def __post_init__(self) -> None:
        for thing in self.watched:
            if thing.place.region != self.place.region:
                raise SetupError(
                    f"{thing.resource_id} is in {thing.place.region}, the destination in {self.place.region}: a log "
                    "group points at a destination of its own region; run setup central for each region"
                )


def plan(options: CentralOptions) -> Plan:
    home = options.place
    sources = places(options.watched)
    accounts = sorted({place.account for place in sources} | set(options.also_from))
    if not accounts and not options.organization:
        raise SetupError("no source: name a --vpc of another account, a --source-account, or an --organization")
    trusted = [*sources, *(Place(account, home.region) for account in options.also_from)]
    to_target = options.role_to_target or f"{options.name}-to-target-{home.region}"
    resources: list[Resource] = []
    if options.bucket is not None:
        stream = options.delivery_stream or options.name
        target = home.arn("firehose", f"deliverystream/{stream}")
        policy = () if options.as_documented else say.encrypted_transport(home, options.bucket.bucket)
        resources += key(options.bucket.kms, home, options.name, [])
        resources += bucket_with_queue(
            home,
            options.name,
            options.bucket,
            policy,
            options.bucket.prefix,
            options.bucket.suffix,
            options.as_documented,
        )
        resources += delivery_stream(
            home,
            options.name,
            stream,
            options.delivery_role,
            options.bucket,
            compression="UNCOMPRESSED",  # every envelope is gzip already; a second one costs twice and saves nothing
            buffer_seconds=options.buffer_seconds,
            buffer_mib=options.buffer_mib,
            as_documented=options.as_documented,
        )
        permissions, needed = say.to_delivery_stream(target), "DeliveryStream"
        configuration = queue_configuration(home, options.bucket.queue or options.name)
    else:
        name = options.stream or options.name
        target = home.arn("kinesis", f"stream/{name}")
        key_arn = "%{Key.Arn}" if options.stream_kms == "new" else options.stream_kms or None
        resources += key(options.stream_kms, home, options.name, [])
        resources.append(
            Stream(
                id="Stream",
                place=home,
                needs=("Key",) if options.stream_kms == "new" else (),
                name=name,
                shards=options.shards,
                retention_hours=options.stream_hours,
                key_arn=key_arn,
            )
        )
        permissions, needed = say.to_stream(target, key_arn), "Stream"
        configuration = f"inputs:\n  kinesis:\n    streams:\n      - {target}\n"
    resources += [
        Role(
            id="ToTargetRole",
            place=home,
            name=to_target,
            description=f"CloudWatch Logs of other accounts write to {target.rpartition('/')[2]}",
            trust=(say.subscription_role_trust(home, trusted, options.as_documented),),
            policies=(("put", permissions),),
        ),
        Destination(
            id="Destination",
            place=home,
            needs=("ToTargetRole", needed),
            name=options.destination,
            target_arn=target,
            role_arn=home.role(to_target),
            statements=say.destination_access(home, options.destination, accounts, options.organization),
        ),
    ]
    for place in sources:
        resources += _source(options, place, home.arn("logs", f"destination:{options.destination}"))
    return Plan(
        "central",
        options.name,
        tuple(resources),
        configuration=configuration,
        notes=(
            *format_notes(options.watched, options.flow_log),
            _NOTE,
            *key_notes(options.bucket.kms if options.bucket else options.stream_kms),
        ),
    )


_NOTE = (
    "Records carry the account and log group of their envelope: the agent can read them without a role in the source "
    "accounts; a role there gives it the names of VPCs, interfaces and instances."
)


def _source(options: CentralOptions, place: Place, destination_arn: str) -> list[Resource]:
    group, role = flow_log_group(place, options.name, options.group, options.as_documented, stage=2)
    keyed = key(
        options.group.kms,
        place,
        f"{options.name}-logs",
        [say.key_for_log_group(place, options.group.log_group)],
        stage=2,
        id=options.group.key_id,
    )
    return [
        *keyed,
        *group,
        *flow_logs(
            [thing for thing in options.watched if thing.place == place],
            options.flow_log,
            stage_of=lambda place: 2,
            needs=lambda place: tuple(resource.id for resource in group),
            destination_type="cloud-watch-logs",
            log_group=options.group.log_group,
            role_arn=place.role(role),
        ),
        SubscriptionFilter(
            id="SubscriptionFilter",
            place=place,
            stage=2,
            needs=() if options.group.existing else ("LogGroup",),
            log_group=options.group.log_group,
            name=options.filter_name,
            destination_arn=destination_arn,
        ),
    ]
