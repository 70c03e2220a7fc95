"""`edfn-agent run-now`: ask AWS what there is, print it, and keep it for the exporter.

Status 0: all well. 1: something failed, the rest stands. 2: the configuration cannot be used, or the command is wrong.
boto3, pydantic and rich are imported inside the command: `edfn-agent --help` must not wait for them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from edfn_agent.commands.exporters import print_exporters
from edfn_agent.commands.opening import loaded, opened_state, stop
from edfn_agent.commands.options import configuration
from edfn_agent.commands.terminal import console, indented, print_table, progress, stacked

if TYPE_CHECKING:
    from edfn_agent.inventory.survey import Survey

_STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


@click.command("run-now")
@configuration()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, nothing else.")
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

    config = loaded(file)
    with opened_state(config, required=False) as state:
        survey = Survey(config, state)
        first = not survey.has_snapshot
        try:
            with progress() as show:
                changed = survey.discover(show)
        except NoRegion as error:
            stop(str(error))
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


def _print_run_now(found: dict[str, Any], survey: Survey) -> None:
    from rich.markup import escape

    from edfn_agent.inventory.report import grouped

    terminal = console()
    counts: dict[str, int] = {}
    for row in found["vpcs"]:
        counts[row["account_id"]] = counts.get(row["account_id"], 0) + 1
    print_table(
        terminal,
        f"Accounts ({len(found['accounts'])})",
        ("Account", "Name", "Reached by", "VPCs", "Status"),
        [
            (
                row["account_id"] or "?",
                stacked(row["name"]),
                stacked(_via(row["via"])),
                str(counts.get(row["account_id"], 0)),
                "ok" if row["status"] == "ok" else "[bold red]failed[/]",
            )
            for row in found["accounts"]
        ],
    )
    print_exporters(found["vpcs"], terminal)
    print_table(
        terminal,
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
    print_table(
        terminal,
        f"CloudWatch log groups ({len(found['log_groups'])})",
        ("Log group", "Account", "Region", "Read"),
        [(stacked(row["name"]), row["account_id"], row["region"], _yes(row["enabled"])) for row in found["log_groups"]],
    )
    print_table(
        terminal,
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
        terminal.print(f"[bold]Findings ({len(groups)})[/]")
    for group in groups:
        where = _shortened(group.places, "places")
        text = _shortened(group.subjects, "resources") + (f" ({where})" if where else "")
        about = indented(text, terminal.width, others=8).lstrip()
        terminal.print(f"[{_STYLES[group.severity]}]{group.severity:<7}[/] {escape(about)}")
        for text, first in ((group.problem, ""), (group.next_step, "-> ")):
            terminal.print(indented(first + text, terminal.width), markup=False)
    terminal.print(
        f"{len(found['vpcs'])} VPCs in {len(found['accounts'])} accounts; "
        f"{found['api_calls']} calls in {found['seconds']:.1f} s."
    )


def _via(via: str) -> str:
    kind, _, rest = via.partition(":")
    return (
        f"role {rest.rpartition('/')[2]}"
        if kind == "role"
        else f"profile {rest}"
        if kind == "profile"
        else "own identity"
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _shortened(names: Sequence[str], what: str) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more {what}"
