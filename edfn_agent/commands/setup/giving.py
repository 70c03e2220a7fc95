"""A plan given to whoever asked for it: templates, a script of aws commands, or carried out.

In: a plan, and how it is wanted. Out: text on standard output or in files; what else is to be known on standard error.
Never: a change in AWS that was not shown and agreed to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edfn_agent.commands.setup.options import pairs

if TYPE_CHECKING:
    from edfn_agent.setup.model import Plan


def give(plan: Plan, given: dict[str, Any]) -> None:
    if given["is_apply"] and given["is_undo"]:
        raise click.UsageError("--apply and --undo are opposites.")
    profiles = pairs(given["profiles"], "--profile")
    if given["is_apply"] or given["is_undo"]:
        _carry_out(plan, given, profiles)
        return
    if given["form"] == "cli":
        from edfn_agent.setup.commandline import script

        _write({f"{plan.name}-{plan.path}.sh": script(plan, profiles)}, given["output"])
    else:
        _templates(plan, given["output"], profiles)
    _say_more(plan)


def _templates(plan: Plan, output: Path | None, profiles: dict[str, str]) -> None:
    from edfn_agent.setup.cloudformation import remarks, templates, to_yaml

    made = templates(plan)
    files = {}
    for name, place, template in made:
        profile = f" --profile {profiles[place.account]}" if place.account in profiles else ""
        file = f"{name}-{place.account}-{place.region}.yaml" if len(made) > 1 else f"{name}.yaml"
        secret = " --parameter-overrides FirehoseAccessKey=..." if "Parameters" in template else ""
        head = (
            f"# Account {place.account}, {place.region}:\n"
            f"#   aws cloudformation deploy --stack-name {name} --template-file {file} \\\n"
            f"#     --capabilities CAPABILITY_NAMED_IAM --region {place.region}{profile}{secret}\n"
        )
        files[file] = head + to_yaml(template)
    _write(files, output)
    if len(files) > 1:
        click.echo("\n# These are several stacks: create them in this order.", err=True)
    left = remarks(plan)
    for remark in left:
        click.echo(f"# Not in the template: {remark}.", err=True)
    if left:
        click.echo("# --format cli has the commands for that, and --apply does it.", err=True)


def _write(files: dict[str, str], output: Path | None) -> None:
    if output is None:
        click.echo("---\n".join(files.values()), nl=False)
        return
    output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (output / name).write_text(content)
        click.echo(f"wrote {output / name}", err=True)


def _say_more(plan: Plan) -> None:
    for note in plan.notes:
        click.echo(f"\n# {note}", err=True)
    if plan.configuration:
        click.echo("\n# The agent's configuration to read it:", err=True)
        click.echo(plan.configuration, err=True, nl=False)


def _carry_out(plan: Plan, given: dict[str, Any], profiles: dict[str, str]) -> None:
    from edfn_agent.setup.access import Aws
    from edfn_agent.setup.apply import carry_out, conflicts, describe, survey
    from edfn_agent.setup.undo import undo

    secrets = {}
    if given.get("access_key_file"):
        lines = given["access_key_file"].read_text().split()
        secrets["FirehoseAccessKey.Secret"] = lines[-1] if lines else ""
    aws = Aws(profiles, pairs(given["assumed"], "--assume"), secrets)
    items = survey(plan, aws)
    if given["is_undo"]:
        chosen = [item for item in items if item.seen.ours]
        for item in reversed(chosen):
            click.echo(f"to remove    {describe(item.resource)}  ({item.resource.place})")
        if not chosen:
            click.echo("Nothing of this is there.")
            return
        if given["yes"] or click.confirm("Remove this?"):
            undo(plan, aws, items, given["delete_data"], click.echo)
        return
    for item in items:
        detail = f": {item.seen.detail}" if item.seen.detail else ""
        click.echo(f"{item.seen.state.value:12} {describe(item.resource)}  ({item.resource.place}){detail}")
    if conflicts(items):
        raise click.ClickException("nothing was done, because of:\n  " + "\n  ".join(conflicts(items)))
    if not any(item.to_make for item in items):
        click.echo("Nothing to do.")
    elif given["yes"] or click.confirm("Do this?"):
        carry_out(plan, aws, items, click.echo)
    else:
        return
    _say_more(plan)
