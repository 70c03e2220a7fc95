"""A stream: how it is to be read, and what AWS says of it now.

In: an ARN and settings; answers of DescribeStreamSummary and DescribeTable. Out: `StreamSettings` (checked), `Standing`
(is it there, how many shards, which application name). Never: a call that changes anything, except `deregister`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

MetricsLevel = Literal["NONE", "SUMMARY", "DETAILED"]
METRICS_LEVELS = ("NONE", "SUMMARY", "DETAILED")

_ARN = re.compile(r"arn:(aws[a-z-]*):kinesis:([a-z0-9-]+):(\d{12}):stream/([a-zA-Z0-9_.-]{1,128})")
_APPLICATION = re.compile(r"[a-zA-Z0-9_.-]{3,200}")
"""What a DynamoDB table name allows (255), less room for KCL's own suffixes: -CoordinatorState, -WorkerMetricStats."""
_CLOCKS = timedelta(seconds=5)
"""How far the clocks of two services may be apart. A stream needs longer than that to become active."""


class StreamError(ValueError):
    """A setting of a stream that cannot be."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """One stream to read. `key` tells streams of one agent apart: account, region and name."""

    arn: str
    enhanced_fan_out: bool = False
    initial_position: Literal["TRIM_HORIZON", "LATEST"] | datetime = "TRIM_HORIZON"
    application_name: str | None = None
    """KCL's application: the lease table, and the fan-out consumer, have this name. None: edfn-agent-<stream>."""
    max_records: int = 10_000
    """Most records of one GetRecords call; AWS's own maximum, which is bounded by 10 MiB besides."""
    idle_time: float = 1.0
    """Seconds between two reads of a shard that has nothing more. AWS allows five reads a second for all readers."""

    def __post_init__(self) -> None:
        if not _ARN.fullmatch(self.arn):
            raise StreamError(
                f"{self.arn!r} is no ARN of a Kinesis data stream (arn:aws:kinesis:REGION:ACCOUNT:stream/NAME)"
            )
        if not _APPLICATION.fullmatch(self.application):
            raise StreamError(
                f"application name {self.application!r}: 3 to 200 of a-z A-Z 0-9 _ . - (it names a table)"
            )
        if isinstance(self.initial_position, str) and self.initial_position not in ("TRIM_HORIZON", "LATEST"):
            raise StreamError(f"initial position {self.initial_position!r}: TRIM_HORIZON, LATEST or a time")
        if not 1 <= self.max_records <= 10_000:
            raise StreamError(f"max_records {self.max_records}: 1 to 10000")
        if not 0.2 <= self.idle_time <= 60:
            raise StreamError(f"idle_time {self.idle_time} s: 0.2 (five reads a second, AWS's limit) to 60")

    @property
    def partition(self) -> str:
        return self._part(1)

    @property
    def region(self) -> str:
        return self._part(2)

    @property
    def account_id(self) -> str:
        return self._part(3)

    @property
    def name(self) -> str:
        return self._part(4)

    @property
    def key(self) -> str:
        return f"{self.account_id}.{self.region}.{self.name}"

    @property
    def application(self) -> str:
        return self.application_name or f"edfn-agent-{self.name}"

    def _part(self, number: int) -> str:
        match = _ARN.fullmatch(self.arn)
        assert match is not None
        return match[number]


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials as they stand, for a while."""

    access_key: str
    secret_key: str
    token: str | None
    expires: datetime | None


class Access(Protocol):
    """The account of one stream: its keys, always fresh, and boto3 clients in the stream's region."""

    def keys(self) -> Keys: ...

    def client(self, service: str) -> Any: ...


