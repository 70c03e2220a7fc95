"""The demo over files: made-up flow logs, exported to the embedded collector on loopback, and compared.

In: how many flows. Out: what was written and what arrived, per VPC.
"""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from edfn_agent.collector import ExporterTally, Listener, Tally
from edfn_agent.delivery import Delivery
from edfn_agent.demo.inventory import snapshot
from edfn_agent.demo.traffic import DemoVpc, Written, flow_log, vpcs
from edfn_agent.enrich import Enricher
from edfn_agent.export.exporter import Destination, FlowExporter
from edfn_agent.export.mapping import wanted_columns
from edfn_agent.export.pace import Pace
from edfn_agent.export.rows import Settings
from edfn_agent.export.transports import UdpTransport, parse_collector
from edfn_agent.formats.reader import Reader
from edfn_agent.inputs import files
from edfn_agent.inventory.exporters import Exporters
from edfn_agent.inventory.surroundings import InventoryDirectory, InventorySurroundings
from edfn_agent.pipeline import Pipeline

RATE = 50_000
"""Records a second: a pace that any machine's default receive buffer stands."""


@dataclass(frozen=True, slots=True)
class Result:
    written: Mapping[str, Written]  # by VPC
    arrived: Tally
    vpcs: list[DemoVpc]
    domains: Mapping[str, int]
    mode: str

    def tally(self, vpc: DemoVpc) -> ExporterTally | None:
        domain = self.domains[vpc.vpc_id]
        return next((each for each in self.arrived.exporters.values() if each.domain == domain), None)


class Catcher:
    """A collector on loopback in a thread of its own."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._listener = Listener("udp", "127.0.0.1", 0)
        self.url = f"udp://127.0.0.1:{self._listener.port}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="collector", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for received in self._listener.receive(self._stop.is_set, poll=0.05):
            self.tally.add(received)

    def wait(self, flows: int, seconds: float) -> None:
        """Until so many flows have come, or time is up."""
        end = time.monotonic() + seconds
        while self.tally.flows < flows and time.monotonic() < end:
            time.sleep(0.02)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()


def numbered() -> Callable[[Mapping[str, str]], Mapping[str, int]]:
    """Interface indexes in the order asked for, kept in memory."""
    numbers: dict[str, int] = {}

    def indexes(names: Mapping[str, str]) -> Mapping[str, int]:
        return {key: numbers.setdefault(key, len(numbers) + 1) for key in names}

    return indexes


def run(flows: int, folder: Path, say: Callable[[str], None]) -> Result:
    """Write, export, receive. `flows` per VPC."""
    made = vpcs()
    start = int(time.time()) // 60 * 60 - 600
    written = {vpc.vpc_id: flow_log(vpc, flows, start) for vpc in made}
    paths = [path for vpc in made for path in _write(vpc, written[vpc.vpc_id], folder)]
    say(f"wrote {len(paths)} flow-log files of {len(made)} VPCs below {folder}")
    inventory = snapshot(made)
    exporters = Exporters({}, [IPv4Network("100.64.0.0/16")], None, inventory)
    directory = InventoryDirectory(inventory, exporters, numbered())
    enricher = Enricher(directory, InventorySurroundings(inventory, directory, names=False))
    catcher = Catcher()
    transport = UdpTransport(parse_collector(catcher.url), address_mode="auto", report=say)
    try:
        exporter = FlowExporter(Settings(), [Destination(transport, pace=Pace(RATE), report=say)])
        pipeline = Pipeline(lambda: Reader(wanted_columns("standard", False)), enricher, exporter)
        for path in paths:
            fault = pipeline.submit(_delivery(path))
            if fault is not None:
                say(f"{path}: {fault}")
        pipeline.flush()
        catcher.wait(sum(each.flows for each in written.values()), 10.0)
        exporter.close()
    finally:
        catcher.close()
    domains = {vpc.vpc_id: exporters.exporter(vpc.vpc_id).domain for vpc in made}
    return Result(written, catcher.tally, made, domains, transport.mode_reason)


def _delivery(path: Path) -> Delivery:
    return files.delivery(str(path), lambda outcome, reason: None)


def _write(vpc: DemoVpc, written: Written, folder: Path) -> list[Path]:
    """Two files as flow logs to S3 are: gzip, a header line first."""
    header = " ".join(vpc.layout.names)
    half = len(written.lines) // 2
    paths = []
    for number, lines in enumerate((written.lines[:half], written.lines[half:])):
        name = (
            f"{vpc.account_id}_vpcflowlogs_{vpc.region}_fl-{vpc.vpc_id[4:12]}_20250103T16{number}0Z_{number:08x}.log.gz"
        )
        path = folder / name
        path.write_bytes(gzip.compress("\n".join([header, *lines, ""]).encode()))
        paths.append(path)
    return paths
