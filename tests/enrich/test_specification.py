"""Enrichment in arrays says of every row what the one-row-at-a-time specification says."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from edfn_agent.delivery import Delivery, Origin
from edfn_agent.enrich import UNKNOWN_DIRECTION, Enricher
from edfn_agent.export.mapping import wanted_columns
from edfn_agent.formats.batch import FlowBatch, StringColumn
from edfn_agent.formats.reader import Reader
from edfn_agent.inventory.directory import InventoryDirectory
from edfn_agent.inventory.exporters import Exporters
from edfn_agent.inventory.file import stateless_indexes
from edfn_agent.inventory.mapped import DEFAULT_POOL
from edfn_agent.inventory.model import Interface, Route, RouteTable, Snapshot, Vpc
from edfn_agent.inventory.surroundings import InventorySurroundings

from .specification import Enriched, Row, enriched

VPCS = ("vpc-0a", "vpc-0b", "vpc-0c")
NETWORK, NETWORK6 = IPv4Address("10.0.0.0"), IPv6Address("2001:db8::")
TARGETS = ("local", "igw-01", "nat-01", "tgw-01", "eni-0000")


@dataclass
class World:
    """A small inventory whose VPCs have the same addresses, and rows about those addresses and their neighbours."""

    rng: random.Random
    snapshot: Snapshot = field(init=False)

    def __post_init__(self) -> None:
        where = {"account_id": "111111111111", "region": "eu-west-1"}
        interfaces, tables = [], []
        for vpc in VPCS:
            free = [str(self.inside(n)) for n in range(40)] + [str(self.inside6(n)) for n in range(20)]
            self.rng.shuffle(free)
            for _ in range(self.rng.randrange(8)):
                id = f"eni-{len(interfaces):04x}"
                count = self.rng.randrange(4)
                addresses, free = tuple(sorted(free[:count], key=lambda each: ":" in each)), free[count:]
                blocks = (f"10.0.64.{len(interfaces) * 16 % 256}/28", f"2001:db8:1:{len(interfaces)}:4000::/80")
                prefixes = tuple(self.rng.sample(blocks, self.rng.randrange(3)))
                subnet = f"subnet-{self.rng.randrange(3)}{vpc[-2:]}"
                interfaces.append(
                    Interface(
                        id,
                        vpc,
                        subnet,
                        **where,
                        name=f"name of {id}",
                        addresses=addresses,
                        prefixes=prefixes,
                        zone=f"z{len(interfaces)}",
                    )
                )
            for n in range(self.rng.randrange(4)):
                subnets = (f"subnet-{n}{vpc[-2:]}",) if n else ()
                tables.append(
                    RouteTable(
                        f"rtb-{n}{vpc[-2:]}",
                        vpc,
                        **where,
                        main=not n,
                        subnet_ids=subnets,
                        routes=self.routes(self.rng.choice([3, 6, 40])),
                    )
                )
        vpcs = tuple(Vpc(vpc, **where, cidrs=("10.0.0.0/16",)) for vpc in VPCS)
        self.snapshot = Snapshot(at=1.0, vpcs=vpcs, interfaces=tuple(interfaces), route_tables=tuple(tables))

    def inside(self, number: int) -> IPv4Address:
        return NETWORK + number * 7

    def inside6(self, number: int) -> IPv6Address:
        return NETWORK6 + number * (1 << 62)

    def routes(self, most: int) -> tuple[Route, ...]:
        destinations = {"10.0.0.0/16"}
        for _ in range(self.rng.randrange(most)):
            if self.rng.random() < 0.7:
                near = self.inside(self.rng.randrange(40)) if self.rng.random() < 0.5 else self.outside()
                destinations.add(str(ip_network((near, self.rng.randrange(33)), strict=False)))
            else:
                near6 = self.inside6(self.rng.randrange(20))
                destinations.add(str(ip_network((near6, self.rng.randrange(65)), strict=False)))
        return tuple(Route(each, self.rng.choice(TARGETS)) for each in sorted(destinations))

    def outside(self) -> IPv4Address:
        return IPv4Address(self.rng.randrange(1, 0xE0000000))

    def address(self, family: int) -> IPv4Address | IPv6Address:
        if self.rng.random() < 0.2:
            delegated = [ip_network(each) for interface in self.snapshot.interfaces for each in interface.prefixes]
            fitting = [each for each in delegated if each.version == family]
            if fitting:
                block = self.rng.choice(fitting)
                return block[self.rng.randrange(block.num_addresses)]
        if family == 6:
            return self.inside6(self.rng.randrange(20)) + self.rng.randrange(2)
        return (
            self.inside(self.rng.randrange(40)) + self.rng.randrange(2) if self.rng.random() < 0.8 else self.outside()
        )

    def row(self, stated: bool, families: tuple[int, ...]) -> Row:
        own = self.rng.choice(self.snapshot.interfaces) if self.snapshot.interfaces else None
        if self.rng.random() < 0.1:
            own = None
        family = self.rng.choice(families)
        ends = [self.address(family), self.address(family)]
        mine = [each for each in map(ip_address, own.addresses) if each.version == family] if own else []
        if mine and self.rng.random() < 0.8:
            ends[self.rng.randrange(2)] = self.rng.choice(mine)
        source: IPv4Address | IPv6Address | None = ends[0]
        destination: IPv4Address | IPv6Address | None = ends[1]
        if self.rng.random() < 0.05:
            source, destination = self.rng.choice([(source, None), (None, destination)])
        unknown = self.rng.choice(["eni-ffff", "eni-fffe", None])
        direction = self.rng.choice(["ingress", "egress", None]) if stated else None
        return Row(own.interface_id if own else unknown, source, destination, direction)


def as_text(rows: list[Row], stated: bool) -> bytes:
    header = "interface-id srcaddr dstaddr" + " flow-direction" * stated
    lines = [[row.interface_id, row.source, row.destination, *([row.direction] if stated else [])] for row in rows]
    return "\n".join([header, *(" ".join("-" if w is None else str(w) for w in line) for line in lines), ""]).encode()


def by_arrays(snapshot: Snapshot, text: bytes, *, names: bool) -> list[Enriched]:
    """The same from the product; also sees that each interface is told of once by each exporter."""
    exporters = Exporters({}, [DEFAULT_POOL], None, snapshot)
    keys = {0: ""}
    allocate = stateless_indexes()

    def indexes(names: Mapping[str, str]) -> Mapping[str, int]:
        found = allocate(names)
        keys.update((index, key) for key, index in found.items())
        return found

    directory = InventoryDirectory(snapshot, exporters, indexes)
    enricher = Enricher(directory, InventorySurroundings(snapshot, directory, names=names))
    reader = Reader(wanted_columns("standard", False))
    told: set[tuple[int, int]] = set()
    found = []
    for part in (text, text):  # again, with all tables known
        delivery = Delivery(Origin("files", "files"), "test", lambda part=part: [part], lambda *_: None)
        batches: list[FlowBatch] = []
        reader.feed(delivery, batches.append)
        reader.flush(batches.append)
        for batch in batches:
            flows = enricher.enrich(batch)
            assert flows.ingress is not None
            assert flows.egress is not None
            for exporter, interface in flows.new_interfaces:
                assert (exporter, interface.index) not in told
                told.add((exporter, interface.index))
            directions = flows.direction if flows.direction is not None else [UNKNOWN_DIRECTION] * batch.rows
            extras = [value for name in EXTRAS for value in [texts(flows.extras.get(name), batch.rows)]]
            for row in range(batch.rows):
                exporter = int(flows.exporter[row])
                sides = int(flows.ingress[row]), int(flows.egress[row])
                assert all(side == 0 or (exporter, side) in told for side in sides)
                found.append(
                    Enriched(
                        flows.exporters[exporter].key,
                        *(keys[side] for side in sides),
                        int(directions[row]),
                        *(column[row] for column in extras),
                    )
                )
    assert found[: len(found) // 2] == found[len(found) // 2 :]
    return found[: len(found) // 2]


EXTRAS = ("awsSourceName", "awsDestinationName", "awsSourceAzId", "awsDestinationAzId")


def texts(column: StringColumn | None, rows: int) -> list[str]:
    if column is None:
        return [""] * rows
    return ["" if code == 0 else column.dictionary.values[code].decode() for code in column.codes.tolist()]


@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([(4,), (6,), (4, 6)]), st.booleans())
@settings(deadline=None, max_examples=60, phases=[Phase.generate])  # a seed has nothing to shrink
def test_every_row_as_specified(seed: int, stated: bool, families: tuple[int, ...], names: bool) -> None:
    rng = random.Random(seed)
    world = World(rng)
    rows = [world.row(stated, families) for _ in range(rng.choice([1, 30, 200]))]
    found = by_arrays(world.snapshot, as_text(rows, stated), names=names)
    for row, result in zip(rows, found, strict=True):
        wanted = enriched(world.snapshot, row)
        if not names:
            wanted = Enriched(wanted.exporter, wanted.ingress, wanted.egress, wanted.direction, "", "", "", "")
        assert result == wanted, row
