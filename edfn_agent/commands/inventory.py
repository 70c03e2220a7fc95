"""`edfn-agent run-now` and `edfn-agent exporters`: what there is in AWS, and who each VPC is to a collector.

Status 0: all well. 1: something failed, the rest stands. 2: the configuration cannot be used, or the command is wrong.
boto3, pydantic and rich are imported inside the commands: `edfn-agent --help` must not wait for them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NoReturn

import click

from edfn_agent.commands.options import Group, configuration

if TYPE_CHECKING:
    from rich.console import Console

    from edfn_agent.inventory.survey import Survey
    from edfn_agent.state import State

CONFIGURATION = 2

_config = configuration(required=False)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, nothing else.")


@click.command("run-now")
@configuration()
@_json
@click.option(
    "--save-inventory", metavar="FILE", type=click.File("w"), help="Write what was found, for `export --inventory`."
)
def run_now(file: str, as_json: bool, save_inventory: IO[str] | None) -> None:
    """Ask every account and region now, print what is there, and keep it for the exporter.

    Accounts, VPCs with their exporter addresses, Kinesis streams, log groups, buckets with their queues, and at the end
    what is wrong and the next step to take. Status 0: all well; 1: something failed, the rest stands; 2: configuration.
    """
    from edfn_agent.inventory import report
    from edfn_agent.inventory.accounts import NoRegion
    from edfn_agent.inventory.survey import Survey

    config = _loaded(file)
    with _state(config, required=False) as state:
        survey = Survey(config, state)
        first = not survey.has_snapshot
        try:
            with _progress() as progress:
                changed = survey.discover(progress)
        except NoRegion as error:
            _stop(str(error))
        if save_inventory is not None:
            json.dump(survey.snapshot.to_json(), save_inventory)
        found = report.run_now(survey, config)
        if as_json:
            click.echo(json.dumps(found, indent=2))
        else:
            _print_run_now(found, survey)
            if not first:
                click.echo(f"Since the last time: {changed}.")
        if report.failed(survey):
            sys.exit(report.FAILED)


@click.group(cls=Group, invoke_without_command=True)
@_config
@_json
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", help="How to print it.")
@click.pass_context
def exporters(context: click.Context, file: str | None, as_json: bool, form: str) -> None:
    """List the exporter of every VPC; set or release an address.

    The table is that of the last discovery (`edfn-agent run-now`, or the running agent). With --format csv it can be
    kept in a spreadsheet and brought back by `exporters import`.
    """
    context.obj = file
    if context.invoked_subcommand is not None:
        return
    from edfn_agent.inventory.report import exporter_rows
    from edfn_agent.inventory.survey import Survey

    config = _loaded(file)
    with _state(config) as state:
        assert state is not None
        survey = Survey(config, state)
        rows = exporter_rows(survey, config, state.traffic.all())
    if as_json or form == "json":
        click.echo(json.dumps({"exporters": rows}, indent=2))
    elif form == "csv":
        _print_csv(rows)
    else:
        _print_exporters(rows)
    if not survey.has_snapshot:
        click.echo("Nothing was discovered yet: run `edfn-agent run-now` first.", err=True)


@exporters.command()
@_config
@click.argument("vpc")
@click.argument("address")
@click.pass_obj
def assign(outer: str | None, file: str | None, vpc: str, address: str) -> None:
    """Give a VPC an exporter address. A running agent takes it up within seconds."""
    with _changing(file or outer) as (config, state, survey):
        try:
            wanted = {_key(vpc): _address(address)}
        except ValueError as error:
            _stop(str(error))
        _assign(config, state, survey, wanted)
        click.echo(f"{vpc} is exported as {address}.")


@exporters.command()
@_config
@click.argument("vpc")
@click.pass_obj
def release(outer: str | None, file: str | None, vpc: str) -> None:
    """Take a VPC's address away. If the VPC is still there, it gets its router's or one of the pool."""
    with _changing(file or outer) as (config, state, survey):
        if vpc in _configured(config):
            _stop(f"{vpc} has its address from the configuration (exporters.vpcs); take it out there")
        if not state.assignments.release(vpc):
            _stop(f"{vpc} has no stored address; `edfn-agent exporters` lists those that have")
        survey.exporters.follow()
        exporter = survey.exporters.table.get(vpc)
        click.echo(f"{vpc} is released." + (f" It is now exported as {exporter.address}." if exporter else ""))


@exporters.command("import")
@_config
@click.argument("table", type=click.File("r", encoding="utf-8-sig"), metavar="FILE.csv")
@click.pass_obj
def import_(outer: str | None, file: str | None, table: Any) -> None:
    """Set addresses from a CSV file with the columns vpc_id and exporter: all of it, or nothing.

    What `exporters --format csv` writes can be read; other columns are passed over, rows without an address, too.
    """
    with _changing(file or outer) as (config, state, survey):
        wanted = _read_csv(table)
        current = {each.key: each.address for each in survey.exporters.table}
        changed = {key: address for key, address in wanted.items() if current.get(key) != address}
        if changed:
            _assign(config, state, survey, changed)
        click.echo(f"{len(changed)} of {len(wanted)} addresses changed.")


# ---- configuration and state


def _loaded(file: str | None) -> Any:
    from edfn_agent.config import ConfigError, load

    if file is None:
        _stop("no configuration: give it by -c FILE or in EDFN_AGENT_CONFIG")
    try:
        return load(file)
    except ConfigError as error:
        _stop(str(error))


def _stop(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(CONFIGURATION)


@contextmanager
def _state(config: Any, required: bool = True) -> Iterator[State | None]:
    """The state; None where it cannot be opened and the command can do without."""
    from edfn_agent.state import State, StateError

    try:
        state = State(config.state_directory)
    except StateError as error:
        click.echo(f"{error}.", err=True)
        if required:
            sys.exit(1)
        yield None
        return
    try:
        with state:
            yield state
    except StateError as error:
        click.echo(f"{error}.", err=True)
        sys.exit(1)


@contextmanager
def _changing(file: str | None) -> Iterator[tuple[Any, State, Survey]]:
    from edfn_agent.inventory.survey import Survey

    config = _loaded(file)
    with _state(config) as state:
        assert state is not None
        yield config, state, Survey(config, state)


def _configured(config: Any) -> dict[str, Any]:
    from edfn_agent.inventory.exporters import configured_addresses

    return configured_addresses(config.exporters)


def _assign(config: Any, state: State, survey: Survey, wanted: dict[str, Any]) -> None:
    """Writes addresses: all, or none with every reason."""
    from edfn_agent.state import AssignmentConflict

    configured = _configured(config)
    holders = {address: key for key, address in configured.items()}
    faults = []
    for key, address in wanted.items():
        if key in configured and configured[key] != address:
            faults.append(f"{key} has {configured[key]} from the configuration (exporters.vpcs); change it there")
        elif holders.get(address, key) != key:
            faults.append(f"{address} is {holders[address]}'s by configuration (exporters.vpcs)")
        elif key not in survey.snapshot.vpc_by_id and survey.exporters.table.get(key) is None:
            click.echo(f"{key} is not in the inventory (yet); the address is kept for it.", err=True)
    if faults:
        _stop("\n".join(faults))
    new = {key: (address, "stored") for key, address in wanted.items() if key not in configured}
    try:
        state.assignments.change(lambda _: new)
    except AssignmentConflict as error:
        _stop(f"{error}. Release it there first: edfn-agent exporters release VPC")


def _key(text: str) -> str:
    import re

    if not re.fullmatch(r"(vpc|tgw)-[0-9a-f]{8,17}|unattributed", text):
        raise ValueError(f"{text!r} is no VPC id, like vpc-0a1b2c3d4e5f60718")
    return text


def _address(text: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    from edfn_agent.config.values import ExporterAddress

    try:
        return TypeAdapter(ExporterAddress).validate_python(text)
    except ValidationError as error:
        raise ValueError(f"{text!r} {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


# ---- CSV

_COLUMNS = (
    "vpc_id",
    "name",
    "account_id",
    "region",
    "cidrs",
    "exporter",
    "exporter_origin",
    "observation_domain",
    "source",
    "flows",
    "last_flow",
)


def _print_csv(rows: Sequence[dict[str, Any]]) -> None:
    import csv

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in rows:
        cells = {**row, "cidrs": " ".join(row["cidrs"])}
        writer.writerow(["" if cells[name] is None else cells[name] for name in _COLUMNS])


def _read_csv(table: Any) -> dict[str, Any]:
    import csv

    reader = csv.DictReader(line for line in table if line.strip())
    names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    if "vpc_id" not in names or "exporter" not in names:
        _stop(f"{table.name}: its first line must name the columns vpc_id and exporter")
    reader.fieldnames = names
    wanted: dict[str, Any] = {}
    holders: dict[Any, str] = {}
    faults = []
    for row in reader:
        place = f"{table.name}, line {reader.line_num}"
        vpc, text = (row.get("vpc_id") or "").strip(), (row.get("exporter") or "").strip()
        if not text:
            continue
        try:
            key, address = _key(vpc), _address(text)
        except ValueError as error:
            faults.append(f"{place}: {error}")
            continue
        if key in wanted:
            faults.append(f"{place}: {key} is there twice")
        if address in holders:
            faults.append(f"{place}: {address} is given to {holders[address]}, too")
        wanted[key] = address
        holders[address] = key
    if faults:
        _stop("\n".join(faults))
    return wanted


# ---- for people

_STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A line on standard error that says what is being asked, when somebody is there to see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("accounts", total=None)

        def show(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        yield show


def _console() -> Console:
    from rich.console import Console

    # Into a file or pipe nothing is cut: there is no terminal that it would have to fit.
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=160, color_system=None)


def _print_run_now(found: dict[str, Any], survey: Survey) -> None:
    from rich.markup import escape

    from edfn_agent.inventory.report import grouped

    console = _console()
    counts: dict[str, int] = {}
    for row in found["vpcs"]:
        counts[row["account_id"]] = counts.get(row["account_id"], 0) + 1
    _table(
        console,
        f"Accounts ({len(found['accounts'])})",
        ("Account", "Name", "Reached by", "VPCs", "Status"),
        [
            (
                row["account_id"] or "?",
                row["name"],
                _via(row["via"]),
                str(counts.get(row["account_id"], 0)),
                "ok" if row["status"] == "ok" else "[bold red]failed[/]",
            )
            for row in found["accounts"]
        ],
    )
    _print_exporters(found["vpcs"], console)
    _table(
        console,
        f"Kinesis streams ({len(found['streams'])})",
        ("Stream", "Account", "Region", "Read", "Fan-out"),
        [
            (
                row["arn"].rpartition("/")[2],
                row["account_id"],
                row["region"],
                _yes(row["enabled"]),
                _yes(row["enhanced_fan_out"]),
            )
            for row in found["streams"]
        ],
    )
    _table(
        console,
        f"CloudWatch log groups ({len(found['log_groups'])})",
        ("Log group", "Account", "Region", "Read"),
        [(row["name"], row["account_id"], row["region"], _yes(row["enabled"])) for row in found["log_groups"]],
    )
    _table(
        console,
        f"S3 buckets ({len(found['buckets'])})",
        ("Bucket", "Account", "Region", "Queue", "Read"),
        [
            (
                row["bucket"],
                row["account_id"] or "?",
                row["region"] or "?",
                (row["queue_url"] or "none").rpartition("/")[2],
                _yes(row["enabled"]) + (" [yellow](see below)[/]" if row["problem"] else ""),
            )
            for row in found["buckets"]
        ],
    )
    groups = grouped(survey.findings)
    if groups:
        console.print(f"[bold]Findings ({len(groups)})[/]")
    for group in groups:
        style = _STYLES[group.severity]
        where = _shortened(group.places, "places")
        subject = _shortened(group.subjects, "resources")
        console.print(
            f"[{style}]{group.severity:<7}[/] {escape(subject)}" + (f" [dim]({escape(where)})[/]" if where else "")
        )
        for text, first in ((group.problem, ""), (group.next_step, "-> ")):
            console.print(_indented(first + text, console.width), markup=False)
    console.print(
        f"{len(found['vpcs'])} VPCs in {len(found['accounts'])} accounts; "
        f"{found['api_calls']} calls in {found['seconds']:.1f} s."
    )


def _print_exporters(rows: Sequence[dict[str, Any]], console: Console | None = None) -> None:
    console = console or _console()
    counted = any("flows" in row for row in rows)
    heads = ["VPC", "Account, region", "CIDRs", "Exporter, domain", "Source", *(["Flows, last"] if counted else [])]
    cells = []
    for row in rows:
        cidrs = row["cidrs"][:2] + ([f"and {len(row['cidrs']) - 2} more"] if len(row["cidrs"]) > 2 else [])
        line = [
            f"{row['name']}\n[dim]{row['vpc_id']}[/]" if row["name"] else row["vpc_id"],
            f"{row['account_id']}\n{row['region']}".strip(),
            "\n".join(cidrs),
            f"{row['exporter']}\n[dim]{row['exporter_origin']}, {row['observation_domain']}[/]",
            _source(row["source"]),
        ]
        if counted:
            line.append(f"{row['flows']}\n[dim]{(row['last_flow'] or 'never').removesuffix('+00:00')}[/]")
        cells.append(tuple(line))
    _table(console, f"VPCs and their exporters ({len(rows)})", heads, cells)


def _table(console: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table

    console.print(f"[bold]{title}[/]")
    if not rows:
        console.print("  none\n")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for n, head in enumerate(heads):
        # What stands first is what people copy into the next command: it is never cut.
        table.add_column(head, no_wrap=n == 0, overflow="fold", min_width=max(map(_width, rows)) if n == 0 else None)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def _width(row: Sequence[str]) -> int:
    from rich.text import Text

    return max(Text.from_markup(line).cell_len for line in row[0].split("\n"))


def _indented(text: str, width: int) -> str:
    import textwrap

    return textwrap.fill(text, width, initial_indent=" " * 8, subsequent_indent=" " * 11, break_long_words=False)


def _via(via: str) -> str:
    kind, _, rest = via.partition(":")
    return (
        f"role {rest.rpartition('/')[2]}"
        if kind == "role"
        else f"profile {rest}"
        if kind == "profile"
        else "own identity"
    )


def _source(source: str | None) -> str:
    if source is None:
        return "[yellow]none[/]"
    kind, _, end = source.partition(":")
    name = end.partition(":log-group:")[2] or end.rpartition("/")[2] or end
    return f"{kind.replace('_', ' ')}\n[dim]{name}[/]"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _shortened(names: Sequence[str], what: str) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more {what}"
