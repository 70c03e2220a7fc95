"""`edfn-agent report`: what is in flow-log files, as tables, CSV, JSON and a chart in the terminal."""

from __future__ import annotations

import csv
import io
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from edfn_agent.formats.batch import Counts
    from edfn_agent.report import Report, Table


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--top", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Rows of each table.")
@click.option(
    "--by",
    type=click.Choice(["bytes", "packets", "flows"]),
    default="bytes",
    show_default=True,
    help="What is largest. Rejected traffic is always counted in flows.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="For people, spreadsheets or scripts.",
)
@click.option(
    "--log-format", metavar="FIELDS", help="Columns of files without a header line: '${version} ${vpc-id} ...'."
)
@click.option("--chart/--no-chart", default=True, help="Traffic over time, with the tables.")
def report(files: tuple[str, ...], top: int, by: str, form: str, log_format: str | None, chart: bool) -> None:
    """Top talkers, rejected traffic, and traffic by VPC, interface and availability zone.

    FILEs are flow logs as AWS delivers them: text or Parquet, compressed or not, with or without a header line, and
    envelopes of CloudWatch Logs; a folder means every file in it, and - standard input.

    Traffic between two interfaces is logged by both, and counted as often. Exit status: 0 all files read, 1 some not.
    """
    from edfn_agent.formats.layout import Layout, LayoutError

    layout = None
    if log_format:
        try:
            layout = Layout.parse(log_format)
        except LayoutError as error:
            raise click.UsageError(f"--log-format: {error}") from None
    found, counts, failed = _read(files, layout, by)
    for name, reason in failed:
        click.echo(f"{name}: {reason}", err=True)
    if form == "json":
        click.echo(json.dumps(_document(found, counts, failed, top), indent=2))
    elif form == "csv":
        click.echo(_csv(found.tables(top)), nl=False)
    else:
        _print(found, counts, top, chart)
    sys.exit(1 if failed else 0)


def _read(names: tuple[str, ...], layout: Any, by: str) -> tuple[Report, Counts, list[tuple[str, str]]]:
    from edfn_agent.formats.batch import Counts, FlowBatch
    from edfn_agent.formats.errors import FormatError
    from edfn_agent.formats.reader import Reader
    from edfn_agent.inputs import files
    from edfn_agent.report import WANTED, Report

    made, counts = Report(by), Counts()
    reader = Reader(wanted=WANTED)
    failed = []

    def take(batch: FlowBatch) -> None:
        made.add(batch)
        batch.release()

    for name in files.walk(names):
        delivery = files.delivery(name, lambda outcome, reason: None, layout)
        try:
            reader.feed(delivery, take)
        except (FormatError, OSError) as error:
            failed.append((name, getattr(error, "strerror", None) or str(error)))
        finally:
            counts.add(reader.tally)
            delivery.release()
    reader.flush(take)
    return made, counts, failed


def _document(found: Report, counts: Counts, failed: list[tuple[str, str]], top: int) -> dict[str, Any]:
    return {
        "bytes": found.sums[0],
        "packets": found.sums[1],
        "flows": found.sums[2],
        "rejected_flows": found.rejected_flows,
        "first": _time(found.first_ms),
        "last": _time(found.last_ms),
        "records": {
            "nodata": counts.nodata,
            "skipdata": counts.skipdata,
            "without_addresses": counts.without_addresses,
            "malformed": counts.malformed,
            "other_log_group": counts.other_log_group,
        },
        "failed": [{"file": name, "reason": reason} for name, reason in failed],
        "tables": {
            table.name: {
                "by": table.by,
                "total": table.total,
                "keys": table.keys,
                "uncertain": table.uncertain,
                "rows": [
                    {
                        **dict(zip(table.columns, row.key, strict=True)),
                        "bytes": row.bytes,
                        "packets": row.packets,
                        "flows": row.flows,
                    }
                    for row in table.rows
                ],
            }
            for table in found.tables(top)
        },
        "timeline": [
            {"start": _time(start), "accepted_bytes": octets, "rejected_flows": refused}
            for start, octets, refused in found.timeline.steps(120)
        ],
    }


def _csv(tables: list[Table]) -> str:
    """One header for all: a table's keys stand in the columns they are about, the others are empty."""
    columns = ["source", "destination", "protocol", "port", "vpc", "interface", "zone"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "rank", *columns, "bytes", "packets", "flows", "uncertain"])
    for table in tables:
        for rank, row in enumerate(table.rows, 1):
            keys = dict(zip(table.columns, row.key, strict=True))
            cells = [_safe(keys.get(column, "")) for column in columns]
            writer.writerow([table.name, rank, *cells, row.bytes, row.packets, row.flows, table.uncertain])
    return text.getvalue()


