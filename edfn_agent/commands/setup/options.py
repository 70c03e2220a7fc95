"""The options of `edfn-agent setup` that several of its commands share, and what they say as plain data.

In: what was typed. Out: places, things to watch, options of flow logs and buckets. Never: a call of AWS, but the one
that tells whose credentials these are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edfn_agent.setup.flowlogs import FlowLogOptions, Watched
    from edfn_agent.setup.model import Place
    from edfn_agent.setup.s3 import BucketOptions

Command = Callable[..., None]


def options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


where = options(
    click.option("--name", default="edfn-flow-logs", show_default=True, help="What is made is named after it."),
    click.option(
        "--account", metavar="ID", help="The account (of the bucket, stream or destination). With --apply: yours."
    ),
    click.option(
        "--region", envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], metavar="NAME", help="Its region. [env: AWS_REGION]"
    ),
)

watched_things = options(
    *(
        click.option(
            f"--{word}",
            f"watch_{word.replace('-', '_')}",
            multiple=True,
            metavar="ID",
            help=f"{what} to log; ACCOUNT/REGION/ID when it is elsewhere. May be repeated.",
        )
        for word, what in (
            ("vpc", "A VPC"),
            ("subnet", "A subnet"),
            ("interface", "A network interface"),
            ("transit-gateway", "A transit gateway, or its attachment,"),
        )
    ),
    click.option(
        "--traffic",
        type=click.Choice(["ALL", "ACCEPT", "REJECT"]),
        default="ALL",
        show_default=True,
        help="Traffic to log.",
    ),
    click.option(
        "--interval",
        type=click.Choice(["60", "600"]),
        default="60",
        show_default=True,
        help="Seconds a flow is aggregated.",
    ),
    click.option(
        "--log-format",
        default="all",
        show_default=True,
        metavar="FORMAT",
        help="all fields, AWS's default ones, or '${version} ${vpc-id} ...'.",
    ),
    click.option(
        "--field-version",
        type=click.IntRange(2, 11),
        default=11,
        show_default=True,
        help="With all fields: none that is newer.",
    ),
    click.option(
        "--tag-key",
        "tag_keys",
        multiple=True,
        metavar="KIND=KEY",
        help="Put a tag in each record; KIND is instance, network-interface or auto-scaling-group.",
    ),
    click.option("--ecs-fields/--no-ecs-fields", default=True, show_default=True, help="Fields of ECS tasks."),
)

output = options(
    click.option(
        "--format",
        "form",
        type=click.Choice(["cloudformation", "cli"]),
        default="cloudformation",
        show_default=True,
        help="A template, or aws commands.",
    ),
    click.option(
        "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write files there instead of printing."
    ),
    click.option("--apply", "is_apply", is_flag=True, help="Make it: show what will be done, ask, do it."),
    click.option("--undo", "is_undo", is_flag=True, help="Remove what --apply made: show, ask, do it."),
    click.option("--yes", is_flag=True, help="With --apply and --undo: do not ask."),
    click.option("--delete-data", is_flag=True, help="With --undo: also buckets and log groups that hold something."),
    click.option(
        "--profile", "profiles", multiple=True, metavar="ACCOUNT=NAME", help="AWS profile to use for an account."
    ),
    click.option(
        "--assume", "assumed", multiple=True, metavar="ACCOUNT=ARN", help="Role to assume for an account (--apply)."
    ),
    click.option(
        "--as-documented",
        is_flag=True,
        help="Policies word for word as in AWS's older examples, without today's conditions (docs/setup.md).",
    ),
)

bucket = options(
    click.option("--bucket", required=True, metavar="NAME", help="The bucket that the agent reads."),
    click.option("--existing-bucket", is_flag=True, help="It is there already: add to its policy and notifications."),
    click.option("--existing-queue", is_flag=True, help="The bucket announces its objects already: no queue is made."),
    click.option("--prefix", default="", metavar="PREFIX", help="In front of every key (Firehose: flow-logs/)."),
    click.option("--suffix", default="", metavar="SUFFIX", help="Only such objects are told to the queue."),
    click.option("--queue", default="", metavar="NAME", help="The queue.  [default: the name]"),
    click.option("--kms", default="", metavar="new|ARN", help="Encrypt with a new KMS key, or with this one."),
    click.option(
        "--expire-days",
        type=click.IntRange(0, 3650),
        default=30,
        show_default=True,
        help="Objects are deleted; 0: never.",
    ),
)

log_group = options(
    click.option(
        "--log-group",
        default="/edfn/flow-logs",
        show_default=True,
        metavar="NAME",
        help="The log group that flow logs write to.",
    ),
    click.option("--existing-log-group", is_flag=True, help="It is there already."),
    click.option("--role", default="", metavar="NAME", help="The role that flow logs write with.  [default: by name]"),
    click.option("--retention-days", type=int, default=30, show_default=True, help="Days that it keeps events."),
)

shards = options(
    click.option("--stream", default="", metavar="NAME", help="The Kinesis stream.  [default: the name]"),
    click.option("--shards", type=click.IntRange(0, 10000), default=1, show_default=True, help="0: on demand."),
    click.option("--stream-hours", type=click.IntRange(24, 8760), default=24, show_default=True, help="Retention."),
)

delivery = options(
    click.option("--delivery-stream", default="", metavar="NAME", help="The Firehose stream.  [default: the name]"),
    click.option("--delivery-role", default="", metavar="NAME", help="The role Firehose delivers with."),
    click.option(
        "--buffer-seconds",
        type=click.IntRange(0, 900),
        default=60,
        show_default=True,
        help="Firehose delivers after so long.",
    ),
    click.option("--buffer-mib", type=click.IntRange(1, 128), default=16, show_default=True, help="Or after so much."),
)

across_accounts = options(
    click.option("--source-role", default="", metavar="NAME", help="The role in the flow logs' account."),
    click.option(
        "--destination-role",
        default="AWSLogDeliveryFirehoseCrossAccountRole",
        show_default=True,
        metavar="NAME",
        help="The role in the delivery stream's account; AWS wants its name to begin so.",
    ),
)


def told(command: Command) -> Command:
    """Say what cannot be set up so as a usage error, not as a traceback."""

    @wraps(command)
    def run(**given: Any) -> None:
        from edfn_agent.setup.model import SetupError

        try:
            command(**given)
        except SetupError as error:
            raise click.ClickException(str(error)) from None

    return run


def place_of(given: dict[str, Any]) -> Place:
    from edfn_agent.setup.model import Place

    if not given["region"]:
        raise click.UsageError("Which region? Say --region, or set AWS_REGION.")
    account = given["account"]
    if not account:
        if not (given.get("is_apply") or given.get("is_undo")):
            raise click.UsageError("Which account? Say --account ID.")
        account = own_account(given["region"])
    return Place(account, given["region"])


def own_account(region: str) -> str:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return str(boto3.client("sts", region_name=region).get_caller_identity()["Account"])
    except (BotoCoreError, ClientError) as error:
        raise click.UsageError(f"Which account? Say --account ID; the credentials do not tell: {error}") from None


_KINDS = {
    "watch_vpc": ("VPC",),
    "watch_subnet": ("Subnet",),
    "watch_interface": ("NetworkInterface",),
    "watch_transit_gateway": ("TransitGateway", "TransitGatewayAttachment"),
}


def things(given: dict[str, Any], place: Place) -> tuple[Watched, ...]:
    from edfn_agent.setup.flowlogs import watched

    found = []
    for option, kinds in _KINDS.items():
        for text in given[option]:
            thing = watched(text, place)
            if thing.resource_type not in kinds:
                name = option.removeprefix("watch_").replace("_", "-")
                raise click.UsageError(f"--{name} {text}: that is the id of something else ({thing.resource_type}).")
            found.append(thing)
    return tuple(dict.fromkeys(found))


def flow_log_options(given: dict[str, Any]) -> FlowLogOptions:
    from edfn_agent.setup.flowlogs import FlowLogOptions

    keys = []
    for text in given["tag_keys"]:
        kind, equals, key = text.partition("=")
        if not (equals and key):
            raise click.UsageError(f"--tag-key {text}: write KIND=KEY, like instance=Name.")
        keys.append((kind, key))
    return FlowLogOptions(
        given["traffic"],
        int(given["interval"]),
        given["log_format"],
        given["field_version"],
        tuple(keys),
        given["ecs_fields"],
    )


def bucket_options(given: dict[str, Any]) -> BucketOptions:
    from edfn_agent.setup.s3 import BucketOptions

    prefix = given["prefix"]
    return BucketOptions(
        given["bucket"],
        given["existing_bucket"],
        f"{prefix.rstrip('/')}/" if prefix else "",
        given["suffix"],
        given["queue"],
        given["kms"],
        given["expire_days"],
        given.get("existing_queue", False),
    )


def pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        account, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{option} {text}: write ACCOUNT=VALUE.")
        found[account] = value
    return found
