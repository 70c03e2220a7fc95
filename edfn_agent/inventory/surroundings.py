"""The inventory as attribution and enrichment ask it: whose an interface is, what it is called, what lies behind it.

In: a snapshot, the exporters, interface indexes, AWS's own address ranges. Out: a Directory (asked once per distinct
value) and Surroundings (asked per batch, in arrays). The other side of a flow is the ENI of the VPC that owns the
far address, else what the route table of the interface's subnet says. All of that is made into tables once, so that a
flow costs a few look-ups. Never: calls to AWS. A new snapshot means new objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edfn_agent.delivery import Origin
from edfn_agent.enrich import EGRESS, INGRESS, UNKNOWN_DIRECTION, Around, Enricher, Interface, Slots
from edfn_agent.formats.batch import AddressColumn, Dictionary, FlowBatch, StringColumn
from edfn_agent.inventory import model
from edfn_agent.inventory.exporters import UNATTRIBUTED, Exporter, Exporters
from edfn_agent.inventory.mapped import DEFAULT_POOL, MOST_INDEX
from edfn_agent.inventory.prefixes import PrefixTable, Tables
from edfn_agent.inventory.sources import SourcePlan
from edfn_agent.numbers import free_number

Indexes = Callable[[Mapping[str, str]], Mapping[str, int]]
"""Interface keys with names -> their indexes, stable for ever (state.interfaces.allocate)."""


class InventoryDirectory:
    """Who is who, from a snapshot. Ids that it does not know are noted in `unknown`, which asks for a new snapshot."""

    by_account = False

    def __init__(
        self, snapshot: model.Snapshot, exporters: Exporters, indexes: Indexes, plan: SourcePlan | None = None
    ) -> None:
        self._plan = plan
        self._snapshot = snapshot
        self._exporters = exporters
        self._indexes = indexes
        self.unattributed = exporters.table.unattributed
        self.unknown: set[str] = set()
        self._labels = interface_labels(snapshot)
        names = {key: _named(label, key.partition(" ")[0]) for key, label in self._labels.items()}
        self._interfaces = {key: Interface(index, names[key]) for key, index in indexes(names).items()}

    def exporter_of_vpc(self, vpc_id: str) -> Exporter | None:
        return self._exporters.table.get(vpc_id) if vpc_id in self._snapshot.vpc_by_id else None

    def exporter_of_unknown_vpc(self, vpc_id: str) -> Exporter | None:
        self.unknown.add(vpc_id)
        return self._exporters.exporter(vpc_id)

    def exporter_of_transit_gateway(self, tgw_id: str) -> Exporter | None:
        return self._exporters.exporter(tgw_id)

    def exporter_of_interface(self, interface_id: str) -> Exporter | None:
        interface = self._snapshot.interface_by_id.get(interface_id)
        if interface is None:
            self.unknown.add(interface_id)
            return None
        return self.exporter_of_vpc(interface.vpc_id)

    def exporter_of_subnet(self, subnet_id: str) -> Exporter | None:
        return self.exporter_of_vpc(self._snapshot.vpc_of_subnet.get(subnet_id, ""))

    def exporter_of_account(self, account_id: str, vpc_id: str) -> Exporter | None:
        return None

    def vpc_of_origin(self, origin: Origin) -> str | None:
        return self._plan.vpc_of(origin) if self._plan is not None else None

    def owns(self, origin: Origin, exporter: Exporter) -> bool:
        """Whether flows of this exporter are taken from there, or another source has them."""
        return self._plan is None or exporter.key == UNATTRIBUTED or self._plan.owns(origin, exporter.key)

    def label(self, interface_id: str) -> str:
        """What people call it, without its id."""
        return self._labels.get(interface_id, "")

    def interface(self, interface_id: str) -> Interface:
        known = self._interfaces.get(interface_id)
        if known is None:
            self.unknown.add(interface_id)
            index = self._indexes({interface_id: interface_id})[interface_id]
            known = self._interfaces[interface_id] = Interface(index, interface_id)
        return known


def interface_labels(snapshot: model.Snapshot) -> dict[str, str]:
    """What people call every interface there is, by key: ENIs by id, gateways by id and, where shared, VPC."""
    served = _names_of_things(snapshot)
    labels = {each.interface_id: _label(each, served) for each in snapshot.interfaces}
    for table in snapshot.route_tables:
        for route in table.routes:
            key = gateway_key(route.target, table.vpc_id)
            if key and key not in labels:
                far = _far_vpc(snapshot, route.target, table.vpc_id)
                labels[key] = f"to {far}" if far else served.get(route.target, "")
    for attachment in snapshot.transit_gateway_attachments:
        labels.setdefault(attachment.attachment_id, attachment.name or attachment.resource_id)
    return labels


def _names_of_things(snapshot: model.Snapshot) -> dict[str, str]:
    """Instances, gateways, endpoints and peerings by id: the Name tag, else what tells them apart."""
    named = {each.instance_id: each.name or each.instance_id for each in snapshot.instances}
    named |= {each.nat_gateway_id: each.name or each.nat_gateway_id for each in snapshot.nat_gateways}
    named |= {each.internet_gateway_id: each.name for each in snapshot.internet_gateways}
    named |= {each.endpoint_id: each.name or each.service.rpartition(".")[2] for each in snapshot.endpoints}
    named |= {each.peering_id: each.name for each in snapshot.peerings}
    return named


def _label(interface: model.Interface, served: Mapping[str, str]) -> str:
    """The name of what it serves, else its own, else what kind of thing it is."""
    kind = "" if interface.type == "interface" else interface.type
    return served.get(interface.serves, "") or interface.name or interface.serves or kind


def _named(label: str, key: str) -> str:
    return f"{label} {key}" if label and label != key else key


def gateway_key(target: str, vpc_id: str) -> str:
    """The key of a route's target as an interface of a VPC; "" for what is none (local, an ENI has its own)."""
    if not target or target == "local":
        return ""
    return f"{target} {vpc_id}" if target.startswith(("tgw-", "pcx-", "vgw-", "arn:")) else target


