"""What lies behind a transit gateway, seen from a VPC that is attached to it.

In: a snapshot. Out: for a route of the VPC to the gateway the same route in parts, each with the VPC, VPN or gateway
that the gateway's own route table leads on to. The gateway's routes are known of accounts that own one.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network

from edfn_agent.inventory.model import Snapshot

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Beyond:
    """Destinations behind one gateway, as one VPC reaches them: prefix -> id of what it leads to."""

    routes: Mapping[Network, str]

    @property
    def resources(self) -> set[str]:
        return set(self.routes.values())

    def parts(self, route: Network, routes: Container[Network]) -> Iterator[tuple[Network, str]]:
        """(prefix, what it leads to) of all that goes to the gateway by `route`, one of a VPC's `routes`.

        A prefix that a longer route of the VPC holds goes by that one. The route itself is the last part.
        """
        for prefix, resource in self.routes.items():
            if prefix != route and _longest(prefix, routes) == route:
                yield prefix, resource
        holding = _longest(route, self.routes)
        if holding is not None:
            yield route, self.routes[holding]


def beyond_transit_gateways(snapshot: Snapshot) -> Mapping[tuple[str, str], Beyond]:
    """By (gateway, VPC)."""
    attachments = {each.attachment_id: each for each in snapshot.transit_gateway_attachments}
    by_table: dict[str, dict[Network, str]] = {}
    for route in snapshot.transit_gateway_routes:
        ends = [attachments[id].resource_id for id in route.attachment_ids if id in attachments]
        resource = next((each for each in (*ends, *route.resource_ids) if each), "")
        if route.state == "active" and resource and "/" in route.cidr:
            by_table.setdefault(route.route_table_id, {})[ip_network(route.cidr, strict=False)] = resource
    return {
        (each.tgw_id, each.resource_id): Beyond(
            {prefix: end for prefix, end in by_table[each.route_table_id].items() if end != each.resource_id}
        )
        for each in attachments.values()
        if each.resource_type == "vpc" and each.route_table_id in by_table
    }


def _longest(network: Network, among: Container[Network]) -> Network | None:
    """The longest of these prefixes that holds the network."""
    for length in range(network.prefixlen, -1, -1):
        holding = network.supernet(new_prefix=length)
        if holding in among:
            return holding
    return None
