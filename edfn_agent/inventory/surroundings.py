"""The inventory seen from the rows of a batch: the other side of each flow, its direction, and names.

In: a snapshot, its directory, AWS's own address ranges. Out: Surroundings, asked per batch, in arrays. The other side
of a flow is the ENI of the VPC that owns the far address, else what the route table of the interface's subnet says.
All of that is made into tables once, so that a flow costs a few look-ups. Never: calls to AWS. A new snapshot means
new objects.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edfn_agent.enrich import EGRESS, NO_ADDRESS, UNKNOWN_DIRECTION, Around, Slots, chosen
from edfn_agent.formats.batch import AddressColumn, Dictionary, FlowBatch, StringColumn
from edfn_agent.inventory import model
from edfn_agent.inventory.addresses import Owned
from edfn_agent.inventory.directory import InventoryDirectory, gateway_key, resource_name
from edfn_agent.inventory.families import Addresses, Family, Four, Six
from edfn_agent.inventory.prefixes import PrefixTable
from edfn_agent.inventory.transit import Network, beyond_transit_gateways


class _Attributes(NamedTuple):
    """What the names of profile aws say of one side of a flow."""

    name: str = ""
    region: str = ""
    zone: str = ""
    service: str = ""


class _Names:
    """The attributes of slots, as dictionaries, so that a column of slots is a column of names."""

    def __init__(self) -> None:
        self._dictionaries = {name: Dictionary() for name in _Attributes._fields}

    def add(self, slot: int, attributes: _Attributes) -> None:
        """Slots between the last one and this have no attributes."""
        for name, dictionary in self._dictionaries.items():
            dictionary.values.extend([b""] * (slot - len(dictionary)))
            dictionary.values.append(getattr(attributes, name).encode())

    def column(self, slots: NDArray[np.uint32], attribute: str, highest: int) -> StringColumn:
        """`highest`: the highest slot there is."""
        dictionary = self._dictionaries[attribute]
        dictionary.values.extend([b""] * (highest + 1 - len(dictionary)))
        return StringColumn(slots, dictionary)


Facts = NDArray[np.void]  # Slots.FACTS


class InventorySurroundings:
    """Surroundings from a snapshot. All tables are made when it is bound to an Enricher's slots."""

    def __init__(
        self,
        snapshot: model.Snapshot,
        directory: InventoryDirectory,
        services: PrefixTable | None = None,
        service_names: list[tuple[str, str]] | None = None,
        *,
        names: bool = True,
    ) -> None:
        """`services` maps AWS's address ranges to indexes of `service_names`, (service, region); 0 is none.

        `names`: whether extras (names, regions, zones, services of addresses) are wanted.
        """
        self._snapshot = snapshot
        self._directory = directory
        self._services = services if names else None
        self._service_names = service_names or [("", "")]
        self._names = names

    # -- making the tables

    def bind(self, slots: Slots) -> None:
        """Make the tables: of addresses, of routes, and what is known of each interface."""
        self._slots = slots
        self._attributes = _Names()
        self._variants: dict[tuple[int, _Attributes], int] = {}
        self._lists = {each.prefix_list_id: each.cidrs for each in self._snapshot.prefix_lists}
        self._beyond = beyond_transit_gateways(self._snapshot)
        places: dict[tuple[str, str], int] = {("", ""): 0}
        vpcs: dict[str, int] = {"": 0}
        vpc_of_place = [0]
        tables: list[model.RouteTable | None] = [None]
        owned: list[Owned] = []
        main, by_subnet = self._route_tables()
        for interface in self._snapshot.interfaces:
            vpc = vpcs.setdefault(interface.vpc_id, len(vpcs))
            table = by_subnet.get(interface.subnet_id) or main.get(interface.vpc_id)
            place = places.setdefault(
                (interface.vpc_id, table.route_table_id if table is not None else ""), len(places)
            )
            if place == len(tables):
                tables.append(table)
                vpc_of_place.append(vpc)
            # not the public ones: a flow to such an address leaves by the internet gateway, as the routes say
            addresses = [ip_network(text) for text in interface.addresses]
            primary = next((int(each[0]) for each in addresses if each.version == 4), NO_ADDRESS)
            slot = slots.of(self._directory.interface(interface.interface_id), primary, place)
            owned += [(vpc, network, slot) for network in (*addresses, *map(ip_network, interface.prefixes))]
            if self._names:
                self._attributes.add(slot, self._attributes_of(interface))
        routes = [self._routes(table) for table in tables]
        knowledge = (owned, routes, np.array(vpc_of_place, np.uint32), self._services or PrefixTable([]))
        self._four, self._six = Four(*knowledge), Six(*knowledge)

    def _attributes_of(self, interface: model.Interface) -> _Attributes:
        subnet = self._snapshot.subnet_by_id.get(interface.subnet_id)
        zone = subnet.zone_id if subnet is not None else interface.zone
        name = self._directory.label(interface.interface_id) or interface.interface_id
        return _Attributes(name, interface.region, zone)

    def _route_tables(self) -> tuple[dict[str, model.RouteTable], dict[str, model.RouteTable]]:
        """(main table by VPC, table by subnet)"""
        main, by_subnet = {}, {}
        for table in self._snapshot.route_tables:
            if table.main:
                main[table.vpc_id] = table
            by_subnet.update(dict.fromkeys(table.subnet_ids, table))
        return main, by_subnet

    def _routes(self, table: model.RouteTable | None) -> PrefixTable:
        """The routes of a table, each with the slot of its target."""
        if table is None:
            return PrefixTable([])
        targets: dict[Network, str] = {}
        for route in table.routes:
            listed = route.destination.startswith("pl-")
            for cidr in self._lists.get(route.destination, ()) if listed else (route.destination,):
                targets.setdefault(ip_network(cidr, strict=False), route.target)
        prefixes: list[tuple[Network, int]] = []
        for network, target in targets.items():
            key = gateway_key(target, table.vpc_id)
            slot = self._slots.of(self._directory.interface(key)) if key else 0
            beyond = self._beyond.get((target, table.vpc_id)) if self._names else None
            if beyond is not None:
                # of two equal prefixes the first counts
                prefixes.extend(
                    (part, self._variant(slot, self._far(resource)))
                    for part, resource in beyond.parts(network, targets)
                )
            prefixes.append((network, slot))
        return PrefixTable(prefixes)

    def _far(self, resource: str) -> _Attributes:
        vpc = self._snapshot.vpc_by_id.get(resource)
        return _Attributes(resource_name(self._snapshot, resource), vpc.region if vpc is not None else "")

    def _variant(self, gateway: int, attributes: _Attributes) -> int:
        """A slot for what lies behind a gateway where more is known of that than of the rest."""
        slot = self._variants.get((gateway, attributes))
        if slot is None:
            slot = self._variants[gateway, attributes] = self._slots.another(self._slots.interfaces[gateway])
            self._attributes.add(slot, attributes)
        return slot

    # -- looking

    def look(
        self, batch: FlowBatch, own: NDArray[np.uint32], facts: Facts, direction: NDArray[np.uint8] | None
    ) -> Around:
        source = batch.addresses("srcaddr") or _no_addresses(batch.rows)
        destination = batch.addresses("dstaddr") or _no_addresses(batch.rows)

        def seen(family: Family, rows: NDArray[np.intp] | slice) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
            ends = family.of(source)[rows], family.of(destination)[rows]
            return self._seen(family, own[rows], facts[rows], *ends, None if direction is None else direction[rows])

        six = batch.family == 6
        if not six.any():
            far, ways = seen(self._four, slice(None))
        elif six.all():
            far, ways = seen(self._six, slice(None))
        else:
            far, ways = np.empty(batch.rows, np.uint32), np.empty(batch.rows, np.uint8)
            for family, rows in ((self._four, np.flatnonzero(~six)), (self._six, np.flatnonzero(six))):
                far[rows], ways[rows] = seen(family, rows)
        extras = self._extras(own, far, ways) if self._names else {}
        # names may be the interface's own on both sides; of interfaces the other one is meant
        return Around(ways, far * (far != own), extras)

    def _seen(
        self,
        family: Family,
        own: NDArray[np.uint32],
        near: Facts,
        source: Addresses,
        destination: Addresses,
        direction: NDArray[np.uint8] | None,
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """(the slot of the other side, the direction) of rows of one family. What is stated of the direction holds."""
        if direction is None:
            direction = self._inferred(family, own, near, source, destination)
        else:
            rows = np.flatnonzero(direction == UNKNOWN_DIRECTION)
            if len(rows):
                direction[rows] = self._inferred(family, own[rows], near[rows], source[rows], destination[rows])
        addresses = chosen(direction == EGRESS, destination, source)
        far = family.find(near["place"], addresses)
        if self._services is not None:
            self._with_services(family, near["place"], addresses, far)
        return far, direction

    def _inferred(
        self, family: Family, own: NDArray[np.uint32], near: Facts, source: Addresses, destination: Addresses
    ) -> NDArray[np.uint8]:
        """The direction, from whose address it is: the primary one of the interface, else any of them."""
        primary = near["primary"]
        direction = _direction(family.is_primary(primary, source), family.is_primary(primary, destination))
        rows = np.flatnonzero(direction == UNKNOWN_DIRECTION)
        if len(rows):
            own, place = own[rows], near["place"][rows]
            leaves, arrives = (
                (family.owner(place, addresses[rows]) == own) & (own != 0) for addresses in (source, destination)
            )
            direction[rows] = _direction(leaves, arrives)
        return direction

    def _with_services(
        self, family: Family, place: NDArray[np.uint32], addresses: Addresses, far: NDArray[np.uint32]
    ) -> None:
        """In `far`, slots of gateways become those of the AWS service that publishes the address behind them."""
        published = family.service(addresses)
        rows = np.flatnonzero(published)
        rows = rows[family.owner(place[rows], addresses[rows]) == 0]
        pairs, which = np.unique(far[rows].astype(np.uint64) << np.uint64(32) | published[rows], return_inverse=True)
        slots = []
        for pair in pairs.tolist():
            service, region = self._service_names[pair & 0xFFFFFFFF]
            slots.append(self._variant(pair >> 32, _Attributes(region=region, service=service)))
        far[rows] = np.array(slots, np.uint32)[which]

    def _extras(
        self, own: NDArray[np.uint32], far: NDArray[np.uint32], direction: NDArray[np.uint8]
    ) -> dict[str, StringColumn]:
        near = own * (direction != UNKNOWN_DIRECTION)
        out = direction == EGRESS
        highest = len(self._slots) - 1
        extras = {}
        for side, slots in (("Source", chosen(out, near, far)), ("Destination", chosen(out, far, near))):
            extras[f"aws{side}Name"] = self._attributes.column(slots, "name", highest)
            extras[f"aws{side}Region"] = self._attributes.column(slots, "region", highest)
            extras[f"aws{side}AzId"] = self._attributes.column(slots, "zone", highest)
            extras[f"aws{side}Service"] = self._attributes.column(slots, "service", highest)
        return extras


def _direction(leaves: NDArray[np.bool_], arrives: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """EGRESS where it leaves and does not arrive, INGRESS the other way round, else unknown."""
    known = leaves ^ arrives
    # in arithmetic of octets, many rows at a time: 0 - 1 is 255
    return (leaves & known).view(np.uint8) * np.uint8(EGRESS) | (known.view(np.uint8) - np.uint8(1))


def _no_addresses(rows: int) -> AddressColumn:
    return AddressColumn(np.zeros(rows, np.uint8), np.zeros(rows, np.uint32))
