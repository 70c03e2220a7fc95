"""`edfn-agent demo`: all of it on this machine, with nothing configured."""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edfn_agent.demo.service import Result


@click.command()
@click.option("--flows", type=click.IntRange(4, 100_000), default=4000, show_default=True, help="Flow records per VPC.")
@click.option(
    "--kinesis/--no-kinesis",
    default=None,
    help="With a VPC that is read through a Kinesis stream; default: when Java and the extra `kinesis` are there.",
)
@click.option(
    "--lose",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="N",
    help="Let the collector lose N messages, to see that it is noticed.",
)
def demo(flows: int, kinesis: bool | None, lose: int) -> None:
    """Show all of it on this machine, with nothing configured.

    An embedded AWS with two accounts and four VPCs; their flow logs arrive through S3 and SQS, CloudWatch Logs and
    Kinesis while the agent runs; the embedded collector on loopback receives the IPFIX. What was written, exported and
    received is compared, and exit status 1 says that a record is missing.
    """
    try:
        import moto.server  # noqa: F401

        from edfn_agent.demo.kinesis import lacking
        from edfn_agent.demo.service import run
    except ImportError as error:
        raise click.ClickException(f"the demo needs {error.name}: pip install 'edfn-agent[demo]'") from None
    if kinesis is not False:
        missing = lacking()
        if missing and kinesis:
            raise click.ClickException(missing)
        if missing:
            click.echo(f"without Kinesis: {missing}", err=True)
        kinesis = not missing
    with tempfile.TemporaryDirectory(prefix="edfn-agent-demo-") as folder:
        say = partial(click.echo, err=True)
        result = run(flows, Path(folder), say, with_kinesis=kinesis, lose=lose)
    sys.exit(0 if _print(result) else 1)


def _print(result: Result) -> bool:
    """The table and the verdict. True when everything arrived."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="What the collector received", title_justify="left", box=None, pad_edge=False)
    for name in ("VPC", "name", "exporter", "through"):
        table.add_column(name, no_wrap=True)
    table.add_column("interfaces", overflow="fold")
    for name in ("flows", "octets", "packets", "denied"):
        table.add_column(name, justify="right")
    same = True
    for source in result.sources:
        written, tally = result.written[source.vpc.vpc_id], result.tally(source)
        if tally is None:
            table.add_row(source.vpc.vpc_id, source.vpc.name, "", source.way, "nothing arrived")
            same = False
            continue
        names = sorted({tally.interfaces.get(index, str(index)).split()[0] for index in tally.used_interfaces})
        numbers = (tally.flows, tally.octets, tally.packets, tally.denied)
        cells = (source.vpc.vpc_id, tally.name, tally.exporter, source.way, ", ".join(names))
        table.add_row(*cells, *(f"{each:,}" for each in numbers))
        same = same and numbers == (written.flows, written.octets, written.packets, written.denied)
    console = Console()
    console.width = max(console.width, 140)  # ids are no use when they are cut
    console.print(table)
    written_flows = sum(each.flows for each in result.written.values())
    idle = sum(each.nodata + each.skipdata for each in result.written.values())
    missing = sum(each.missing for each in result.received.exporters.values())
    same = same and written_flows == result.exported == result.received.flows and not missing
    click.echo(
        f"besides {idle:,} NODATA and SKIPDATA rows, which are no flows; missing by sequence number: {missing:,}"
    )
    click.echo(
        f"written {written_flows:,} = exported {result.exported:,} = received {result.received.flows:,}"
        if same
        else f"NOT ALL THERE: written {written_flows:,}, exported {result.exported:,}, "
        f"received {result.received.flows:,}"
    )
    if result.agent_status:
        click.echo(f"the agent ended with status {result.agent_status}")
    return same and result.agent_status == 0
