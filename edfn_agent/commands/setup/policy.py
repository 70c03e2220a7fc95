"""`edfn-agent setup policy`: what the agent may do, from the configuration or from what was typed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edfn_agent.commands.setup.giving import give
from edfn_agent.commands.setup.options import own_account, told

if TYPE_CHECKING:
    from edfn_agent.setup.agent_policy import Access, Member
    from edfn_agent.setup.model import Plan


@click.command("policy")
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="EDFN_AGENT_CONFIG",
    show_envvar=True,
    help="The configuration that it is for: inputs, roles, and what they list.",
)
@click.option("--name", default="EdfnAgentPolicy", show_default=True, help="The name of the policy.")
@click.option("--account", metavar="ID", help="The agent's own account, when no identity says it.")
@click.option("--region", envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], metavar="NAME", help="For the calls of --apply.")
@click.option("--agent-identity", metavar="ARN", help="The role or user that the agent runs as.")
@click.option("--role", "roles", multiple=True, metavar="ARN[,EXTERNAL-ID]", help="A role to make in another account.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=click.Choice(["s3", "cloudwatch_logs", "kinesis", "firehose"]),
    help="An input in use, without -c. May be repeated, as what follows.",
)
@click.option(
    "--bucket",
    "buckets",
    multiple=True,
    metavar="NAME[/PREFIX]|ARN",
    help="A bucket to read objects from, or an access point of one.",
)
@click.option("--queue", "queues", multiple=True, metavar="ARN", help="A queue to receive from.")
@click.option("--log-group", "log_groups", multiple=True, metavar="NAME|ARN", help="A log group to ask.")
@click.option("--stream", "streams", multiple=True, metavar="ARN[,fan-out]", help="A stream to read.")
@click.option(
    "--kms-key", "keys", multiple=True, metavar="ARN", help="A key that objects or streams are encrypted with."
)
@click.option("--simulate", is_flag=True, help="Let doctor ask IAM what is allowed.")
@click.option("--like-edfn", is_flag=True, help="The original product's three statements, word for word.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["cloudformation", "cli", "json"]),
    default="cloudformation",
    show_default=True,
    help="A template, aws commands, or the policy document alone.",
)
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="Write files there instead of printing.")
@click.option("--apply", "is_apply", is_flag=True, help="Make it: show what will be done, ask, do it.")
@click.option("--undo", "is_undo", is_flag=True, help="Remove what --apply made: show, ask, do it.")
@click.option("--yes", is_flag=True, help="With --apply and --undo: do not ask.")
@click.option("--profile", "profiles", multiple=True, metavar="ACCOUNT=NAME", help="AWS profile to use for an account.")
@click.option(
    "--assume", "assumed", multiple=True, metavar="ACCOUNT=ARN", help="Role to assume for an account (--apply)."
)
@told
def policy(**given: Any) -> None:
    """What the agent may do: its policy, and its roles in other accounts."""
    from edfn_agent.setup.agent_policy import LIKE_EDFN, attachable, plan
    from edfn_agent.setup.model import ManagedPolicy, Place, Plan, home_region

    if given["like_edfn"]:
        identity = given["agent_identity"]
        account = identity.split(":")[4] if identity else given["account"]
        if not account and given["form"] == "json":
            account = "000000000000"
        if not account:
            raise click.UsageError("Which account? Say --account ID, or --agent-identity ARN.")
        attach = attachable(identity) if identity else ""
        place = Place(account, given["region"] or home_region((identity or "arn:aws").split(":")[1]))
        one = ManagedPolicy(id="AgentPolicy", place=place, name=given["name"], statements=LIKE_EDFN, attach_to=attach)
        made = Plan("policy", given["name"], (one,))
    else:
        access, members, max_session = _access(given)
        made = plan(
            given["name"],
            access,
            given["region"],
            members,
            given["agent_identity"],
            _policy_account(given),
            max_session,
        )
    if given["form"] == "json" and not (given["is_apply"] or given["is_undo"]):
        _print_documents(made)
        return
    give(made, {**given, "delete_data": False})


def _policy_account(given: dict[str, Any]) -> str | None:
    account: str | None = given["account"]
    if account is None and given["agent_identity"] is None and (given["is_apply"] or given["is_undo"]):
        account = own_account(given["region"] or "us-east-1")
    return account


def _access(given: dict[str, Any]) -> tuple[Access, list[Member], int]:
    """From the configuration file; what is said on the command line is added to it."""
    from edfn_agent.setup.agent_policy import Access, Member, StreamUse

    inputs = set(given["inputs"])
    buckets = [each for each in given["buckets"] if not each.startswith("arn:")]
    points = [each for each in given["buckets"] if each.startswith("arn:")]
    if wrong := [each for each in points if ":accesspoint/" not in each]:
        raise click.UsageError(f"--bucket {wrong[0]}: write its name, or the ARN of an access point.")
    queues, groups = list(given["queues"]), list(given["log_groups"])
    streams = [StreamUse(*_stream(text)) for text in given["streams"]]
    members = [
        Member(arn.strip(), external.strip() or None) for arn, _, external in (r.partition(",") for r in given["roles"])
    ]
    metrics, max_session = False, 3600
    if given["path"] is not None:
        from edfn_agent.config import ConfigError, load

        try:
            config = load(given["path"])
        except ConfigError as error:
            click.echo(str(error), err=True)
            raise SystemExit(2) from None
        members += [Member(role.arn, _plain(role.external_id)) for role in config.aws.roles]
        max_session = max(3600, int(config.aws.session_duration))
        found = config.inputs
        inputs |= {
            name for name in ("s3", "cloudwatch_logs", "kinesis", "firehose") if getattr(found, name) is not None
        }
        if found.s3 is not None and found.s3.queues != "discovered":
            queues += [_queue_arn(str(queue)) for queue in found.s3.queues]
        points += found.s3.access_points.values() if found.s3 is not None else ()
        if found.cloudwatch_logs is not None and found.cloudwatch_logs.log_groups != "discovered":
            groups += [str(group) for group in found.cloudwatch_logs.log_groups]
        if found.kinesis is not None:
            metrics = found.kinesis.metrics_level != "NONE"
            if found.kinesis.streams != "discovered":
                streams += [
                    StreamUse(stream.arn, stream.enhanced_fan_out, stream.application_name or "")
                    for stream in found.kinesis.streams
                ]
    if given["streams"]:
        inputs.add("kinesis")
    if given["queues"] or given["buckets"]:
        inputs.add("s3")
    if given["log_groups"]:
        inputs.add("cloudwatch_logs")
    if not inputs:
        raise click.UsageError("Which inputs are in use? Say -c FILE, or --input NAME.")
    access = Access(
        frozenset(inputs),
        tuple(dict.fromkeys(buckets)),
        tuple(dict.fromkeys(queues)),
        tuple(dict.fromkeys(groups)),
        tuple(dict.fromkeys(streams)),
        tuple(dict.fromkeys(points)),
        given["keys"],
        metrics,
        given["simulate"],
    )
    return access, list(dict.fromkeys(members)), max_session


def _plain(secret: Any) -> str | None:
    """An external id; the configuration may keep it wrapped so that it is not printed by accident."""
    value = getattr(secret, "get_secret_value", lambda: secret)()
    return None if value is None else str(value)


def _stream(text: str) -> tuple[str, bool]:
    arn, _, flag = text.partition(",")
    if flag not in ("", "fan-out") or arn.count(":") != 5:
        raise click.UsageError(f"--stream {text}: write its ARN, or ARN,fan-out.")
    return arn, bool(flag)


def _queue_arn(queue: str) -> str:
    """A queue's ARN from its URL: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME."""
    from edfn_agent.setup.model import partition_of

    if queue.startswith("arn:"):
        return queue
    host, _, rest = queue.removeprefix("https://").removeprefix("http://").partition("/")
    account, _, name = rest.rpartition("/")
    region = host.split(".")[1] if host.startswith("sqs.") else "*"
    return f"arn:{partition_of(region)}:sqs:{region}:{account.rpartition('/')[2]}:{name}"


def _print_documents(plan: Plan) -> None:
    """The policy documents alone: one as it is, several by what they are for."""
    import json

    from edfn_agent.setup.model import ManagedPolicy, Role
    from edfn_agent.setup.model import policy as document

    found: dict[str, Any] = {}
    for resource in plan.resources:
        if isinstance(resource, ManagedPolicy):
            found[f"policy {resource.name} in {resource.place.account}"] = document(resource.statements)
        elif isinstance(resource, Role):
            where = f"role {resource.name} in {resource.place.account}"
            found[f"{where}: trust"] = document(resource.trust)
            found[where] = document(resource.policies[0][1])
    single = next(iter(found.values())) if len(found) == 1 else found
    click.echo(json.dumps(single, indent=2))
