"""Which flow-log field becomes which information element: two tables, one for every profile and one for profile `aws`.

A new flow-log field is one row in `edfn_agent/formats/fields.py` and one in `ENTERPRISE` here. In: which columns a
batch has. Out: the fields a template has, in the order the wire wants them. Nothing here touches records; `rows.py`
does. The reasons for the order and the sizes are what real collectors accept: docs/collectors.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ipfix import IANA, ElementRegistry, Field, InformationElement

STANDARD_COLUMNS: dict[str, tuple[str, ...]] = {
    "srcaddr": ("sourceIPv4Address", "sourceIPv6Address"),
    "dstaddr": ("destinationIPv4Address", "destinationIPv6Address"),
    "srcport": ("sourceTransportPort",),
    "dstport": ("destinationTransportPort",),
    "protocol": ("protocolIdentifier",),
    "tcp-flags": ("tcpControlBits",),
    "bytes": ("octetDeltaCount",),
    "packets": ("packetDeltaCount",),
    "start": ("flowStartMilliseconds",),
    "end": ("flowEndMilliseconds",),
    "interface-id": ("ingressInterface", "egressInterface"),
    "flow-direction": ("flowDirection",),
    "action": ("forwardingStatus", "firewallEvent"),
    "vpc-id": ("ingressVRFID", "exporterIPv4Address"),
}
"""Flow-log field -> IANA elements, in template order. The last row is said by attribution where `vpc-id` is lacking."""

LENGTHS = {"tcpControlBits": 1}
"""Reduced-size encoding (RFC 7011 section 6.2): pmacct 1.7.7 reads tcpControlBits in one octet only."""

ACCEPTED, REJECTED = 1, 3
"""firewallEvent: flow created, flow denied."""

FORWARDED, DROPPED, DROPPED_BY_POLICY = 64, 128, 129
"""forwardingStatus, RFC 7270 section 4.12."""

MAXIMUM_FIELDS = 60
"""tshark drops a template with more."""


@dataclass(frozen=True, slots=True)
class EnterpriseElement:
    """An element of profile `aws`. Its id is fixed for ever: never changed, never used again for something else."""

    id: int
    name: str
    data_type: str
    length: int  # octets; 65535 = variable
    field: str  # the flow-log field, or what the inventory adds
    description: str
    family: int = 0  # 4 or 6: only in templates of that address family

    def element(self, enterprise_number: int) -> InformationElement:
        semantics, units = _MEANINGS.get(self.data_type, ("default", ""))
        return InformationElement(self.name, self.id, self.data_type, enterprise_number, semantics, units)


_MEANINGS = {"unsigned8": ("identifier", ""), "unsigned64": ("deltaCounter", "packets")}
"""Semantics and units by type: small numbers are codes, large ones the packets that a transit gateway lost."""

DOCUMENTATION_NUMBER = 32473
"""RFC 5612: for examples only."""

_VARIABLE = 65535
_SIZES = {"unsigned8": 1, "unsigned64": 8, "ipv4Address": 4, "ipv6Address": 16, "string": _VARIABLE}


def _row(id: int, name: str, data_type: str, field: str, description: str, family: int = 0) -> EnterpriseElement:
    return EnterpriseElement(id, name, data_type, _SIZES[data_type], field, description, family)


ENTERPRISE: tuple[EnterpriseElement, ...] = (
    _row(10001, "awsVersion", "unsigned8", "version", "flow-log version of the record"),
    _row(10002, "awsAccountId", "string", "account-id", "account that owns the interface"),
    _row(10003, "awsInterfaceId", "string", "interface-id", "network interface of the record"),
    _row(10004, "awsLogStatus", "unsigned8", "log-status", "1 OK; NODATA and SKIPDATA are no flows and are not sent"),
    _row(10005, "awsVpcId", "string", "vpc-id", "VPC of the interface"),
    _row(10006, "awsSubnetId", "string", "subnet-id", "subnet of the interface"),
    _row(10007, "awsInstanceId", "string", "instance-id", "instance that the interface is attached to"),
    _row(10008, "awsType", "string", "type", "IPv4, IPv6 or EFA"),
    _row(10009, "awsPktSourceIPv4Address", "ipv4Address", "pkt-srcaddr", "source address in the packet", 4),
    _row(10010, "awsPktSourceIPv6Address", "ipv6Address", "pkt-srcaddr", "source address in the packet", 6),
    _row(10011, "awsPktDestinationIPv4Address", "ipv4Address", "pkt-dstaddr", "destination address in the packet", 4),
    _row(10012, "awsPktDestinationIPv6Address", "ipv6Address", "pkt-dstaddr", "destination address in the packet", 6),
    _row(10013, "awsRegion", "string", "region", "region of the interface"),
    _row(10014, "awsAzId", "string", "az-id", "availability zone of the interface"),
    _row(10015, "awsSublocationType", "string", "sublocation-type", "wavelength, outpost or localzone"),
    _row(10016, "awsSublocationId", "string", "sublocation-id", "id of the sublocation"),
    _row(10017, "awsPktSourceService", "string", "pkt-src-aws-service", "AWS service that owns the source address"),
    _row(10018, "awsPktDestinationService", "string", "pkt-dst-aws-service", "service of the destination address"),
    _row(10019, "awsTrafficPath", "unsigned8", "traffic-path", "way out of the VPC (1 to 8), 0 unknown"),
    _row(10020, "awsEcsClusterArn", "string", "ecs-cluster-arn", "ECS cluster"),
    _row(10021, "awsEcsClusterName", "string", "ecs-cluster-name", "ECS cluster"),
    _row(10022, "awsEcsContainerInstanceArn", "string", "ecs-container-instance-arn", "ECS container instance"),
    _row(10023, "awsEcsContainerInstanceId", "string", "ecs-container-instance-id", "ECS container instance"),
    _row(10024, "awsEcsContainerId", "string", "ecs-container-id", "docker id of the first container"),
    _row(10025, "awsEcsSecondContainerId", "string", "ecs-second-container-id", "docker id of the second container"),
    _row(10026, "awsEcsServiceName", "string", "ecs-service-name", "ECS service"),
    _row(10027, "awsEcsTaskDefinitionArn", "string", "ecs-task-definition-arn", "ECS task definition"),
    _row(10028, "awsEcsTaskArn", "string", "ecs-task-arn", "ECS task"),
    _row(10029, "awsEcsTaskId", "string", "ecs-task-id", "ECS task"),
    _row(10030, "awsRejectReason", "string", "reject-reason", "BPA or EC"),
    _row(10031, "awsResourceId", "string", "resource-id", "regional NAT gateway"),
    _row(10032, "awsEncryptionStatus", "unsigned8", "encryption-status", "0 none, 1 Nitro, 2 application, 3 both; 255"),
    _row(10033, "awsInstanceTag", "string", "instance-tag", "tag of the instance"),
    _row(10034, "awsInstanceTag2", "string", "instance-tag-2", "second tag of the instance"),
    _row(10035, "awsInterfaceTag", "string", "interface-tag", "tag of the interface"),
    _row(10036, "awsInterfaceTag2", "string", "interface-tag-2", "second tag of the interface"),
    _row(10037, "awsAsgTag", "string", "asg-tag", "tag of the Auto Scaling group"),
    _row(10038, "awsAsgTag2", "string", "asg-tag-2", "second tag of the Auto Scaling group"),
    _row(10039, "awsInterfaceType", "string", "interface-type", "nat_gateway, vpc_endpoint, ..."),
    _row(10040, "awsNextHopInterfaceId", "string", "next-hop-interface-id", "interface of the next hop"),
    _row(10041, "awsNextHopSubnetId", "string", "next-hop-subnet-id", "subnet of the next hop"),
    _row(10042, "awsNextHopAzId", "string", "next-hop-az-id", "availability zone of the next hop"),
    _row(10043, "awsNextHopVpcId", "string", "next-hop-vpc-id", "VPC of the next hop"),
    _row(10044, "awsNextHopInterfaceType", "string", "next-hop-interface-type", "kind of the next hop's interface"),
    # Transit Gateway flow logs
    _row(10101, "awsResourceType", "string", "resource-type", "TransitGateway"),
    _row(10102, "awsTgwId", "string", "tgw-id", "transit gateway"),
    _row(10103, "awsTgwAttachmentId", "string", "tgw-attachment-id", "attachment that the record is of"),
    _row(10104, "awsTgwSourceVpcAccountId", "string", "tgw-src-vpc-account-id", "account of the source VPC"),
    _row(10105, "awsTgwDestinationVpcAccountId", "string", "tgw-dst-vpc-account-id", "account of the destination VPC"),
    _row(10106, "awsTgwSourceVpcId", "string", "tgw-src-vpc-id", "source VPC"),
    _row(10107, "awsTgwDestinationVpcId", "string", "tgw-dst-vpc-id", "destination VPC"),
    _row(10108, "awsTgwSourceSubnetId", "string", "tgw-src-subnet-id", "source subnet"),
    _row(10109, "awsTgwDestinationSubnetId", "string", "tgw-dst-subnet-id", "destination subnet"),
    _row(10110, "awsTgwSourceInterfaceId", "string", "tgw-src-eni", "source attachment's interface"),
    _row(10111, "awsTgwDestinationInterfaceId", "string", "tgw-dst-eni", "destination attachment's interface"),
    _row(10112, "awsTgwSourceAzId", "string", "tgw-src-az-id", "source availability zone"),
    _row(10113, "awsTgwDestinationAzId", "string", "tgw-dst-az-id", "destination availability zone"),
    _row(10114, "awsTgwPairAttachmentId", "string", "tgw-pair-attachment-id", "the other attachment"),
    _row(10115, "awsPacketsLostNoRoute", "unsigned64", "packets-lost-no-route", "packets lost: no route"),
    _row(10116, "awsPacketsLostBlackhole", "unsigned64", "packets-lost-blackhole", "packets lost: blackhole route"),
    _row(10117, "awsPacketsLostMtuExceeded", "unsigned64", "packets-lost-mtu-exceeded", "packets lost: over the MTU"),
    _row(10118, "awsPacketsLostTtlExpired", "unsigned64", "packets-lost-ttl-expired", "packets lost: TTL expired"),
    # What no field of the catalogue carries
    _row(10201, "awsOtherFields", "string", "(unknown fields)", "fields AWS added later, as name=value, with spaces"),
    _row(10202, "awsVpcName", "string", "(inventory)", "Name tag of the VPC"),
    _row(10203, "awsSourceName", "string", "(inventory)", "what owns the source address: instance, gateway, endpoint"),
    _row(10204, "awsDestinationName", "string", "(inventory)", "what owns the destination address"),
    _row(10205, "awsSourceRegion", "string", "(inventory)", "region of the source address"),
    _row(10206, "awsDestinationRegion", "string", "(inventory)", "region of the destination address"),
    _row(10207, "awsSourceAzId", "string", "(inventory)", "availability zone of the source address"),
    _row(10208, "awsDestinationAzId", "string", "(inventory)", "availability zone of the destination address"),
    _row(10209, "awsSourceService", "string", "(inventory)", "AWS service that publishes the source address"),
    _row(10210, "awsDestinationService", "string", "(inventory)", "AWS service that publishes the destination address"),
)

INVENTORY_NAMES = tuple(row.name for row in ENTERPRISE if row.field == "(inventory)")
OTHER_FIELDS = "awsOtherFields"

ATTRIBUTION_COLUMNS = frozenset(
    ("account-id", "interface-id", "vpc-id", "subnet-id", "tgw-id", "tgw-attachment-id", "tgw-pair-attachment-id")
)
"""Fields that say whose flow it is and through which interface; read in every profile."""


def registry(enterprise_number: int | None) -> ElementRegistry:
    """IANA's elements, and those of profile `aws` under this number."""
    if enterprise_number is None:
        return IANA
    return IANA.extended(*(row.element(enterprise_number) for row in ENTERPRISE))


