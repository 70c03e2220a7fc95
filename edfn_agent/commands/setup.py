"""`edfn-agent setup`: what AWS needs, as templates, as commands, or carried out."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edfn_agent.setup.agent_policy import Access, Member
    from edfn_agent.setup.flowlogs import FlowLogOptions, Watched
    from edfn_agent.setup.model import Place, Plan
    from edfn_agent.setup.s3 import BucketOptions

Command = Callable[..., None]


@click.group()
def setup() -> None:
    """Write what AWS needs: policies, roles, flow logs, queues, streams.

    Each command prints a CloudFormation template (or, with --format cli, aws commands); --apply carries the same out,
    after showing what it will do and asking, and --undo takes it back. What the agent's configuration needs to read the
    result is printed at the end, on standard error.

    \b
    edfn-agent setup s3 --account 123456789012 --region eu-west-1 --bucket my-flow-logs --vpc vpc-0a1b2c3d > s3.yaml
    edfn-agent setup central --account 999999999999 --region eu-west-1 --bucket central-flow-logs \\
        --vpc 111111111111/eu-west-1/vpc-0a1b2c3d --vpc 222222222222/eu-west-1/vpc-4e5f6071 --output stacks/
    edfn-agent setup policy -c agent.yaml --agent-identity arn:aws:iam::999999999999:role/edfn-agent
    """


# --- options that several commands share --------------------------------------------------------------------------


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_where = _all(
    click.option("--name", default="edfn-flow-logs", show_default=True, help="What is made is named after it."),
    click.option(
        "--account", metavar="ID", help="The account (of the bucket, stream or destination). With --apply: yours."
    ),
    click.option(
        "--region", envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], metavar="NAME", help="Its region. [env: AWS_REGION]"
    ),
    click.option("--partition", type=click.Choice(["aws", "aws-us-gov", "aws-cn"]), default="aws", show_default=True),
)

_watched = _all(
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
    click.option("--traffic", type=click.Choice(["ALL", "ACCEPT", "REJECT"]), default="ALL", show_default=True),
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

_output = _all(
    click.option(
        "--format", "form", type=click.Choice(["cloudformation", "cli"]), default="cloudformation", show_default=True
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

_bucket = _all(
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

_group = _all(
    click.option("--log-group", default="/edfn/flow-logs", show_default=True, metavar="NAME"),
    click.option("--existing-log-group", is_flag=True, help="It is there already."),
    click.option("--role", default="", metavar="NAME", help="The role that flow logs write with.  [default: by name]"),
    click.option("--retention-days", type=int, default=30, show_default=True),
)

_shards = _all(
    click.option("--stream", default="", metavar="NAME", help="The Kinesis stream.  [default: the name]"),
    click.option("--shards", type=click.IntRange(0, 10000), default=1, show_default=True, help="0: on demand."),
    click.option("--stream-hours", type=click.IntRange(24, 8760), default=24, show_default=True, help="Retention."),
)

_delivery = _all(
    click.option("--delivery-stream", default="", metavar="NAME", help="The Firehose stream.  [default: the name]"),
    click.option("--delivery-role", default="", metavar="NAME", help="The role Firehose delivers with."),
    click.option("--buffer-seconds", type=click.IntRange(0, 900), default=60, show_default=True),
    click.option("--buffer-mib", type=click.IntRange(1, 128), default=16, show_default=True),
)

_across = _all(
    click.option("--source-role", default="", metavar="NAME", help="The role in the flow logs' account."),
    click.option(
        "--destination-role",
        default="AWSLogDeliveryFirehoseCrossAccountRole",
        show_default=True,
        metavar="NAME",
        help="The role in the delivery stream's account; AWS wants its name to begin so.",
    ),
)


def _told(command: Command) -> Command:
    """Say what cannot be set up so as a usage error, not as a traceback."""

    @wraps(command)
    def run(**given: Any) -> None:
        from edfn_agent.setup.model import SetupError

        try:
            command(**given)
        except SetupError as error:
            raise click.ClickException(str(error)) from None

    return run


def _place(given: dict[str, Any]) -> Place:
    from edfn_agent.setup.model import Place

    if not given["region"]:
        raise click.UsageError("Which region? Say --region, or set AWS_REGION.")
    account = given["account"]
    if not account:
        if not (given.get("is_apply") or given.get("is_undo")):
            raise click.UsageError("Which account? Say --account ID.")
        account = _own_account(given["region"])
    return Place(account, given["region"], given["partition"])


def _own_account(region: str) -> str:
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


def _things(given: dict[str, Any], place: Place) -> tuple[Watched, ...]:
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


def _how(given: dict[str, Any]) -> FlowLogOptions:
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


def _bucket_options(given: dict[str, Any]) -> BucketOptions:
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


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        account, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"{option} {text}: write ACCOUNT=VALUE.")
        found[account] = value
    return found


# --- the commands -------------------------------------------------------------------------------------------------


@setup.command("s3")
@_where
@_watched
@_bucket
@click.option(
    "--source-account", "sources", multiple=True, metavar="ID", help="May deliver too; its flow logs are yours."
)
@click.option("--parquet", is_flag=True, help="Parquet files instead of text.")
@click.option("--hive", is_flag=True, help="Hive-compatible prefixes.")
@click.option("--hourly", is_flag=True, help="A prefix for each hour.")
@_output
@_told
def s3(**given: Any) -> None:
    """Flow logs to a bucket, with a queue that announces its objects."""
    from edfn_agent.setup.model import Place
    from edfn_agent.setup.s3 import S3Options, plan

    place = _place(given)
    options = S3Options(
        given["name"],
        place,
        _bucket_options(given),
        _things(given, place),
        _how(given),
        tuple(Place(account, place.region, place.partition) for account in given["sources"]),
        given["parquet"],
        given["hive"],
        given["hourly"],
        given["as_documented"],
    )
    _deliver(plan(options), given)


def _group_options(given: dict[str, Any]) -> Any:
    from edfn_agent.setup.cloudwatch import LogGroupOptions

    return LogGroupOptions(
        given["log_group"], given["role"], given["retention_days"], given["existing_log_group"], given.get("kms", "")
    )


@setup.command("cloudwatch")
@_where
@_watched
@_group
@click.option("--kms", default="", metavar="new|ARN", help="Encrypt with a new KMS key, or with this one.")
@_output
@_told
def cloudwatch(**given: Any) -> None:
    """Flow logs to a log group, which the agent asks."""
    from edfn_agent.setup.cloudwatch import CloudWatchOptions, plan_cloudwatch

    place = _place(given)
    options = CloudWatchOptions(
        given["name"], _group_options(given), _things(given, place), place, _how(given), given["as_documented"]
    )
    _deliver(plan_cloudwatch(options), given)


@setup.command("kinesis")
@_where
@_watched
@_group
@_shards
@click.option("--existing-stream", is_flag=True, help="The stream is there already.")
@click.option("--filter", "filter_name", default="edfn-agent", show_default=True, metavar="NAME")
@click.option("--role-to-stream", default="", metavar="NAME", help="The role that CloudWatch Logs writes with.")
@click.option("--kms", default="", metavar="new|ARN", help="Encrypt with a new KMS key, or with this one.")
@_output
@_told
def kinesis(**given: Any) -> None:
    """Flow logs to a log group, which sends them on to a Kinesis stream."""
    from edfn_agent.setup.cloudwatch import KinesisOptions, plan_kinesis

    place = _place(given)
    options = KinesisOptions(
        given["name"],
        _group_options(given),
        _things(given, place),
        place,
        _how(given),
        given["as_documented"],
        stream=given["stream"],
        stream_exists=given["existing_stream"],
        shards=given["shards"] or None,
        stream_hours=given["stream_hours"],
        filter_name=given["filter_name"],
        role_to_stream=given["role_to_stream"],
    )
    _deliver(plan_kinesis(options), given)


@setup.command("firehose")
@_where
@_watched
@_bucket
@_delivery
@_across
@_output
@_told
def firehose(**given: Any) -> None:
    """Flow logs to Firehose, in this account or from others, and from there to a bucket with a queue."""
    _firehose(given, None)


@setup.command("firehose-http")
@_where
@_watched
@_bucket
@_delivery
@_across
@click.option("--url", required=True, metavar="URL", help="The agent's endpoint: https://, port 443.")
@click.option("--secret", metavar="ARN", help='The access key, in Secrets Manager: {"api_key": "..."}.')
@click.option(
    "--access-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The access key (--apply)."
)
@click.option("--retry-seconds", type=click.IntRange(0, 7200), default=7200, show_default=True)
@_output
@_told
def firehose_http(**given: Any) -> None:
    """Flow logs to Firehose, which posts them to the agent; what fails is kept in a bucket."""
    from edfn_agent.setup.model import HttpEndpoint

    _firehose(given, HttpEndpoint(given["url"], given["secret"], given["retry_seconds"]))


def _firehose(given: dict[str, Any], endpoint: Any) -> None:
    from edfn_agent.setup.firehose import FirehoseOptions, plan

    place = _place(given)
    options = FirehoseOptions(
        given["name"],
        place,
        # What fails goes to failed/ in the same bucket; without a prefix the queue would be told of that too.
        _bucket_options({**given, "prefix": given["prefix"] or "flow-logs/"}),
        _things(given, place),
        _how(given),
        given["delivery_stream"],
        given["delivery_role"],
        given["source_role"],
        given["destination_role"],
        given["buffer_seconds"],
        given["buffer_mib"],
        endpoint,
        given["as_documented"],
    )
    _deliver(plan(options), given)


@setup.command("central")
@_where
@_watched
@_group
@_shards
@_delivery
@click.option("--bucket", metavar="NAME", help="Through Firehose to this bucket; without it, to a Kinesis stream.")
@click.option("--existing-bucket", is_flag=True, help="It is there already: add to its policy and notifications.")
@click.option("--prefix", default="flow-logs/", show_default=True, metavar="PREFIX", help="In front of every key.")
@click.option("--suffix", default="", metavar="SUFFIX", help="Only such objects are told to the queue.")
@click.option("--queue", default="", metavar="NAME", help="The queue.  [default: the name]")
@click.option("--kms", default="", metavar="new|ARN", help="Encrypt the bucket with a new KMS key, or with this one.")
@click.option("--expire-days", type=click.IntRange(0, 3650), default=30, show_default=True)
@click.option(
    "--source-account", "sources", multiple=True, metavar="ID", help="May send too; its side is yours to make."
)
@click.option("--organization", metavar="ID", help="Every account of this organization (o-...) may send.")
@click.option("--destination", default="VPCFlowLogsDestination", show_default=True, metavar="NAME")
@click.option("--filter", "filter_name", default="AllTraffic", show_default=True, metavar="NAME")
@click.option("--role-to-target", default="", metavar="NAME", help="The role that CloudWatch Logs writes with.")
@_output
@_told
def central(**given: Any) -> None:
    """Flow logs of many accounts, through CloudWatch Logs, to one account."""
    from edfn_agent.setup.central import CentralOptions, plan

    place = _place(given)
    options = CentralOptions(
        given["name"],
        place,
        _group_options(given | {"kms": ""}),
        _things(given, place),
        _bucket_options(given) if given["bucket"] else None,
        _how(given),
        also_from=given["sources"],
        organization=given["organization"],
        destination=given["destination"],
        filter_name=given["filter_name"],
        delivery_stream=given["delivery_stream"],
        delivery_role=given["delivery_role"],
        stream=given["stream"],
        shards=given["shards"] or None,
        stream_hours=given["stream_hours"],
        role_to_target=given["role_to_target"],
        buffer_seconds=given["buffer_seconds"],
        buffer_mib=given["buffer_mib"],
        as_documented=given["as_documented"],
    )
    _deliver(plan(options), given)


@setup.command("policy")
@click.option("-c", "--config", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--name", default="EdfnAgentPolicy", show_default=True, help="The name of the policy.")
@click.option("--account", metavar="ID", help="The agent's own account, when no identity says it.")
@click.option("--region", envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], metavar="NAME", help="For the calls of --apply.")
@click.option("--partition", type=click.Choice(["aws", "aws-us-gov", "aws-cn"]), default="aws", show_default=True)
@click.option("--agent-identity", metavar="ARN", help="The role or user that the agent runs as.")
@click.option("--role", "roles", multiple=True, metavar="ARN[,EXTERNAL-ID]", help="A role to make in another account.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=click.Choice(["s3", "cloudwatch_logs", "kinesis", "firehose"]),
    help="An input in use, without -c. May be repeated, as what follows.",
)
@click.option("--bucket", "buckets", multiple=True, metavar="NAME[/PREFIX]")
@click.option("--queue", "queues", multiple=True, metavar="ARN")
@click.option("--log-group", "log_groups", multiple=True, metavar="NAME|ARN")
@click.option("--stream", "streams", multiple=True, metavar="ARN[,fan-out]")
@click.option("--kms-key", "keys", multiple=True, metavar="ARN")
@click.option("--simulate", is_flag=True, help="Let doctor ask IAM what is allowed.")
@click.option("--like-edfn", is_flag=True, help="The original product's three statements, word for word.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["cloudformation", "cli", "json"]),
    default="cloudformation",
    show_default=True,
)
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="Write files there instead of printing.")
@click.option("--apply", "is_apply", is_flag=True, help="Make it: show what will be done, ask, do it.")
@click.option("--undo", "is_undo", is_flag=True, help="Remove what --apply made: show, ask, do it.")
@click.option("--yes", is_flag=True, help="With --apply and --undo: do not ask.")
@click.option("--profile", "profiles", multiple=True, metavar="ACCOUNT=NAME", help="AWS profile to use for an account.")
@click.option(
    "--assume", "assumed", multiple=True, metavar="ACCOUNT=ARN", help="Role to assume for an account (--apply)."
)
@_told
def policy(**given: Any) -> None:
    """What the agent may do: its policy, and its roles in other accounts."""
    from edfn_agent.setup.agent_policy import LIKE_EDFN, plan
    from edfn_agent.setup.model import ManagedPolicy, Place, Plan

    region = given["region"] or "us-east-1"  # IAM is global; a template and a client want one all the same
    if given["like_edfn"]:
        identity = given["agent_identity"]
        account = identity.split(":")[4] if identity else given["account"]
        if not account and given["form"] == "json":
            account = "000000000000"
        if not account:
            raise click.UsageError("Which account? Say --account ID, or --agent-identity ARN.")
        attach = identity.rpartition(":")[2] if identity else ""
        place = Place(account, region, given["partition"])
        one = ManagedPolicy(id="AgentPolicy", place=place, name=given["name"], statements=LIKE_EDFN, attach_to=attach)
        made = Plan("policy", given["name"], (one,))
    else:
        access, members, max_session = _access(given)
        made = plan(
            given["name"], access, region, members, given["agent_identity"], _policy_account(given), max_session
        )
    if given["form"] == "json" and not (given["is_apply"] or given["is_undo"]):
        _print_documents(made)
        return
    _deliver(made, {**given, "delete_data": False})


def _policy_account(given: dict[str, Any]) -> str | None:
    account: str | None = given["account"]
    if account is None and given["agent_identity"] is None and (given["is_apply"] or given["is_undo"]):
        account = _own_account(given["region"] or "us-east-1")
    return account


def _access(given: dict[str, Any]) -> tuple[Access, list[Member], int]:
    """From the configuration file; what is said on the command line is added to it."""
    from edfn_agent.setup.agent_policy import Access, Member, StreamUse

    inputs = set(given["inputs"])
    buckets, queues, groups = list(given["buckets"]), list(given["queues"]), list(given["log_groups"])
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
            raise click.ClickException(str(error)) from None
        members += [Member(role.arn, _plain(role.external_id)) for role in config.aws.roles]
        max_session = max(3600, int(config.aws.session_duration))
        found = config.inputs
        inputs |= {
            name for name in ("s3", "cloudwatch_logs", "kinesis", "firehose") if getattr(found, name) is not None
        }
        if found.s3 is not None and found.s3.queues != "discovered":
            queues += [_queue_arn(str(queue), given["partition"]) for queue in found.s3.queues]
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


def _queue_arn(queue: str, partition: str) -> str:
    """A queue's ARN from its URL: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME."""
    if queue.startswith("arn:"):
        return queue
    host, _, rest = queue.removeprefix("https://").removeprefix("http://").partition("/")
    account, _, name = rest.rpartition("/")
    region = host.split(".")[1] if host.startswith("sqs.") else "*"
    return f"arn:{partition}:sqs:{region}:{account.rpartition('/')[2]}:{name}"


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


# --- giving it to the user ----------------------------------------------------------------------------------------


def _deliver(plan: Plan, given: dict[str, Any]) -> None:
    if given["is_apply"] and given["is_undo"]:
        raise click.UsageError("--apply and --undo are opposites.")
    profiles = _pairs(given["profiles"], "--profile")
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
    aws = Aws(profiles, _pairs(given["assumed"], "--assume"), secrets)
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
