"""Answers of EC2 turned into rows of the inventory.

In: the items of a Describe answer, as botocore gives them, and the account and region that were asked. Out: rows.
Never: calls, or trust that an item has what AWS documents: emulators and old regions leave things out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from edfn_agent.inventory.model import (
    Endpoint,
    FlowLog,
    Instance,
    Interface,
    InternetGateway,
    NatGateway,
    Peering,
    PrefixList,
    Route,
    RouteTable,
    Subnet,
    TransitGatewayAttachment,
    TransitGatewayRoute,
    Vpc,
)

Item = Mapping[str, Any]
Rows = Callable[[Iterable[Item], str, str], list[Any]]


def tags_of(item: Item) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in item.get("Tags") or ()}


def name_of(item: Item) -> str:
    return tags_of(item).get("Name", "")


def _texts(items: Iterable[Item] | None, key: str) -> tuple[str, ...]:
    return tuple(item[key] for item in items or () if item.get(key))


def _cidrs(associations: Iterable[Item] | None, key: str, state: str) -> tuple[str, ...]:
    """The blocks that are associated, or about to be."""
    return tuple(
        each[key]
        for each in associations or ()
        if each.get(key) and each.get(state, {}).get("State", "associated") in ("associated", "associating")
    )


def vpcs(items: Iterable[Item], account: str, region: str) -> list[Vpc]:
    found = []
    for item in items:
        cidrs = _cidrs(item.get("CidrBlockAssociationSet"), "CidrBlock", "CidrBlockState")
        primary = item.get("CidrBlock")
        found.append(
            Vpc(
                item["VpcId"],
                item.get("OwnerId") or account,
                region,
                name_of(item),
                tuple(dict.fromkeys(((primary,) if primary else ()) + cidrs)),
                _cidrs(item.get("Ipv6CidrBlockAssociationSet"), "Ipv6CidrBlock", "Ipv6CidrBlockState"),
                bool(item.get("IsDefault")),
                tags_of(item) or None,
            )
        )
    return found


def subnets(items: Iterable[Item], account: str, region: str) -> list[Subnet]:
    return [
        Subnet(
            item["SubnetId"],
            item.get("VpcId", ""),
            item.get("OwnerId") or account,
            region,
            name_of(item),
            (
                *((item["CidrBlock"],) if item.get("CidrBlock") else ()),
                *_cidrs(item.get("Ipv6CidrBlockAssociationSet"), "Ipv6CidrBlock", "Ipv6CidrBlockState"),
            ),
            item.get("AvailabilityZone", ""),
            item.get("AvailabilityZoneId", ""),
        )
        for item in items
    ]


# What AWS writes into the description of an interface that it made for something else.
_SERVES = re.compile(
    r"(?:Interface for NAT Gateway (?P<nat>nat-\w+))"
    r"|(?:VPC Endpoint Interface (?P<endpoint>vpce-\w+))"
    r"|(?:Network Interface for Transit Gateway Attachment (?P<attachment>tgw-attach-\w+))"
    r"|(?:ELB (?P<balancer>\S+))"
)


def interfaces(items: Iterable[Item], account: str, region: str) -> list[Interface]:
    found = []
    for item in items:
        private = item.get("PrivateIpAddresses") or ()
        first = item.get("PrivateIpAddress")
        v4 = dict.fromkeys(((first,) if first else ()) + _texts(private, "PrivateIpAddress"))
        public = [(item.get("Association") or {}).get("PublicIp")]
        public += [(each.get("Association") or {}).get("PublicIp") for each in private]
        description = item.get("Description") or ""
        match = _SERVES.search(description)
        instance = (item.get("Attachment") or {}).get("InstanceId")
        tags = {"Tags": item.get("TagSet") or item.get("Tags")}
        found.append(
            Interface(
                item["NetworkInterfaceId"],
                item.get("VpcId", ""),
                item.get("SubnetId", ""),
                item.get("OwnerId") or account,
                region,
                name_of(tags),
                item.get("InterfaceType") or "interface",
                description,
                item.get("RequesterId") or "",
                instance or (match[match.lastgroup] if match and match.lastgroup else ""),
                (*v4, *_texts(item.get("Ipv6Addresses"), "Ipv6Address")),
                tuple(dict.fromkeys(each for each in public if each)),
                (*_texts(item.get("Ipv4Prefixes"), "Ipv4Prefix"), *_texts(item.get("Ipv6Prefixes"), "Ipv6Prefix")),
                item.get("AvailabilityZone", ""),
                item.get("Status", ""),
            )
        )
    return found


def instances(items: Iterable[Item], account: str, region: str) -> list[Instance]:
    return [
        Instance(
            item["InstanceId"],
            item.get("VpcId", ""),
            reservation.get("OwnerId") or account,
            region,
            name_of(item),
            (item.get("State") or {}).get("Name", ""),
        )
        for reservation in items
        for item in reservation.get("Instances") or ()
    ]


def nat_gateways(items: Iterable[Item], account: str, region: str) -> list[NatGateway]:
    return [
        NatGateway(
            item["NatGatewayId"],
            item.get("VpcId", ""),
            item.get("SubnetId", ""),
            account,
            region,
            name_of(item),
            tuple(dict.fromkeys(_texts(item.get("NatGatewayAddresses"), "NetworkInterfaceId"))),
            _texts(item.get("NatGatewayAddresses"), "PrivateIp"),
            _texts(item.get("NatGatewayAddresses"), "PublicIp"),
        )
        for item in items
        if item.get("State") not in ("deleted", "failed")
    ]


def internet_gateways(items: Iterable[Item], account: str, region: str) -> list[InternetGateway]:
    return [
        InternetGateway(
            item["InternetGatewayId"],
            next(iter(_texts(item.get("Attachments"), "VpcId")), ""),
            item.get("OwnerId") or account,
            region,
            name_of(item),
        )
        for item in items
    ]


def endpoints(items: Iterable[Item], account: str, region: str) -> list[Endpoint]:
    return [
        Endpoint(
            item["VpcEndpointId"],
            item.get("VpcId", ""),
            item.get("OwnerId") or account,
            region,
            name_of(item),
            item.get("VpcEndpointType") or "Gateway",
            item.get("ServiceName", ""),
            tuple(item.get("NetworkInterfaceIds") or ()),
        )
        for item in items
    ]


def peerings(items: Iterable[Item], account: str, region: str) -> list[Peering]:
    found = []
    for item in items:
        near, far = item.get("RequesterVpcInfo") or {}, item.get("AccepterVpcInfo") or {}
        found.append(
            Peering(
                item["VpcPeeringConnectionId"],
                near.get("OwnerId") or account,
                near.get("Region") or region,
                near.get("VpcId", ""),
                far.get("OwnerId", ""),
                far.get("Region") or region,
                far.get("VpcId", ""),
                name_of(item),
                (item.get("Status") or {}).get("Code", ""),
                _peering_cidrs(near),
                _peering_cidrs(far),
            )
        )
    return found


def _peering_cidrs(side: Item) -> tuple[str, ...]:
    first = (side["CidrBlock"],) if side.get("CidrBlock") else ()
    v4, v6 = _texts(side.get("CidrBlockSet"), "CidrBlock"), _texts(side.get("Ipv6CidrBlockSet"), "Ipv6CidrBlock")
    return tuple(dict.fromkeys((*first, *v4, *v6)))


def transit_gateway_attachments(items: Iterable[Item], account: str, region: str) -> list[TransitGatewayAttachment]:
    return [
        TransitGatewayAttachment(
            item["TransitGatewayAttachmentId"],
            item.get("TransitGatewayId", ""),
            account,
            region,
            name_of(item),
            item.get("ResourceType", ""),
            item.get("ResourceId", ""),
            item.get("ResourceOwnerId", ""),
            item.get("TransitGatewayOwnerId") or account,
            (item.get("Association") or {}).get("TransitGatewayRouteTableId", ""),
            item.get("State", ""),
        )
        for item in items
        if item.get("State") not in ("deleted", "failed", "rejected")
    ]


def with_names_of_all(attachments: Iterable[TransitGatewayAttachment]) -> list[TransitGatewayAttachment]:
    """A Name tag is shown to the account that wrote it, the route table to the owner of the gateway."""
    found = list(attachments)
    names = {each.attachment_id: each.name for each in reversed(found) if each.name}
    return [replace(each, name=names.get(each.attachment_id, "")) for each in found]


def transit_gateway_routes(
    items: Iterable[Item], account: str, region: str, route_table_id: str
) -> list[TransitGatewayRoute]:
    return [
        TransitGatewayRoute(
            route_table_id,
            item.get("DestinationCidrBlock") or item.get("PrefixListId", ""),
            account,
            region,
            _texts(item.get("TransitGatewayAttachments"), "TransitGatewayAttachmentId"),
            _texts(item.get("TransitGatewayAttachments"), "ResourceId"),
            item.get("State", ""),
        )
        for item in items
    ]


# Interface before instance: an instance may have several, the route leads to one.
_TARGETS = (
    "NetworkInterfaceId",
    "NatGatewayId",
    "TransitGatewayId",
    "VpcPeeringConnectionId",
    "EgressOnlyInternetGatewayId",
    "LocalGatewayId",
    "CarrierGatewayId",
    "CoreNetworkArn",
    "GatewayId",
    "InstanceId",
)


def route_tables(items: Iterable[Item], account: str, region: str) -> list[RouteTable]:
    found = []
    for item in items:
        associations = item.get("Associations") or ()
        routes = tuple(
            Route(
                route.get("DestinationCidrBlock")
                or route.get("DestinationIpv6CidrBlock")
                or route.get("DestinationPrefixListId", ""),
                next((route[key] for key in _TARGETS if route.get(key)), ""),
                route.get("State", "active") == "active",
            )
            for route in item.get("Routes") or ()
        )
        found.append(
            RouteTable(
                item["RouteTableId"],
                item.get("VpcId", ""),
                item.get("OwnerId") or account,
                region,
                name_of(item),
                any(each.get("Main") for each in associations),
                _texts(associations, "SubnetId"),
                routes,
            )
        )
    return found


def prefix_lists(items: Iterable[Item], account: str, region: str) -> list[PrefixList]:
    return [
        PrefixList(
            item["PrefixListId"], account, region, item.get("PrefixListName", ""), tuple(item.get("Cidrs") or ())
        )
        for item in items
    ]


def flow_logs(items: Iterable[Item], account: str, region: str) -> list[FlowLog]:
    found = []
    for item in items:
        # Old flow logs and emulators give the name of the log group or the ARN, not both.
        type = item.get("LogDestinationType") or "cloud-watch-logs"
        destination = (item.get("LogDestination") or "").removesuffix(":*")
        if type == "cloud-watch-logs" and not destination:
            partition = {"cn": "aws-cn", "us-gov": "aws-us-gov"}.get(
                region.rpartition("-")[0].rpartition("-")[0], "aws"
            )
            destination = f"arn:{partition}:logs:{region}:{account}:log-group:{item.get('LogGroupName', '')}"
        options = item.get("DestinationOptions") or {}
        found.append(
            FlowLog(
                item["FlowLogId"],
                account,
                region,
                item.get("ResourceId", ""),
                type,
                destination,
                item.get("LogFormat", ""),
                name_of(item),
                int(item.get("MaxAggregationInterval") or 600),
                item.get("TrafficType", "ALL"),
                item.get("FlowLogStatus", ""),
                item.get("DeliverLogsStatus", ""),
                item.get("DeliverLogsErrorMessage", ""),
                options.get("FileFormat", "plain-text"),
                bool(options.get("HiveCompatiblePartitions")),
                bool(options.get("PerHourPartition")),
            )
        )
    return found


def with_services(
    found: Iterable[Interface], gateways: Iterable[NatGateway], endpoints: Iterable[Endpoint]
) -> list[Interface]:
    """The interfaces, each with what it serves. What gateways and endpoints say of themselves is better than a text."""
    owners = {each: gateway.nat_gateway_id for gateway in gateways for each in gateway.interface_ids}
    owners.update((each, endpoint.endpoint_id) for endpoint in endpoints for each in endpoint.interface_ids)
    return [replace(each, serves=owners[each.interface_id]) if each.interface_id in owners else each for each in found]


READERS: Mapping[str, tuple[str, Rows]] = {
    # operation -> (the member of its answer, how to read it)
    "DescribeVpcs": ("Vpcs", vpcs),
    "DescribeSubnets": ("Subnets", subnets),
    "DescribeNetworkInterfaces": ("NetworkInterfaces", interfaces),
    "DescribeInstances": ("Reservations", instances),
    "DescribeNatGateways": ("NatGateways", nat_gateways),
    "DescribeInternetGateways": ("InternetGateways", internet_gateways),
    "DescribeVpcEndpoints": ("VpcEndpoints", endpoints),
    "DescribeVpcPeeringConnections": ("VpcPeeringConnections", peerings),
    "DescribeTransitGatewayAttachments": ("TransitGatewayAttachments", transit_gateway_attachments),
    "DescribeRouteTables": ("RouteTables", route_tables),
    "DescribePrefixLists": ("PrefixLists", prefix_lists),
    "DescribeFlowLogs": ("FlowLogs", flow_logs),
}
