"""How commands begin and end: the configuration, the state, and a fault that stops them.

In: what `-c` names. Out: the loaded configuration, the open state. Faults go to standard error, with the exit status.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from edfn_agent.state import State

CONFIGURATION = 2
"""Exit status: the configuration cannot be used, or the command is wrong."""


def loaded(file: str | None) -> Any:
    from edfn_agent.config import ConfigError, load

    if file is None:
        stop("no configuration: give it by -c FILE or in EDFN_AGENT_CONFIG")
    try:
        return load(file)
    except ConfigError as error:
        stop(str(error))


def stop(message: str) -> NoReturn:
    click.echo(message, err=True)
    sys.exit(CONFIGURATION)


@contextmanager
def opened_state(config: Any, required: bool = True) -> Iterator[State | None]:
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
