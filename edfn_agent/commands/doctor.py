"""`edfn-agent doctor`: is everything that the configuration needs there, reachable and allowed.

Status 0: all well. 1: something is wrong (an error or a warning). 2: the configuration cannot be used, or the command
is wrong. boto3, pydantic and rich are imported inside the command: `edfn-agent --help` must not wait for them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from edfn_agent.commands.opening import stop
from edfn_agent.commands.options import configuration
from edfn_agent.commands.terminal import console, progress

if TYPE_CHECKING:
    from rich.console import Console

    from edfn_agent.ops.doctor.checks import Alike, Check

WRONG = 1


@click.command()
@configuration()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each check, nothing else.")
@click.option(
    "--peek",
    is_flag=True,
    help="Receive one message of each queue, which counts as a try of it, and read its object's first octet.",
)
def doctor(file: str, as_json: bool, peek: bool) -> None:
    """Check that all the configuration needs is there, reachable and allowed.

    Accounts, regions, every permission, flow logs, buckets, queues, log groups, streams, collectors and this machine.
    Nothing is changed. What is well is shown in short, what is wrong at the end with what mends it. Status 0: all well;
    1: something is wrong; 2: configuration. docs/doctor.md has every check.
    """
    from edfn_agent.config import ConfigError, load_with_warnings
    from edfn_agent.inventory.accounts import NoRegion
    from edfn_agent.ops.doctor.examination import Examination

    try:
        config, warnings = load_with_warnings(file)
        examination = Examination(config, file, peek, tuple(map(str, warnings)))
        with progress() as show:
            checks = examination.run(show)
    except (ConfigError, NoRegion) as error:
        stop(str(error))
    if as_json:
        for check in checks:
            click.echo(json.dumps(check.to_json()))
    else:
        _print(console(), checks)
    if any(check.is_fault for check in checks):
        sys.exit(WRONG)


def _print(console: Console, checks: Sequence[Check]) -> None:
    from edfn_agent.ops.doctor.checks import ERROR, GROUPS, INFO, OK, UNTRIED, WARNING, alike

    for group, title in GROUPS.items():
        mine = [check for check in checks if check.group == group]
        if mine:
            _print_group(console, title, mine)
    told = [each for each in alike(checks) if each.first.status != OK]
    for heading, statuses in (("Not tried", (UNTRIED,)), ("Good to know", (INFO,)), ("Faults", (WARNING, ERROR))):
        some = [each for each in told if each.first.status in statuses]
        if not some:
            continue
        console.print(f"[bold]{heading} ({len(some)})[/]")
        # The gravest stands at the very end, where the eye is when the command is done.
        for each in sorted(some, key=lambda one: statuses.index(one.first.status)):
            _print_told(console, each)
        if heading == "Not tried":
            for step in dict.fromkeys(each.first.next_step for each in some if each.first.next_step):
                _print_text(console, step, "-> ")
        console.print()
    counts = {status: sum(check.status == status for check in checks) for status in (OK, UNTRIED, INFO, WARNING, ERROR)}
    console.print(
        f"{len(checks)} checks: {counts[OK]} well, {counts[UNTRIED]} not tried, {counts[INFO]} good to know, "
        f"{_number(counts[WARNING], 'warning')}, {_number(counts[ERROR], 'error')}."
    )


def _number(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


_STYLES = {"ok": "green", "untried": "dim", "info": "dim", "warning": "yellow", "error": "bold red"}


def _print_group(console: Console, title: str, checks: Sequence[Check]) -> None:
    """One line for each kind of check: how many are well, and where."""
    console.print(f"[bold]{title}[/]")
    permissions = checks[0].group == "permission"
    lines: dict[tuple[str, str], list[Check]] = {}
    for check in checks:
        name = check.title.partition(":")[0] if permissions else check.title
        lines.setdefault((name, check.status), []).append(check)
    for (name, status), some in lines.items():
        detail = _actions(some) if permissions else _summary(some)
        _print_line(console, status, name, detail)
    console.print()


def _print_line(console: Console, status: str, name: str, detail: str) -> None:
    import textwrap

    from rich.text import Text

    first, *more = textwrap.wrap(detail, max(40, console.width - 38), break_long_words=False) or [""]
    line = Text("  ").append(f"{status:<8}", _STYLES[status]).append(f"{name:<27} ").append(first, "dim")
    console.print(line, soft_wrap=True)
    for rest in more:
        console.print(Text(" " * 38).append(rest, "dim"), soft_wrap=True)


def _actions(checks: Sequence[Check]) -> str:
    names = sorted({check.title.partition(":")[2] for check in checks})
    return f"{len(names)}: {', '.join(names)}"


def _summary(checks: Sequence[Check]) -> str:
    if len(checks) == 1:
        only = checks[0]
        return ": ".join(filter(None, (_name(only), only.text)))
    texts = list(dict.fromkeys(check.text for check in checks))
    places = list(dict.fromkeys(map(_name, checks)))
    shown = ", ".join(places[:3]) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
    return f"{len(checks)}: {shown}" + (f": {texts[0]}" if len(texts) == 1 else "")


def _name(check: Check) -> str:
    """An account by its number: its sessions have the same name everywhere."""
    return check.place if check.group == "account" and check.place else _short(check.resource) or check.place


def _short(resource: str) -> str:
    """What a person calls it: an ARN without what stands beside it as account and region."""
    return resource.split(":", 5)[5] if resource.startswith("arn:") else resource


def _print_told(console: Console, each: Alike) -> None:
    from rich.text import Text

    check = each.first
    subject = _listed([_short(name) for name in each.resources], "resources")
    where = _listed(each.places, "places")
    head = Text(f"{check.status:<8}", _STYLES[check.status])
    head.append(", ".join(each.titles), "bold").append(f" {subject}" if subject else "").append(
        f" ({where})" if where else "", "dim"
    )
    console.print(head, soft_wrap=True)
    _print_text(console, check.text, "")
    if check.status == "untried":
        return  # what would make it possible is said once for all
    if check.next_step:
        _print_text(console, check.next_step, "-> ")
    _print_fix(console, each)


def _print_fix(console: Console, each: Alike) -> None:
    lines = each.first.fix.splitlines()
    if lines and each.count > 1:
        one = _short(each.first.resource)
        lines.append(f"(this is for {' '.join(filter(None, (one, each.first.place)))}; --json has the others)")
    for line in lines:
        # Whole, however long: it is there to be copied.
        console.print(f"           {line}", style="cyan", markup=False, soft_wrap=True)


def _print_text(console: Console, text: str, lead: str) -> None:
    import textwrap

    indented = textwrap.fill(
        lead + text, console.width, initial_indent=" " * 8, subsequent_indent=" " * 11, break_long_words=False
    )
    console.print(indented, markup=False)


def _listed(names: Sequence[str], what: str) -> str:
    names = list(dict.fromkeys(names))
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more {what}"
