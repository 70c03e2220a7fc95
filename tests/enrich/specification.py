"""What enrichment means, one row at a time, in plain Python: the oracle of the property tests.

In: a snapshot and the words of one row. Out: whose flow it is, the interfaces on both sides, the direction, and the
names. It looks through all rows of the snapshot for each answer, and is as slow as that.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network

from edfn_agent.enrich import EGRESS, INGRESS, UNKNOWN_DIRECTION
from edfn_agent.inventory.model import Interface, Snapshot

Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Row:
    """The words of a row; None is `-`."""

    interface_id: str | None
    source: Address | None
    destination: Address | None
    direction: str | None = None


@dataclass(frozen=True)
class Enriched:
    exporter: str
    ingress: str  # the key of the interface; "" none
    egress: str
    direction: int
    source_name: str
    destination_name: str
    source_zone: str
    destination_zone: str


def enriched(snapshot: Snapshot, row: Row) -> Enriched:
    own = snapshot.interface_by_id.get(row.interface_id or "")
    direction = _direction(own, row)
    out = direction == EGRESS
    far_address = row.destination if out else row.source
    far = _behind(snapshot, own, far_address) if own is not None and far_address is not None else ""
    far_interface = snapshot.interface_by_id.get(far)
    near = own if direction != UNKNOWN_DIRECTION else None
    sides = (row.interface_id or "", far if far != row.interface_id else "")
    source, destination = (near, far_interface) if out else (far_interface, near)
    return Enriched(
        own.vpc_id if own is not None else "unattributed",
        ingress=sides[1] if out else sides[0],
        egress=sides[0] if out else sides[1],
        direction=direction,
        source_name=source.name if source else "",
        destination_name=destination.name if destination else "",
        source_zone=source.zone if source else "",
        destination_zone=destination.zone if destination else "",
    )


def _direction(own: Interface | None, row: Row) -> int:
    """What the row says; else whose address it is, the primary one before the others."""
    if row.direction is not None:
        return {"ingress": INGRESS, "egress": EGRESS}.get(row.direction, UNKNOWN_DIRECTION)
    if own is None:
        return UNKNOWN_DIRECTION
    primary = next((each for each in own.addresses if "." in each), None)
    ends = (row.source, row.destination)
    for leaves, arrives in (
        [str(end) == primary for end in ends],
        [end is not None and _owns(own, end) for end in ends],
    ):
        if leaves != arrives:
            return EGRESS if leaves else INGRESS
    return UNKNOWN_DIRECTION


def _owns(interface: Interface, address: Address) -> bool:
    return str(address) in interface.addresses or any(address in ip_network(each) for each in interface.prefixes)


def _behind(snapshot: Snapshot, own: Interface, address: Address) -> str:
    """The key of the interface of the VPC that owns the address, else of what the longest matching route leads to."""
    for each in snapshot.interfaces:
        if each.vpc_id == own.vpc_id and _owns(each, address):
            return each.interface_id
    tables = [each for each in snapshot.route_tables if each.vpc_id == own.vpc_id]
    table = next((each for each in tables if own.subnet_id in each.subnet_ids), None)
    table = table or next((each for each in tables if each.main), None)
    matching = [
        (ip_network(route.destination).prefixlen, route.target)
        for route in (table.routes if table else ())
        if address in ip_network(route.destination)
    ]
    if str(address).startswith("0."):  # "this network" is behind nothing
        return ""
    target = max(matching, key=lambda each: each[0])[1] if matching else "local"
    if target == "local":
        return ""
    return f"{target} {own.vpc_id}" if target.startswith("tgw-") else target
