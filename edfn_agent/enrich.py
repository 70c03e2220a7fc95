"""Joins the columns of a batch with what is known of the network: whose flow it is, through which interface, which way.

In: a FlowBatch. Out: Flows, the same rows with an exporter per row, the interfaces on both sides, and the direction.
Everything is worked out once per distinct value (of a dictionary, of an address) and looked up per row, so a row costs
a few array look-ups however large the inventory is. Nothing here asks AWS; a new inventory means a new Enricher.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edfn_agent.delivery import Origin
from edfn_agent.formats.batch import Dictionary, FlowBatch, StringColumn
from edfn_agent.inventory.exporters import Exporter

INGRESS, EGRESS, UNKNOWN_DIRECTION = 0, 1, 255


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
    def vpc_of_origin(self, origin: Origin) -> str | None: ...
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
        """Called once, before the first batch, with the numbers that interfaces have in arrays."""

    def look(self, batch: FlowBatch, own: NDArray[np.uint32], direction: NDArray[np.uint8] | None) -> Around: ...


class Slots:
    """Interfaces met so far, by a small number each, so that arrays can speak of them. Slot 0 is no interface."""

    def __init__(self) -> None:
        self.interfaces: list[Interface] = [NO_INTERFACE]
        self._by_index: dict[int, int] = {0: 0}
        self._indexes = np.zeros(64, np.uint32)

    def __len__(self) -> int:
        return len(self.interfaces)

    def of(self, interface: Interface) -> int:
        slot = self._by_index.get(interface.index)
        if slot is None:
            slot = self._by_index[interface.index] = len(self.interfaces)
            self.interfaces.append(interface)
            if slot >= len(self._indexes):
                self._indexes = np.concatenate([self._indexes, np.zeros_like(self._indexes)])
            self._indexes[slot] = interface.index
        return slot

    def indexes(self, slots: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The ifIndex of each row."""
        return self._indexes.take(slots)


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

    def __init__(self, work: Callable[[str], int]) -> None:
        self._work = work
        self._tables: weakref.WeakKeyDictionary[Dictionary, NDArray[np.uint32]] = weakref.WeakKeyDictionary()

    def take(self, column: StringColumn) -> NDArray[np.uint32]:
        """The number of each row; 0 where the value is absent."""
        values = column.dictionary.values
        table = self._tables.get(column.dictionary)
        if table is None or len(table) < len(values):
            known = 1 if table is None else len(table)
            fresh = [self._work(value.decode("utf-8", "replace")) for value in values[known:]]
            old = np.zeros(1, np.uint32) if table is None else table
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
        self._told = np.full(64, -1, np.int32)  # slot -> exporter whose interface table has it, -1 none
        self._told_elsewhere: set[tuple[int, int]] = set()
        # in the order of trust; what one leaves open the next decides
        self._by_column = {
            "vpc-id": CodeTable(self._code(directory.exporter_of_vpc)),
            "tgw-id": CodeTable(self._code(directory.exporter_of_transit_gateway)),
            "interface-id": CodeTable(self._code(directory.exporter_of_interface)),
            "subnet-id": CodeTable(self._code(directory.exporter_of_subnet)),
        }
        self._by_unknown_vpc = CodeTable(self._code(directory.exporter_of_unknown_vpc))
        self._own = CodeTable(lambda name: self._slots.of(self._directory.interface(name)))
        self._direction = CodeTable(lambda value: {"ingress": INGRESS, "egress": EGRESS}.get(value, UNKNOWN_DIRECTION))
        # by origin; as many as there are flow logs and log groups
        self._origin_codes: dict[Origin, int] = {}
        self._owned: dict[Origin, tuple[int, frozenset[int]]] = {}
        self._names = Dictionary()
        self.unattributed_rows = 0

    def enrich(self, batch: FlowBatch) -> Flows:
        flows = Flows(batch, self.exporters, self._attribute(batch))
        flows.elsewhere = self._elsewhere(batch.origin)
        flows.direction = self._stated_direction(batch)
        self._interfaces_of(flows)
        return flows

    # -- whose flow it is

    def _attribute(self, batch: FlowBatch) -> NDArray[np.uint16]:
        codes = np.zeros(batch.rows, np.uint32)  # exporter + 1; 0 still open
        for name, table in self._by_column.items():
            if name == "interface-id":
                self._fill(codes, self._origin_code(batch.origin))
            column = batch.strings(name)
            if column is None:
                continue
            found = table.take(column)
            codes = np.where(codes, codes, found) if codes.any() else found
            if codes.all():
                break
        else:
            codes = self._by_account(batch, codes) if self._directory.by_account else codes
            column = batch.strings("vpc-id")
            if column is not None:
                codes = np.where(codes, codes, self._by_unknown_vpc.take(column))
        open_rows = batch.rows - int(np.count_nonzero(codes))
        self.unattributed_rows += open_rows
        if open_rows:
            self._fill(codes, 1)
        return (codes - np.uint32(1)).astype(np.uint16)

    def _by_account(self, batch: FlowBatch, codes: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Where only the account is known: its VPCs are exporters of their own, so the pair decides."""
        accounts, vpcs = batch.strings("account-id"), batch.strings("vpc-id")
        if accounts is None:
            return codes
        vpc_codes = vpcs.codes if vpcs is not None else np.zeros(batch.rows, np.uint32)
        pairs, which = np.unique(accounts.codes.astype(np.uint64) << np.uint64(32) | vpc_codes, return_inverse=True)
        found = np.zeros(len(pairs), np.uint32)
        for number, pair in enumerate(pairs.tolist()):
            account, vpc_code = accounts.dictionary.values[pair >> 32].decode("utf-8", "replace"), pair & 0xFFFFFFFF
            vpc = vpcs.dictionary.values[vpc_code].decode("utf-8", "replace") if vpcs and vpc_code else ""
            if pair >> 32:
                found[number] = self._code(partial(self._directory.exporter_of_account, vpc_id=vpc))(account)
        return np.where(codes, codes, found[which])

    def _origin_code(self, origin: Origin) -> int:
        code = self._origin_codes.get(origin)
        if code is None:
            vpc_id = origin.vpc_id or self._directory.vpc_of_origin(origin)
            code = self._code(self._directory.exporter_of_vpc)(vpc_id) if vpc_id else 0
            self._origin_codes[origin] = code
        return code

    def _elsewhere(self, origin: Origin) -> frozenset[int]:
        known, found = self._owned.get(origin, (0, frozenset()))
        if known < len(self.exporters):
            new = range(known, len(self.exporters))
            found |= {code for code in new if not self._directory.owns(origin, self.exporters[code])}
            self._owned[origin] = (len(self.exporters), found)
        return found

    @staticmethod
    def _fill(codes: NDArray[np.uint32], code: int) -> None:
        if code:
            codes[codes == 0] = code

    def _code(self, ask: Callable[[str], Exporter | None]) -> Callable[[str], int]:
        def work(value: str) -> int:
            exporter = ask(value)
            if exporter is None:
                return 0
            code = self._exporter_codes.get(exporter.key)
            if code is None:
                code = self._exporter_codes[exporter.key] = len(self.exporters)
                self.exporters.append(exporter)
            return code + 1

        return work

    # -- through which interfaces, and which way

    def _stated_direction(self, batch: FlowBatch) -> NDArray[np.uint8] | None:
        column = batch.strings("flow-direction")
        if column is None:
            return None
        known = self._direction.take(column).astype(np.uint8)
        known[column.codes == 0] = UNKNOWN_DIRECTION
        return known

    def _interfaces_of(self, flows: Flows) -> None:
        batch = flows.batch
        own_column = batch.strings("interface-id") or batch.strings("tgw-attachment-id")
        if own_column is None:
            return
        own = self._own.take(own_column)
        far: NDArray[np.uint32] | None = None
        pair = batch.strings("tgw-pair-attachment-id")
        if pair is not None:
            far = self._own.take(pair)
        elif self._surroundings is not None:
            around = self._surroundings.look(batch, own, flows.direction)
            far, flows.direction = around.far, around.direction
            flows.extras = {**around.extras, **self._vpc_names(flows.exporter)} if around.extras else {}
        news = self._news(flows.exporter, own)
        own_index = self._slots.indexes(own)
        if far is None:
            far_index = np.zeros(batch.rows, np.uint32)
        else:
            news += self._news(flows.exporter, far)
            far_index = self._slots.indexes(far)
        if flows.direction is None:
            # a flow seen at an interface, which way unknown: it came in there, as far as anybody can tell
            flows.ingress, flows.egress = own_index, far_index
        else:
            out = flows.direction == EGRESS
            flows.ingress, flows.egress = np.where(out, far_index, own_index), np.where(out, own_index, far_index)
        flows.new_interfaces = news

    def _vpc_names(self, exporter: NDArray[np.uint16]) -> dict[str, StringColumn]:
        values = self._names.values
        values.extend(each.name.encode() for each in self.exporters[len(values) - 1 :])
        return {"awsVpcName": StringColumn(exporter.astype(np.uint32) + np.uint32(1), self._names)}

    def _news(self, exporter: NDArray[np.uint16], slots: NDArray[np.uint32]) -> list[tuple[int, Interface]]:
        """Interfaces that the exporters of these rows have not told of yet."""
        if len(self._slots) > len(self._told):
            grown = np.full(2 * len(self._slots), -1, np.int32)
            grown[: len(self._told)] = self._told
            self._told = grown
        odd = (self._told.take(slots) != exporter) & (slots != 0)
        if not odd.any():
            return []
        rows = np.flatnonzero(odd)
        news = []
        for pair in np.unique(exporter[rows].astype(np.uint64) << np.uint64(32) | slots[rows]).tolist():
            code, slot = pair >> 32, pair & 0xFFFFFFFF
            if (code, slot) in self._told_elsewhere or self._told[slot] == code:
                continue
            if self._told[slot] < 0:
                self._told[slot] = code
            else:
                self._told_elsewhere.add((code, slot))
            news.append((code, self._slots.interfaces[slot]))
        return news
