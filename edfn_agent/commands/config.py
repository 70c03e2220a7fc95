"""`edfn-agent validate` and `edfn-agent config`: is the file right, and what may stand in it.

pydantic and YAML are imported inside the commands: `edfn-agent --help` must not wait for them.
"""

from __future__ import annotations

import click

from edfn_agent.commands.options import Group, configuration


@click.command()
@configuration()
def validate(file: str) -> None:
    """Check a configuration file: every fault with its line, and the nearest right key.

    Status 0: all well, perhaps with warnings. Status 2: it cannot be used.
    """
    from edfn_agent.config import ConfigError, load_with_warnings

    try:
        _, warnings = load_with_warnings(file)
    except ConfigError as error:
        click.echo(error)
        raise SystemExit(2) from None
    for warning in warnings:
        click.echo(f"{warning} (warning)")
    click.echo(f"{file}: all well" if not warnings else f"{file}: valid, with {_count(len(warnings), 'warning')}")


@click.group(cls=Group)
def config() -> None:
    """Print what a configuration file may hold."""


@config.command()
def example() -> None:
    """An example: every setting with its default, range, unit and reason."""
    from edfn_agent.config import example_text

    click.echo(example_text(), nl=False)


@config.command()
def schema() -> None:
    """The JSON Schema of the file, for editors.

    With the YAML language server, in the first line of the file: # yaml-language-server: $schema=PATH
    """
    import json

    from edfn_agent.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
