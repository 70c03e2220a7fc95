"""`edfn-agent demo`: all of it on this machine, with nothing configured."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edfn_agent.demo.files import Result


@click.command()
@click.option(
    "--flows", type=click.IntRange(1, 1_000_000), default=4000, show_default=True, help="Flow records per VPC."
)
def demo(flows: int) -> None:
    """Show all of it on this machine, with nothing configured.

    Made-up VPCs write flow logs, the agent exports them, the embedded collector on loopback receives them, and what
    arrived is compared with what was written. Exit status 1 when a record is missing.
    """
    from edfn_agent.demo.files import run

    with tempfile.TemporaryDirectory(prefix="edfn-agent-demo-") as folder:
        result = run(flows, Path(folder), lambda line: click.echo(line, err=True))
    sys.exit(0 if _print(result) else 1)


def _print(result: Result) -> bool:
    """The table and the verdict. True when everything arrived."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What the collector received", title_justify="left", box=None, pad_edge=False)
    for name in ("VPC", "name", "exporter"):
        table.add_column(name, no_wrap=True)
    table.add_column("interfaces", overflow="fold")
    for name in ("flows", "octets", "packets", "denied"):
        table.add_column(name, justify="right")
    all_there = True
    for vpc in result.vpcs:
        written, tally = result.written[vpc.vpc_id], result.tally(vpc)
        if tally is None:
            table.add_row(vpc.vpc_id, "nothing arrived")
            all_there = False
            continue
        names = sorted({tally.interfaces.get(index, str(index)).split()[0] for index in tally.used_interfaces})
        numbers = (tally.flows, tally.octets, tally.packets, tally.denied)
        table.add_row(vpc.vpc_id, tally.name, tally.exporter, ", ".join(names), *(f"{each:,}" for each in numbers))
        all_there = all_there and numbers == (written.flows, written.octets, written.packets, written.denied)
    console = Console()
    console.width = max(console.width, 120)  # ids are no use when they are cut
    console.print(table)
    expected = sum(each.flows for each in result.written.values())
    idle = sum(each.nodata + each.skipdata for each in result.written.values())
    missing = sum(each.missing for each in result.arrived.exporters.values())
    click.echo(f"address mode {result.mode}")
    click.echo(
        f"written {expected:,} flows (and {idle:,} NODATA or SKIPDATA rows, which are no flows), "
        f"arrived {result.arrived.flows:,}, missing by sequence number {missing:,}: "
        + ("all there" if all_there and not missing else "NOT all there")
    )
    return all_there and not missing
