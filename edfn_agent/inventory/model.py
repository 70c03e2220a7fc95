"""The inventory: what was found in every account and region, as one immutable snapshot.

In: rows that discovery made, or the JSON of an older snapshot. Out: the same rows, by id where that helps, as JSON, and
what changed since another snapshot. Never: calls to AWS, decisions about exporters or sources.

Every row names the account and region it belongs to. Ids are AWS's own; addresses and CIDRs are text as AWS writes it.
`account_id` is the owner where AWS says so, else the account that was asked.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")

SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person may want to mend: what, where, how bad, and the next step."""

    severity: str  # error: traffic or names are missing; warning: something will be; info: good to know
    account_id: str | None
    region: str | None
    subject: str  # the resource, the role, the profile
    problem: str
    next_step: str
    code: str = (
        ""  # what kind of finding, for programs: the name of doctor's check (docs/doctor.md), or `inventory.old`
    )

    @property
    def weight(self) -> tuple[int, str, str, str]:
        """Sorts the gravest first, then by place."""
        return (SEVERITIES.index(self.severity), self.account_id or "", self.region or "", self.subject)


@dataclass(frozen=True, slots=True)
class Account:
    """One account of the configuration, alive or not."""

    id: ClassVar[str] = "account_id"
    account_id: str | None  # None: dead before it could say its number, and its ARN does not either
    name: str
    via: str  # profile:NAME | role:ARN | default
    status: str  # ok | failed | skipped (the same account by another way)
    error: str | None = None
    partition: str = "aws"
    regions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Vpc:
    id: ClassVar[str] = "vpc_id"
    vpc_id: str
    account_id: str
    region: str
    name: str = ""
    cidrs: tuple[str, ...] = ()  # IPv4, the primary one first
    cidrs6: tuple[str, ...] = ()
    is_default: bool = False
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Subnet:
    id: ClassVar[str] = "subnet_id"
    subnet_id: str
    vpc_id: str
    account_id: str
    region: str
    name: str = ""
    cidrs: tuple[str, ...] = ()  # IPv4 and IPv6
    zone: str = ""  # us-east-1a
    zone_id: str = ""  # use1-az1, the same for every account