def _far_vpc(snapshot: model.Snapshot, target: str, vpc_id: str) -> str:
    """The name of the VPC behind a peering connection."""
    peering = next((each for each in snapshot.peerings if each.peering_id == target), None)
    if peering is None:
        return ""
    far = peering.peer_vpc_id if peering.vpc_id == vpc_id else peering.vpc_id
    known = snapshot.vpc_by_id.get(far)
    return known.name if known is not None and known.name else "" if peering.name else far


class _Party(NamedTuple):
    """What is known of one address as seen from one place."""

    slot: int = 0
    name: str = ""
    region: str = ""
    zone: str = ""
    service: str = ""


class _Parties:
    """Parties by number, and their attributes as dictionaries, so that a column of numbers is a column of names."""

    ATTRIBUTES = ("name", "region", "zone", "service")

    def __init__(self) -> None:
        self._numbers: dict[_Party, int] = {_Party(): 0}
        self.slots = np.zeros(64, np.uint32)
        self._dictionaries = {name: Dictionary() for name in self.ATTRIBUTES}

    def number(self, party: _Party) -> int:
        number = self._numbers.get(party)
        if number is None:
            number = self._numbers[party] = len(self._numbers)
            if number >= len(self.slots):
                self.slots = np.concatenate([self.slots, np.zeros_like(self.slots)])
            self.slots[number] = party.slot
            for name, dictionary in self._dictionaries.items():
                dictionary.values.append(getattr(party, name).encode())
        return number

    def column(self, numbers: NDArray[np.uint32], attribute: str) -> StringColumn:
        return StringColumn(numbers, self._dictionaries[attribute])


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

    def bind(self, slots: Slots) -> None:
        """Make the tables: of addresses, of routes, and what is known of each interface."""
        self._parties = _Parties()
        self._places: dict[tuple[str, str], int] = {("", ""): 0}
        routes = [PrefixTable([])]
        owned = _Owned()
        vpcs: dict[str, int] = {"": 0}
        main, by_subnet = self._route_tables()
        rows = []
        for interface in self._snapshot.interfaces:
            party = self._party(interface, slots)
            vpc = vpcs.setdefault(interface.vpc_id, len(vpcs))
            table = by_subnet.get(interface.subnet_id) or main.get(interface.vpc_id)
            where = (interface.vpc_id, table.route_table_id if table is not None else "")
            place = self._places.setdefault(where, len(self._places))
            if place == len(routes):
                routes.append(self._routes(table, interface.vpc_id, slots))
            primary = 0
            # not the public ones: a flow to such an address leaves by the internet gateway, as the routes say
            for text in interface.addresses:
                address = ip_address(text)
                primary = primary or (int(address) if address.version == 4 else 0)
                owned.add(vpc, address, party)
            rows.append((party.slot, place, vpc, self._parties.number(party), primary))
        size = len(slots)
        self._place, self._vpc, self._self, self._primary = (np.zeros(size, np.uint32) for _ in range(4))
        if rows:
            at, *columns = np.array(rows, np.uint32).T
            for table_of_slots, column in zip(
                (self._place, self._vpc, self._self, self._primary), columns, strict=True
            ):
                table_of_slots[at] = column
        self._owned4, self._owned6 = owned.tables(self._parties)
        self._lowest, self._span = owned.ranges(len(vpcs))
        self._routes4 = Tables([each.stretches4 for each in routes], np.uint32)
        self._routes6 = Tables([each.stretches6 for each in routes], np.uint64)

    def look(self, batch: FlowBatch, own: NDArray[np.uint32], direction: NDArray[np.uint8] | None) -> Around:
        own = np.where(own < len(self._place), own, np.uint32(0))  # interfaces that the snapshot does not know
        source = batch.addresses("srcaddr") or _no_addresses(batch.rows)
        destination = batch.addresses("dstaddr") or _no_addresses(batch.rows)
        if direction is None:
            direction = self._inferred(own, source, destination)
        out = direction == EGRESS
        far = self._find(own, _chosen(out, destination, source), out)
        far_slot = self._parties.slots.take(far)
        far_slot[far_slot == own] = 0
        return Around(direction, far_slot, self._extras(own, far, direction, source) if self._names else {})

    def _inferred(
        self, own: NDArray[np.uint32], source: AddressColumn, destination: AddressColumn
    ) -> NDArray[np.uint8]:
        """From whose address it is. Flow logs show an interface by its primary address, whichever was used."""
        primary = self._primary.take(own)
        known = primary != 0
        leaves = known & (source.v4 == primary) & (source.family == 4)
        arrives = known & (destination.v4 == primary) & (destination.family == 4)
        direction = np.full(len(own), UNKNOWN_DIRECTION, np.uint8)
        direction[arrives & ~leaves] = INGRESS
        direction[leaves & ~arrives] = EGRESS
        rows = np.flatnonzero((direction == UNKNOWN_DIRECTION) & (own != 0))
        if len(rows):  # IPv6, and whatever else belongs to the interface
            own_rows = own[rows]
            src = self._owner(own_rows, _part(source, rows)) == own_rows
            dst = self._owner(own_rows, _part(destination, rows)) == own_rows
            direction[rows[dst & ~src]] = INGRESS
            direction[rows[src & ~dst]] = EGRESS
        return direction

    def _extras(
        self,
        own: NDArray[np.uint32],
        far: NDArray[np.uint32],
        direction: NDArray[np.uint8],
        source: AddressColumn,
    ) -> dict[str, StringColumn]:
        near = self._self.take(own)
        near[direction == UNKNOWN_DIRECTION] = 0
        out = direction == EGRESS
        extras = {}
        for side, numbers in (("Source", np.where(out, near, far)), ("Destination", np.where(out, far, near))):
            extras[f"aws{side}Name"] = self._parties.column(numbers, "name")
            extras[f"aws{side}Region"] = self._parties.column(numbers, "region")
            extras[f"aws{side}AzId"] = self._parties.column(numbers, "zone")
            extras[f"aws{side}Service"] = self._parties.column(numbers, "service")
        return extras

    # -- what an address is, seen from an interface

    def _owner(self, own: NDArray[np.uint32], column: AddressColumn) -> NDArray[np.uint32]:
        """The slot of the interface of the same VPC that has the address."""
        vpc = self._vpc.take(own)
        found = self._owned4.find(_key4(vpc, column.v4))
        if column.v6 is not None:
            rows = np.flatnonzero(column.family == 6)
            found[rows] = self._owned6.find(_key6(vpc[rows], _halves(column.v6[rows])))
        return self._parties.slots.take(found)

    def _find(self, own: NDArray[np.uint32], column: AddressColumn, out: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """The party of each row's address: who owns it in the VPC, else where the routes lead."""
        vpc, place = self._vpc.take(own), self._place.take(own)
        found = self._routes4.find(place, column.v4)
        if self._services is not None:
            found = self._outside(found, self._services.find4(column.v4))
        # the addresses of a VPC lie close together, so most others need not be looked for
        rows = np.flatnonzero(column.v4 - self._lowest.take(vpc) <= self._span.take(vpc))
        if len(rows):
            owner = self._owned4.find(_key4(vpc[rows], column.v4[rows]))
            found[rows] = np.where(owner, owner, found[rows])
        rows = np.flatnonzero(column.family == 6) if column.v6 is not None else rows[:0]
        if column.v6 is not None and len(rows):
            halves = _halves(column.v6[rows])
            six = self._owned6.find(_key6(vpc[rows], halves))
            beyond = np.flatnonzero(six == 0)
            answers = self._routes6.find(place[rows[beyond]], halves[beyond, 0])
            if self._services is not None:
                kinds = [self._services.find6(int.from_bytes(o.tobytes(), "big")) for o in column.v6[rows[beyond]]]
                answers = self._outside(answers, np.array(kinds, np.uint32))
            six[beyond] = answers
            found[rows] = six
        found[column.family == 0] = 0
        return found

    def _outside(self, parties: NDArray[np.uint32], kinds: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Addresses behind a gateway, with the AWS service and region that publish them."""
        pairs, which = np.unique(parties.astype(np.uint64) << np.uint64(32) | kinds, return_inverse=True)
        numbers = np.zeros(len(pairs), np.uint32)
        for at, pair in enumerate(pairs.tolist()):
            party, kind = pair >> 32, pair & 0xFFFFFFFF
            if kind:
                service, region = self._service_names[kind]
                party = self._parties.number(_Party(int(self._parties.slots[party]), "", region, "", service))
            numbers[at] = party
        return numbers[which]

    # -- making the tables

    def _party(self, interface: model.Interface, slots: Slots) -> _Party:
        slot = slots.of(self._directory.interface(interface.interface_id))
        subnet = self._snapshot.subnet_by_id.get(interface.subnet_id)
        zone = subnet.zone_id if subnet is not None else interface.zone
        name = self._directory.label(interface.interface_id) or interface.interface_id
        return _Party(slot, name, interface.region, zone) if self._names else _Party(slot)

    def _route_tables(self) -> tuple[dict[str, model.RouteTable], dict[str, model.RouteTable]]:
        """(main table by VPC, table by subnet)"""
        main, by_subnet = {}, {}
        for table in self._snapshot.route_tables:
            if table.main:
                main[table.vpc_id] = table
            by_subnet.update(dict.fromkeys(table.subnet_ids, table))
        return main, by_subnet

    def _routes(self, table: model.RouteTable | None, vpc_id: str, slots: Slots) -> PrefixTable:
        prefixes: list[tuple[str, int]] = []
        lists = {each.prefix_list_id: each.cidrs for each in self._snapshot.prefix_lists}
        for route in table.routes if table is not None else ():
            party = self._target(route.target, vpc_id, slots)
            listed = route.destination.startswith("pl-")
            destinations = lists.get(route.destination, ()) if listed else (route.destination,)
            prefixes.extend((cidr, party) for cidr in destinations)
        return PrefixTable(prefixes)

    def _target(self, target: str, vpc_id: str, slots: Slots) -> int:
        interface = self._snapshot.interface_by_id.get(target)
        if interface is not None:
            return self._parties.number(self._party(interface, slots))
        key = gateway_key(target, vpc_id)
        return self._parties.number(_Party(slots.of(self._directory.interface(key)))) if key else 0


class _Owned:
    """Addresses with their owners, while they are collected."""

    def __init__(self) -> None:
        self._four: dict[int, _Party] = {}
        self._six: dict[tuple[int, int, int], _Party] = {}

    def add(self, vpc: int, address: IPv4Address | IPv6Address, party: _Party) -> None:
        number = int(address)
        if address.version == 4:
            self._four[vpc << 32 | number] = party
        else:
            self._six[vpc, number >> 64, number & 0xFFFFFFFFFFFFFFFF] = party

    def ranges(self, vpcs: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """By VPC the lowest IPv4 address, and how far above it the highest is."""
        keys = np.array(list(self._four), np.uint64)
        vpc, address = (keys >> np.uint64(32)).astype(np.intp), (keys & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        lowest, highest = np.full(vpcs, 0xFFFFFFFF, np.uint32), np.zeros(vpcs, np.uint32)
        np.minimum.at(lowest, vpc, address)
        np.maximum.at(highest, vpc, address)
        return lowest, np.where(highest >= lowest, highest - lowest, np.uint32(0))

    def tables(self, parties: _Parties) -> tuple[KeyTable, KeyTable]:
        four = np.array(list(self._four), np.uint64)
        parts = np.array(list(self._six), np.uint64).reshape(-1, 3)
        six = _key6(parts[:, 0].astype(np.uint32), parts[:, 1:])
        return (
            KeyTable(four, np.array([parties.number(each) for each in self._four.values()], np.uint32)),
            KeyTable(six, np.array([parties.number(each) for each in self._six.values()], np.uint32)),
        )


class KeyTable:
    """64-bit keys to numbers, for many at a time; 0 is not there.

    Two tables with a place for each key, by two hashes, four times as large as needed: what finds its place in the
    first taken is in the second, and the few that are in neither are searched for.
    """

    _HASHES = (0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93)

    def __init__(self, keys: NDArray[np.uint64], numbers: NDArray[np.uint32]) -> None:
        self._bits = max(4, int(4 * max(1, len(keys)) - 1).bit_length())
        self._levels: list[tuple[int, NDArray[np.uint64], NDArray[np.uint32]]] = []
        for hash in self._HASHES:
            # where nothing is, the number is 0, so the key 0 there does no harm
            stored, values = np.zeros(1 << self._bits, np.uint64), np.zeros(1 << self._bits, np.uint32)
            at = self._place(keys, hash)
            stored[at], values[at] = keys, numbers  # of those with one place the last stays
            left = stored[at] != keys
            keys, numbers = keys[left], numbers[left]
            self._levels.append((hash, stored, values))
        order = np.argsort(keys)
        self._rest, self._rest_numbers = keys[order], numbers[order]

    def _place(self, keys: NDArray[np.uint64], hash: int) -> NDArray[np.intp]:
        return ((keys * np.uint64(hash)) >> np.uint64(64 - self._bits)).astype(np.intp)

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
        (hash, stored, values), (second, stored2, values2) = self._levels
        at = self._place(keys, hash)
        found = np.where(stored.take(at) == keys, values.take(at), np.uint32(0))
        rows = np.flatnonzero(found == 0)
        if len(rows):
            left = keys[rows]
            at = self._place(left, second)
            found[rows] = np.where(stored2.take(at) == left, values2.take(at), np.uint32(0))
        if len(self._rest):
            near = np.minimum(np.searchsorted(self._rest, keys), len(self._rest) - 1)
            found = np.where(self._rest[near] == keys, self._rest_numbers[near], found)
        return found


def _key4(vpc: NDArray[np.uint32], addresses: NDArray[np.uint32]) -> NDArray[np.uint64]:
    return vpc.astype(np.uint64) << np.uint64(32) | addresses


def _halves(octets: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Addresses (n, 16) as upper and lower 64 bits (n, 2)."""
    return np.ascontiguousarray(octets).view(">u8").astype(np.uint64)


def _key6(vpc: NDArray[np.uint32], halves: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """An IPv6 address and its VPC in 64 bits: two of the addresses of an inventory never mix to one in practice."""
    mixed: NDArray[np.uint64] = halves[:, 0] * np.uint64(0x9E3779B97F4A7C15) ^ (halves[:, 1] + vpc) * np.uint64(
        0xC2B2AE3D27D4EB4F
    )
    mixed ^= mixed >> np.uint64(29)
    return mixed


def _no_addresses(rows: int) -> AddressColumn:
    return AddressColumn(np.zeros(rows, np.uint8), np.zeros(rows, np.uint32))


def _part(column: AddressColumn, rows: NDArray[np.intp]) -> AddressColumn:
    return AddressColumn(column.family[rows], column.v4[rows], None if column.v6 is None else column.v6[rows])


def _chosen(first: NDArray[np.bool_], a: AddressColumn, b: AddressColumn) -> AddressColumn:
    """`a` where `first`, else `b`."""
    v6 = None
    if a.v6 is not None and b.v6 is not None:
        v6 = np.where(first[:, None], a.v6, b.v6)
    elif a.v6 is not None or b.v6 is not None:
        v6 = a.v6 if a.v6 is not None else b.v6
    family = a.family if a.family is b.family else np.where(first, a.family, b.family)
    return AddressColumn(family, np.where(first, a.v4, b.v4), v6)


class InventoryError(ValueError):
    """An inventory file that cannot be used."""


def from_file(
    path: Path, addresses: Mapping[str, IPv4Address], default: IPv4Address | None, *, names: bool
) -> Enricher:
    """An Enricher from a stored snapshot, without a state: for `export --inventory`. Raises InventoryError."""
    try:
        snapshot = model.Snapshot.from_json(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise InventoryError(f"{path}: {error}") from None
    configured = {key: address for key, address in addresses.items() if key.startswith(("vpc-", "tgw-"))}
    if default is not None:
        configured.setdefault(UNATTRIBUTED, default)
    exporters = Exporters(configured, [DEFAULT_POOL], None, snapshot)
    directory = InventoryDirectory(snapshot, exporters, stateless_indexes())
    return Enricher(directory, InventorySurroundings(snapshot, directory, names=names))


def stateless_indexes() -> Indexes:
    """Interface indexes that follow from the ids alone, so that two runs agree with nothing stored."""
    taken: dict[int, str] = {}
    known: dict[str, int] = {}

    def indexes(names: Mapping[str, str]) -> Mapping[str, int]:
        for key in names:
            if key not in known:
                known[key] = free_number(key, MOST_INDEX, taken)
                taken[known[key]] = key
        return {key: known[key] for key in names}

    return indexes
