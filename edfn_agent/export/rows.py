"""Columns to data records: lays out the flows of a batch as IPFIX records, grouped by exporter and template.

In: Flows. Out: for each exporter the runs of records that belong to it, in the order of the file within a template. One
structured array holds all records of a template; a run is a slice of it. No messages, no sequence numbers, no sockets.
Rows are grouped by template because a set of one template with many records is shorter on the wire, and messages of
equal length go many to a system call; flow logs have no meaningful order between rows (AWS says so).
"""

from __future__ import annotations

import re
import weakref
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edfn_agent.enrich import UNKNOWN_DIRECTION, CodeTable, Flows
from edfn_agent.export.mapping import (
    ACCEPTED,
    DROPPED,
    DROPPED_BY_POLICY,
    FORWARDED,
    INVENTORY_NAMES,
    MAXIMUM_FIELDS,
    OTHER_FIELDS,
    REJECTED,
    EnterpriseElement,
    enterprise_rows,
    standard_fields,
)
from edfn_agent.formats.batch import AddressColumn, Dictionary, IntColumn, StringColumn
from edfn_agent.formats.fields import BY_NAME
from edfn_agent.inventory.exporters import Exporter
from ipfix import Field, Records, Template, VariableColumn
from ipfix.templates import fixed_dtype
from ipfix.values import with_length

FIRST_TEMPLATE = 300  # 256 to 299 are the options templates of exporting.py

_MAY_BE_ABSENT = ("srcport", "dstport", "protocol", "bytes", "packets", "start", "end")
"""Integers that a template does without where a row has `-` for them. tcp-flags is 0 then, as AWS means it."""

_lay: Any
try:
    from edfn_agent.export import _lay
except ImportError:  # no compiler where it was installed: NumPy does the same, a column at a time over all rows
    _lay = None
else:
    if not hasattr(_lay, "lay_out_variable"):  # built of older sources
        _lay = None

_VARIABLE = 65535

Array = NDArray[np.generic]
Runs = list[tuple[Exporter, list[Records]]]


@dataclass(frozen=True, slots=True)
class Settings:
    """How records look; the same for every collector."""

    profile: str = "standard"
    enterprise_number: int | None = None
    exporter_field: bool = True  # exporterIPv4Address (130) in every record
    packet_addresses: bool = False  # pkt-srcaddr and pkt-dstaddr in the place of srcaddr and dstaddr
    egress_zero_on_reject: bool = False  # a router's convention for what it dropped


@dataclass(frozen=True, slots=True)
class _Plan:
    """A template and, for each of its fields, how to get the values. `enterprise` follows `standard` in the fields."""

    template: Template
    standard: tuple[str, ...]  # element names
    enterprise: tuple[EnterpriseElement, ...]
    fixed: np.dtype[Any]  # of the fields of fixed length, which come first