def wanted_columns(profile: str, packet_addresses: bool) -> frozenset[str] | None:
    """The flow-log fields that a profile needs; None for all (unknown ones too). The rest is checked, not converted."""
    if profile == "aws":
        return None
    packet = {"pkt-srcaddr", "pkt-dstaddr"} if packet_addresses else set()
    return frozenset(STANDARD_COLUMNS) | ATTRIBUTION_COLUMNS | {"reject-reason"} | packet


def standard_fields(
    present: Collection[str], family: int, *, interfaces: bool, direction: bool, exporter_field: bool
) -> list[Field]:
    """The IANA part of a template for records of one address family that have the columns `present`.

    What is lacking is left out, not sent as zero. `interfaces` and `direction` say whether attribution knows them,
    with or without a column of their own.
    """
    names: list[str] = []
    for field, elements in STANDARD_COLUMNS.items():
        if field in ("srcaddr", "dstaddr"):
            if field in present:
                names.append(elements[family == 6])
        elif field == "interface-id":
            names.extend(elements if interfaces else ())
        elif field == "flow-direction":
            names.extend(elements if direction else ())
        elif field == "vpc-id":
            names.append(elements[0])
            names.extend(elements[1:] if exporter_field else ())
        elif field in present:
            names.extend(elements)
    return [Field(IANA.by_name(name), LENGTHS.get(name, 0) or IANA.by_name(name).default_length) for name in names]


def enterprise_rows(present: Collection[str], family: int, extras: Collection[str]) -> list[EnterpriseElement]:
    """The enterprise part for the columns `present` and the `extras` (names of elements) that the inventory gives.

    Fixed lengths first, variable last, as collectors need them.
    """
    rows = [row for row in ENTERPRISE if (row.field in present or row.name in extras) and row.family in (0, family)]
    return sorted(rows, key=lambda row: row.length == _VARIABLE)


def check_enterprise_number(number: int | None) -> str | None:
    """What is wrong with an enterprise number for profile `aws`, or None."""
    if number is None:
        return "profile aws needs an enterprise number: your organisation's (IANA assigns them free of charge)"
    if not 0 < number < 2**32:
        return f"enterprise number {number} is outside 1 to 4294967295"
    if number & 0xFFFF in (0, 6871, 29305):
        return (
            f"enterprise number {number} cannot be used: nfdump keeps its low 16 bits, {number & 0xFFFF}, and misreads"
        )
    return None
