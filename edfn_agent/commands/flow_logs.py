"""`edfn-agent flow-logs`: every flow log there is, how it is written and read, and which VPCs have none.

Status 0: asked and shown. 1: some account, region or call failed, so something may be missing. 2: the configuration
cannot be used, or the command is wrong. boto3, pydantic and rich are imported inside the command.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from edfn_agent.commands.opening import loaded, opened_state, stop
from edfn_agent.commands.options import configuration
from edfn_agent.commands.terminal import console, print_table, progress, stacked

if TYPE_CHECKING:
    from edfn_agent.inventory.model import FlowLog
    from edfn_agent.inventory.sources import SourcePlan
    from edfn_agent.inventory.survey import Survey
    from edfn_agent.ops.doctor.missing import SetUp

INCOMPLETE = 1


@click.command("flow-logs")
@configuration()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output, nothing else.")
@click.option("--stored", is_flag=True, help="As the last discovery found them, without asking AWS.")
@click.option("--create-missing", is_flag=True, help="Print the `edfn-agent setup` commands for VPCs that have none.")
def flow_logs(file: str, as_json: bool, stored: bool, create_missing: bool) -> None:
    """List the flow logs of every account by VPC, subnet and interface, and the VPCs that have none.

    With destination, format, interval, state, and how each is read. AWS is asked now, and nothing is stored.
    Status 0: all was asked; 1: something could not be; 2: configuration.
    """
    from edfn_agent.ops.doctor.missing import commands, is_idle, without_flow_log

    config = loaded(file)
    survey = _stored(config) if stored else _asked(config)
    plan, snapshot = survey.plan, survey.snapshot
    missing = without_flow_log(snapshot)
    wanted = commands(plan, [each for each in missing if not is_idle(snapshot, each)]) if create_missing else []
    rows = [_row(plan, each) for each in snapshot.flow_logs]
    rows.sort(key=_order)
    bare = [
        {
            "vpc_id": each.vpc_id,
            "name": each.name,
            "account_id": each.account_id,
            "region": each.region,
            "cidrs": [*each.cidrs, *each.cidrs6],
            "is_default": each.is_default,
        }
        for each in missing
    ]
    problems = [each for each in snapshot.findings if each.severity == "error"]
    if as_json:
        found: dict[str, Any] = {"flow_logs": rows, "vpcs_without": bare}
        if create_missing:
            found["commands"] = [each.command for each in wanted]
        click.echo(json.dumps(found, indent=2))
    else:
        _print(rows, bare)
        _print_commands(wanted, create_missing, len(missing))
    for each in problems:
        where = " ".join(filter(None, (each.account_id, each.region, each.subject)))
        click.echo(f"{where}: {each.problem} -> {each.next_step}", err=True)
    if problems:
        sys.exit(INCOMPLETE)


def _asked(config: Any) -> Survey:
    from edfn_agent.inventory.accounts import NoRegion
    from edfn_agent.inventory.survey import Survey

    survey = Survey(config, None)  # without state: exporters and the stored inventory stay as they are
    try:
        with progress() as show:
            survey.discover(show)
    except NoRegion as error:
        stop(str(error))
    return survey


def _stored(config: Any) -> Survey:
    import time

    from edfn_agent.inventory.survey import Survey

    with opened_state(config) as state:
        survey = Survey(config, state)
    if not survey.has_snapshot:
        stop("nothing was discovered yet: run `edfn-agent run-now` first, or leave --stored out")
    minutes = (time.time() - survey.snapshot.at) / 60
    click.echo(f"As discovered {minutes:.0f} min ago.", err=True)
    return survey


# ---- plain values

_TYPES = {"vpc": "VPC", "subnet": "subnet", "eni": "interface", "tgw": "transit gateway"}


def _row(plan: SourcePlan, log: FlowLog) -> dict[str, Any]:
    from edfn_agent.formats.fields import BY_NAME
    from edfn_agent.inventory.sources import layout_of

    snapshot = plan.snapshot
    vpc_id = snapshot.vpc_of_resource(log.resource_id)
    vpc = snapshot.vpc_by_id.get(vpc_id or "")
    layout = layout_of(log)
    names = layout.names if layout is not None else ()
    way = plan.chosen.get(log.flow_log_id)
    return {
        "flow_log_id": log.flow_log_id,
        "name": log.name,
        "account_id": log.account_id,
        "region": log.region,
        "vpc_id": vpc_id,
        "vpc_name": vpc.name if vpc else "",
        "resource_id": log.resource_id,
        "resource_type": _TYPES.get(log.resource_id.split("-")[0], ""),
        "destination_type": log.destination_type,
        "destination": log.destination,
        "format": "custom" if log.format and not _is_default(log) else "default",
        "fields": len(names),
        "format_version": max((BY_NAME[name].version for name in names if name in BY_NAME), default=None),
        "log_format": log.format,
        "file_format": log.file_format,
        "interval": log.aggregation,
        "traffic": log.traffic,
        "status": log.status,
        "delivery_status": log.delivery_status,
        "delivery_error": log.delivery_error,
        "source": way.source if way else None,
        "not_read_because": None if way else _reason(plan, log),
    }


def _is_default(log: FlowLog) -> bool:
    from edfn_agent.formats.layout import DEFAULT, TRANSIT_GATEWAY_DEFAULT
    from edfn_agent.inventory.sources import layout_of

    return layout_of(log) in (DEFAULT, TRANSIT_GATEWAY_DEFAULT)


def _reason(plan: SourcePlan, log: FlowLog) -> str:
    """Why nothing of it is read."""
    ways = [way for way in plan.ways if way.flow_log is log]
    if any(way.works for way in ways):
        return "another flow log brings the same traffic"
    troubles = [f"{way.trouble.subject}: {way.trouble.problem}" for way in ways if way.enabled and way.trouble]
    return "; ".join(dict.fromkeys(troubles)) or "no input reads its destination"


def _order(row: dict[str, Any]) -> tuple[str, ...]:
    """By account, region and VPC; the VPC's own before those of its parts."""
    width = str(["vpc", "tgw", "subnet", "eni"].index(row["resource_id"].split("-")[0]))
    return (
        row["account_id"],
        row["region"],
        row["vpc_name"],
        row["vpc_id"] or "~",
        width,
        row["resource_id"],
        row["flow_log_id"],
    )


