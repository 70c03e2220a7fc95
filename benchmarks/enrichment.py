"""What enrichment costs beside parsing, with a large inventory: 50,000 interfaces in 500 VPCs.

In: nothing. Out: nanoseconds per record to parse (gunzip, and scan the text into columns) and to enrich (exporter, both
interfaces, direction), batch by batch as the service does it: for a layout with a direction, for one where it is
inferred, and with the names, zones and services of profile aws. Interfaces are drawn evenly, so that every row is about
another one than the last, which is harder than traffic is. One core.
"""

from __future__ import annotations

import gzip
import os
import random
import statistics
import sys
import time

from edfn_agent.delivery import Delivery, Origin
from edfn_agent.enrich import Enricher
from edfn_agent.export.mapping import wanted_columns
from edfn_agent.formats.batch import FlowBatch
from edfn_agent.formats.reader import Reader
from edfn_agent.inventory.directory import InventoryDirectory
from edfn_agent.inventory.exporters import Exporters
from edfn_agent.inventory.file import stateless_indexes
from edfn_agent.inventory.mapped import DEFAULT_POOL
from edfn_agent.inventory.model import Interface, InternetGateway, Route, RouteTable, Snapshot, Subnet, Vpc
from edfn_agent.inventory.prefixes import PrefixTable
from edfn_agent.inventory.surroundings import InventorySurroundings

VPCS, PER_VPC, RECORDS, ROUNDS = 500, 100, 400_000, 7
V2 = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)
CASES = {
    # name: (layout, profile)
    "v2, direction inferred": (V2, "standard"),
    "with vpc-id and flow-direction": (f"{V2} vpc-id flow-direction", "standard"),
    "the same with names, profile aws": (f"{V2} vpc-id flow-direction", "aws"),
}


def inventory() -> Snapshot:
    where = {"account_id": "111111111111", "region": "us-east-1"}
    vpcs, subnets, interfaces, gateways, tables = [], [], [], [], []
    for number in range(VPCS):
        vpc_id, net = f"vpc-{number:017x}", f"10.{number % 250}.{number // 250 * 64}.0/18"
        vpcs.append(Vpc(vpc_id, **where, name=f"vpc {number}", cidrs=(net,)))
        subnets.append(Subnet(f"subnet-{number:017x}", vpc_id, **where, cidrs=(net,)))
        gateways.append(InternetGateway(f"igw-{number:017x}", vpc_id, **where))
        routes = (Route(net, "local"), Route("10.0.0.0/8", "tgw-01"), Route("0.0.0.0/0", f"igw-{number:017x}"))
        tables.append(RouteTable(f"rtb-{number:017x}", vpc_id, **where, main=True, routes=routes))
        for host in range(PER_VPC):
            address = f"10.{number % 250}.{number // 250 * 64}.{host + 10}"
            interfaces.append(
                Interface(f"eni-{number:08x}{host:09x}", vpc_id, subnets[-1].subnet_id, **where, addresses=(address,))
            )
    return Snapshot(
        at=1.0,
        vpcs=tuple(vpcs),
        subnets=tuple(subnets),
        interfaces=tuple(interfaces),
        internet_gateways=tuple(gateways),
        route_tables=tuple(tables),
    )


def services() -> tuple[PrefixTable, list[tuple[str, str]]]:
    """As many ranges as AWS publishes, over the outside addresses of the flows."""
    rng = random.Random(2)
    names = [("", ""), *((f"SERVICE{number}", "us-east-1") for number in range(30))]
    octets = [(rng.randrange(100, 200), rng.randrange(256), rng.randrange(256)) for _ in range(8000)]
    return PrefixTable((f"{a}.{b}.{c}.0/24", 1 + number % 30) for number, (a, b, c) in enumerate(octets)), names


def text(snapshot: Snapshot, layout: str) -> bytes:
    """Flows of all interfaces in random order; the far ends are inside, or Zipf-like outside."""
    rng = random.Random(1)
    by_vpc: dict[str, list[Interface]] = {}
    for interface in snapshot.interfaces:
        by_vpc.setdefault(interface.vpc_id, []).append(interface)
    lines = [layout]
    for _ in range(RECORDS):
        own = snapshot.interfaces[rng.randrange(len(snapshot.interfaces))]
        if rng.random() < 0.4:
            far = own.addresses[0]
            while far == own.addresses[0]:
                far = rng.choice(by_vpc[own.vpc_id]).addresses[0]
        else:
            rank = int(100_000 ** rng.random())
            far = f"{rank % 100 + 100}.{rank // 65536}.{rank // 256 % 256}.{rank % 256}"
        out = rng.random() < 0.5
        source, destination = (own.addresses[0], far) if out else (far, own.addresses[0])
        line = (
            f"2 111111111111 {own.interface_id} {source} {destination} {rng.randrange(65536)} 443 6 10 "
            f"{rng.randrange(100000)} 1735922400 1735922459 ACCEPT OK"
        )
        lines.append(f"{line} {own.vpc_id} {'egress' if out else 'ingress'}" if layout != V2 else line)
    return "\n".join([*lines, ""]).encode()


def main() -> int:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    snapshot = inventory()
    print(f"{len(snapshot.interfaces):,} interfaces, {len(snapshot.vpcs)} VPCs, {RECORDS:,} records, {ROUNDS} rounds")
    for name, (layout, profile) in CASES.items():
        log = gzip.compress(text(snapshot, layout), 6)
        reader = Reader(wanted_columns(profile, False))
        directory = InventoryDirectory(snapshot, Exporters({}, [DEFAULT_POOL], None, snapshot), stateless_indexes())
        surroundings = InventorySurroundings(snapshot, directory, *services(), names=profile == "aws")
        enricher = Enricher(directory, surroundings)
        enriching = 0.0

        def take(batch: FlowBatch, enricher: Enricher = enricher) -> None:
            nonlocal enriching
            began = time.process_time()
            enricher.enrich(batch)
            enriching += time.process_time() - began
            batch.release()

        parse, enrich = [], []
        for number in range(ROUNDS + 1):
            began, enriching = time.process_time(), 0.0
            delivery = Delivery(Origin("files", "files"), name, lambda log=log: [log], lambda *_: None)
            reader.feed(delivery, take)
            reader.flush(take)
            whole = time.process_time() - began
            if number:  # the first round fills the tables
                parse.append((whole - enriching) / RECORDS * 1e9)
                enrich.append(enriching / RECORDS * 1e9)
        cost, rest = statistics.median(enrich), statistics.median(parse)
        print(f"  {name}: parse {rest:.0f} ns, enrich {cost:.0f} ns a record: {cost / rest:.2f} of the parse")
    return 0


if __name__ == "__main__":
    sys.exit(main())
