"""What lies behind a transit gateway: names of far VPCs, by the gateway's own routes."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Any

import pytest

from edfn_agent.delivery import Delivery, Origin
from edfn_agent.enrich import Enricher
from edfn_agent.export.mapping import wanted_columns
from edfn_agent.formats.batch import FlowBatch
from edfn_agent.formats.reader import Reader
from edfn_agent.inventory.directory import InventoryDirectory
from edfn_agent.inventory.exporters import Exporters
from edfn_agent.inventory.file import stateless_indexes
from edfn_agent.inventory.mapped import DEFAULT_POOL
from edfn_agent.inventory.model import (
    Interface,
    PrefixList,
    Route,
    RouteTable,
    Snapshot,
    TransitGatewayAttachment,
    TransitGatewayRoute,
    Vpc,
)
from edfn_agent.inventory.surroundings import InventorySurroundings
from edfn_agent.inventory.transit import Beyond

WHERE: dict[str, Any] = {"account_id": "111111111111", "region": "eu-west-1"}


def attachment(id: str, resource: str, kind: str = "vpc") -> TransitGatewayAttachment:
    return TransitGatewayAttachment(
        id, "tgw-01", **WHERE, resource_type=kind, resource_id=resource, route_table_id="tgw-rtb-01"
    )


def route(cidr: str, attachment: str, state: str = "active") -> TransitGatewayRoute:
    return TransitGatewayRoute("tgw-rtb-01", cidr, **WHERE, attachment_ids=(attachment,), state=state)


ROUTES = (
    route("10.1.0.0/16", "tgw-attach-a"),
    route("10.2.0.0/16", "tgw-attach-b"),
    route("10.3.0.0/16", "tgw-attach-c"),
    route("10.3.7.0/24", "tgw-attach-b"),
    route("10.4.0.0/16", "tgw-attach-b", "blackhole"),
    route("172.16.0.0/12", "tgw-attach-v"),
)


def world(*routes: TransitGatewayRoute) -> Snapshot:
    return Snapshot(
        at=1.0,
        vpcs=(
            Vpc("vpc-0a", **WHERE, name="shop", cidrs=("10.1.0.0/16",)),
            Vpc("vpc-0b", "222222222222", "eu-west-1", name="office", cidrs=("10.2.0.0/16",)),
            Vpc("vpc-0c", "222222222222", "eu-central-1", cidrs=("10.3.0.0/16",)),
        ),
        interfaces=(Interface("eni-01", "vpc-0a", "subnet-0a", **WHERE, name="web", addresses=("10.1.0.10",)),),
        route_tables=(
            RouteTable(
                "rtb-01",
                "vpc-0a",
                **WHERE,
                main=True,
                routes=(
                    Route("10.1.0.0/16", "local"),
                    Route("10.0.0.0/8", "tgw-01"),
                    Route("10.3.8.0/24", "pcx-01"),
                    Route("172.20.0.0/16", "tgw-01"),
                    Route("pl-01", "tgw-01"),
                ),
            ),
        ),
        prefix_lists=(PrefixList("pl-01", **WHERE, cidrs=("192.168.0.0/24", "2001:db8::/48")),),
        transit_gateway_attachments=(
            attachment("tgw-attach-a", "vpc-0a"),
            attachment("tgw-attach-b", "vpc-0b"),
            attachment("tgw-attach-c", "vpc-0c"),
            attachment("tgw-attach-v", "vpn-01", "vpn"),
        ),
        transit_gateway_routes=routes,
    )


def seen(snapshot: Snapshot, *addresses: str) -> list[tuple[str, str, str]]:
    """(interface, name, region) of flows to these addresses."""
    directory = InventoryDirectory(snapshot, Exporters({}, [DEFAULT_POOL], None, snapshot), stateless_indexes())
    enricher = Enricher(directory, InventorySurroundings(snapshot, directory))
    reader = Reader(wanted_columns("standard", False))
    lines = ["interface-id srcaddr dstaddr flow-direction", *(f"eni-01 10.1.0.10 {each} egress" for each in addresses)]
    text = "\n".join([*lines, ""]).encode()
    batches: list[FlowBatch] = []
    reader.feed(Delivery(Origin("files", "files"), "test", lambda: [text], lambda *_: None), batches.append)
    reader.flush(batches.append)
    flows = enricher.enrich(batches[0])
    interfaces = {0: "", **{interface.index: interface.name for _, interface in flows.new_interfaces}}
    assert flows.ingress is not None
    columns = [flows.extras[name] for name in ("awsDestinationName", "awsDestinationRegion")]
    texts = [[c.dictionary.values[code].decode() if code else "" for code in c.codes.tolist()] for c in columns]
    return list(zip((interfaces[index] for index in flows.ingress.tolist()), *texts, strict=True))


def test_the_far_vpc_names_the_other_side_of_a_flow_through_a_transit_gateway() -> None:
    assert seen(
        world(*ROUTES),
        "10.2.0.1",  # a VPC of another account
        "10.3.0.1",  # one without a name
        "10.3.7.1",  # the gateway's longer route
        "10.3.8.1",  # the VPC's longer route goes elsewhere
        "10.4.0.1",  # a blackhole
        "172.20.0.1",  # a VPN, by a route of the gateway that holds the VPC's
        "192.168.0.1",  # to the gateway by a prefix list; what it does with it is not known
    ) == [
        ("tgw-01", "office", "eu-west-1"),
        ("tgw-01", "vpc-0c", "eu-central-1"),
        ("tgw-01", "office", "eu-west-1"),
        ("pcx-01", "", ""),
        ("tgw-01", "", ""),
        ("tgw-01", "vpn-01", ""),
        ("tgw-01", "", ""),
    ]


def test_a_prefix_list_of_a_customer_is_as_good_as_its_prefixes() -> None:
    assert seen(world(), "192.168.0.1", "192.168.1.1") == [("tgw-01", "", ""), ("", "", "")]


def test_the_only_vpc_behind_a_transit_gateway_names_the_interface() -> None:
    one = world(route("10.1.0.0/16", "tgw-attach-a"), route("10.2.0.0/16", "tgw-attach-b"))
    assert seen(one, "10.2.0.1", "10.9.0.1") == [
        ("to office tgw-01", "office", "eu-west-1"),
        ("to office tgw-01", "", ""),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_every_address_goes_by_the_longest_route_of_the_vpc_then_of_the_gateway(seed: int) -> None:
    rng = random.Random(seed)

    def networks(count: int) -> list[IPv4Network]:
        found = {ip_network((rng.randrange(256) << 24, rng.randrange(9)), strict=False) for _ in range(count)}
        return sorted(each for each in found if isinstance(each, IPv4Network))

    def longest(address: IPv4Address, among: list[IPv4Network]) -> IPv4Network | None:
        return max((each for each in among if address in each), key=lambda each: each.prefixlen, default=None)

    vpc, gateway = networks(12), networks(12)
    by_gateway = set(rng.sample(vpc, len(vpc) // 2))
    beyond = Beyond({network: str(network) for network in gateway})
    parts: dict[IPv4Network, str] = {}
    for each in vpc:
        if each in by_gateway:
            parts.update(beyond.parts(each, vpc))  # type: ignore[arg-type]
    for octet in range(256):
        address = IPv4Address(octet << 24)
        way, end = longest(address, vpc), longest(address, gateway)
        wanted = str(end) if way in by_gateway and end is not None else ""
        found = longest(address, [*parts, *vpc])
        assert parts.get(found, "") == wanted if found is not None else wanted == ""
