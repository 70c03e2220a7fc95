"""Joins the columns of a batch with what is known of the network: whose flow it is, through which interface, which way.

In: a FlowBatch. Out: Flows, the same rows with an exporter per row, the interfaces on both sides, and the direction.
Everything is worked out once per distinct value (of a dictionary, of an address) and looked up per row, so a row costs
a few array look-ups however large the inventory is. Nothing here asks AWS; a new inventory means a new Enricher.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edfn_agent.delivery import Origin
from edfn_agent.formats.batch import Dictionary, FlowBatch, StringColumn
from edfn_agent.inventory.exporters import Exporter

INGRESS, EGRESS, UNKNOWN_DIRECTION = 0, 1, 255
MOST_EXPORTERS = 1 << 16  # what `Flows.exporter` can tell apart; the flows of more are unattributed


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of an exporter as a collector knows it: ifIndex and ifDescr."""

    index: int  # 1..2**32-1, unique over the agent; 0 is no interface
    name: str


NO_INTERFACE = Interface(0, "")


class Directory(Protocol):
    """What attribution asks, by name. Each question is asked once per distinct value, so it may be slow."""

    unattributed: Exporter
    by_account: bool  # whether exporter_of_account can have an answer at all

    def exporter_of_vpc(self, vpc_id: str) -> Exporter | None: ...
    def exporter_of_transit_gateway(self, tgw_id: str) -> Exporter | None: ...
    def exporter_of_interface(self, interface_id: str) -> Exporter | None: ...
    def exporter_of_subnet(self, subnet_id: str) -> Exporter | None: ...
    def exporter_of_account(self, account_id: str, vpc_id: str) -> Exporter | None: ...
    def exporter_of_unknown_vpc(self, vpc_id: str) -> Exporter | None: ...
    def home_of_origin(self, origin: Origin) -> str | None: ...
    def owns(self, origin: Origin, exporter: Exporter) -> bool: ...
    def interface(self, interface_id: str) -> Interface: ...


@dataclass(slots=True)
class Around:
    """What an inventory adds to a batch."""

    direction: NDArray[np.uint8]
    far: NDArray[np.uint32]  # slots of the interfaces on the other side
    extras: dict[str, StringColumn]  # element name -> names


class Surroundings(Protocol):
    """An inventory, seen from the rows of a batch: the other side of each flow, its direction, and names."""

    def bind(self, slots: Slots) -> None:
        """Called once, before the first batch: the interfaces that it speaks of get their numbers."""

    def look(
        self, batch: FlowBatch, own: NDArray[np.uint32], facts: NDArray[np.void], direction: NDArray[np.uint8] | None
    ) -> Around:
        """`own` and `facts` are the slots of the rows' own interfaces, and what Slots has of those."""


NOBODY = 0xFFFFFFFF
NO_ADDRESS = 0x7FFFFFFF  # 127.255.255.255, which no packet on a wire has (RFC 1122, section 3.2.1.3)


class Slots:
    """Interfaces met so far, by a small number each, so that arrays can speak of them. Slot 0 is no interface.

    What a row needs to know of an interface lies side by side, because that is one access to memory.
    """

    FACTS = np.dtype([("index", np.uint32), ("told", np.uint32), ("primary", np.uint32), ("place", np.uint32)])
    """ifIndex; an exporter whose interface table has it, or NOBODY; its primary IPv4 address, or NO_ADDRESS; the place
    it is in (the numbers of places are the inventory's own; 0 is none)."""

    def __init__(self) -> None:
        self.interfaces: list[Interface] = []
        self._by_index: dict[int, int] = {}
        self._facts = np.zeros(64, self.FACTS)
        self.of(NO_INTERFACE)

    def __len__(self) -> int:
        return len(self.interfaces)

    def of(self, interface: Interface, primary: int = NO_ADDRESS, place: int = 0) -> int:
        slot = self._by_index.get(interface.index)
        if slot is None:
            slot = self._by_index[interface.index] = self.another(interface, primary, place)
        return slot

    def another(self, interface: Interface, primary: int = NO_ADDRESS, place: int = 0) -> int:
        """A slot of its own for an interface that may have one: to tell apart what lies behind it."""
        slot = len(self.interfaces)
        self.interfaces.append(interface)
        if slot >= len(self._facts):
            self._facts = np.concatenate([self._facts, np.zeros_like(self._facts)])
        self._facts[slot] = (interface.index, NOBODY, primary, place)
        return slot

    def facts(self, slots: NDArray[np.uint32]) -> NDArray[np.void]:
        """FACTS of each row's interface."""
        return self._facts.take(slots)

    def tell(self, slot: int, exporter: int) -> None:
        self._facts["told"][slot] = exporter


