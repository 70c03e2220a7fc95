"""`edfn-agent quarantine`: what could not be read, and another try for it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from edfn_agent.commands.options import Group, configuration

if TYPE_CHECKING:
    from edfn_agent.state import State

_config = configuration()


@click.group(cls=Group)
def quarantine() -> None:
    """List, show and retry what could not be read.

    An object stays in its bucket; what a source does not keep (log events, records) is kept here.
    """


@quarantine.command("list")
@_config
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def list_(file: str, as_json: bool) -> None:
    """What is in the quarantine, oldest first."""
    from rich.console import Console
    from rich.table import Table

    with _state(file) as state:
        items = state.quarantine.list()
    if as_json:
        click.echo(json.dumps([_about(item) for item in items]))
        return
    if not items:
        click.echo("the quarantine is empty")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("id", "since", "input", "what", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name in ("id", "since", "input"))
    for item in items:
        table.add_row(str(item.id), _time(item.at), item.input, item.name, item.reason)
    Console().print(table)
    click.echo("`edfn-agent quarantine show ID` says more, `retry ID` hands it to the running agent again")


@quarantine.command()
@_config
@click.argument("id", type=int)
@click.option("--payload", is_flag=True, help="Write its octets to standard output instead.")
def show(file: str, id: int, payload: bool) -> None:
    """Everything that is known of one entry."""
    with _state(file) as state:
        item = state.quarantine.get(id)
    if item is None:
        raise click.ClickException(f"there is no entry {id}; `edfn-agent quarantine list` shows all")
    if payload:
        if item.payload is None:
            raise click.ClickException(f"its octets are still at the source: {item.name}")
        sys.stdout.buffer.write(item.payload)
        return
    click.echo(json.dumps(_about(item), indent=2))


@quarantine.command()
@_config
@click.argument("ids", type=int, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every entry.")
def retry(file: str, ids: tuple[int, ...], everything: bool) -> None:
    """Have the running agent read entries again; what can be exported then leaves the quarantine."""
    if not ids and not everything:
        raise click.UsageError("name the entries, or --all")
    with _state(file) as state:
        wanted = [item.id for item in state.quarantine.list()] if everything else ids
        for id in wanted:
            if not state.quarantine.request(id):
                raise click.ClickException(f"there is no entry {id}; `edfn-agent quarantine list` shows all")
    click.echo(f"{len(wanted)} asked for; a running agent takes them up within seconds")


@quarantine.command()
@_config
@click.argument("ids", type=int, nargs=-1, required=True)
def remove(file: str, ids: tuple[int, ...]) -> None:
    """Forget entries. An object stays in its bucket; octets kept only here are gone."""
    with _state(file) as state:
        for id in ids:
            if not state.quarantine.remove(id):
                raise click.ClickException(f"there is no entry {id}; `edfn-agent quarantine list` shows all")
    click.echo(f"{len(ids)} removed")


def _state(file: str) -> State:
    from edfn_agent.config import ConfigError, load
    from edfn_agent.state import State, StateError

    try:
        return State(load(file).state_directory)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except StateError as error:
        raise click.ClickException(str(error)) from None


def _about(item: Any) -> dict[str, Any]:
    return {
        "id": item.id,
        "input": item.input,
        "source": item.source,
        "name": item.name,
        "reason": item.reason,
        "at": _time(item.at),
        "octets": item.size,
        "detail": item.detail,
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
