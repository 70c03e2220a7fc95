"""`setup policy`: what the agent itself may do, in its own account and in those it assumes a role in.

In: the inputs in use, and their resources where they are known. Out: statements, and a Plan with the role of every
account and the policy of the agent's identity. Every statement has a reason beside it; nothing here may write to AWS
except acknowledge (delete) messages, keep leases, register a fan-out consumer and report metrics, each only when used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edfn_agent.setup.model import (
    DOMAINS,
    ManagedPolicy,
    Place,
    Plan,
    Resource,
    Role,
    SetupError,
    Statement,
    home_region,
    partition_of,
)
from edfn_agent.setup.statements import allow, trust

_INVENTORY = (
    "ec2:DescribeFlowLogs",
    "ec2:DescribeInstances",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeNatGateways",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribePrefixLists",
    "ec2:DescribeRegions",
    "ec2:DescribeRouteTables",
    "ec2:DescribeSubnets",
    "ec2:DescribeTransitGatewayAttachments",
    "ec2:DescribeVpcEndpoints",
    "ec2:DescribeVpcPeeringConnections",
    "ec2:DescribeVpcs",
    "ec2:GetManagedPrefixListEntries",
    "iam:ListAccountAliases",
)


@dataclass(frozen=True)
class StreamUse:
    """A Kinesis stream as the agent reads it."""

    arn: str
    fan_out: bool = False
    application: str = ""

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    @property
    def account(self) -> str:
        return self.arn.split(":")[4]

    @property
    def leases(self) -> str:
        """The application that the agent gives the Kinesis Client Library: its lease table and its metrics."""
        return self.application or f"edfn-agent-{self.arn.rpartition('/')[2]}"


@dataclass(frozen=True)
class Access:
    """What the agent reads. An empty tuple of resources means that discovery finds them: `*`, in this account."""

    inputs: frozenset[str]  # s3, cloudwatch_logs, kinesis, firehose
    buckets: tuple[str, ...] = ()  # NAME or NAME/PREFIX
    queues: tuple[str, ...] = ()  # ARNs
    log_groups: tuple[str, ...] = ()  # names or ARNs
    streams: tuple[StreamUse, ...] | None = ()
    access_points: tuple[str, ...] = ()  # ARN or ARN/PREFIX, of those through which buckets are read
    keys: tuple[str, ...] = ()  # ARNs of KMS keys
    kinesis_metrics: bool = False
    simulate: bool = False  # `doctor` may ask IAM what the role is allowed

    @property
    def reads_s3(self) -> bool:
        return "s3" in self.inputs


def member(access: Access, account: str, partition: str = "aws") -> tuple[Statement, ...]:
    """The role in an account: its names, its flow logs, and for its streams the leases of who reads them."""
    arn = f"arn:{partition}"
    statements = [
        allow(_INVENTORY, "*", "Names"),  # EC2 knows no narrower resource for Describe calls
        allow(
            "ec2:SearchTransitGatewayRoutes",
            f"{arn}:ec2:*:{account}:transit-gateway-route-table/*",
            "TransitGatewayRoutes",
        ),
    ]
    groups = _log_groups(access.log_groups, account, partition)
    if access.inputs & {"cloudwatch_logs", "kinesis"}:
        statements.append(allow(["logs:DescribeDestinations", "logs:DescribeLogGroups"], "*", "LogGroupsFind"))
        statements.append(allow("logs:DescribeSubscriptionFilters", groups, "Subscriptions"))
    if "cloudwatch_logs" in access.inputs:
        events = ["logs:DescribeLogStreams", "logs:FilterLogEvents", "logs:GetLogEvents"]
        statements.append(allow(events, groups, "LogGroupsRead"))
    if access.reads_s3:
        names = sorted({bucket.partition("/")[0] for bucket in access.buckets})
        buckets = [f"{arn}:s3:::{name}" for name in names] or [f"{arn}:s3:::*"]
        objects = [_objects(arn, bucket) for bucket in access.buckets] or [f"{arn}:s3:::*/*"]
        objects += map(_objects_through, access.access_points)
        queues = list(access.queues) or [f"{arn}:sqs:*:{account}:*"]
        queue_actions = [
            "ChangeMessageVisibility",
            "DeleteMessage",
            "GetQueueAttributes",
            "GetQueueUrl",
            "ReceiveMessage",
        ]
        statements += [
            allow(["s3:GetBucketLocation", "s3:GetBucketNotification"], _one(buckets), "BucketsFind"),
            allow("s3:GetObject", _one(objects), "ObjectsRead"),
            allow([f"sqs:{action}" for action in queue_actions], _one(queues), "QueuesRead"),
        ]
        if not access.queues:  # queues behind a topic or EventBridge are looked for, not told
            statements.append(allow("sns:ListSubscriptionsByTopic", f"{arn}:sns:*:{account}:*", "TopicsFind"))
            rules = f"{arn}:events:*:{account}:rule/*"
            statements.append(allow("events:ListRules", "*", "RulesFind"))
            statements.append(allow("events:ListTargetsByRule", rules, "RuleTargetsFind"))
    if access.inputs & {"s3", "firehose"}:
        streams = f"{arn}:firehose:*:{account}:deliverystream/*"
        statements.append(allow("firehose:DescribeDeliveryStream", streams, "DeliveryStreamsFind"))
    if "kinesis" in access.inputs:
        statements += _kinesis(access, account, partition)
    if access.keys:
        domain = DOMAINS.get(partition, "amazonaws.com")
        services = [f"{name}.*.{domain}" for name in ("kinesis", "s3", "sqs")]
        condition = {"StringLike": {"kms:ViaService": services}}
        statements.append(allow("kms:Decrypt", _one(access.keys), "Decrypt", condition))
    if access.simulate:
        resources = [f"{arn}:iam::{account}:role/*", f"{arn}:iam::{account}:user/*"]
        statements.append(allow("iam:SimulatePrincipalPolicy", resources, "Doctor"))
    return tuple(statements)


def _kinesis(access: Access, account: str, partition: str) -> list[Statement]:
    known = [stream for stream in access.streams or () if stream.account == account]
    if access.streams and not known:
        return []  # the streams are in other accounts
    streams = [stream.arn for stream in known] or [f"arn:{partition}:kinesis:*:{account}:stream/*"]
    read = ["DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards"]
    statements = [allow([f"kinesis:{action}" for action in read], _one(streams), "StreamsRead")]
    fan_out = [stream.arn for stream in known if stream.fan_out]
    if fan_out:
        on_stream = ["kinesis:ListStreamConsumers", "kinesis:RegisterStreamConsumer"]
        on_consumer = [
            f"kinesis:{a}" for a in ("DeregisterStreamConsumer", "DescribeStreamConsumer", "SubscribeToShard")
        ]
        consumers = [f"{stream}/consumer/*" for stream in fan_out]
        statements.append(allow(on_stream, _one(fan_out), "FanOutRegister"))
        statements.append(allow(on_consumer, _one(consumers), "FanOutRead"))
    return statements + _leases(known, access.kinesis_metrics, account, partition)


def _leases(streams: Sequence[StreamUse], metrics: bool, account: str, partition: str) -> list[Statement]:
    """What the Kinesis Client Library writes. It has the keys of the stream's account, so the tables are there, too."""
    # NAME, NAME-CoordinatorState and NAME-WorkerMetricStats; NAME-TIME and its two for a stream that was made again.
    wanted = [(each.region, name) for each in streams for name in (each.leases, f"{each.leases}-*")]
    wanted = list(dict.fromkeys(wanted)) or [("*", "edfn-agent-*")]
    tables = [f"arn:{partition}:dynamodb:{region}:{account}:table/{name}" for region, name in wanted]
    calls = ["CreateTable", "DeleteItem", "DescribeTable", "GetItem", "PutItem", "Scan", "UpdateItem", "UpdateTable"]
    statements = [
        allow([f"dynamodb:{each}" for each in calls], _one(tables), "Leases"),
        allow("dynamodb:Query", _one([f"{table}/index/*" for table in tables]), "LeasesByOwner"),
    ]
    if metrics:
        names = list(dict.fromkeys(name for _, name in wanted))
        condition = {"StringLike": {"cloudwatch:namespace": _one(names)}}
        statements.append(allow("cloudwatch:PutMetricData", "*", "LibraryMetrics", condition))
    return statements


