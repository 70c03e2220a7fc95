"""Both sides of a flow, its direction and its names, from a literal inventory."""

from __future__ import annotations

import json
import random
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from edfn_agent.cli import main
from edfn_agent.inventory.file import stateless_indexes
from edfn_agent.inventory.model import (
    Endpoint,
    Instance,
    Interface,
    InternetGateway,
    NatGateway,
    Peering,
    Route,
    RouteTable,
    Snapshot,
    Subnet,
    Vpc,
)
from edfn_agent.inventory.prefixes import PrefixTable

from ..export.conftest import read_messages

WHERE: dict[str, Any] = {"account_id": "111111111111", "region": "eu-west-1"}
SHOP: dict[str, Any] = {**WHERE, "vpc_id": "vpc-0a"}

INVENTORY = Snapshot(
    at=1.0,
    vpcs=(
        Vpc(**SHOP, name="shop", cidrs=("10.1.0.0/16",)),
        Vpc("vpc-0b", **WHERE, name="office", cidrs=("10.2.0.0/16",)),
    ),
    subnets=(
        Subnet("subnet-0a", **SHOP, cidrs=("10.1.0.0/24",), zone_id="euw1-az1"),
        Subnet("subnet-0b", **SHOP, cidrs=("10.1.1.0/24",), zone_id="euw1-az2"),
    ),
    interfaces=(
        Interface("eni-01", subnet_id="subnet-0a", **SHOP, serves="i-01", addresses=("10.1.0.10", "2001:db8::10")),
        Interface("eni-02", subnet_id="subnet-0b", **SHOP, serves="i-02", addresses=("10.1.1.20",)),
        Interface(
            "eni-03", subnet_id="subnet-0a", **SHOP, type="nat_gateway", serves="nat-01", addresses=("10.1.0.30",)
        ),
    ),
    instances=(Instance("i-01", **SHOP, name="web-1"), Instance("i-02", **SHOP, name="db-1")),
    nat_gateways=(NatGateway("nat-01", subnet_id="subnet-0a", **SHOP, name="way-out", interface_ids=("eni-03",)),),
    internet_gateways=(InternetGateway("igw-01", **SHOP, name="edge"),),
    endpoints=(Endpoint("vpce-01", **SHOP, type="Gateway", service="com.amazonaws.eu-west-1.s3"),),
    peerings=(
        Peering(
            "pcx-01",
            **WHERE,
            vpc_id="vpc-0a",
            peer_account_id="111111111111",
            peer_region="eu-west-1",
            peer_vpc_id="vpc-0b",
        ),
    ),
    route_tables=(
        RouteTable(
            "rtb-main",
            **SHOP,
            main=True,
            routes=(
                Route("10.1.0.0/16", "local"),
                Route("10.2.0.0/16", "pcx-01"),
                Route("0.0.0.0/0", "igw-01"),
                Route("::/0", "igw-01"),
            ),
        ),
        RouteTable(
            "rtb-private",
            **SHOP,
            subnet_ids=("subnet-0b",),
            routes=(Route("10.1.0.0/16", "local"), Route("0.0.0.0/0", "nat-01"), Route("52.0.0.0/8", "vpce-01")),
        ),
    ),
)


def run(tmp_path: Path, text: str, *arguments: str, number: int | None = None) -> tuple[list[dict[str, Any]], Any]:
    """(flow records with interface names in the place of indexes, exporter of each domain)"""
    inventory, log, out = tmp_path / "inventory.json", tmp_path / "flows.log", tmp_path / "out.ipfix"
    inventory.write_text(json.dumps(INVENTORY.to_json()))
    log.write_text(text)
    command = ["export", str(log), "--output", str(out), "--inventory", str(inventory), *arguments]
    if number is not None:
        command += ["--profile", "aws", "--enterprise-number", str(number)]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    names: dict[int, str] = {0: ""}
    exporters: dict[int, tuple[str, str]] = {}
    flows = []
    for message in read_messages(out, number):
        for data in message.data:
            for record in data:
                if "interfaceDescription" in record:
                    index = record["ingressInterface"]
                    assert isinstance(index, int)
                    names[index] = str(record["interfaceDescription"])
                elif "VRFname" in record:
                    exporters[message.domain] = (str(record["VRFname"]), exporters.get(message.domain, ("", ""))[1])
                elif data.is_options and "exporterIPv4Address" in record:
                    exporters[message.domain] = ("", str(record["exporterIPv4Address"]))
                elif not data.is_options:
                    flows.append({"domain": message.domain, **record})
    for flow in flows:
        for side in ("ingressInterface", "egressInterface"):
            if side in flow:
                flow[side] = names[flow[side]]
    return flows, exporters


