"""The inventory as attribution and enrichment ask it: whose an interface is, what it is called, what lies behind it.

In: a snapshot, the exporters, interface indexes, AWS's own address ranges. Out: a Directory (asked once per distinct
value) and Surroundings (asked per batch, in arrays). The other side of a flow is the ENI of the VPC that owns the
far address, else what the route table of the interface's subnet says. An answer is kept per (place, address), so that
a flow costs one look-up in a table. Never: calls to AWS. A new snapshot means new objects.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edfn_agent.delivery import Origin
from edfn_agent.enrich import EGRESS, INGRESS, UNKNOWN_DIRECTION, Around, Enricher, Interface, Slots
from edfn_agent.formats.batch import AddressColumn, Dictionary, FlowBatch, StringColumn
from edfn_agent.inventory import model
from edfn_agent.inventory.exporters import UNATTRIBUTED, Exporter, Exporters
from edfn_agent.inventory.mapped import DEFAULT_POOL, MOST_INDEX, free_number, stable_number
from edfn_agent.inventory.prefixes import PrefixTable
from edfn_agent.inventory.sources import SourcePlan

Indexes = Callable[[Mapping[str, str]], Mapping[str, int]]
"""Interface keys with names -> their indexes, stable for ever (state.interfaces.allocate)."""

CACHE_BITS = 17
"""2**17 entries of 12 octets for each family: the addresses of a busy hour; what falls out is worked out again."""


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
        self._names = interface_names(snapshot)
        self._interfaces = {key: Interface(index, self._names[key]) for key, index in indexes(self._names).items()}

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

    def interface(self, interface_id: str) -> Interface:
        known = self._interfaces.get(interface_id)
        if known is None:
            self.unknown.add(interface_id)
            index = self._indexes({interface_id: interface_id})[interface_id]
            known = self._interfaces[interface_id] = Interface(index, interface_id)
        return known


def interface_names(snapshot: model.Snapshot) -> dict[str, str]:
    """What people call every interface there is, by key: ENIs by id, gateways by id and, where shared, VPC."""
    names = {
        each.interface_id: _named(interface_label(snapshot, each), each.interface_id) for each in snapshot.interfaces
    }
    for table in snapshot.route_tables:
        for route in table.routes:
            key = gateway_key(route.target, table.vpc_id)
            if key and key not in names:
                names[key] = _named(gateway_label(snapshot, route.target, table.vpc_id), route.target)
    for attachment in snapshot.transit_gateway_attachments:
        label = attachment.name or attachment.resource_id
        names.setdefault(attachment.attachment_id, _named(label, attachment.attachment_id))
    return names


def _named(label: str, key: str) -> str:
    return f"{label} {key}" if label and label != key else key


def interface_label(snapshot: model.Snapshot, interface: model.Interface) -> str:
    """The Name tag of what it serves, else its own, else what kind of thing it is."""
    instance = snapshot.instance_by_id.get(interface.serves)
    if instance is not None:
        return instance.name or instance.instance_id
    for nat in snapshot.nat_gateways:
        if nat.nat_gateway_id == interface.serves:
            return nat.name or nat.nat_gateway_id
    for endpoint in snapshot.endpoints:
        if endpoint.endpoint_id == interface.serves:
            return endpoint.name or endpoint.service.rpartition(".")[2] or endpoint.endpoint_id
    return interface.name or interface.serves or ("" if interface.type == "interface" else interface.type)


def gateway_key(target: str, vpc_id: str) -> str:
    """The key of a route's target as an interface of a VPC; "" for what is none (local, an ENI has its own)."""
    if not target or target == "local":
        return ""
    return f"{target} {vpc_id}" if target.startswith(("tgw-", "pcx-", "vgw-", "arn:")) else target


