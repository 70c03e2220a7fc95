"""Every call that discovery makes: what it fills, and what is missing where a policy does not allow it.

In: nothing. Out: the table, from which discovery asks, findings are worded, and docs/permissions.md is checked. Never:
the calls themselves. What reads data (GetObject, ReceiveMessage, GetRecords, ...) is not discovery and not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from edfn_agent.inventory.problems import iam_action


@dataclass(frozen=True, slots=True)
class Call:
    service: str
    operation: str
    kind: str  # the rows of the snapshot that it fills
    without: str  # what is missing when it is not allowed
    severity: str  # of the finding then; `info` for what the original product's policy does not have
    page_size: int | None = None  # the most that AWS gives at once; None where it has no such parameter

    @property
    def action(self) -> str:
        return iam_action(self.service, self.operation)

    @property
    def optional(self) -> bool:
        return self.severity == "info"


def _ec2(operation: str, kind: str, severity: str, without: str, page_size: int = 1000) -> Call:
    return Call("ec2", operation, kind, without, severity, page_size)


VPCS = _ec2("DescribeVpcs", "vpcs", "error", "VPCs have no names and no CIDRs, so their exporters come from the pool")

NETWORK: tuple[Call, ...] = (
    _ec2(
        "DescribeNetworkInterfaces",
        "interfaces",
        "error",
        "interfaces have no names or addresses; records without vpc-id have no exporter",
    ),
    _ec2("DescribeInstances", "instances", "warning", "interfaces are not named after their instances"),
    _ec2("DescribeNatGateways", "nat_gateways", "warning", "NAT gateways are not recognised"),
    _ec2("DescribeVpcEndpoints", "endpoints", "warning", "VPC endpoints are not recognised"),
    _ec2("DescribeRouteTables", "route_tables", "warning", "the outer side of a flow has no interface", 100),
    _ec2("DescribeVpcPeeringConnections", "peerings", "warning", "peering connections are not named"),
    _ec2("DescribeSubnets", "subnets", "info", "subnets have no names, CIDRs and zone ids"),
    _ec2("DescribeInternetGateways", "internet_gateways", "info", "internet gateways have no names"),
)
"""Only where there is a VPC."""

FLOW_LOGS = _ec2(
    "DescribeFlowLogs", "flow_logs", "error", "no source is found for these VPCs, and layouts are not known"
)
TRANSIT_GATEWAYS = _ec2(
    "DescribeTransitGatewayAttachments",
    "transit_gateway_attachments",
    "warning",
    "transit gateway attachments are not named",
)
TRANSIT_GATEWAY_ROUTES = _ec2(
    "SearchTransitGatewayRoutes", "transit_gateway_routes", "warning", "routes behind a transit gateway are not known"
)
PREFIX_LISTS = _ec2(
    "DescribePrefixLists", "prefix_lists", "info", "traffic to gateway endpoints (S3, DynamoDB) has no interface"
)
PREFIX_LIST_ENTRIES = _ec2(
    "GetManagedPrefixListEntries",
    "prefix_lists",
    "info",
    "routes to a customer-managed prefix list lead nowhere",
    100,
)

REGIONS = Call("ec2", "DescribeRegions", "regions", "only the region of the first calls is looked at", "error")
ALIASES = Call("iam", "ListAccountAliases", "accounts", "the account is shown without its alias", "info")

LOG_GROUPS = Call(
    "logs", "DescribeLogGroups", "log_groups", "a missing log group is noticed only when it is read", "info", 50
)
SUBSCRIPTIONS = Call(
    "logs",
    "DescribeSubscriptionFilters",
    "log_groups",
    "streams behind log groups are not found; the groups may be read by the API only",
    "warning",
    50,
)
DESTINATIONS = Call(
    "logs",
    "DescribeDestinations",
    "log_destinations",
    "streams behind a CloudWatch Logs destination are not found",
    "info",
    50,
)
STREAM = Call("kinesis", "DescribeStreamSummary", "streams", "the stream's state and shards are not known", "warning")
DELIVERY_STREAM = Call(
    "firehose", "DescribeDeliveryStream", "delivery_streams", "where Firehose delivers to is not known", "info"
)
BUCKET_LOCATION = Call("s3", "GetBucketLocation", "buckets", "the bucket's owner and region are guessed", "warning")
BUCKET_NOTIFICATION = Call(
    "s3", "GetBucketNotificationConfiguration", "buckets", "the queue that announces its objects is not found", "error"
)
TOPIC = Call("sns", "ListSubscriptionsByTopic", "buckets", "queues behind an SNS topic are not found", "info")
RULES = Call("events", "ListRules", "buckets", "queues behind EventBridge are not found", "info")
RULE_TARGETS = Call("events", "ListTargetsByRule", "buckets", "queues behind EventBridge are not found", "info")
QUEUE_URL = Call("sqs", "GetQueueUrl", "queues", "the queue's URL is made from its ARN", "warning")
QUEUE = Call(
    "sqs",
    "GetQueueAttributes",
    "queues",
    "the queue's visibility timeout, dead-letter queue and policy are not known",
    "warning",
)

ALL: tuple[Call, ...] = (
    REGIONS,
    ALIASES,
    VPCS,
    *NETWORK,
    FLOW_LOGS,
    TRANSIT_GATEWAYS,
    TRANSIT_GATEWAY_ROUTES,
    PREFIX_LISTS,
    PREFIX_LIST_ENTRIES,
    LOG_GROUPS,
    SUBSCRIPTIONS,
    DESTINATIONS,
    STREAM,
    DELIVERY_STREAM,
    BUCKET_LOCATION,
    BUCKET_NOTIFICATION,
    TOPIC,
    RULES,
    RULE_TARGETS,
    QUEUE_URL,
    QUEUE,
)