HEADER = "interface-id srcaddr dstaddr srcport\n"


def sides(tmp_path: Path, lines: str, header: str = HEADER) -> list[tuple[str, str, Any]]:
    flows, _ = run(tmp_path, header + lines)
    flows.sort(key=lambda flow: flow["sourceTransportPort"])
    return [(flow["ingressInterface"], flow["egressInterface"], flow.get("flowDirection")) for flow in flows]


def test_direction_follows_from_whose_address_it_is(tmp_path: Path) -> None:
    assert sides(
        tmp_path,
        "eni-01 10.1.0.10 10.1.1.20 1\n"  # leaves the interface
        "eni-01 10.1.1.20 10.1.0.10 2\n"  # arrives
        "eni-01 192.0.2.1 192.0.2.2 3\n",  # neither address is the interface's
    ) == [
        ("db-1 eni-02", "web-1 eni-01", 1),
        ("web-1 eni-01", "db-1 eni-02", 0),
        ("web-1 eni-01", "edge igw-01", None),
    ]


def test_the_far_side_is_what_the_routes_of_the_subnet_say(tmp_path: Path) -> None:
    assert sides(
        tmp_path,
        "eni-01 10.1.0.10 198.51.100.1 1\n"  # main table: internet gateway
        "eni-01 10.1.0.10 10.2.0.5 2\n"  # peering, called after the VPC behind it
        "eni-02 10.1.1.20 198.51.100.1 3\n"  # private subnet: NAT gateway
        "eni-02 10.1.1.20 52.1.2.3 4\n"  # the longest prefix wins: the endpoint
        "eni-02 10.1.1.20 10.2.0.5 5\n"  # no route but the default
        "eni-01 10.1.0.10 10.1.9.9 6\n",  # inside the VPC, nobody's address
    ) == [
        ("edge igw-01", "web-1 eni-01", 1),
        ("to office pcx-01", "web-1 eni-01", 1),
        ("way-out nat-01", "db-1 eni-02", 1),
        ("s3 vpce-01", "db-1 eni-02", 1),
        ("way-out nat-01", "db-1 eni-02", 1),
        ("", "web-1 eni-01", 1),
    ]


def test_ipv6_and_ipv4_in_one_batch(tmp_path: Path) -> None:
    assert sides(
        tmp_path,
        "eni-01 2001:db8::10 2001:db8:ffff::1 1\n"
        "eni-01 2001:db8:ffff::1 2001:db8::10 2\n"
        "eni-01 10.1.0.10 192.0.2.1 3\n",
    ) == [
        ("edge igw-01", "web-1 eni-01", 1),
        ("web-1 eni-01", "edge igw-01", 0),
        ("edge igw-01", "web-1 eni-01", 1),
    ]


def test_what_the_record_says_of_its_direction_holds(tmp_path: Path) -> None:
    """Also against the inventory: an address may have moved since."""
    header = "interface-id srcaddr dstaddr srcport flow-direction\n"
    assert sides(tmp_path, "eni-01 198.51.100.1 192.0.2.1 1 egress\n", header) == [("edge igw-01", "web-1 eni-01", 1)]


def test_an_interface_says_whose_flow_it_is(tmp_path: Path) -> None:
    flows, exporters = run(tmp_path, HEADER + "eni-01 10.1.0.10 192.0.2.1 1\neni-99 10.9.0.1 192.0.2.1 2\n")
    by_port = {flow["sourceTransportPort"]: flow for flow in flows}
    assert exporters[by_port[1]["domain"]] == ("shop", "10.1.0.1")
    assert exporters[by_port[2]["domain"]][0] == "unattributed"
    assert by_port[2]["ingressInterface"] == "eni-99"


def test_a_subnet_says_so_too_and_a_vpc_before_all(tmp_path: Path) -> None:
    text = (
        "vpc-id subnet-id srcaddr dstaddr srcport\n- subnet-0b 10.1.1.99 192.0.2.1 1\nvpc-0b - 10.2.0.1 192.0.2.1 2\n"
    )
    flows, exporters = run(tmp_path, text)
    assert [exporters[flow["domain"]] for flow in sorted(flows, key=lambda flow: flow["sourceTransportPort"])] == [
        ("shop", "10.1.0.1"),
        ("office", "10.2.0.1"),
    ]


