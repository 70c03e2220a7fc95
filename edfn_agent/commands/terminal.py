"""What commands print for people: tables that fit the terminal, a line of progress.

rich is imported inside the functions: `edfn-agent --help` must not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None] | None]:
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


def console() -> Console:
    from rich.console import Console

    # Into a file or pipe nothing is cut: there is no terminal that it would have to fit.
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=160, color_system=None)


def print_table(
    console: Console, title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], whole: Collection[int] = (0,)
) -> None:
    """Cells are markup; `stacked` makes them of what AWS says. Columns in `whole` are never cut: people copy them."""
    from rich import box
    from rich.table import Table

    console.print(f"[bold]{title}[/]")
    if not rows:
        console.print("  none\n")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for n, head in enumerate(heads):
        least = max(_width(row[n]) for row in rows) if n in whole else None
        table.add_column(head, no_wrap=n in whole, overflow="fold", min_width=least)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def stacked(*lines: str) -> str:
    """A cell: one below the other, the first the brighter. Names are anybody's, and may look like markup."""
    from rich.markup import escape

    first, *rest = [escape(line) for line in lines if line] or [""]
    return "\n".join([first, *(f"[dim]{line}[/]" for line in rest)])


def _width(cell: str) -> int:
    from rich.text import Text

    return max(Text.from_markup(line).cell_len for line in cell.split("\n"))


def indented(text: str, width: int, first: int = 8, others: int = 11) -> str:
    import textwrap

    return textwrap.fill(
        text,
        width,
        initial_indent=" " * first,
        subsequent_indent=" " * others,
        # a word is often an id, an ARN or a command
        break_long_words=False,
        break_on_hyphens=False,
    )