def _safe(cell: str) -> str:
    """A name out of a log must not be a formula in somebody's spreadsheet; `-` alone is none."""
    return f"'{cell}" if cell[:1] in ("=", "+", "@") or (cell[:1] == "-" and cell != "-") else cell


# --- the terminal -------------------------------------------------------------------------------------------------


def _print(found: Report, counts: Counts, top: int, with_chart: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    octets, packets, flows = found.sums
    console.print(f"{flows:,} flows, {packets:,} packets, {amount(octets)}; {found.rejected_flows:,} flows rejected")
    if found.first_ms is not None:
        console.print(f"{_time(found.first_ms)} to {_time(found.last_ms or found.first_ms)}")
    skipped = [
        (counts.nodata, "NODATA"),
        (counts.skipdata, "SKIPDATA (AWS lost some)"),
        (counts.without_addresses, "without addresses"),
        (counts.malformed, "malformed"),
        (counts.other_log_group, "of log groups without flow logs"),
    ]
    if any(count for count, _ in skipped):
        console.print("not in it: " + ", ".join(f"{count:,} {what}" for count, what in skipped if count))
    if with_chart:
        _chart(console, found)
    for table in found.tables(top):
        if table.rows and not (len(table.rows) == 1 and table.rows[0].key == ("-",)):
            _one_table(console, table)


_NOT_SAID = "(not in the record)"


def _one_table(console: Console, table: Table) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in table.columns:
        shown.add_column(column, no_wrap=True, overflow="fold")
    for column in ("traffic", "packets", "flows", "share"):
        shown.add_column(column, justify="right", no_wrap=True)
    room = 16 if len(table.columns) < 3 or console.width >= 110 else 0
    if room:
        shown.add_column("", no_wrap=True)
    largest = max((row.measure(table.by) for row in table.rows), default=0)
    for row in table.rows:
        mine = row.measure(table.by)
        share = f"{mine / table.total:.1%}" if table.total else ""
        # Text, not str: names out of a log may hold what rich takes for markup.
        shown.add_row(
            *(Text(_NOT_SAID if part == "-" else part, "dim" if part == "-" else "") for part in row.key),
            *(amount(row.bytes), f"{row.packets:,}", f"{row.flows:,}", share),
            *([bar(mine, largest, room)] if room else []),
        )
    console.print()
    console.print(shown)
    left = table.keys - len(table.rows)
    if table.uncertain:
        most = amount(table.uncertain) if table.by == "bytes" else f"{table.uncertain:,} {table.by}"
        console.print(f"There were too many to keep all: no figure is more than {most} too small.")
    elif left > 0:
        console.print(f"and {left:,} more")


def _chart(console: Console, found: Report) -> None:
    """Two lines of columns: accepted bytes, rejected flows."""
    width = max(20, min(console.width - 24, 96))
    steps = found.timeline.steps(width)
    if len(steps) < 2:
        return
    console.print()
    for title, values, most in (
        ("accepted", [step[1] for step in steps], amount),
        ("rejected", [step[2] for step in steps], _flows),
    ):
        if any(values):
            console.print(f"{title:9} {sparks(values)} max {most(max(values))}", soft_wrap=True)
    console.print(f"{'':9} {_time(steps[0][0])}, a column is {span(steps[1][0] - steps[0][0])}")


_EIGHTHS = " ▁▂▃▄▅▆▇█"
_PARTS = " ▏▎▍▌▋▊▉█"


def sparks(values: list[int]) -> str:
    """A column for each value; one that is not zero is never invisible."""
    largest = max(values) or 1
    return "".join(_EIGHTHS[0 if not value else max(1, round(value * 8 / largest))] for value in values)


def _flows(count: int) -> str:
    return f"{count:,} flows"


def span(milliseconds: int) -> str:
    minutes = milliseconds / 60_000
    for unit, size in (("days", 1440), ("h", 60)):
        if minutes >= 2 * size:
            return f"{minutes / size:.3g} {unit}"
    return f"{minutes:.0f} min"


def bar(value: int, largest: int, width: int) -> str:
    eighths = round(value * width * 8 / largest) if largest else 0
    return "█" * (eighths // 8) + (_PARTS[eighths % 8] if eighths % 8 else "")


def amount(octets: int) -> str:
    """Octets as people say them, in powers of 1000, as networks are measured."""
    size = float(octets)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.95 or unit == "TB":
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return str(octets)


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)  # no year that a calendar has