def test_an_address_given_by_map_wins_over_the_router(tmp_path: Path) -> None:
    mapping = tmp_path / "map.json"
    mapping.write_text('{"vpc-0a": "192.0.2.77"}')
    flows, exporters = run(tmp_path, HEADER + "eni-01 10.1.0.10 192.0.2.1 1\n", "--exporter-map", str(mapping))
    assert exporters[flows[0]["domain"]] == ("shop", "192.0.2.77")


def test_profile_aws_carries_names_regions_and_zones(tmp_path: Path) -> None:
    flows, _ = run(tmp_path, HEADER + "eni-01 10.1.0.10 10.1.1.20 1\n", number=4242)
    (flow,) = flows
    found = {name: flow[name] for name in flow if name.startswith(("awsSource", "awsDestination", "awsVpcName"))}
    assert found == {
        "awsVpcName": "shop",
        "awsSourceName": "web-1",
        "awsDestinationName": "db-1",
        "awsSourceRegion": "eu-west-1",
        "awsDestinationRegion": "eu-west-1",
        "awsSourceAzId": "euw1-az1",
        "awsDestinationAzId": "euw1-az2",
        "awsSourceService": "",
        "awsDestinationService": "",
    }


def test_a_faulty_inventory_is_refused(tmp_path: Path) -> None:
    log, inventory = tmp_path / "flows.log", tmp_path / "inventory.json"
    log.write_text(HEADER)
    inventory.write_text("{")
    command = ["export", str(log), "--output", str(tmp_path / "o.ipfix"), "--inventory", str(inventory)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "inventory.json" in result.output


def test_many_addresses_get_the_right_answer_again_and_again(tmp_path: Path) -> None:
    """The table of answers is smaller than the number of addresses, so places in it are taken over and over."""
    rng = random.Random(7)
    own = {"eni-01": "10.1.0.10", "eni-02": "10.1.1.20"}
    lines = []
    for _ in range(300_000):
        eni = rng.choice(list(own))
        lines.append(f"{eni} {own[eni]} {ip_address(rng.randrange(1 << 24, 1 << 32))} 1")
    flows, _ = run(tmp_path, HEADER + "\n".join(lines) + "\n")
    vpc, peer, endpoint = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16"), ip_network("52.0.0.0/8")

    def far_side(line: str) -> tuple[str, str]:
        eni, _, far, _ = line.split()
        address = ip_address(far)
        if address in vpc:
            return "", eni
        if eni == "eni-01":
            return "to office pcx-01" if address in peer else "edge igw-01", eni
        return "s3 vpce-01" if address in endpoint else "way-out nat-01", eni

    found = [(flow["ingressInterface"], flow["egressInterface"].split()[-1]) for flow in flows]
    assert found == [far_side(line) for line in lines]


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=40),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=40),
)
@settings(deadline=None)
def test_longest_prefix(prefixes: list[tuple[int, int]], addresses: list[int]) -> None:
    networks = [ip_network((address, length), strict=False) for address, length in prefixes]
    table = PrefixTable((network, number) for number, network in enumerate(networks, 1))
    for network in networks:
        addresses = [*addresses, int(network[0]), int(network[-1])]
    for address, found in zip(addresses, table.find4(np.array(addresses, np.uint32)).tolist(), strict=True):
        holding = [n for n in networks if ip_address(address) in n]
        longest = max(holding, key=lambda n: n.prefixlen, default=None)
        assert found == (networks.index(longest) + 1 if longest is not None else 0)


def test_longest_prefix_of_ipv6() -> None:
    table = PrefixTable([("::/0", 1), ("2001:db8::/32", 2), ("2001:db8:1::/48", 3)])
    assert [table.find6(int(ip_address(a))) for a in ("2001:db8:1::5", "2001:db8:2::5", "2002::1")] == [3, 2, 1]


def test_indexes_follow_from_the_ids() -> None:
    one, two = stateless_indexes(), stateless_indexes()
    first = one({"eni-1": "a", "eni-2": "b"})
    assert first == dict(reversed(two({"eni-2": "b", "eni-1": "a"}).items()))
    assert len(set(first.values())) == 2