class RecordMaker:
    """Turns Flows into Records. Keeps the templates made so far: an id never means two things in one process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._plans: dict[tuple[object, ...], _Plan] = {}
        self._ids: dict[tuple[tuple[int, int, int], ...], Template] = {}
        self._texts = _Texts()
        self._status = CodeTable(lambda action: {"ACCEPT": FORWARDED, "REJECT": DROPPED}.get(action, 0))
        self._event = CodeTable(lambda action: {"ACCEPT": ACCEPTED, "REJECT": REJECTED}.get(action, 0))

    def runs(self, flows: Flows) -> Runs:
        """The records of these flows, per exporter: `[(exporter, [run, ...]), ...]`."""
        if flows.batch.rows == 0:
            return []
        columns = _Columns(self, flows)
        shapes, shape = columns.shapes()
        count = len(flows.exporters)
        key = shape.astype(np.uint32) * np.uint32(count) + flows.exporter if len(shapes) > 1 else flows.exporter
        order: NDArray[np.intp] | None = None
        if key.min() < key.max():
            small = key.astype(np.uint16) if len(shapes) * count <= 65536 else key  # NumPy sorts 16 bits by radix
            order = np.argsort(small, kind="stable")
            key = key[order]
        starts = [0, *(np.flatnonzero(key[1:] != key[:-1]) + 1).tolist()]
        groups = [divmod(each, count) for each in key[starts].tolist()]  # (shape, exporter), in order
        ends = [*starts[1:], len(key)]
        by_exporter: dict[int, list[Records]] = {}
        for number, same in groupby(zip(groups, starts, ends, strict=True), key=lambda group: group[0][0]):
            these = [(code, start, end) for (_, code), start, end in same]
            first, last = these[0][1], these[-1][2]
            rows = None if order is None else order[first:last]
            records = self._records(columns, self._plan(columns, *shapes[number]), rows, last - first)
            for code, start, end in these:
                if code not in flows.elsewhere:
                    by_exporter.setdefault(code, []).append(records[start - first : end - first])
        return [(flows.exporters[code], runs) for code, runs in by_exporter.items()]

    def _plan(self, columns: _Columns, family: int, lacking: frozenset[str]) -> _Plan:
        present = frozenset(columns.names) - lacking
        extras = tuple(columns.flows.extras)
        key = (present, family, columns.has_interfaces, columns.has_direction, lacking, extras)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._new_plan(columns, present, family, lacking, extras)
        return plan

    def _new_plan(
        self,
        columns: _Columns,
        present: frozenset[str],
        family: int,
        lacking: frozenset[str],
        extras: tuple[str, ...],
    ) -> _Plan:
        fields = standard_fields(
            present,
            family,
            interfaces=columns.has_interfaces,
            direction=columns.has_direction and "flow-direction" not in lacking,
            exporter_field=self.settings.exporter_field,
        )
        enterprise: list[EnterpriseElement] = []
        if self.settings.profile == "aws":
            assert self.settings.enterprise_number is not None  # checked where settings come in
            wanted = {*extras, *([OTHER_FIELDS] if columns.unknown else [])}
            enterprise = enterprise_rows(present, family, wanted)
            # over the limit the inventory's names go first: the options tables say them too
            room = MAXIMUM_FIELDS - len(fields)
            for name in reversed(INVENTORY_NAMES):
                if len(enterprise) > room:
                    enterprise = [row for row in enterprise if row.name != name]
            enterprise = enterprise[:room]
        number = self.settings.enterprise_number or 0
        every = [*fields, *(Field(row.element(number), row.length) for row in enterprise)]
        signature = tuple((f.element.pen, f.element.id, f.length) for f in every)
        template = self._ids.get(signature)
        if template is None:
            template = self._ids[signature] = Template(FIRST_TEMPLATE + len(self._ids), every)
        count = sum(not field.is_variable for field in every)
        fixed = fixed_dtype(template.names[:count], every[:count])
        return _Plan(template, tuple(f.element.name for f in fields), tuple(enterprise), fixed)

    def _records(self, columns: _Columns, plan: _Plan, rows: NDArray[np.intp] | None, total: int) -> Records:
        fixed = lay_out(plan.fixed, columns.fixed(plan), rows, total)
        if plan.template.record_length is not None:
            return Records(plan.template, fixed)
        texts = [columns.text(row) for row in plan.enterprise if row.length == _VARIABLE]
        return lay_out_variable(plan.template, fixed, texts, rows)


def lay_out(
    dtype: np.dtype[Any], columns: Mapping[str, Array], rows: NDArray[np.intp] | None, total: int
) -> NDArray[np.void]:
    """Fields of fixed length from columns: the wanted rows, in their order, in network order."""
    octets = np.empty(total, dtype)
    if _lay is None:
        for name, values in columns.items():
            octets[name] = values if rows is None else values.take(rows, axis=0)
        return octets
    order = np.arange(total) if rows is None else rows
    fields = []
    for name, values in columns.items():
        place, offset = dtype.fields[name][:2]  # type: ignore[index]
        flat = np.ascontiguousarray(values)
        size = flat.itemsize if flat.ndim == 1 else flat.shape[1]
        fields.append((flat.view(np.uint8).reshape(-1), size, offset, place.itemsize))
    _lay.lay_out(octets.view(np.uint8), dtype.itemsize, order.astype(np.int64, copy=False), fields)
    return octets


def lay_out_variable(
    template: Template,
    fixed: NDArray[np.void],
    texts: Sequence[tuple[NDArray[np.uint32], Values]],
    rows: NDArray[np.intp] | None,
) -> Records:
    """Records with strings behind their fixed fields, which are in the order of `rows`; the strings are not yet."""
    if _lay is None:
        columns: dict[str, Any] = {name: fixed[name] for name in fixed.dtype.names or ()}
        for name, (codes, values) in zip(template.names[len(columns) :], texts, strict=True):
            columns[name] = VariableColumn(codes if rows is None else codes.take(rows), values.values)
        return template.records(columns, len(fixed))
    order = np.arange(len(fixed)) if rows is None else rows
    strings = [(np.ascontiguousarray(codes, np.uint32), *values.on_the_wire()) for codes, values in texts]
    octets, ends = _lay.lay_out_variable(
        fixed.view(np.uint8), fixed.dtype.itemsize, order.astype(np.int64, copy=False), strings
    )
    return Records(template, octets, ends)


class _Columns:
    """The values of one batch as the elements want them. Each is worked out once, for all templates of the batch."""

    def __init__(self, maker: RecordMaker, flows: Flows) -> None:
        self.maker = maker
        self.flows = flows
        self.batch = flows.batch
        self.names = flows.batch.columns.keys()
        self.unknown = [name for name in self.names if name not in BY_NAME]
        self.has_interfaces = flows.ingress is not None
        self.has_direction = flows.direction is not None
        self._made: dict[str, Array] = {}

    def shapes(self) -> tuple[list[tuple[int, frozenset[str]]], NDArray[np.uint16]]:
        """The kinds of row there are, as (family, columns lacking), and which kind each row is."""
        code = (self.batch.family == 6).astype(np.uint16)
        lacking = [*self._absent()]
        for bit, (_, rows) in enumerate(lacking, start=1):
            code |= rows.astype(np.uint16) << np.uint16(bit)
        if not lacking:
            first = int(code[0])
            if first == int(code.min()) == int(code.max()):
                return [(6 if first else 4, frozenset())], np.zeros(len(code), np.uint16)
            return [(4, frozenset()), (6, frozenset())], code
        present, kind = np.unique(code, return_inverse=True)
        shapes = [
            (6 if value & 1 else 4, frozenset(name for bit, (name, _) in enumerate(lacking, 1) if value >> bit & 1))
            for value in present.tolist()
        ]
        return shapes, kind.astype(np.uint16)  # 2 families and 11 columns that may lack make 4096 kinds

    def _absent(self) -> list[tuple[str, NDArray[np.bool_]]]:
        absent: list[tuple[str, NDArray[np.bool_]]] = []
        for name in ("srcaddr", "dstaddr"):
            address = self.batch.addresses(name)
            if address is not None and not address.family.all():
                absent.append((name, address.family == 0))
        for name in _MAY_BE_ABSENT:
            column = self.batch.integers(name)
            if column is not None and column.absent is not None and column.absent.any():
                absent.append((name, column.absent))
        action = self.batch.strings("action")
        if action is not None:
            unknown = self.maker._event.take(action) == 0
            if unknown.any():
                absent.append(("action", unknown))
        if self.flows.direction is not None:
            unknown = self.flows.direction == UNKNOWN_DIRECTION
            if unknown.any():
                absent.append(("flow-direction", unknown))
        return absent

    def fixed(self, plan: _Plan) -> dict[str, Array]:
        """Every value of fixed length, by name, for all rows of the batch."""
        found = {name: self._once(name, _STANDARD[name]) for name in plan.standard}
        for row in plan.enterprise:
            if row.length != _VARIABLE:
                found[row.name] = self._once(row.name, partial(_Columns._enterprise, row=row))
        return found

    def _once(self, name: str, make: Callable[[_Columns], Array]) -> Array:
        values = self._made.get(name)
        if values is None:
            values = self._made[name] = make(self)
        return values

    def _enterprise(self, row: EnterpriseElement) -> Array:
        column = self.batch.columns[row.field]
        if isinstance(column, AddressColumn):
            if row.family == 4:
                return np.where(column.family == 4, column.v4, np.uint32(0))
            return np.where((column.family == 6)[:, None], _v6(column), np.uint8(0))
        if isinstance(column, StringColumn):  # log-status: only OK rows come this far
            return np.ones(self.batch.rows, np.uint8)
        if row.name == "awsEncryptionStatus" and column.absent is not None:
            return np.where(column.absent, np.uint64(255), column.values)
        return column.values

    def text(self, row: EnterpriseElement) -> tuple[NDArray[np.uint32], Values]:
        """Which value each row has, and the values."""
        if row.name == OTHER_FIELDS:
            column = self._other_fields()
        else:
            column = self.flows.extras.get(row.name) or self.batch.strings(row.field) or _nothing(self.batch.rows)
        return column.codes, self.maker._texts.of(column.dictionary, decoded=row.field.endswith(_TAGS))

    def _other_fields(self) -> StringColumn:
        """Unknown fields in one string, `name=value name=value`, absent ones left out."""
        stacked = np.stack([column.codes for name in self.unknown if (column := self.batch.strings(name)) is not None])
        distinct, codes = np.unique(stacked, axis=1, return_inverse=True)
        dictionary = Dictionary()
        for combination in distinct.T.tolist():
            parts = [
                name.encode() + b"=" + column.dictionary.values[code]
                for name, code in zip(self.unknown, combination, strict=True)
                if code and (column := self.batch.strings(name)) is not None
            ]
            dictionary.values.append(b" ".join(parts))
        return StringColumn((codes.reshape(-1) + 1).astype(np.uint32), dictionary)

    # -- values of the standard elements

    def address(self, name: str) -> AddressColumn:
        column = self.batch.addresses(name)
        assert column is not None  # the template has it because the batch has
        packet = self.batch.addresses(f"pkt-{name}") if self.maker.settings.packet_addresses else None
        if packet is None:
            return column
        there = packet.family != 0
        v6 = np.where(there[:, None], _v6(packet), _v6(column))
        return AddressColumn(column.family, np.where(there, packet.v4, column.v4), v6)

    def integer(self, name: str) -> IntColumn:
        column = self.batch.integers(name)
        assert column is not None
        return column

    def action(self) -> StringColumn:
        column = self.batch.strings("action")
        assert column is not None
        return column

    def ingress(self) -> Array:
        assert self.flows.ingress is not None
        return self.flows.ingress

    def direction(self) -> Array:
        assert self.flows.direction is not None
        return self.flows.direction

    def forwarding_status(self) -> Array:
        action = self.action()
        status = self.maker._status.take(action)
        reason = self.batch.strings("reject-reason")
        if reason is not None and reason.codes.any():
            by_policy = (status == DROPPED) & (reason.codes != 0)
            status = np.where(by_policy, np.uint32(DROPPED_BY_POLICY), status)
        return status

    def egress(self) -> Array:
        assert self.flows.egress is not None
        action = self.batch.strings("action")
        if self.maker.settings.egress_zero_on_reject and action is not None:
            return np.where(self.maker._event.take(action) == REJECTED, np.uint32(0), self.flows.egress)
        return self.flows.egress

    def of_exporter(self, value: Callable[[Exporter], int]) -> Array:
        table = np.array([value(exporter) for exporter in self.flows.exporters], np.uint32)
        return table.take(self.flows.exporter)


def _v6(column: AddressColumn) -> NDArray[np.uint8]:
    if column.v6 is None:
        return np.zeros((len(column.family), 16), np.uint8)
    return column.v6


def _nothing(rows: int) -> StringColumn:
    return StringColumn(np.zeros(rows, np.uint32), Dictionary())


_STANDARD: Mapping[str, Callable[[_Columns], Array]] = {
    "sourceIPv4Address": lambda c: c.address("srcaddr").v4,
    "destinationIPv4Address": lambda c: c.address("dstaddr").v4,
    "sourceIPv6Address": lambda c: _v6(c.address("srcaddr")),
    "destinationIPv6Address": lambda c: _v6(c.address("dstaddr")),
    "sourceTransportPort": lambda c: c.integer("srcport").values,
    "destinationTransportPort": lambda c: c.integer("dstport").values,
    "protocolIdentifier": lambda c: c.integer("protocol").values,
    "tcpControlBits": lambda c: c.integer("tcp-flags").values & np.uint64(0xFF),
    "octetDeltaCount": lambda c: c.integer("bytes").values,
    "packetDeltaCount": lambda c: c.integer("packets").values,
    "flowStartMilliseconds": lambda c: c.integer("start").values,
    "flowEndMilliseconds": lambda c: c.integer("end").values,
    "ingressInterface": lambda c: c.ingress(),
    "egressInterface": lambda c: c.egress(),
    "flowDirection": lambda c: c.direction(),
    "forwardingStatus": lambda c: c.forwarding_status(),
    "firewallEvent": lambda c: c.maker._event.take(c.action()),
    "ingressVRFID": lambda c: c.of_exporter(lambda exporter: exporter.domain),
    "exporterIPv4Address": lambda c: c.of_exporter(lambda exporter: int(exporter.address)),
}


_TAGS = ("-tag", "-tag-2")


class Values:
    """The values of a string column, as they are and as they go on the wire. Values may join them."""

    def __init__(self, values: Sequence[bytes] = ()) -> None:
        self.values: list[bytes] = []
        self._octets = bytearray()
        self._starts = array("q", [0])
        self._wire: tuple[NDArray[np.int64], NDArray[np.uint8]] | None = None
        for value in values:
            self.add(value)

    def add(self, value: bytes) -> None:
        if len(value) > 65535:  # what a length can say (RFC 7011 section 7)
            value = value[:65535].decode("utf-8", "ignore").encode()
        self.values.append(value)
        self._octets += with_length(value)
        self._starts.append(len(self._octets))
        self._wire = None

    def on_the_wire(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Where each value starts, with its length, and all of them."""
        if self._wire is None:
            octets = np.frombuffer(bytes(self._octets) + bytes(_lay.SLACK), np.uint8)
            self._wire = np.array(self._starts, np.int64), octets
        return self._wire


class _Texts:
    """Values of dictionaries for variable-length strings: absent is empty, tags are percent-decoded."""

    def __init__(self) -> None:
        self._made: weakref.WeakKeyDictionary[Dictionary, dict[bool, Values]] = weakref.WeakKeyDictionary()

    def of(self, dictionary: Dictionary, *, decoded: bool) -> Values:
        made = self._made.setdefault(dictionary, {})
        texts = made.get(decoded)
        if texts is None:
            texts = made[decoded] = Values([b""])
        for value in dictionary.values[len(texts.values) :]:
            texts.add(_utf8(_decoded(value) if decoded else value))
        return texts


def _utf8(value: bytes) -> bytes:
    """What RFC 7011 section 6.1.6 allows in a string."""
    return value if value.isascii() else value.decode("utf-8", "replace").encode()


def _decoded(value: bytes) -> bytes:
    """A tag without its percent encoding, but for what breaks a collector: control characters, quotes, backslashes."""

    def one(match: re.Match[bytes]) -> bytes:
        octet = bytes.fromhex(match[1].decode())
        return match[0] if octet < b" " or octet in (b'"', b"\\", b"\x7f") else octet

    return re.sub(rb"%([0-9A-Fa-f]{2})", one, value)
