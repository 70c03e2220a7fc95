"""The made-up VPCs as an inventory snapshot: what discovery would have found of them."""

from __future__ import annotations

from edfn_agent.demo.traffic import DemoVpc
from edfn_agent.inventory.model import Instance, Interface, InternetGateway, Route, RouteTable, Snapshot, Subnet, Vpc


def snapshot(vpcs: list[DemoVpc]) -> Snapshot:
    """VPCs with one subnet, an internet gateway each, and their interfaces and instances."""
    igw = {vpc.vpc_id: "igw-" + vpc.vpc_id.removeprefix("vpc-") for vpc in vpcs}
    return Snapshot(
        at=0.0,
        vpcs=tuple(Vpc(v.vpc_id, v.account_id, v.region, v.name, (str(v.network),)) for v in vpcs),
        subnets=tuple(
            Subnet(v.subnet_id, v.vpc_id, v.account_id, v.region, f"{v.name}-a", (str(v.network),)) for v in vpcs
        ),
        interfaces=tuple(
            Interface(
                i.interface_id,
                v.vpc_id,
                v.subnet_id,
                v.account_id,
                v.region,
                serves=i.instance_id,
                addresses=(str(i.address), i.address6),
            )
            for v in vpcs
            for i in v.interfaces
        ),
        instances=tuple(
            Instance(i.instance_id, v.vpc_id, v.account_id, v.region, i.name) for v in vpcs for i in v.interfaces
        ),
        internet_gateways=tuple(
            InternetGateway(igw[v.vpc_id], v.vpc_id, v.account_id, v.region, f"{v.name}-internet") for v in vpcs
        ),
        route_tables=tuple(
            RouteTable(
                "rtb-" + v.vpc_id.removeprefix("vpc-"),
                v.vpc_id,
                v.account_id,
                v.region,
                main=True,
                routes=(
                    Route(str(v.network), "local"),
                    Route("0.0.0.0/0", igw[v.vpc_id]),
                    Route("::/0", igw[v.vpc_id]),
                ),
            )
            for v in vpcs
        ),
    )
