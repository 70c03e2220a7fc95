"""`setup firehose` and `setup firehose-http`: flow logs to a delivery stream, in the same account or another one.

The delivery stream writes to a bucket that the agent reads, or posts to the agent's own endpoint and keeps what fails
in the bucket. A delivery stream and the flow logs that feed it are in one region (AWS requires it).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from edfn_agent.setup import statements as say
from edfn_agent.setup.flowlogs import FlowLogOptions, Watched, flow_logs, format_notes, places
from edfn_agent.setup.model import (
    Bucket,
    BucketPolicy,
    DeliveryStream,
    HttpEndpoint,
    LogGroup,
    Place,
    Plan,
    Resource,
    Role,
    SetupError,
)
from edfn_agent.setup.s3 import BucketOptions, bucket_with_queue, key, key_notes, queue_configuration

DESTINATION_ROLE = "AWSLogDeliveryFirehoseCrossAccountRole"  # AWS requires that the role's name starts so


@dataclass(frozen=True)
class FirehoseOptions:
    """`setup firehose` and `setup firehose-http`."""

    name: str
    place: Place  # of the delivery stream
    bucket: BucketOptions
    watched: tuple[Watched, ...]
    flow_log: FlowLogOptions = field(default_factory=FlowLogOptions)
    delivery_stream: str = ""
    delivery_role: str = ""
    source_role: str = ""
    destination_role: str = DESTINATION_ROLE
    buffer_seconds: int = 60
    buffer_mib: int = 16
    endpoint: HttpEndpoint | None = None
    as_documented: bool = False

    def __post_init__(self) -> None:
        if not self.destination_role.startswith(DESTINATION_ROLE):
            raise SetupError(f"AWS takes a destination role only if its name starts with {DESTINATION_ROLE}")
        for thing in self.watched:
            if thing.place.region != self.place.region:
                raise SetupError(
                    f"{thing.resource_id} is in {thing.place.region}, the delivery stream in {self.place.region}: "
                    "flow logs go to a delivery stream of their own region"
                )
        if self.endpoint and not self.endpoint.url.startswith("https://"):
            raise SetupError(f"{self.endpoint.url}: Firehose posts to https:// only, on port 443")


def delivery_stream(
    place: Place,
    name: str,
    stream: str,
    role: str,
    bucket: BucketOptions,
    *,
    compression: str,
    buffer_seconds: int,
    buffer_mib: int,
    endpoint: HttpEndpoint | None = None,
    as_documented: bool = False,
) -> list[Resource]:
    """The delivery stream with its role, and a log group where it says what goes wrong."""
    errors = f"/aws/kinesisfirehose/{stream}"
    secret = endpoint.secret_arn if endpoint else None
    needs = (*(() if bucket.existing else ("Bucket",)), "DeliveryErrors", "DeliveryRole")
    return [
        LogGroup(
            id="DeliveryErrors",
            place=place,
            name=errors,
            retention_days=14,
            streams=("DestinationDelivery", "BackupDelivery") if endpoint else ("DestinationDelivery",),
        ),
        Role(
            id="DeliveryRole",
            place=place,
            name=role or f"{name}-delivery-{place.region}",
            description=f"Firehose delivers {stream} to the bucket {bucket.bucket}",
            trust=(say.firehose_role_trust(place, as_documented),),
            policies=(("deliver", say.firehose_role_policy(place, bucket.bucket, bucket.key_arn, errors, secret)),),
        ),
        DeliveryStream(
            id="DeliveryStream",
            place=place,
            needs=needs,
            name=stream,
            role_arn=place.role(role or f"{name}-delivery-{place.region}"),
            bucket=bucket.bucket,
            prefix=f"{bucket.prefix}!{{timestamp:yyyy/MM/dd/HH}}/",
            error_prefix=f"failed/{bucket.prefix}!{{firehose:error-output-type}}/!{{timestamp:yyyy/MM/dd/HH}}/",
            error_log_group=errors,
            compression=compression,
            buffer_seconds=buffer_seconds,
            buffer_mib=buffer_mib,
            key_arn=bucket.key_arn,
            endpoint=endpoint,
        ),
    ]


def _private_bucket(options: FirehoseOptions) -> list[Resource]:
    """A bucket for what the endpoint could not be given: nothing is notified, a person looks at it."""
    home, bucket = options.place, options.bucket
    if bucket.existing:
        return []
    return [
        Bucket(
            id="Bucket",
            place=home,
            needs=("Key",) if bucket.kms == "new" else (),
            name=bucket.bucket,
            key_arn=bucket.key_arn,
            expire_days=bucket.expire_days,
        ),
        BucketPolicy(
            id="BucketPolicy",
            place=home,
            needs=("Bucket",),
            bucket=bucket.bucket,
            statements=say.encrypted_transport(home, bucket.bucket),
        ),
    ]


def plan(options: FirehoseOptions) -> Plan:
    home, bucket = options.place, options.bucket
    stream = options.delivery_stream or options.name
    arn = home.arn("firehose", f"deliverystream/{stream}")
    abroad = [place for place in places(options.watched) if place.account != home.account]
    resources: list[Resource] = []

    # Stage 1: the source roles. A trust policy may only name a role that exists, so they come before the other side.
    source_role = options.source_role or f"{options.name}-source-{home.region}"
    destination_role_arn = home.role(options.destination_role)
    for place in abroad:
        arns = [thing.arn for thing in options.watched if thing.place == place]
        resources.append(
            Role(
                id="SourceRole",
                place=place,
                stage=1,
                name=source_role,
                description=f"Flow logs of this account go to the delivery stream {stream} of account {home.account}",
                # As AWS documents it: it gives no conditions for this service, the PassRole statement has them.
                trust=(say.trust({"Service": "delivery.logs.amazonaws.com"}),),
                policies=(("deliver", say.cross_account_source(place, source_role, destination_role_arn, arns)),),
            )
        )
    # Stage 2 (1 when nothing is abroad): the bucket, the delivery stream, the destination role.
    made: list[Resource] = [*key(bucket.kms, home, options.name, [])]
    if options.endpoint is None:
        policy = () if options.as_documented else say.encrypted_transport(home, bucket.bucket)
        made += bucket_with_queue(
            home, options.name, bucket, policy, bucket.prefix, bucket.suffix, options.as_documented
        )
    else:
        made += _private_bucket(options)
    made += delivery_stream(
        home,
        options.name,
        stream,
        options.delivery_role,
        bucket,
        compression="GZIP",
        buffer_seconds=options.buffer_seconds,
        buffer_mib=options.buffer_mib,
        endpoint=options.endpoint,
        as_documented=options.as_documented,
    )
    if abroad:
        source_arns = [place.role(source_role) for place in abroad]
        made.append(
            Role(
                id="DestinationRole",
                place=home,
                name=options.destination_role,
                description=f"Flow logs of other accounts go to the delivery stream {stream}",
                trust=(say.trust({"AWS": source_arns[0] if len(source_arns) == 1 else source_arns}),),
                policies=(("deliver", say.cross_account_destination(home, arn, options.as_documented)),),
            )
        )
    stage = 2 if abroad else 1
    resources += [replace(resource, stage=stage) for resource in made]
    # Stage 3: the flow logs, which need both roles and the stream.
    resources += flow_logs(
        options.watched,
        options.flow_log,
        stage_of=lambda place: stage if place == home else 3,
        needs=lambda place: ("DeliveryStream",) if place == home else (),
        destination_type="kinesis-data-firehose",
        destination=arn,
        role_arn=lambda place: None if place.account == home.account else place.role(source_role),
        cross_account_role_arn=lambda place: None if place.account == home.account else destination_role_arn,
    )
    layout = options.flow_log.log_format_of(bool(options.watched) and options.watched[0].is_transit)
    return Plan(
        "firehose-http" if options.endpoint else "firehose",
        options.name,
        tuple(resources),
        configuration=_configuration(options, stream, layout),
        notes=_notes(options),
    )


def _configuration(options: FirehoseOptions, stream: str, layout: str | None) -> str:
    # Firehose writes no header line. The agent finds the format by the flow log if it may see that account; said
    # here, it need not.
    said = f"log_format: {layout!r}" if layout else "log_format: default"
    if options.endpoint is None:
        lines = queue_configuration(options.place, options.bucket.queue or options.name)
        if layout:
            where = f"bucket: {options.bucket.bucket}"
            prefix = f"prefix: {options.bucket.prefix}" if options.bucket.prefix else ""
            lines += "    layouts:\n      - " + "\n        ".join(part for part in (where, prefix, said) if part) + "\n"
        return lines
    lines = "inputs:\n  firehose:\n    listen: 0.0.0.0:443\n    certificate: /etc/edfn-agent/firehose.pem\n"
    lines += "    key: /etc/edfn-agent/firehose.key\n    access_key_file: /etc/edfn-agent/firehose-access-key\n"
    if layout:
        lines += f"    layouts:\n      - delivery_stream: {stream}\n        {said}\n"
    return lines


def _notes(options: FirehoseOptions) -> tuple[str, ...]:
    notes = [*format_notes(options.watched, options.flow_log)]
    if options.endpoint is None:
        notes += key_notes(options.bucket.kms)
    notes.append(
        "Whoever creates the flow logs needs ec2:CreateFlowLogs, logs:CreateLogDelivery, firehose:TagDeliveryStream "
        "and iam:CreateServiceLinkedRole (for delivery.logs.amazonaws.com)."
    )
    if len({thing.is_transit for thing in options.watched}) > 1:
        notes.append(
            "VPC and transit gateway flow logs share the delivery stream: without a header the agent tells their lines "
            "apart by the number of columns, and only where discovery sees both flow logs. Better give each kind a "
            "delivery stream of its own."
        )
    if options.endpoint is not None:
        notes.append(
            "Firehose posts to port 443 of a publicly trusted certificate only, from the address ranges AWS lists for "
            f"Firehose in {options.place.region}."
        )
        if options.endpoint.secret_arn is None:
            notes.append(
                "The access key is written down nowhere: the template asks for it (NoEcho), the commands read the file "
                'you name. With --secret ARN it comes from Secrets Manager ({"api_key": "..."}), and is changed there.'
            )
    return tuple(notes)