def hub(access: Access, account: str, partition: str, role_arns: Sequence[str]) -> tuple[Statement, ...]:
    """The agent's own identity beside roles: which it may take, and the listed streams that no role is there for."""
    statements: list[Statement] = []
    if role_arns:
        statements.append(allow("sts:AssumeRole", _one(sorted(role_arns)), "Roles"))
    accounts = {arn.split(":")[4] for arn in role_arns}
    own = any(stream.account == account for stream in access.streams or ())
    if "kinesis" in access.inputs and own and account not in accounts:
        statements += _kinesis(access, account, partition)
    return tuple(statements)


def role_trust(identity_arn: str, external_id: str | None) -> Statement:
    """Only the agent's identity may take the role, and only when it says the external id."""
    condition = {"StringEquals": {"sts:ExternalId": external_id}} if external_id else None
    return trust({"AWS": identity_arn}, condition)


def _objects(arn: str, bucket: str) -> str:
    name, _, prefix = bucket.partition("/")
    return f"{arn}:s3:::{name}/{prefix}*"


def _objects_through(access_point: str) -> str:
    """arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME[/PREFIX]: objects behind one have ARNs of their own."""
    kind, name, *prefix = access_point.split("/", 2)
    return f"{kind}/{name}/object/{''.join(prefix)}*"


def _log_groups(groups: Sequence[str], account: str, partition: str) -> str | list[str]:
    found = []
    for group in groups:
        whole = group if group.startswith("arn:") else f"arn:{partition}:logs:*:{account}:log-group:{group}"
        whole = whole.removesuffix(":*")
        if whole.split(":")[4] == account:
            found += [whole, f"{whole}:*"]
    return _one(found or [f"arn:{partition}:logs:*:{account}:log-group:*"])