@dataclass(frozen=True, slots=True)
class Interface:
    """An ENI."""

    id: ClassVar[str] = "interface_id"
    interface_id: str
    vpc_id: str
    subnet_id: str
    account_id: str
    region: str
    name: str = ""  # its own Name tag
    type: str = "interface"  # interface, nat_gateway, vpc_endpoint, transit_gateway, network_load_balancer, lambda, ...
    description: str = ""
    requester: str = ""  # who made it for the owner: amazon-elb, an account, ...
    serves: str = ""  # the id it works for: i-..., nat-..., vpce-..., tgw-attach-..., or "" when not known
    addresses: tuple[str, ...] = ()  # private IPv4, the primary one first, then IPv6
    public_addresses: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()  # delegated to it, IPv4 and IPv6
    zone: str = ""
    status: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    id: ClassVar[str] = "instance_id"
    instance_id: str
    vpc_id: str
    account_id: str
    region: str
    name: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class NatGateway:
    id: ClassVar[str] = "nat_gateway_id"
    nat_gateway_id: str
    vpc_id: str
    subnet_id: str
    account_id: str
    region: str
    name: str = ""
    interface_ids: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    public_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InternetGateway:
    id: ClassVar[str] = "internet_gateway_id"
    internet_gateway_id: str
    vpc_id: str
    account_id: str
    region: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A VPC endpoint."""

    id: ClassVar[str] = "endpoint_id"
    endpoint_id: str
    vpc_id: str
    account_id: str
    region: str
    name: str = ""
    type: str = ""  # Interface, Gateway, GatewayLoadBalancer, ...
    service: str = ""  # com.amazonaws.us-east-1.s3
    interface_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Peering:
    id: ClassVar[str] = "peering_id"
    peering_id: str
    account_id: str  # the requester's
    region: str
    vpc_id: str
    peer_account_id: str
    peer_region: str
    peer_vpc_id: str
    name: str = ""
    status: str = ""
    cidrs: tuple[str, ...] = ()  # of the requester
    peer_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TransitGatewayAttachment:
    id: ClassVar[str] = "attachment_id"
    attachment_id: str
    tgw_id: str
    account_id: str
    region: str
    name: str = ""
    resource_type: str = ""  # vpc, vpn, direct-connect-gateway, peering, connect
    resource_id: str = ""
    resource_owner: str = ""
    tgw_owner: str = ""
    route_table_id: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class TransitGatewayRoute:
    id: ClassVar[str] = "route_id"
    route_table_id: str
    cidr: str
    account_id: str
    region: str
    attachment_ids: tuple[str, ...] = ()
    resource_ids: tuple[str, ...] = ()
    state: str = ""

    @property
    def route_id(self) -> str:
        return f"{self.route_table_id} {self.cidr}"


@dataclass(frozen=True, slots=True)
class Route:
    destination: str  # an IPv4 or IPv6 CIDR, or pl-... (see PrefixList)
    target: str  # local, igw-..., nat-..., tgw-..., pcx-..., vpce-..., eni-..., eigw-..., vgw-..., an ARN; "" unknown
    active: bool = True


@dataclass(frozen=True, slots=True)
class RouteTable:
    id: ClassVar[str] = "route_table_id"
    route_table_id: str
    vpc_id: str
    account_id: str
    region: str
    name: str = ""
    main: bool = False  # for the subnets of the VPC that no table names
    subnet_ids: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class PrefixList:
    """An AWS-managed prefix list (the addresses of S3 or DynamoDB in the region)."""

    id: ClassVar[str] = "prefix_list_id"
    prefix_list_id: str
    account_id: str
    region: str
    name: str = ""
    cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FlowLog:
    id: ClassVar[str] = "flow_log_id"
    flow_log_id: str
    account_id: str
    region: str
    resource_id: str  # vpc-..., subnet-..., eni-..., tgw-..., tgw-attach-...
    destination_type: str  # s3 | cloud-watch-logs | kinesis-data-firehose
    destination: str  # the ARN; of a log group without the closing :*
    format: str = ""  # LogFormat; "" when AWS did not say: the default format
    name: str = ""
    aggregation: int = 600  # seconds
    traffic: str = "ALL"
    status: str = ""  # ACTIVE
    delivery_status: str = ""  # SUCCESS | FAILED
    delivery_error: str = ""
    file_format: str = "plain-text"
    hive: bool = False
    hourly: bool = False

    @property
    def log_group(self) -> str | None:
        """The name of the log group it writes to."""
        if self.destination_type != "cloud-watch-logs":
            return None
        return self.destination.partition(":log-group:")[2].removesuffix(":*") or None

    @property
    def bucket(self) -> str | None:
        return self._path[0] if self.destination_type == "s3" else None

    @property
    def prefix(self) -> str:
        """What its keys start with inside the bucket, without slashes around it."""
        return self._path[1].strip("/") if self.destination_type == "s3" else ""

    @property
    def _path(self) -> tuple[str, str]:
        bucket, _, prefix = self.destination.rpartition(":")[2].partition("/")
        return bucket, prefix


@dataclass(frozen=True, slots=True)
class SubscriptionFilter:
    name: str
    destination: str  # ARN of a Kinesis stream, a Firehose stream, a Lambda function, a CloudWatch Logs destination
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class LogGroup:
    id: ClassVar[str] = "arn"
    arn: str  # without the closing :*
    name: str
    account_id: str
    region: str
    filters: tuple[SubscriptionFilter, ...] = ()
    filters_known: bool = True  # False: DescribeSubscriptionFilters was not allowed
    missing: bool = False
    retention_days: int | None = None


@dataclass(frozen=True, slots=True)
class LogDestination:
    """A CloudWatch Logs destination: where other accounts' subscription filters send to."""

    id: ClassVar[str] = "arn"
    arn: str
    account_id: str
    region: str
    target: str = ""  # ARN of the stream behind it


@dataclass(frozen=True, slots=True)
class Stream:
    """A Kinesis data stream that a subscription filter leads to, or that the configuration names."""

    id: ClassVar[str] = "arn"
    arn: str
    name: str
    account_id: str
    region: str
    status: str = ""  # ACTIVE, ...; "" when it could not be asked
    shards: int | None = None
    retention_hours: int | None = None
    encrypted: bool = False
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryStream:
    """A Firehose stream that a flow log or a subscription filter leads to."""

    id: ClassVar[str] = "arn"
    arn: str
    name: str
    account_id: str
    region: str
    status: str = ""  # "" when it could not be asked
    bucket: str | None = None
    prefix: str = ""
    endpoint: str | None = None  # URL of an HTTP endpoint
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Notification:
    """Where a bucket announces new objects."""

    kind: str  # sqs | sns | eventbridge
    target: str  # ARN; "" for EventBridge itself
    events: tuple[str, ...] = ()
    prefix: str = ""
    suffix: str = ""
    queues: tuple[str, ...] = ()  # ARNs that it ends in; of SNS and EventBridge as far as could be asked