@dataclass(slots=True)
class Flows:
    """A batch whose rows know where they belong. `exporter[i]` is an index into `exporters`."""

    batch: FlowBatch
    exporters: Sequence[Exporter]
    exporter: NDArray[np.uint16]
    ingress: NDArray[np.uint32] | None = None  # ifIndex, 0 unknown; None: nothing is known of interfaces
    egress: NDArray[np.uint32] | None = None
    direction: NDArray[np.uint8] | None = None  # INGRESS, EGRESS or UNKNOWN_DIRECTION; None: not known at all
    extras: Mapping[str, StringColumn] = field(default_factory=dict)  # element name -> names from the inventory
    new_interfaces: Sequence[tuple[int, Interface]] = ()  # (exporter, interface) met for the first time
    elsewhere: frozenset[int] = frozenset()  # exporters whose flows another source brings; not exported from this one


class CodeTable:
    """A number for each value of a dictionary column, worked out when the value is first seen."""

    def __init__(self, work: Callable[[str], int], absent: int = 0) -> None:
        self._work = work
        self._absent = np.array([absent], np.uint32)
        self._tables: weakref.WeakKeyDictionary[Dictionary, NDArray[np.uint32]] = weakref.WeakKeyDictionary()

    def take(self, column: StringColumn) -> NDArray[np.uint32]:
        """The number of each row; `absent` where there is no value."""
        values = column.dictionary.values
        table = self._tables.get(column.dictionary)
        if table is None or len(table) < len(values):
            known = 1 if table is None else len(table)
            fresh = [self._work(value.decode("utf-8", "replace")) for value in values[known:]]
            old = self._absent if table is None else table
            table = np.concatenate([old, np.array(fresh, np.uint32)])
            self._tables[column.dictionary] = table
        return table.take(column.codes)