class AccountAccess:
    """Access by what reaches accounts: clients by account, region and service, botocore's credentials by account."""

    def __init__(
        self,
        settings: StreamSettings,
        client: Callable[[str, str, str], Any],
        credentials: Callable[[str], Any],
    ) -> None:
        self._settings, self._client, self._credentials = settings, client, credentials

    def keys(self) -> Keys:
        account_id = self._settings.account_id
        credentials = self._credentials(account_id)
        if credentials is None:
            raise RuntimeError(f"account {account_id}: no AWS credentials were found")
        frozen = credentials.get_frozen_credentials()
        # botocore has no public way to ask how long keys live.
        expires = getattr(credentials, "_expiry_time", None)
        return Keys(frozen.access_key, frozen.secret_key, frozen.token, expires)

    def client(self, service: str) -> Any:
        return self._client(self._settings.account_id, self._settings.region, service)


@dataclass(frozen=True, slots=True)
class Standing:
    """What AWS says of a stream now. `problem` is empty when it can be read."""

    problem: str = ""
    gone: bool = False
    """There is no such stream (any more)."""
    denied: bool = False
    """The call is not allowed, or the account's credentials are dead."""
    shards: int | None = None
    created: datetime | None = None


def standing(settings: StreamSettings, access: Access) -> Standing:
    """DescribeStreamSummary, put into words. Raises nothing."""
    where = f"stream {settings.name} in account {settings.account_id}, {settings.region}"
    try:
        answer = access.client("kinesis").describe_stream_summary(StreamName=settings.name)
    except Exception as error:
        code, status = _code(error)
        if code == "ResourceNotFoundException":
            return Standing(f"{where}: not there. Was it deleted?", gone=True)
        if _is_denied(code, status):
            return Standing(f"{where}: kinesis:DescribeStreamSummary is refused ({code})", denied=True)
        return Standing(f"{where}: cannot be described: {error}")
    summary = answer["StreamDescriptionSummary"]
    status = summary["StreamStatus"]
    created = summary.get("StreamCreationTimestamp")
    if status == "DELETING":
        return Standing(f"{where}: being deleted", gone=True)
    if status == "CREATING":
        return Standing(f"{where}: being created")
    return Standing(shards=summary.get("OpenShardCount"), created=_utc(created))


def application_for(settings: StreamSettings, now: Standing, access: Access) -> str:
    """The KCL application that belongs to the stream as it is now: `settings.application`, normally.

    A stream that was deleted and made again has the same name and the same shard ids, but none of the old sequence
    numbers: with the old leases KCL would fail for ever, or take a shard for read to its end. The daemon is started
    only when the stream is there, so a lease table older than the stream tells of a former one. Then the application
    gets the stream's creation time behind its name. Every agent comes to the same name, and nothing is deleted.
    """
    if now.created is None:
        return settings.application
    try:
        table = access.client("dynamodb").describe_table(TableName=settings.application)["Table"]
    except Exception as error:
        code, status = _code(error)
        if code != "ResourceNotFoundException" and not _is_denied(code, status):
            raise
        return settings.application
    made = _utc(table.get("CreationDateTime"))
    if made is None or now.created - made < _CLOCKS:
        return settings.application
    return f"{settings.application}-{now.created:%Y%m%dT%H%M%S}"


def deregister(settings: StreamSettings, kinesis: Any) -> list[str]:
    """Remove this application's fan-out consumers from the stream; returns the names of those removed."""
    removed = []
    pages = kinesis.get_paginator("list_stream_consumers").paginate(StreamARN=settings.arn)
    for each in [each for page in pages for each in page["Consumers"]]:
        name = each["ConsumerName"]
        if each["ConsumerStatus"] == "DELETING":
            continue
        if name == settings.application or _is_later(name, settings.application):
            kinesis.deregister_stream_consumer(ConsumerARN=each["ConsumerARN"])
            removed.append(name)
    return removed


def _is_later(name: str, application: str) -> bool:
    return re.fullmatch(re.escape(application) + r"-\d{8}T\d{6}", name) is not None


def _code(error: Exception) -> tuple[str, int]:
    answer = getattr(error, "response", None) or {}
    code = answer.get("Error", {}).get("Code", type(error).__name__)
    return str(code), int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _is_denied(code: str, status: int) -> bool:
    return status == 403 or code in {
        "AccessDenied",
        "AccessDeniedException",
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "ExpiredTokenException",
        "UnauthorizedOperation",
    }


def _utc(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
