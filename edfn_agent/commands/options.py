"""What several commands share: the option that names the configuration, and how a group lists its commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


def configuration(*, required: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`-c FILE`, as the argument `file`."""
    return click.option(
        "-c",
        "--config",
        "file",
        type=click.Path(),
        metavar="FILE",
        envvar="EDFN_AGENT_CONFIG",
        show_envvar=True,
        required=required,
        help="The configuration, see docs/configuration.md.",
    )


class Group(click.Group):
    """Says of each command a whole sentence, where click would cut it to fit a line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            assert command is not None
            rows.append((name, command.get_short_help_str(limit=1000)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)