class Enricher:
    """Adds to each batch what a Directory and, where there is one, an inventory know. Used by one thread at a time."""

    def __init__(self, directory: Directory, surroundings: Surroundings | None = None) -> None:
        self._directory = directory
        self._surroundings = surroundings
        self.exporters: list[Exporter] = [directory.unattributed]
        self._exporter_codes: dict[str, int] = {directory.unattributed.key: 0}
        self._slots = Slots()
        if surroundings is not None:
            surroundings.bind(self._slots)
        self._told: set[tuple[int, int]] = set()
        self._by_vpc = CodeTable(self._code(directory.exporter_of_vpc))
        self._by_transit_gateway = CodeTable(self._code(directory.exporter_of_transit_gateway))
        self._by_interface = CodeTable(self._code(directory.exporter_of_interface))
        self._by_subnet = CodeTable(self._code(directory.exporter_of_subnet))
        self._by_unknown_vpc = CodeTable(self._code(directory.exporter_of_unknown_vpc))
        self._own = CodeTable(lambda name: self._slots.of(self._directory.interface(name)))
        self._direction = CodeTable(
            lambda value: {"ingress": INGRESS, "egress": EGRESS}.get(value, UNKNOWN_DIRECTION), UNKNOWN_DIRECTION
        )
        # by origin; as many as there are flow logs and log groups
        self._origin_codes: dict[Origin, int] = {}
        self._owned: dict[Origin, tuple[int, frozenset[int]]] = {}
        self._names = Dictionary()
        self.unattributed_rows = 0

    def enrich(self, batch: FlowBatch) -> Flows:
        exporter = self._attribute(batch)
        flows = Flows(batch, self.exporters, exporter.astype(np.uint16))
        flows.elsewhere = self._elsewhere(batch.origin)
        flows.direction = self._stated_direction(batch)
        self._interfaces_of(flows, exporter)
        return flows

    # -- whose flow it is

    def _attribute(self, batch: FlowBatch) -> NDArray[np.uint32]:
        """The exporter of each row."""
        codes = np.zeros(batch.rows, np.uint32)  # exporter + 1; 0 still open
        open_rows = batch.rows
        for found in self._answers(batch):
            if found is None:
                continue
            codes = found if open_rows == batch.rows else np.where(codes, codes, found)
            open_rows = batch.rows - int(np.count_nonzero(codes))
            if not open_rows:
                break
        if open_rows:
            self.unattributed_rows += open_rows
            codes[codes == 0] = 1
        codes -= np.uint32(1)
        return codes

    def _answers(self, batch: FlowBatch) -> Iterator[NDArray[np.uint32] | None]:
        """What may say whose flow it is, in the order of trust; what one leaves open the next decides, if asked."""

        def by(name: str, table: CodeTable) -> NDArray[np.uint32] | None:
            column = batch.strings(name)
            return None if column is None else table.take(column)

        yield by("vpc-id", self._by_vpc)
        yield by("tgw-id", self._by_transit_gateway)
        yield self._by_origin(batch)
        yield by("interface-id", self._by_interface)
        yield by("subnet-id", self._by_subnet)
        if self._directory.by_account:
            yield self._by_account(batch)
        yield by("vpc-id", self._by_unknown_vpc)

    def _by_origin(self, batch: FlowBatch) -> NDArray[np.uint32] | None:
        code = self._origin_code(batch.origin)
        return np.full(batch.rows, code, np.uint32) if code else None

    def _by_account(self, batch: FlowBatch) -> NDArray[np.uint32] | None:
        """Where only the account is known: its VPCs are exporters of their own, so the pair decides."""
        accounts, vpcs = batch.strings("account-id"), batch.strings("vpc-id")
        if accounts is None:
            return None
        vpc_codes = vpcs.codes if vpcs is not None else np.zeros(batch.rows, np.uint32)
        pairs, which = np.unique(accounts.codes.astype(np.uint64) << np.uint64(32) | vpc_codes, return_inverse=True)
        found = np.zeros(len(pairs), np.uint32)
        for number, pair in enumerate(pairs.tolist()):
            account, vpc_code = accounts.dictionary.values[pair >> 32].decode("utf-8", "replace"), pair & 0xFFFFFFFF
            vpc = vpcs.dictionary.values[vpc_code].decode("utf-8", "replace") if vpcs and vpc_code else ""
            if pair >> 32:
                found[number] = self._code(partial(self._directory.exporter_of_account, vpc_id=vpc))(account)
        return found[which]

    def _origin_code(self, origin: Origin) -> int:
        code = self._origin_codes.get(origin)
        if code is None:
            home = origin.vpc_id or self._directory.home_of_origin(origin) or ""
            transit = home.startswith("tgw-")
            ask = self._directory.exporter_of_transit_gateway if transit else self._directory.exporter_of_vpc
            code = self._origin_codes[origin] = self._code(ask)(home) if home else 0
        return code

    def _elsewhere(self, origin: Origin) -> frozenset[int]:
        known, found = self._owned.get(origin, (0, frozenset()))
        if known < len(self.exporters):
            new = range(known, len(self.exporters))
            found |= {code for code in new if not self._directory.owns(origin, self.exporters[code])}
            self._owned[origin] = (len(self.exporters), found)
        return found

    def _code(self, ask: Callable[[str], Exporter | None]) -> Callable[[str], int]:
        def work(value: str) -> int:
            exporter = ask(value)
            if exporter is None:
                return 0
            code = self._exporter_codes.get(exporter.key)
            if code is None and len(self.exporters) == MOST_EXPORTERS:
                return 0
            if code is None:
                code = self._exporter_codes[exporter.key] = len(self.exporters)
                self.exporters.append(exporter)
            return code + 1

        return work

    # -- through which interfaces, and which way

    def _stated_direction(self, batch: FlowBatch) -> NDArray[np.uint8] | None:
        column = batch.strings("flow-direction")
        return None if column is None else self._direction.take(column).astype(np.uint8)

    def _interfaces_of(self, flows: Flows, exporter: NDArray[np.uint32]) -> None:
        batch = flows.batch
        own_column = batch.strings("interface-id") or batch.strings("tgw-attachment-id")
        if own_column is None:
            return
        own = self._own.take(own_column)
        near = self._slots.facts(own)
        far: NDArray[np.uint32] | None = None
        pair = batch.strings("tgw-pair-attachment-id")
        if pair is not None:
            far = self._own.take(pair)
        elif self._surroundings is not None:
            around = self._surroundings.look(batch, own, near, flows.direction)
            far, flows.direction = around.far, around.direction
            flows.extras = {**around.extras, **self._vpc_names(exporter)} if around.extras else {}
        flows.ingress, flows.egress = near["index"], np.zeros(batch.rows, np.uint32)
        flows.new_interfaces = self._news(exporter, own, near)
        if far is not None:
            beyond = self._slots.facts(far)
            flows.egress = beyond["index"]
            flows.new_interfaces += self._news(exporter, far, beyond)
        # a flow seen at an interface, which way unknown: it came in there, as far as anybody can tell
        if flows.direction is not None:
            flows.ingress, flows.egress = swapped(flows.direction == EGRESS, flows.ingress, flows.egress)

    def _vpc_names(self, exporter: NDArray[np.uint32]) -> dict[str, StringColumn]:
        values = self._names.values
        values.extend(each.name.encode() for each in self.exporters[len(values) - 1 :])
        return {"awsVpcName": StringColumn(exporter + np.uint32(1), self._names)}

    def _news(
        self, exporter: NDArray[np.uint32], slots: NDArray[np.uint32], facts: NDArray[np.void]
    ) -> list[tuple[int, Interface]]:
        """Interfaces that the exporters of these rows have not told of yet."""
        odd = facts["told"] != exporter
        # slot 0 is told of by nobody, so where nothing is new the odd rows are those
        if np.count_nonzero(odd) == len(slots) - np.count_nonzero(slots):
            return []
        rows = np.flatnonzero(odd & (slots != 0))
        news = []
        for pair in np.unique(exporter[rows].astype(np.uint64) << np.uint64(32) | slots[rows]).tolist():
            code, slot = pair >> 32, pair & 0xFFFFFFFF
            self._slots.tell(slot, code)
            interface = self._slots.interfaces[slot]
            if (code, interface.index) not in self._told:
                self._told.add((code, interface.index))
                news.append((code, interface))
        return news


def chosen(first: NDArray[np.bool_], a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """`a` where `first`, else `b`; of unsigned integers. np.where branches for each row, which costs a random `first`
    several times as much."""
    change = _difference(first, a, b)
    change ^= b
    return change


def swapped(where: NDArray[np.bool_], a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """`a` and `b`, in the rows `where` the other way round; of unsigned integers."""
    change = _difference(where, a, b)
    return a ^ change, b ^ change


def _difference(where: NDArray[np.bool_], a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """The bits in which `a` and `b` differ, in the rows `where`."""
    mask = where.astype(a.dtype)
    np.negative(mask, out=mask)  # all bits or none
    change: NDArray[Any] = a ^ b
    change &= mask if a.ndim == 1 else mask[:, None]
    return change