def gateway_label(snapshot: model.Snapshot, target: str, vpc_id: str) -> str:
    for nat in snapshot.nat_gateways:
        if nat.nat_gateway_id == target:
            return nat.name
    for gateway in snapshot.internet_gateways:
        if gateway.internet_gateway_id == target:
            return gateway.name
    for endpoint in snapshot.endpoints:
        if endpoint.endpoint_id == target:
            return endpoint.name or endpoint.service.rpartition(".")[2]
    for peering in snapshot.peerings:
        if peering.peering_id == target:
            far = peering.peer_vpc_id if peering.vpc_id == vpc_id else peering.vpc_id
            known = snapshot.vpc_by_id.get(far)
            return f"to {known.name}" if known and known.name else peering.name or f"to {far}"
    return ""


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


class _Place:
    """Where an interface stands: its VPC's addresses and the routes of its subnet."""

    def __init__(self, addresses: Mapping[int, int], routes: PrefixTable) -> None:
        self.addresses = addresses  # (address << 1 | is IPv6) -> party
        self.routes = routes  # prefix -> party


class InventorySurroundings:
    """Surroundings from a snapshot."""

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
        self._services = services
        self._service_names = service_names or [("", "")]
        self._names = names
        self._parties = _Parties()
        self._places: list[_Place] = [_Place({}, PrefixTable([]))]
        self._place_of_subnet: dict[str, int] = {}
        self._addresses_of_vpc: dict[str, dict[int, int]] = {}
        self._interfaces_of_vpc: dict[str, list[model.Interface]] = {}
        for interface in snapshot.interfaces:
            self._interfaces_of_vpc.setdefault(interface.vpc_id, []).append(interface)
        self._keys = {each.index: key for key, each in directory._interfaces.items()}
        self._place_of_slot = np.zeros(64, np.uint32)
        self._known_slots = 1
        self._four = _Cache()
        self._six = _Cache()

    def look(
        self, batch: FlowBatch, own: NDArray[np.uint32], direction: NDArray[np.uint8] | None, interfaces: Slots
    ) -> Around:
        self._learn(interfaces)
        place = self._place_of_slot.take(own)
        source, destination = batch.addresses("srcaddr"), batch.addresses("dstaddr")
        nobody = np.zeros(batch.rows, np.uint32)
        if direction is not None and not self._names and source is not None and destination is not None:
            out = direction == EGRESS
            far = self._find(place, _chosen(out, destination, source), batch.family, interfaces)
            return Around(direction, self._parties.slots.take(far), {})
        src = nobody if source is None else self._find(place, source, batch.family, interfaces)
        dst = nobody if destination is None else self._find(place, destination, batch.family, interfaces)
        src_slot, dst_slot = self._parties.slots.take(src), self._parties.slots.take(dst)
        if direction is None:
            leaves, arrives = src_slot == own, dst_slot == own
            direction = np.full(batch.rows, UNKNOWN_DIRECTION, np.uint8)
            direction[arrives & ~leaves] = INGRESS
            direction[leaves & ~arrives] = EGRESS
            direction[own == 0] = UNKNOWN_DIRECTION
        far_slot = np.where(direction == EGRESS, dst_slot, src_slot)
        far_slot[far_slot == own] = 0
        return Around(direction, far_slot, self._extras(src, dst) if self._names else {})

    def _extras(self, src: NDArray[np.uint32], dst: NDArray[np.uint32]) -> dict[str, StringColumn]:
        parties = self._parties
        extras = {}
        for side, numbers in (("Source", src), ("Destination", dst)):
            extras[f"aws{side}Name"] = parties.column(numbers, "name")
            extras[f"aws{side}Region"] = parties.column(numbers, "region")
            extras[f"aws{side}AzId"] = parties.column(numbers, "zone")
            extras[f"aws{side}Service"] = parties.column(numbers, "service")
        return extras

    # -- what an address is, from a place

    def _find(
        self, place: NDArray[np.uint32], column: AddressColumn, family: NDArray[np.uint8], interfaces: Slots
    ) -> NDArray[np.uint32]:
        """The party of each row's address."""
        key = place.astype(np.uint64) << np.uint64(32) | column.v4
        if column.v6 is None:
            return self._four.find(key, key, lambda rows: self._work4(place[rows], column.v4[rows], interfaces))
        found = self._four.find(key, key, lambda rows: self._work4(place[rows], column.v4[rows], interfaces))
        rows6 = np.flatnonzero(column.family == 6)
        if len(rows6):
            octets, place6 = column.v6[rows6], place[rows6]
            halves = np.ascontiguousarray(octets).view(">u8").astype(np.uint64)
            high = halves[:, 0] ^ place6.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            found[rows6] = self._six.find(
                high, halves[:, 1], lambda rows: self._work6(place6[rows], octets[rows], interfaces)
            )
        found[column.family == 0] = 0
        return found

    def _work4(
        self, places: NDArray[np.uint32], addresses: NDArray[np.uint32], interfaces: Slots
    ) -> NDArray[np.uint32]:
        result = np.zeros(len(addresses), np.uint32)
        for number in np.unique(places).tolist():
            rows = np.flatnonzero(places == number)
            place = self._places[number]
            routed = place.routes.find4(addresses[rows])
            owned = place.addresses
            service = self._services.find4(addresses[rows]) if self._services is not None else routed * 0
            result[rows] = [
                owned.get(address << 1) or self._outside(party, kind)
                for address, party, kind in zip(
                    addresses[rows].tolist(), routed.tolist(), service.tolist(), strict=True
                )
            ]
        return result

    def _work6(self, places: NDArray[np.uint32], octets: NDArray[np.uint8], interfaces: Slots) -> NDArray[np.uint32]:
        result = np.zeros(len(places), np.uint32)
        for row, (number, raw) in enumerate(zip(places.tolist(), octets, strict=True)):
            address, place = int.from_bytes(raw.tobytes(), "big"), self._places[number]
            party = place.addresses.get(address << 1 | 1)
            if not party:
                kind = self._services.find6(address) if self._services is not None else 0
                party = self._outside(place.routes.find6(address), kind)
            result[row] = party
        return result

    def _outside(self, party: int, kind: int) -> int:
        """An address behind a gateway, with the AWS service and region that publish it."""
        if not kind:
            return party
        service, region = self._service_names[kind]
        return self._parties.number(_Party(int(self._parties.slots[party]), "", region, "", service))

    # -- what is around an interface, worked out when it is first met

    def _learn(self, interfaces: Slots) -> None:
        while self._known_slots < len(interfaces):
            slot = self._known_slots
            self._known_slots += 1
            if slot >= len(self._place_of_slot):
                self._place_of_slot = np.concatenate([self._place_of_slot, np.zeros_like(self._place_of_slot)])
            key = self._keys.get(interfaces.interfaces[slot].index, "")
            interface = self._snapshot.interface_by_id.get(key)
            if interface is not None:
                self._place_of_slot[slot] = self._place(interface, interfaces)

    def _place(self, interface: model.Interface, interfaces: Slots) -> int:
        where = interface.subnet_id or interface.vpc_id
        number = self._place_of_subnet.get(where)
        if number is None:
            routes = self._routes(interface.vpc_id, interface.subnet_id, interfaces)
            self._places.append(_Place(self._addresses(interface.vpc_id, interfaces), routes))
            number = self._place_of_subnet[where] = len(self._places) - 1
        return number

    def _addresses(self, vpc_id: str, interfaces: Slots) -> dict[int, int]:
        known = self._addresses_of_vpc.get(vpc_id)
        if known is None:
            known = self._addresses_of_vpc[vpc_id] = {}
            for interface in self._interfaces_of_vpc.get(vpc_id, ()):
                party = self._parties.number(self._party(interface, interfaces))
                for text in (*interface.addresses, *interface.public_addresses):
                    address = ip_address(text)
                    known[int(address) << 1 | (address.version == 6)] = party
        return known

    def _party(self, interface: model.Interface, interfaces: Slots) -> _Party:
        slot = interfaces.of(self._directory.interface(interface.interface_id))
        subnet = self._snapshot.subnet_by_id.get(interface.subnet_id)
        zone = subnet.zone_id if subnet is not None else interface.zone
        name = interface_label(self._snapshot, interface) or interface.interface_id
        return _Party(slot, name, interface.region, zone)

    def _routes(self, vpc_id: str, subnet_id: str, interfaces: Slots) -> PrefixTable:
        tables = [each for each in self._snapshot.route_tables if each.vpc_id == vpc_id]
        table = next((each for each in tables if subnet_id in each.subnet_ids), None)
        table = table or next((each for each in tables if each.main), None)
        prefixes: list[tuple[str, int]] = []
        lists = {each.prefix_list_id: each.cidrs for each in self._snapshot.prefix_lists}
        for route in table.routes if table is not None else ():
            party = self._target(route.target, vpc_id, interfaces)
            destinations = (
                lists.get(route.destination, ()) if route.destination.startswith("pl-") else (route.destination,)
            )
            prefixes.extend((cidr, party) for cidr in destinations)
        return PrefixTable(prefixes)

    def _target(self, target: str, vpc_id: str, interfaces: Slots) -> int:
        interface = self._snapshot.interface_by_id.get(target)
        if interface is not None:
            return self._parties.number(self._party(interface, interfaces))
        key = gateway_key(target, vpc_id)
        if not key:
            return 0
        return self._parties.number(_Party(interfaces.of(self._directory.interface(key))))


