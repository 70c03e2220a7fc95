"""`edfn-agent exporters`: who each VPC is to a collector, and setting it by hand or from a spreadsheet.

Status 0: done. 1: the state does not work. 2: the configuration cannot be used, or the command is wrong. A running
agent takes changes up from the state. pydantic and rich are imported inside the commands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from edfn_agent.commands.opening import loaded, opened_state, stop
from edfn_agent.commands.options import Group, configuration
from edfn_agent.commands.terminal import console, print_table, stacked

if TYPE_CHECKING:
    from rich.console import Console

    from edfn_agent.inventory.survey import Survey
    from edfn_agent.state import State

_config = configuration(required=False)


@click.group(cls=Group, invoke_without_command=True)
@_config
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, nothing else.")
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

    config = loaded(file)
    with opened_state(config) as state:
        assert state is not None
        survey = Survey(config, state)
        rows = exporter_rows(survey, config, state.traffic.all())
    if as_json or form == "json":
        click.echo(json.dumps({"exporters": rows}, indent=2))
    elif form == "csv":
        _print_csv(rows)
    else:
        print_exporters(rows)
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
            stop(str(error))
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
            stop(f"{vpc} has its address from the configuration (exporters.vpcs); take it out there")
        if not state.assignments.release(vpc):
            stop(f"{vpc} has no stored address; `edfn-agent exporters` lists those that have")
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


@contextmanager
def _changing(file: str | None) -> Iterator[tuple[Any, State, Survey]]:
    from edfn_agent.inventory.survey import Survey

    config = loaded(file)
    with opened_state(config) as state:
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
        stop("\n".join(faults))
    new = {key: (address, "stored") for key, address in wanted.items() if key not in configured}
    try:
        state.assignments.change(lambda _: new)
    except AssignmentConflict as error:
        stop(f"{error}. Release it there first: edfn-agent exporters release VPC")


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
        stop(f"{table.name}: its first line must name the columns vpc_id and exporter")
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
        stop("\n".join(faults))
    return wanted


# ---- for people


_WIDE = 120
"""Columns of a terminal from which every fact has a column of its own."""


def print_exporters(rows: Sequence[dict[str, Any]], onto: Console | None = None) -> None:
    """The table, also as a part of what `run-now` prints."""
    terminal = onto or console()
    counted = any("flows" in row for row in rows)
    wide = terminal.width >= _WIDE
    heads = ["VPC", "Account, region", *(["CIDRs"] if wide else []), "Exporter, domain", "Source"]
    heads += ["Flows, last"] if counted and wide else []
    cells = []
    for row in rows:
        cidrs = row["cidrs"][:2] + ([f"and {len(row['cidrs']) - 2} more"] if len(row["cidrs"]) > 2 else [])
        source = _source(row["source"])
        last = (row.get("last_flow") or "never").removesuffix("+00:00")
        cells.append(
            (
                stacked(row["name"], row["vpc_id"], *([] if wide else cidrs)),
                stacked(row["account_id"], row["region"]),
                *(["\n".join(cidrs)] if wide else []),
                stacked(str(row["exporter"]), f"{row['exporter_origin']}, {row['observation_domain']}"),
                stacked(*source, *([f"{row['flows']} flows, last {last}"] if counted and not wide else [])),
                *([stacked(str(row["flows"]), last)] if counted and wide else []),
            )
        )
    whole = range(4 if wide else 3)
    print_table(terminal, f"VPCs and their exporters ({len(rows)})", heads, cells, whole)


def _source(source: str | None) -> tuple[str, str]:
    if source is None:
        return "none", ""
    kind, _, end = source.partition(":")
    return kind.replace("_", " "), end.partition(":log-group:")[2] or end.rpartition("/")[2] or end
