"""The plain data that every way of delivery is written in: places, resources, a plan.

Nothing here calls AWS and nothing renders anything. Names are given, so ARNs are known before anything exists; what AWS
alone can say (the ARN of a KMS key) or nobody may write down (an access key) stands as `%{LogicalId.Attribute}`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Statement = dict[str, Any]

PLACEHOLDER = re.compile(r"%\{([A-Za-z0-9]+)\.([A-Za-z]+)\}")


def substitute(value: Any, of: Callable[[str, str], str]) -> Any:
    """The value with every placeholder in its strings replaced by `of(logical id, attribute)`."""
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda match: of(match[1], match[2]), value)
    if isinstance(value, Mapping):
        return {key: substitute(item, of) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [substitute(item, of) for item in value]
    return value


class SetupError(Exception):
    """What was asked for cannot be set up so; says what to change."""


@dataclass(frozen=True, order=True)
class Place:
    """An account and a region. The region's name says which partition of AWS it is in."""

    account: str
    region: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9]{12}", self.account):
            raise SetupError(f"{self.account!r} is not an AWS account id (12 digits)")
        if not re.fullmatch(r"[a-z]{2,4}(-[a-z]+)+-[0-9]", self.region):
            raise SetupError(f"{self.region!r} is not the name of an AWS region, like eu-west-1")

    def arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"

    def role(self, name: str) -> str:
        return f"arn:{self.partition}:iam::{self.account}:role/{name}"

    def bucket(self, name: str) -> str:
        return f"arn:{self.partition}:s3:::{name}"

    def log_group(self, name: str) -> str:
        return self.arn("logs", f"log-group:{name}")

    @property
    def partition(self) -> str:
        return partition_of(self.region)

    @property
    def domain(self) -> str:
        return DOMAINS.get(self.partition, "amazonaws.com")

    def __str__(self) -> str:
        return f"{self.account} {self.region}"


_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov", "eusc-": "aws-eusc"}  # what a region's name begins with
DOMAINS = {"aws-cn": "amazonaws.com.cn", "aws-eusc": "amazonaws.eu"}  # of endpoints, where it is not amazonaws.com
_HOME_REGIONS = {"aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1", "aws-eusc": "eusc-de-east-1"}


def partition_of(region: str) -> str:
    return next((name for begin, name in _PARTITIONS.items() if region.startswith(begin)), "aws")


def home_region(partition: str) -> str:
    """IAM knows no regions; a template and a client want one all the same."""
    return _HOME_REGIONS.get(partition, "us-east-1")


def policy(statements: Sequence[Statement]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


@dataclass(frozen=True, kw_only=True)
class Resource:
    """One thing in AWS. `needs` are the logical ids that must be there before it."""

    id: str
    place: Place
    needs: tuple[str, ...] = ()
    stage: int = 1
    """Stacks of a lower stage come first: a role that another account's role trusts must exist before that one."""


@dataclass(frozen=True, kw_only=True)
class Key(Resource):
    """A KMS key with an alias. Its ARN is `%{id.Arn}`."""

    alias: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True, kw_only=True)
class KeyStatements(Resource):
    """Statements added to the policy of a key that is there already."""

    key_arn: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True, kw_only=True)
class Bucket(Resource):
    """A private, encrypted bucket whose objects expire."""

    name: str
    key_arn: str | None = None
    expire_days: int = 0


@dataclass(frozen=True, kw_only=True)
class BucketPolicy(Resource):
    """Statements in a bucket's policy. Those of a bucket that was there before are added to what it has."""

    bucket: str
    statements: tuple[Statement, ...]
    existing: bool = False


@dataclass(frozen=True, kw_only=True)
class Queue(Resource):
    """An SQS queue, its policy and what becomes of a message that is received too often."""

    name: str
    statements: tuple[Statement, ...] = ()
    retention: int = 14 * 86400
    visibility: int = 300
    dead_letter_arn: str | None = None
    max_receives: int = 5


@dataclass(frozen=True, kw_only=True)
class Notification(Resource):
    """A bucket tells a queue of every new object."""

    bucket: str
    name: str
    queue_arn: str
    prefix: str = ""
    suffix: str = ""
    existing: bool = False


