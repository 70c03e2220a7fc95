"""Settings of where flow logs are read: S3, CloudWatch Logs, Kinesis, Firehose.

In and out: see `settings`. Every section may be left empty, and then reads what discovery finds.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from edfn_agent.config.section import DAY, HOUR, MINUTE, Section, duration, no_item_twice, reject, repeated, setting
from edfn_agent.config.times import Duration, InitialPosition, StartFrom
from edfn_agent.config.values import (
    BY_SHAPE,
    LIST,
    WORD,
    AccessPointArn,
    ApplicationName,
    BucketName,
    FilePath,
    Listen,
    LogFormat,
    LogGroup,
    OrText,
    Queue,
    StreamArn,
    Words,
)

T = TypeVar("T")


class BucketLayout(Section):
    """The format of objects below one prefix of one bucket."""

    bucket: str = setting(..., "The bucket.", example="flow-logs")
    prefix: str = setting("", "Keys that begin so; the longest that fits wins.", example="firehose/")
    log_format: LogFormat = setting(
        ..., "The fields in order, as the flow log's format.", example="${version} ${account-id} ${srcaddr} ${dstaddr}"
    )


class LogGroupLayout(Section):
    """The format of one log group."""

    log_group: LogGroup = setting(..., "The log group, by name or ARN.", example="/vpc/flow-logs")
    log_format: LogFormat = setting(
        ..., "The fields in order, as the flow log's format.", example="${version} ${account-id} ${srcaddr} ${dstaddr}"
    )


class DeliveryStreamLayout(Section):
    """The format of what one delivery stream brings."""

    delivery_stream: str = setting(..., "The Firehose stream, by name or ARN.", example="flow-logs")
    log_format: LogFormat = setting(
        ..., "The fields in order, as the flow log's format.", example="${version} ${account-id} ${srcaddr} ${dstaddr}"
    )


class S3Input(Section):
    """Objects in S3, announced by SQS queues. Buckets are never listed and never written."""

    concurrency: int = setting(
        2,
        "Objects read at a time, for each queue. More is faster until the processor is busy.",
        unit="objects",
        ge=1,
        le=64,
    )
    queues: Annotated[
        Annotated[Literal["discovered"], WORD] | Annotated[tuple[Queue, ...], LIST, Field(min_length=1)], BY_SHAPE
    ] = setting("discovered", "The queues to read.", form="discovered, or a list of queue URLs or ARNs")
    max_receives: int = setting(
        5,
        "Tries before an object is quarantined, where the queue has no dead-letter queue to do that.",
        unit="tries",
        ge=1,
        le=1000,
    )
    duplicate_window: Duration = duration(
        12 * HOUR,
        0,
        14 * DAY,
        "An object announced again within this time is not sent again; 0 turns that off. 12h is the longest that SQS "
        "hides a message.",
    )
    foreign_events: Literal["leave", "delete"] = setting(
        "leave", "Messages in the queue that are about no flow log: they may be somebody else's, so they are left."
    )
    key_prefixes: tuple[str, ...] = setting(
        (), "Only keys that begin with one of these; none given: all.", form="list", example=["AWSLogs/"]
    )
    key_suffixes: tuple[str, ...] = setting(
        (), "Only keys that end with one of these; none given: all.", form="list", example=[".log.gz", ".parquet"]
    )
    requester_pays: bool = setting(
        False, "Read buckets whose owner has the reader pay; their requests and transfer are then on the agent's bill."
    )
    access_points: dict[BucketName, AccessPointArn] = setting(
        {},
        "Buckets that may only be read through an access point.",
        form="bucket: ARN of the access point",
        example={"flow-logs": "arn:aws:s3:us-east-1:999999999999:accesspoint/edfn-agent"},
    )
    layouts: tuple[BucketLayout, ...] = setting(
        (), "For objects without a header line, such as Firehose writes, whose flow log discovery cannot see."
    )

    @field_validator("queues")
    @classmethod
    def _queues_once(cls, queues: T) -> T:
        return no_item_twice(queues)

    @field_validator("layouts")
    @classmethod
    def _places_once(cls, layouts: tuple[BucketLayout, ...]) -> tuple[BucketLayout, ...]:
        again = repeated(((n,), (layout.bucket, layout.prefix)) for n, layout in enumerate(layouts))
        reject((place, "this bucket and prefix are in the list already") for place, _ in again)
        return layouts


class CloudWatchLogsInput(Section):
    """Log groups, read by the CloudWatch Logs API. The slowest way: Kinesis and S3 go before it."""

    interval: Duration = duration(
        30, 1, DAY, "How often each log group is asked. The calls share the account's quota with everything else in it."
    )
    log_groups: Annotated[
        Annotated[Literal["discovered"], WORD] | Annotated[tuple[LogGroup, ...], LIST, Field(min_length=1)], BY_SHAPE
    ] = setting("discovered", "The log groups to read.", form="discovered, or a list of names or ARNs")
    start_from: StartFrom = setting(
        "now",
        "Where to begin with a log group that was never read.",
        form="now, a time (ISO 8601), or how far back (1h)",
    )
    overlap: Duration = duration(
        30 * MINUTE,
        0,
        DAY,
        "How far back each reading looks again for what came late (seen before is not sent again). A flow log may take "
        "10 min to aggregate and 5 to deliver; this is twice that.",
    )
    layouts: tuple[LogGroupLayout, ...] = setting((), "For log groups whose flow log discovery cannot see.")

    @field_validator("log_groups")
    @classmethod
    def _groups_once(cls, log_groups: T) -> T:
        return no_item_twice(log_groups)

    def first_time(self, now: datetime) -> datetime:
        """`start_from` as a time, for a log group that was never read."""
        if isinstance(self.start_from, datetime):
            return self.start_from
        return now - self.start_from if isinstance(self.start_from, timedelta) else now


class Stream(Section):
    """A Kinesis data stream. May be written as its ARN alone."""

    arn: StreamArn = setting(..., "The stream.", example="arn:aws:kinesis:us-east-1:999999999999:stream/flow-logs")
    enhanced_fan_out: bool = setting(
        False, "A channel of its own, 2 MB/s for each shard. AWS bills it by shard-hour and by the byte."
    )
    initial_position: InitialPosition = setting(
        "TRIM_HORIZON",
        "Where to begin with a stream that has no leases yet: its oldest record, its newest, or a time.",
        form="TRIM_HORIZON, LATEST, or a time (ISO 8601)",
    )
    application_name: ApplicationName | None = setting(
        None,
        "The KCL application: agents that share it share the stream's shards. It names the lease table in DynamoDB.",
        form="made from the stream's name unless given",
        example="edfn-agent-flow-logs",
    )
    max_records: int = setting(
        10000, "The most that one call brings (KCL maxRecords). Fewer need less memory.", unit="records", ge=1, le=10000
    )
    idle_time: Duration = duration(
        1,
        0.2,
        MINUTE,
        "Pause between calls for a shard. AWS allows five a second, for all readers of a shard together.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_arn(cls, value: object) -> object:
        return {"arn": value} if isinstance(value, str) else value

    @property
    def name(self) -> str:
        return self.arn.rpartition("/")[2]

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    @property
    def account_id(self) -> str:
        return self.arn.split(":")[4]


class KinesisInput(Section):
    """Kinesis data streams, by the Kinesis Client Library (needs Java and the extra `kinesis`). The fastest way."""

    metrics_level: Literal["NONE", "SUMMARY", "DETAILED"] = setting(
        "NONE", "What the library reports to CloudWatch, which bills for it. The agent has metrics of its own."
    )
    streams: Annotated[
        Annotated[Literal["discovered"], WORD]
        | Annotated[tuple[Annotated[Stream, OrText("ARN of the stream")], ...], LIST, Field(min_length=1)],
        BY_SHAPE,
    ] = setting("discovered", "The streams to read, each by a daemon of about 200 MB.", form="discovered, or a list")
    java_options: Words = setting(
        (),
        "More flags for each stream's daemon. Its heap follows the shards it may hold (128 MB, and 64 MB for each), "
        "unless -Xmx is given here.",
        form="text, or a list of words",
        example="-Xmx512m",
    )
    shutdown_grace: Duration = duration(
        10, 0, 5 * MINUTE, "How long a daemon may take to hand its leases over; 0 makes others wait for them to expire."
    )
    layouts: tuple[LogGroupLayout, ...] = setting((), "For log groups on a stream whose flow log discovery cannot see.")

    @field_validator("streams")
    @classmethod
    def _streams_once(cls, streams: T) -> T:
        if isinstance(streams, tuple):
            again = repeated(((n,), stream.arn) for n, stream in enumerate(streams))
            shared = repeated(
                ((n, "application_name"), stream.application_name)
                for n, stream in enumerate(streams)
                if stream.application_name is not None
            )
            reject(
                [(place, f"{arn} is in the list already") for place, arn in again]
                + [(place, "another stream has this name; their leases would mix") for place, _ in shared]
            )
        return streams


class FirehoseInput(Section):
    """An HTTPS endpoint that Firehose delivers to."""

    listen: Listen = setting(
        "127.0.0.1:8088",
        "Without a certificate only loopback, for a proxy that ends TLS: Firehose itself speaks HTTPS only.",
        form="host:port",
        validate_default=True,
    )
    certificate: FilePath | None = setting(
        None,
        "PEM file of the endpoint, with its chain. Firehose takes no self-signed one.",
        example="/etc/edfn-agent/firehose.pem",
    )
    key: FilePath | None = setting(
        None, "PEM file with the private key of `certificate`.", example="/etc/edfn-agent/firehose.key"
    )
    access_key_file: FilePath | None = setting(
        None,
        "A file that holds nothing but the access key that Firehose must send.",
        example="/etc/edfn-agent/firehose-access-key",
    )
    layouts: tuple[DeliveryStreamLayout, ...] = setting((), "For delivery streams whose flow log discovery cannot see.")

    @model_validator(mode="after")
    def _no_stranger(self) -> FirehoseInput:
        if self.certificate is not None and self.key is None:
            reject([(("certificate",), "needs `key` beside it")])
        if self.key is not None and self.certificate is None:
            reject([(("key",), "needs `certificate` beside it")])
        if not self.listen.is_loopback:
            missing = [name for name in ("certificate", "access_key_file") if getattr(self, name) is None]
            if missing:
                needs = "plain HTTP is served on loopback only" if "certificate" in missing else "anyone could send"
                words = f"{self.listen} is not loopback, so {' and '.join(missing)} must be given: {needs}"
                reject([(("listen",), words)])
        return self


class Inputs(Section):
    """Where flow logs are read. A source that is not here is not read; an empty section reads it with the defaults."""

    s3: S3Input | None = None
    cloudwatch_logs: CloudWatchLogsInput | None = None
    kinesis: KinesisInput | None = None
    firehose: FirehoseInput | None = None
