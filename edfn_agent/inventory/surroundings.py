"""The inventory seen from the rows of a batch: the other side of each flow, its direction, and names.

In: a snapshot, its directory, AWS's own address ranges. Out: Surroundings, asked per batch, in arrays. The other side
of a flow is the ENI of the VPC that owns the far address, else what the route table of the interface's subnet says.
All of that is made into tables once, so that a flow costs a few look-ups. Never: calls to AWS. A new snapshot means
new objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edfn_agent.enrich import EGRESS, UNKNOWN_DIRECTION, Around, Slots, chosen
from edfn_agent.formats.batch import AddressColumn, Dictionary, FlowBatch, StringColumn
from edfn_agent.inventory import model
from edfn_agent.inventory.addresses import Owned, Owners4, Owners6, halves
from edfn_agent.inventory.directory import InventoryDirectory, gateway_key
from edfn_agent.inventory.prefixes import PrefixTable, Tables


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


Addresses = NDArray[Any]
"""The addresses of one family: uint32 each, or the two halves of IPv6. Zero is none."""

Facts = NDArray[np.void]  # Slots.FACTS


class _Family(Protocol):
    """Look-ups in the addresses of one family. The answers are slots, 0 for nothing."""

    def of(self, column: AddressColumn) -> Addresses: ...

    def primary(self, near: Facts, addresses: Addresses) -> NDArray[np.bool_]:
        """Whether it is the interface's primary address, by which flow logs show it whichever was used."""

    def likely(self, near: Facts, addresses: Addresses) -> NDArray[np.intp]:
        """The rows whose address an interface of the VPC may own."""

    def owner(self, vpc: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]: ...

    def beyond(self, place: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]:
        """Where the routes of the place lead."""

    def service(self, addresses: Addresses) -> NDArray[np.uint32]:
        """The AWS service that publishes the address."""


class _Four:
    def __init__(
        self, owners: Owners4, routes: Sequence[PrefixTable], services: PrefixTable, vpc_of_place: NDArray[np.uint32]
    ) -> None:
        self._routes = Tables([each.stretches4 for each in routes], np.uint32)
        lowest, span = owners.ranges(int(vpc_of_place.max()) + 1)
        self._range = np.empty(len(vpc_of_place), [("lowest", np.uint32), ("span", np.uint32)])
        self._range["lowest"], self._range["span"] = lowest[vpc_of_place], span[vpc_of_place]
        self.owner = owners.find
        self.service = services.find4

    def of(self, column: AddressColumn) -> Addresses:
        return column.v4 if column.family.all() else np.where(column.family == 4, column.v4, np.uint32(0))

    def primary(self, near: Facts, addresses: Addresses) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = near["primary"] == addresses
        found &= addresses != 0
        return found

    def likely(self, near: Facts, addresses: Addresses) -> NDArray[np.intp]:
        # the addresses of a VPC lie close together, so most others need not be looked for
        range = self._range.take(near["place"])
        return np.flatnonzero(addresses - range["lowest"] <= range["span"])

    def beyond(self, place: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]:
        found = self._routes.find(place, addresses)
        found *= addresses != 0
        return found


