"""One process of the small-batch benchmark: many deliveries of N records each; prints CPU nanoseconds per record.

python benchmarks/batches.py product|baseline N PORT
"""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

DATA = Path(__file__).parent.parent / "build" / "bench"
RECORDS = 200_000


def lines() -> list[bytes]:
    with gzip.open(DATA / "v2-500000.log.gz") as file:
        file.readline()
        return [file.readline().rstrip() for _ in range(RECORDS)]


def product(port: int) -> tuple[Callable[[list[bytes]], None], Callable[[], None]]:
    from edfn_agent.delivery import Delivery, Origin
    from edfn_agent.enrich import Enricher
    from edfn_agent.export.destination import Destination
    from edfn_agent.export.exporter import FlowExporter
    from edfn_agent.export.mapping import wanted_columns
    from edfn_agent.export.pace import Pace
    from edfn_agent.export.rows import Settings
    from edfn_agent.export.transports import UdpTransport, parse_collector
    from edfn_agent.formats.reader import Reader
    from edfn_agent.garbage import expect_many_objects
    from edfn_agent.inventory.mapped import MappedDirectory, read_map
    from edfn_agent.pipeline import Pipeline

    transport = UdpTransport(parse_collector(f"udp://127.0.0.1:{port}"), address_mode="field")
    exporter = FlowExporter(Settings(), [Destination(transport, pace=Pace(0))])
    directory = MappedDirectory(read_map(DATA / "map.json"))
    pipeline = Pipeline(lambda: Reader(wanted_columns("standard", False)), Enricher(directory), exporter)
    origin = Origin("cloudwatch_logs", "group", "123456789012", "us-east-1", "group")

    expect_many_objects()  # as the service does

    def take(batch: list[bytes]) -> None:
        text = b"\n".join(batch)
        fault = pipeline.submit(Delivery(origin, "page", lambda: [text], lambda outcome, reason: None))
        assert fault is None, fault

    return take, pipeline.flush


def baseline(port: int) -> tuple[Callable[[list[bytes]], None], Callable[[], None]]:
    from baseline import Addresses, Counts, Interfaces, Sender, export_v2

    interfaces = Interfaces(json.loads((DATA / "map.json").read_text()), Sender(f"127.0.0.1:{port}"), "v2")
    addresses, counts = Addresses(), Counts()

    def take(batch: list[bytes]) -> None:
        export_v2(batch, interfaces, addresses, counts)
        # a delivery is acknowledged when its records are out, so they go out with it
        for domain in interfaces.domains.values():
            for family in (4, 6):
                domain.flush(family)

    return take, lambda: None


def main(program: str, size: int, port: int) -> None:
    some = lines()
    take, finish = {"product": product, "baseline": baseline}[program](port)
    count = len(some) // size * size
    for first in range(0, size * 20, size):  # warm up: caches, templates
        take(some[first : first + size])
    began = time.process_time()
    for first in range(0, count, size):
        take(some[first : first + size])
    finish()
    print((time.process_time() - began) / count * 1e9)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