@dataclass(frozen=True, kw_only=True)
class Role(Resource):
    """An IAM role: who may take it, and what it may do."""

    name: str
    description: str
    trust: tuple[Statement, ...]
    policies: tuple[tuple[str, tuple[Statement, ...]], ...]
    max_session: int = 3600
    path: str = "/"


@dataclass(frozen=True, kw_only=True)
class ManagedPolicy(Resource):
    """A managed policy, attached to a role or user that is there already: the agent's own identity."""

    name: str
    statements: tuple[Statement, ...]
    attach_to: str = ""  # role/NAME or user/NAME

    @property
    def arn(self) -> str:
        return f"arn:{self.place.partition}:iam::{self.place.account}:policy/{self.name}"


@dataclass(frozen=True, kw_only=True)
class LogGroup(Resource):
    """A CloudWatch Logs group; `streams` are made with it."""

    name: str
    retention_days: int
    key_arn: str | None = None
    streams: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FlowLog(Resource):
    """A flow log of one VPC, subnet, interface or transit gateway."""

    resource_type: str  # VPC, Subnet, NetworkInterface, TransitGateway, TransitGatewayAttachment
    resource_id: str
    destination_type: str  # cloud-watch-logs, s3, kinesis-data-firehose
    destination: str | None = None  # an ARN
    log_group: str | None = None
    role_arn: str | None = None
    cross_account_role_arn: str | None = None
    traffic: str | None = "ALL"  # ALL, ACCEPT, REJECT; a transit gateway has no such choice
    interval: int = 60
    log_format: str | None = None
    options: Mapping[str, Any] | None = None
    tag_fields: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, kw_only=True)
class SubscriptionFilter(Resource):
    """A log group sends every event on."""

    log_group: str
    name: str
    destination_arn: str
    role_arn: str | None = None
    pattern: str = ""


@dataclass(frozen=True, kw_only=True)
class Stream(Resource):
    """A Kinesis data stream; without a number of shards AWS sizes it (on demand)."""

    name: str
    shards: int | None
    retention_hours: int
    key_arn: str | None = None


@dataclass(frozen=True, kw_only=True)
class DeliveryStream(Resource):
    """A Firehose delivery stream to a bucket, or to the agent's own endpoint with a bucket for what fails."""

    name: str
    role_arn: str
    bucket: str
    prefix: str
    error_prefix: str
    error_log_group: str
    compression: str
    buffer_seconds: int
    buffer_mib: int
    key_arn: str | None = None
    endpoint: HttpEndpoint | None = None


@dataclass(frozen=True)
class HttpEndpoint:
    """Where a delivery stream posts to. The access key is in Secrets Manager, or a placeholder; never here."""

    url: str
    secret_arn: str | None
    retry_seconds: int = 7200
    name: str = "edfn-agent"


ACCESS_KEY = "%{FirehoseAccessKey.Secret}"


@dataclass(frozen=True, kw_only=True)
class Destination(Resource):
    """A CloudWatch Logs destination: where log groups of other accounts may send to."""

    name: str
    target_arn: str
    role_arn: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Plan:
    """Everything for one way of delivery, in the order in which it is made."""

    path: str  # s3, cloudwatch, kinesis, firehose, central, firehose-http, policy
    name: str
    resources: tuple[Resource, ...]
    configuration: str = ""  # what the agent's configuration file needs to read it
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        seen: set[tuple[Place, str]] = set()
        for resource in self.resources:
            assert (resource.place, resource.id) not in seen, f"{resource.id} is there twice"
            seen.add((resource.place, resource.id))
        # IAM knows no regions: what is made by region may not have one name in two.
        roles = [(each.place.account, each.name) for each in self.resources if isinstance(each, Role)]
        for account, name in roles:
            if roles.count((account, name)) > 1:
                raise SetupError(
                    f"account {account} would get two roles called {name}: leave the name to setup, which adds regions"
                )

    @property
    def tag(self) -> str:
        """The value of the tag that everything made for this plan carries."""
        return f"{self.path}/{self.name}"

    def stacks(self) -> dict[tuple[int, Place], list[Resource]]:
        """The resources by stack: one stack belongs to one account and region."""
        stacks: dict[tuple[int, Place], list[Resource]] = {}
        for resource in sorted(self.resources, key=lambda resource: resource.stage):
            stacks.setdefault((resource.stage, resource.place), []).append(resource)
        return stacks


TAG = "edfn-agent:setup"