def _chosen(first: NDArray[np.bool_], a: AddressColumn, b: AddressColumn) -> AddressColumn:
    v6 = None
    if a.v6 is not None and b.v6 is not None:
        v6 = np.where(first[:, None], a.v6, b.v6)
    elif a.v6 is not None or b.v6 is not None:
        v6 = a.v6 if a.v6 is not None else b.v6
    return AddressColumn(np.where(first, a.family, b.family), np.where(first, a.v4, b.v4), v6)


class _Cache:
    """Answers by key, direct-mapped: a key has one place, the newest stays there. 0 is an answer like any other."""

    def __init__(self) -> None:
        self._high = np.zeros(1 << CACHE_BITS, np.uint64)
        self._low = np.full(1 << CACHE_BITS, 0xFFFFFFFFFFFFFFFF, np.uint64)  # with high 0: an address no row has
        self._answers = np.zeros(1 << CACHE_BITS, np.uint32)

    def find(
        self,
        high: NDArray[np.uint64],
        low: NDArray[np.uint64],
        work: Callable[[NDArray[np.intp]], NDArray[np.uint32]],
    ) -> NDArray[np.uint32]:
        """The answer for each key; `work` gets the rows whose keys are not there (each distinct key may come often).

        Pass the same array twice for keys of 64 bits.
        """
        mixed = high if high is low else high ^ (low * np.uint64(0xC2B2AE3D27D4EB4F))
        place = (mixed * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - CACHE_BITS)
        at = place.astype(np.intp)
        hit = self._low.take(at) == low
        if high is not low:
            hit &= self._high.take(at) == high
        answers = self._answers.take(at)
        if not hit.all():
            misses = np.flatnonzero(~hit)
            _, first, which = np.unique(mixed[misses], return_index=True, return_inverse=True)
            rows = misses[first]
            fresh = work(rows)
            answers[misses] = fresh[which]
            self._high[at[rows]], self._low[at[rows]], self._answers[at[rows]] = high[rows], low[rows], fresh
        return answers


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
                known[key] = free_number(stable_number(key, MOST_INDEX), MOST_INDEX, taken)
                taken[known[key]] = key
        return {key: known[key] for key in names}

    return indexes