def _one(values: Sequence[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else list(values)


@dataclass(frozen=True)
class Member:
    """An account that is read through a role."""

    role_arn: str
    external_id: str | None = None

    @property
    def account(self) -> str:
        return self.role_arn.split(":")[4]

    @property
    def role(self) -> str:
        return self.role_arn.rpartition("/")[2]

    @property
    def path(self) -> str:
        """arn:aws:iam::ACCOUNT:role/some/path/NAME: `/some/path/`."""
        return self.role_arn.partition(":role")[2].removesuffix(self.role)


def attachable(identity_arn: str) -> str:
    """role/NAME or user/NAME: a path is part of the ARN, not of the name."""
    kind, _, rest = identity_arn.rpartition(":")[2].partition("/")
    if kind not in ("role", "user") or not rest:
        raise SetupError(f"{identity_arn} is neither a role nor a user")
    return f"{kind}/{rest.rpartition('/')[2]}"


def plan(
    name: str,
    access: Access,
    region: str | None,
    members: Sequence[Member],
    identity_arn: str | None,
    account: str | None,
    max_session: int = 3600,
) -> Plan:
    """Roles in the member accounts, and what the agent's identity needs to take them (or, without any, to read)."""
    if members and not identity_arn:
        raise SetupError("whose roles are these? Say --agent-identity ARN: the role or user that the agent runs as")
    partition = identity_arn.split(":")[1] if identity_arn else partition_of(region or "")
    region = region or home_region(partition)
    home = identity_arn.split(":")[4] if identity_arn else account
    if home is None:
        raise SetupError("for which account? Say --account, or --agent-identity ARN")
    attach = attachable(identity_arn) if identity_arn else ""
    twice = [one for one in members if [each.account for each in members].count(one.account) > 1]
    if twice:
        raise SetupError(f"account {twice[0].account} has {len(twice)} roles: one is enough, and the agent takes one")
    resources: list[Resource] = []
    for one in members:
        place = Place(one.account, region)
        resources.append(
            Role(
                id="AgentRole",
                place=place,
                stage=2,
                name=one.role,
                path=one.path,
                description="edfn-agent reads flow logs and the names of what is in them",
                trust=(role_trust(str(identity_arn), one.external_id),),
                policies=(("edfn-agent", member(access, one.account, partition)),),
                max_session=max_session,
            )
        )
    roles = [one.role_arn for one in members]
    own = hub(access, home, partition, roles) if roles else member(access, home, partition)
    if own:
        place = Place(home, region)
        resources.append(ManagedPolicy(id="AgentPolicy", place=place, name=name, statements=own, attach_to=attach))
    notes = [] if attach else [f"Attach the policy {name} to the role or user that the agent runs as."]
    if any(not one.external_id for one in members):
        notes.append("A role without external id trusts the agent's identity alone; that is enough inside one company.")
    return Plan("policy", name, tuple(resources), notes=tuple(notes))


LIKE_EDFN: tuple[Statement, ...] = (
    allow(
        [
            "ec2:DescribeRegions",
            "ec2:DescribeInstances",
            "ec2:DescribeFlowLogs",
            "ec2:DescribeNetworkInterfaces",
            "ec2:DescribeVpcs",
            "ec2:DescribeNatGateways",
            "ec2:DescribeVpcEndpoints",
            "ec2:DescribeRouteTables",
            "ec2:DescribeVpcPeeringConnections",
            "ec2:DescribeTransitGatewayAttachments",
            "ec2:SearchTransitGatewayRoutes",
            "logs:DescribeSubscriptionFilters",
            "logs:GetLogEvents",
            "logs:DescribeLogStreams",
        ],
        "*",
        "EdfnMinPermissions",
    ),
    allow(
        [
            "s3:GetBucketLocation",
            "s3:GetBucketNotification",
            "s3:GetObject",
            "sqs:GetQueueAttributes",
            "sqs:GetQueueUrl",
            "sqs:ChangeMessageVisibility*",
            "sqs:DeleteMessage*",
            "sqs:ReceiveMessage",
        ],
        "*",
        "S3Permissions",
    ),
    allow(
        [
            "cloudwatch:PutMetricData",
            "dynamodb:CreateTable",
            "dynamodb:DescribeTable",
            "dynamodb:GetItem",
            "dynamodb:PutItem",
            "dynamodb:DeleteItem",
            "dynamodb:UpdateItem",
            "dynamodb:Scan",
            "kinesis:GetRecords",
            "kinesis:GetShardIterator",
            "kinesis:ListShards",
            "kinesis:ListStreamConsumers",
            "kinesis:SubscribeToShard",
            "kinesis:DescribeStream*",
            "kinesis:RegisterStreamConsumer",
        ],
        "*",
        "KCLPermissions",
    ),
)
"""The original product's policy, word for word. The agent runs with it; see docs/setup.md for what it misses then."""