# ---- for people

_KINDS = {"s3": "S3", "cloud-watch-logs": "CloudWatch Logs", "kinesis-data-firehose": "Firehose"}


_WIDE = 150
"""Columns of a terminal from which every fact has a column of its own."""


def _print(rows: Sequence[dict[str, Any]], bare: Sequence[dict[str, Any]]) -> None:
    terminal = console()
    wide = terminal.width >= _WIDE
    cells = []
    for row in rows:
        failed = row["delivery_status"] == "FAILED"
        state = ("FAILED", row["delivery_error"]) if failed else (row["status"] or "?", "")
        reason = row["not_read_because"]
        # the resource is in the table already
        read = _read(row) if reason is None else ("not read" if not wide else "no", re.sub(r"arn:\S+: ", "", reason))
        part = row["resource_id"] != row["vpc_id"]
        of = (row["resource_type"], row["resource_id"] if part else "whole")
        destination = (_KINDS.get(row["destination_type"], row["destination_type"]), _end(row))
        written = (f"{row['format']}, {row['fields']} fields", f"version {row['format_version']}")
        how_often = f"{row['interval']} s, {row['traffic']}"
        where = (row["vpc_name"], row["vpc_id"] or row["resource_id"])
        place = (row["account_id"], row["region"])
        cells.append(
            (
                stacked(*place),
                stacked(*where),
                stacked(*of),
                stacked(row["flow_log_id"], row["name"]),
                stacked(*destination),
                stacked(*written),
                stacked(how_often, row["file_format"]),
                stacked(*state),
                stacked(*read),
            )
            if wide
            else (
                stacked(*where, *place),
                stacked(row["flow_log_id"], f"of the {of[0]}" if not part else of[1], how_often),
                stacked(*destination, *written, row["file_format"]),
                stacked(*read, *(state if failed else ())),
            )
        )
    heads = ("Account", "VPC", "Of", "Flow log", "Destination", "Format", "Interval", "State", "Read")
    few = ("VPC", "Flow log", "Destination, format", "Read")
    print_table(terminal, f"Flow logs ({len(rows)})", heads if wide else few, cells, (0, 1, 3) if wide else (0, 1))
    print_table(
        terminal,
        f"VPCs without a flow log ({len(bare)})",
        ("Account", "Region", "VPC", "Name", "CIDRs"),
        [
            (
                row["account_id"],
                row["region"],
                row["vpc_id"],
                stacked(row["name"]) or ("[dim](default VPC)[/]" if row["is_default"] else ""),
                " ".join(row["cidrs"]),
            )
            for row in bare
        ],
        (0, 2),
    )


def _read(row: dict[str, Any]) -> tuple[str, str]:
    """By which input; the place only where it is not the destination (the stream behind a log group, say)."""
    kind, _, end = row["source"].partition(":")
    place = "" if _end(row) in (end, end.partition(":log-group:")[2]) else end.rpartition("/")[2] or end
    return kind.replace("_", " "), place


def _end(row: dict[str, Any]) -> str:
    """The bucket, group or stream by name."""
    destination: str = row["destination"]
    if row["destination_type"] == "cloud-watch-logs":
        return destination.partition(":log-group:")[2] or destination
    return destination.rpartition(":")[2].removeprefix("deliverystream/")


def _print_commands(wanted: Sequence[SetUp], create_missing: bool, missing: int) -> None:
    if not create_missing:
        if missing:
            click.echo("`edfn-agent flow-logs --create-missing` prints the setup commands for them.", err=True)
        return
    for each in wanted:
        click.echo(f"# {len(each.vpcs)} VPC{'s' if len(each.vpcs) > 1 else ''}: {each.why}.")
        click.echo(each.command)
    left = missing - sum(len(each.vpcs) for each in wanted)
    if left:
        click.echo(f"# Left out: {left} default VPCs without an interface.")
    if wanted:
        click.echo("# Each prints a template; --format cli prints aws commands, --apply carries it out.", err=True)