@dataclass(frozen=True, slots=True)
class Bucket:
    id: ClassVar[str] = "bucket"
    bucket: str
    account_id: str | None  # the account whose permissions can ask for it; None: no account's can
    region: str | None
    notifications: tuple[Notification, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    id: ClassVar[str] = "arn"
    arn: str
    url: str | None
    account_id: str  # of the ARN
    region: str
    via_account: str | None = None  # the account whose permissions can read it
    visibility_timeout: int | None = None  # seconds
    wait_time: int | None = None
    retention: int | None = None
    dead_letter_arn: str | None = None
    max_receives: int | None = None
    kms_key: str | None = None
    policy: str | None = None  # JSON text
    problem: str | None = None


_KINDS = (
    "vpcs",
    "subnets",
    "interfaces",
    "instances",
    "nat_gateways",
    "internet_gateways",
    "endpoints",
    "peerings",
    "transit_gateway_attachments",
    "transit_gateway_routes",
    "route_tables",
    "prefix_lists",
    "flow_logs",
    "log_groups",
    "log_destinations",
    "streams",
    "delivery_streams",
    "buckets",
    "queues",
)


@dataclass(frozen=True)
class Snapshot:
    """All that was found at one time. Replaced whole, never changed."""

    at: float  # Unix seconds
    seconds: float = 0.0  # how long it took
    api_calls: int = 0
    accounts: tuple[Account, ...] = ()
    vpcs: tuple[Vpc, ...] = ()
    subnets: tuple[Subnet, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    instances: tuple[Instance, ...] = ()
    nat_gateways: tuple[NatGateway, ...] = ()
    internet_gateways: tuple[InternetGateway, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    peerings: tuple[Peering, ...] = ()
    transit_gateway_attachments: tuple[TransitGatewayAttachment, ...] = ()
    transit_gateway_routes: tuple[TransitGatewayRoute, ...] = ()
    route_tables: tuple[RouteTable, ...] = ()
    prefix_lists: tuple[PrefixList, ...] = ()
    flow_logs: tuple[FlowLog, ...] = ()
    log_groups: tuple[LogGroup, ...] = ()
    log_destinations: tuple[LogDestination, ...] = ()
    streams: tuple[Stream, ...] = ()
    delivery_streams: tuple[DeliveryStream, ...] = ()
    buckets: tuple[Bucket, ...] = ()
    queues: tuple[Queue, ...] = ()
    findings: tuple[Finding, ...] = ()
    incomplete: tuple[tuple[str, str, str], ...] = ()
    """(account, region, kind) whose rows are those of an earlier snapshot, because asking failed this time."""

    @cached_property
    def vpc_by_id(self) -> Mapping[str, Vpc]:
        return _by_id(self.vpcs)

    @cached_property
    def subnet_by_id(self) -> Mapping[str, Subnet]:
        return _by_id(self.subnets)

    @cached_property
    def interface_by_id(self) -> Mapping[str, Interface]:
        return _by_id(self.interfaces)

    @cached_property
    def instance_by_id(self) -> Mapping[str, Instance]:
        return _by_id(self.instances)

    @cached_property
    def flow_log_by_id(self) -> Mapping[str, FlowLog]:
        return _by_id(self.flow_logs)

    @cached_property
    def vpc_of_subnet(self) -> Mapping[str, str]:
        """Also where DescribeSubnets is not allowed: then from route tables and interfaces, which name both."""
        found = {subnet: each.vpc_id for each in self.route_tables for subnet in each.subnet_ids}
        found.update((each.subnet_id, each.vpc_id) for each in self.interfaces)
        found.update((each.subnet_id, each.vpc_id) for each in self.subnets)
        return found

    def vpc_of_resource(self, resource_id: str) -> str | None:
        """The VPC that a flow log's resource (VPC, subnet or interface) lies in."""
        if resource_id.startswith("vpc-"):
            return resource_id
        if resource_id.startswith("subnet-"):
            return self.vpc_of_subnet.get(resource_id)
        interface = self.interface_by_id.get(resource_id)
        return interface.vpc_id if interface else None

    def to_json(self) -> dict[str, Any]:
        """JSON values. Empty and default values are left out: most of a large inventory is those."""
        packed: dict[str, Any] = _packed(self)
        return packed

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """Raises ValueError when it is not a snapshot. What a newer version added is passed over."""
        try:
            snapshot: Snapshot = _unpacker(typing.cast(Hashable, cls))(data)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not an inventory snapshot: {error}") from error
        return snapshot


def _by_id(rows: Iterable[T]) -> Mapping[str, T]:
    return {getattr(row, row.id): row for row in rows}  # type: ignore[attr-defined]


def dropped_duplicates(rows: Iterable[T]) -> tuple[T, ...]:
    """One row per id, in order of id: what is shared or peered is seen from several accounts.

    The first row wins; whoever collects puts the owner's view first.
    """
    found: dict[str, T] = {}
    for row in rows:
        found.setdefault(getattr(row, row.id), row)  # type: ignore[attr-defined]
    return tuple(found[key] for key in sorted(found))


def carried_over(new: Snapshot, old: Snapshot | None, failed: Iterable[tuple[str, str, str]]) -> Snapshot:
    """`new`, with the rows of `old` wherever asking failed this time.

    A region that answers with an error for a quarter of an hour must not lose its exporters and names.
    `failed` has (account, region, kind); kind "*" is all, region "*" is all.
    """
    if old is None:
        return new
    wanted = set(failed)

    def is_wanted(row: Any, kind: str) -> bool:
        account, region = row.account_id or "", row.region or ""
        return any((account, r, k) in wanted for r in (region, "*") for k in (kind, "*"))

    kept: dict[str, Any] = {}
    incomplete: set[tuple[str, str, str]] = set()
    for kind in _KINDS:
        rows = [row for row in getattr(old, kind) if is_wanted(row, kind)]
        if rows:
            # The old rows first: what a neighbouring call says of the same thing is less than they do.
            kept[kind] = dropped_duplicates((*rows, *getattr(new, kind)))
            incomplete.update((row.account_id or "", row.region or "", kind) for row in rows)
    return replace(new, **kept, incomplete=tuple(sorted(incomplete)))


@dataclass(frozen=True, slots=True)
class Changes:
    """What came and went between two snapshots: ids, sorted."""

    vpcs_came: tuple[str, ...] = ()
    vpcs_gone: tuple[str, ...] = ()
    interfaces_came: tuple[str, ...] = ()
    interfaces_gone: tuple[str, ...] = ()
    sources_came: tuple[str, ...] = ()  # flow logs, log groups, streams, buckets, queues
    sources_gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(getattr(self, each.name) for each in fields(self))

    def lines(self) -> list[str]:
        """For the log: `2 VPCs came (vpc-1, vpc-2)`, `1 interface gone (eni-3)`."""
        found = []
        for what, name in (("vpc", "VPC"), ("interface", "interface"), ("source", "source")):
            for how in ("came", "gone"):
                ids = getattr(self, f"{what}s_{how}")
                if ids:
                    shown = ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")
                    found.append(f"{len(ids)} {name}{'s' if len(ids) > 1 else ''} {how} ({shown})")
        return found

    def __str__(self) -> str:
        return ", ".join(self.lines()) or "nothing changed"


def changes(old: Snapshot | None, new: Snapshot) -> Changes:
    """What came and went from `old` (None: everything came) to `new`."""

    def difference(ids: Callable[[Snapshot], set[str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        before, after = ids(old) if old else set(), ids(new)
        return tuple(sorted(after - before)), tuple(sorted(before - after))

    return Changes(
        *difference(lambda snapshot: {each.vpc_id for each in snapshot.vpcs}),
        *difference(lambda snapshot: {each.interface_id for each in snapshot.interfaces}),
        *difference(_source_ids),
    )


def _source_ids(snapshot: Snapshot) -> set[str]:
    return {
        *(each.flow_log_id for each in snapshot.flow_logs),
        *(each.arn for each in snapshot.log_groups if not each.missing),
        *(each.arn for each in snapshot.streams),
        *(f"s3://{each.bucket}" for each in snapshot.buckets),
        *(each.arn for each in snapshot.queues),
    }


# JSON: a dataclass is an object, a tuple is an array. The classes above are the schema.


def _packed(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_packed(each) for each in value]
    if not hasattr(value, "__dataclass_fields__"):
        return dict(value) if isinstance(value, Mapping) else value
    names = _defaults(typing.cast(Hashable, type(value)))
    return {name: _packed(each) for name, default in names.items() if (each := getattr(value, name)) != default}


@cache
def _defaults(cls: type) -> Mapping[str, Any]:
    return {each.name: each.default for each in fields(cls)}


@cache
def _unpacker(cls: Any) -> Callable[[Any], Any]:
    """A function from a JSON value to a value of type `cls`."""
    origin, arguments = typing.get_origin(cls), typing.get_args(cls)
    if origin is tuple and arguments[-1:] == (Ellipsis,):
        each_of = _unpacker(arguments[0])
        return lambda value: tuple(each_of(each) for each in value)
    if origin is tuple:
        return lambda value: tuple(value)
    if origin in (types.UnionType, typing.Union) or not hasattr(cls, "__dataclass_fields__"):
        return lambda value: value
    hints = typing.get_type_hints(cls)
    members = {each.name: _unpacker(typing.cast(Hashable, hints[each.name])) for each in fields(cls)}
    return lambda value: cls(**{name: members[name](each) for name, each in value.items() if name in members})
