"""The catalogue of flow-log fields: what AWS calls them, since which version, and what their values look like.

One row per field. A new field that AWS adds is one row here and one in `edfn_agent/export/mapping.py`. Nothing here
knows about IPFIX. Source: AWS VPC User Guide, "Flow log records", and AWS Transit Gateway guide, "Flow log records".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How the value of a field is written, which decides how it is checked and what column it becomes."""

    UINT8 = "uint8"  # 0..255
    UINT16 = "uint16"  # 0..65535
    INT32 = "int32"  # 0..2**31-1 (Parquet INT_32)
    INT64 = "int64"  # 0..2**63-1 (Parquet INT_64)
    TIME = "time"  # Unix seconds; milliseconds are recognised by their size
    ADDRESS = "address"  # IPv4 or IPv6
    STRING = "string"  # anything without a space

    @property
    def maximum(self) -> int:
        """The largest value allowed (integers only)."""
        return {"uint8": 255, "uint16": 65535, "int32": 2**31 - 1, "int64": 2**63 - 1, "time": 2**63 - 1}[self.value]

    @property
    def is_integer(self) -> bool:
        return self not in (Kind.ADDRESS, Kind.STRING)


@dataclass(frozen=True, slots=True)
class FlowLogField:
    """One field of a flow log, as AWS documents it."""

    name: str  # with hyphens, as in a header line and in LogFormat
    version: int  # the flow-log version that brought it
    kind: Kind

    @property
    def column(self) -> str:
        """The name of its Parquet column."""
        return self.name.replace("-", "_")


def _rows(version: int, kind: Kind, names: str) -> list[FlowLogField]:
    return [FlowLogField(name, version, kind) for name in names.split()]


_V, _S, _A = Kind.INT64, Kind.STRING, Kind.ADDRESS

FIELDS: tuple[FlowLogField, ...] = (
    # VPC flow logs, in the order of AWS's table
    *_rows(2, Kind.UINT8, "version"),
    *_rows(2, _S, "account-id interface-id"),
    *_rows(2, _A, "srcaddr dstaddr"),
    *_rows(2, Kind.UINT16, "srcport dstport"),
    *_rows(2, Kind.UINT8, "protocol"),
    *_rows(2, _V, "packets bytes"),
    *_rows(2, Kind.TIME, "start end"),
    *_rows(2, _S, "action log-status"),
    *_rows(3, _S, "vpc-id subnet-id instance-id"),
    *_rows(3, Kind.UINT16, "tcp-flags"),
    *_rows(3, _S, "type"),
    *_rows(3, _A, "pkt-srcaddr pkt-dstaddr"),
    *_rows(4, _S, "region az-id sublocation-type sublocation-id"),
    *_rows(5, _S, "pkt-src-aws-service pkt-dst-aws-service flow-direction"),
    *_rows(5, Kind.UINT8, "traffic-path"),
    *_rows(7, _S, "ecs-cluster-arn ecs-cluster-name ecs-container-instance-arn ecs-container-instance-id"),
    *_rows(7, _S, "ecs-container-id ecs-second-container-id ecs-service-name ecs-task-definition-arn"),
    *_rows(7, _S, "ecs-task-arn ecs-task-id"),
    *_rows(8, _S, "reject-reason"),
    *_rows(9, _S, "resource-id"),
    *_rows(10, Kind.UINT8, "encryption-status"),
    *_rows(11, _S, "instance-tag instance-tag-2 interface-tag interface-tag-2 asg-tag asg-tag-2 interface-type"),
    *_rows(11, _S, "next-hop-interface-id next-hop-subnet-id next-hop-az-id next-hop-vpc-id next-hop-interface-type"),
    # Transit Gateway flow logs only
    *_rows(6, _S, "resource-type tgw-id tgw-attachment-id tgw-src-vpc-account-id tgw-dst-vpc-account-id"),
    *_rows(6, _S, "tgw-src-vpc-id tgw-dst-vpc-id tgw-src-subnet-id tgw-dst-subnet-id tgw-src-eni tgw-dst-eni"),
    *_rows(6, _S, "tgw-src-az-id tgw-dst-az-id tgw-pair-attachment-id"),
    *_rows(6, _V, "packets-lost-no-route packets-lost-blackhole packets-lost-mtu-exceeded packets-lost-ttl-expired"),
)

BY_NAME: dict[str, FlowLogField] = {field.name: field for field in FIELDS}
BY_COLUMN: dict[str, FlowLogField] = {field.column: field for field in FIELDS}

DEFAULT_NAMES: tuple[str, ...] = tuple(row.name for row in FIELDS if row.version == 2)
"""The default format of a VPC flow log (version 2)."""

TRANSIT_GATEWAY_DEFAULT_NAMES: tuple[str, ...] = (
    *("version", "resource-type", "account-id", "tgw-id", "tgw-attachment-id"),
    *("tgw-src-vpc-account-id", "tgw-dst-vpc-account-id", "tgw-src-vpc-id", "tgw-dst-vpc-id"),
    *("tgw-src-subnet-id", "tgw-dst-subnet-id", "tgw-src-eni", "tgw-dst-eni", "tgw-src-az-id", "tgw-dst-az-id"),
    *("tgw-pair-attachment-id", "srcaddr", "dstaddr", "srcport", "dstport", "protocol", "packets", "bytes"),
    *("start", "end", "log-status", "type", "packets-lost-no-route", "packets-lost-blackhole"),
    *("packets-lost-mtu-exceeded", "packets-lost-ttl-expired", "tcp-flags", "region", "flow-direction"),
    *("pkt-src-aws-service", "pkt-dst-aws-service"),
)
"""The default format of a Transit Gateway flow log (version 6)."""


def field(name: str) -> FlowLogField:
    """The field called `name`; one that AWS has not documented (or we do not know yet) is carried as a string."""
    known = BY_NAME.get(name)
    return known if known is not None else FlowLogField(name, 0, Kind.STRING)