class _Six:
    def __init__(self, owners: Owners6, routes: Sequence[PrefixTable], services: PrefixTable) -> None:
        self._routes = Tables([each.stretches6 for each in routes], np.uint64)
        self._services = services
        self.owner = owners.find

    def of(self, column: AddressColumn) -> Addresses:
        found = halves(column.v6) if column.v6 is not None else np.zeros((len(column.family), 2), np.uint64)
        if not column.family.all():
            found[column.family == 0] = 0
        return found

    def primary(self, near: Facts, addresses: Addresses) -> NDArray[np.bool_]:
        return np.zeros(len(near), np.bool_)  # not known of IPv6

    def likely(self, near: Facts, addresses: Addresses) -> NDArray[np.intp]:
        return np.arange(len(near))

    def beyond(self, place: NDArray[np.uint32], addresses: Addresses) -> NDArray[np.uint32]:
        return self._routes.find(place, addresses[:, 0]) * addresses.any(axis=1)

    def service(self, addresses: Addresses) -> NDArray[np.uint32]:
        return np.array([self._services.find6(upper << 64 | lower) for upper, lower in addresses.tolist()], np.uint32)


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
        self._published: dict[tuple[int, int], int] = {}
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
            addresses = [ip_address(text) for text in interface.addresses]
            primary = next((int(each) for each in addresses if each.version == 4), 0)
            slot = slots.of(self._directory.interface(interface.interface_id), primary, place)
            owned += [(vpc, address, slot) for address in addresses]
            if self._names:
                self._attributes.add(slot, self._attributes_of(interface))
        routes = [self._routes(table) for table in tables]
        services = self._services or PrefixTable([])
        self._vpc_of_place = np.array(vpc_of_place, np.uint32)
        self._four = _Four(Owners4(owned), routes, services, self._vpc_of_place)
        self._six = _Six(Owners6(owned), routes, services)

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
        lists = {each.prefix_list_id: each.cidrs for each in self._snapshot.prefix_lists}
        prefixes: list[tuple[str, int]] = []
        for route in table.routes:
            key = gateway_key(route.target, table.vpc_id)
            slot = self._slots.of(self._directory.interface(key)) if key else 0
            listed = route.destination.startswith("pl-")
            destinations = lists.get(route.destination, ()) if listed else (route.destination,)
            prefixes.extend((cidr, slot) for cidr in destinations)
        return PrefixTable(prefixes)

    # -- looking

    def look(
        self, batch: FlowBatch, own: NDArray[np.uint32], facts: Facts, direction: NDArray[np.uint8] | None
    ) -> Around:
        source = batch.addresses("srcaddr") or _no_addresses(batch.rows)
        destination = batch.addresses("dstaddr") or _no_addresses(batch.rows)
        far, ways = np.empty(batch.rows, np.uint32), np.empty(batch.rows, np.uint8)
        for family, rows in self._by_family(batch):
            stated = None if direction is None else direction[rows]
            far[rows], ways[rows] = self._seen(
                family, own[rows], facts[rows], family.of(source)[rows], family.of(destination)[rows], stated
            )
        extras = self._extras(own, far, ways) if self._names else {}
        # names may be the interface's own on both sides; of interfaces the other one is meant
        return Around(ways, far * (far != own), extras)

    def _by_family(self, batch: FlowBatch) -> Iterator[tuple[_Family, NDArray[np.intp] | slice]]:
        """The families that there are, each with its rows."""
        six = batch.family == 6
        if not six.any():
            yield self._four, slice(None)
        elif six.all():
            yield self._six, slice(None)
        else:
            yield self._four, np.flatnonzero(~six)
            yield self._six, np.flatnonzero(six)

    def _seen(
        self,
        family: _Family,
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
        return self._find(family, near, chosen(direction == EGRESS, destination, source)), direction

    def _inferred(
        self, family: _Family, own: NDArray[np.uint32], near: Facts, source: Addresses, destination: Addresses
    ) -> NDArray[np.uint8]:
        """The direction, from whose address it is: the primary one of the interface, else any of them."""
        direction = _direction(family.primary(near, source), family.primary(near, destination))
        rows = np.flatnonzero(direction == UNKNOWN_DIRECTION)
        if len(rows):
            own = own[rows]
            vpc = self._vpc_of_place.take(near["place"][rows])
            leaves, arrives = (
                (family.owner(vpc, addresses[rows]) == own) & (own != 0) for addresses in (source, destination)
            )
            direction[rows] = _direction(leaves, arrives)
        return direction

    def _find(self, family: _Family, near: Facts, addresses: Addresses) -> NDArray[np.uint32]:
        """What each row's address leads to: who owns it in the VPC, else the target of the longest route."""
        found = np.zeros(len(near), np.uint32)
        place = near["place"]
        rows = family.likely(near, addresses)
        if len(rows):
            found[rows] = family.owner(self._vpc_of_place.take(place[rows]), addresses[rows])
        rows = np.flatnonzero(found == 0)
        if len(rows):
            beyond = family.beyond(place[rows], addresses[rows])
            if self._services is not None:
                beyond = self._outside(beyond, family.service(addresses[rows]))
            found[rows] = beyond
        return found

    def _outside(self, gateways: NDArray[np.uint32], services: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Slots of gateways, with the AWS service and region that publish the address behind them."""
        pairs, which = np.unique(gateways.astype(np.uint64) << np.uint64(32) | services, return_inverse=True)
        numbers = np.zeros(len(pairs), np.uint32)
        for at, pair in enumerate(pairs.tolist()):
            slot, published = pair >> 32, pair & 0xFFFFFFFF
            numbers[at] = self._publisher(slot, published) if published else slot
        return numbers[which]

    def _publisher(self, gateway: int, published: int) -> int:
        slot = self._published.get((gateway, published))
        if slot is None:
            service, region = self._service_names[published]
            slot = self._published[gateway, published] = self._slots.another(self._slots.interfaces[gateway])
            self._attributes.add(slot, _Attributes(region=region, service=service))
        return slot

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
