"""Shapes that no emulator gives, checked against botocore's own description of them by its Stubber."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from botocore import xform_name

from edfn_agent.inventory import rows
from edfn_agent.inventory.accounts import Accounts, AwsSettings, _Living
from edfn_agent.inventory.asking import Asker, findings_of
from edfn_agent.inventory.calls import FLOW_LOGS, NETWORK, TRANSIT_GATEWAY_ROUTES, TRANSIT_GATEWAYS, Call
from edfn_agent.inventory.discovery import Discovery, _Run
from edfn_agent.inventory.model import Account, Route, RouteTable, TransitGatewayAttachment

HERE = ("111111111111", "us-east-1")


@contextmanager
def stubbed() -> Iterator[tuple[Asker, Any]]:
    import boto3
    from botocore.stub import Stubber

    client = boto3.client("ec2", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    accounts = Accounts(AwsSettings(region="us-east-1"))
    accounts._clients[(*HERE, "ec2", "adaptive")] = client
    with Stubber(client) as stubber:
        yield Asker(accounts), stubber
        stubber.assert_no_pending_responses()


def described(call: Call, *pages: dict[str, Any]) -> list[Any]:
    """The rows of an answer in several pages."""
    with stubbed() as (asker, stubber):
        for n, page in enumerate(pages):
            wanted = {"MaxResults": call.page_size, **({"NextToken": str(n)} if n else {})}
            last = n == len(pages) - 1
            stubber.add_response(
                xform_name(call.operation), {**page, **({} if last else {"NextToken": str(n + 1)})}, wanted
            )
        answer = asker.ask(call, *HERE)
    assert answer.problem is None
    member, read = rows.READERS[call.operation]
    return read(answer.items(member), *HERE)


def interfaces(*items: dict[str, Any]) -> list[Any]:
    return described(NETWORK[0], {"NetworkInterfaces": list(items)})


def test_the_interface_of_a_nat_gateway() -> None:
    (found,) = interfaces(
        {
            "NetworkInterfaceId": "eni-1",
            "InterfaceType": "nat_gateway",
            "Description": "Interface for NAT Gateway nat-0123456789abcdef0",
            "RequesterManaged": True,
            "RequesterId": "722737459838",
            "OwnerId": HERE[0],
            "VpcId": "vpc-1",
            "SubnetId": "subnet-1",
            "PrivateIpAddress": "10.0.0.9",
            "PrivateIpAddresses": [
                {"PrivateIpAddress": "10.0.0.9", "Primary": True, "Association": {"PublicIp": "203.0.113.9"}}
            ],
            "Association": {"PublicIp": "203.0.113.9"},
            "Attachment": {"InstanceOwnerId": "amazon-aws", "Status": "attached"},
        }
    )
    assert (found.type, found.serves) == ("nat_gateway", "nat-0123456789abcdef0")
    assert (found.addresses, found.public_addresses) == (("10.0.0.9",), ("203.0.113.9",))


def test_other_interfaces_that_aws_makes() -> None:
    texts = {
        "VPC Endpoint Interface vpce-0a1b": "vpce-0a1b",
        "Network Interface for Transit Gateway Attachment tgw-attach-0c2d": "tgw-attach-0c2d",
        "ELB app/web/50dc6c495c0c9188": "app/web/50dc6c495c0c9188",
        "AWS Lambda VPC ENI-resize-1234": "",
        "": "",
    }
    found = interfaces(*({"NetworkInterfaceId": f"eni-{n}", "Description": text} for n, text in enumerate(texts)))
    assert [each.serves for each in found] == list(texts.values())


def test_all_addresses_of_an_interface() -> None:
    (found,) = interfaces(
        {
            "NetworkInterfaceId": "eni-1",
            "PrivateIpAddress": "10.0.0.5",
            "PrivateIpAddresses": [
                {"PrivateIpAddress": "10.0.0.4", "Primary": False, "Association": {"PublicIp": "203.0.113.4"}},
                {"PrivateIpAddress": "10.0.0.5", "Primary": True},
            ],
            "Ipv6Addresses": [{"Ipv6Address": "2001:db8::5"}],
            "Ipv4Prefixes": [{"Ipv4Prefix": "10.0.1.0/28"}],
            "Ipv6Prefixes": [{"Ipv6Prefix": "2001:db8:1::/80"}],
            "TagSet": [{"Key": "Name", "Value": "node-1"}],
            "Attachment": {"InstanceId": "i-1"},
        }
    )
    assert found.addresses == ("10.0.0.5", "10.0.0.4", "2001:db8::5")
    assert found.public_addresses == ("203.0.113.4",)
    assert found.prefixes == ("10.0.1.0/28", "2001:db8:1::/80")
    assert (found.name, found.serves) == ("node-1", "i-1")


def test_pages_are_followed() -> None:
    call = next(each for each in NETWORK if each.operation == "DescribeNatGateways")
    found = described(
        call,
        {"NatGateways": [{"NatGatewayId": "nat-1", "VpcId": "vpc-1", "State": "available"}]},
        {"NatGateways": []},
        {
            "NatGateways": [
                {"NatGatewayId": "nat-2", "State": "deleted"},
                {
                    "NatGatewayId": "nat-3",
                    "NatGatewayAddresses": [
                        {"NetworkInterfaceId": "eni-3", "PrivateIp": "10.0.0.3", "PublicIp": "203.0.113.3"},
                        {"NetworkInterfaceId": "eni-3", "PrivateIp": "10.0.0.4"},
                    ],
                },
            ]
        },
    )
    assert [(each.nat_gateway_id, each.interface_ids, each.addresses) for each in found] == [
        ("nat-1", (), ()),
        ("nat-3", ("eni-3",), ("10.0.0.3", "10.0.0.4")),
    ]


def test_what_a_gateway_says_of_its_interface_is_better_than_the_description() -> None:
    (interface,) = rows.interfaces([{"NetworkInterfaceId": "eni-1", "Description": "ELB app/x/y"}], *HERE)
    gateways = rows.nat_gateways(
        [{"NatGatewayId": "nat-1", "NatGatewayAddresses": [{"NetworkInterfaceId": "eni-1"}]}], *HERE
    )
    assert rows.with_services([interface], gateways, [])[0].serves == "nat-1"


def test_transit_gateways() -> None:
    (attachment,) = described(
        TRANSIT_GATEWAYS,
        {
            "TransitGatewayAttachments": [
                {
                    "TransitGatewayAttachmentId": "tgw-attach-1",
                    "TransitGatewayId": "tgw-1",
                    "TransitGatewayOwnerId": HERE[0],
                    "ResourceOwnerId": "222222222222",
                    "ResourceType": "vpc",
                    "ResourceId": "vpc-2",
                    "State": "available",
                    "Association": {"TransitGatewayRouteTableId": "tgw-rtb-1", "State": "associated"},
                    "Tags": [{"Key": "Name", "Value": "to-prod"}],
                }
            ]
        },
    )
    assert (attachment.resource_id, attachment.route_table_id, attachment.name) == ("vpc-2", "tgw-rtb-1", "to-prod")
    filters = [{"Name": "state", "Values": ["active", "blackhole"]}]
    arguments = {"TransitGatewayRouteTableId": "tgw-rtb-1", "Filters": filters}
    with stubbed() as (asker, stubber):
        stubber.add_response(
            "search_transit_gateway_routes",
            {
                "Routes": [
                    {
                        "DestinationCidrBlock": "10.2.0.0/16",
                        "TransitGatewayAttachments": [
                            {"ResourceId": "vpc-2", "TransitGatewayAttachmentId": "tgw-attach-1", "ResourceType": "vpc"}
                        ],
                        "Type": "propagated",
                        "State": "active",
                    },
                    {"DestinationCidrBlock": "10.3.0.0/16", "Type": "static", "State": "blackhole"},
                ],
                "AdditionalRoutesAvailable": False,
            },
            {**arguments, "MaxResults": 1000},
        )
        answer = asker.ask(TRANSIT_GATEWAY_ROUTES, *HERE, "tgw-rtb-1", **arguments)
    found = rows.transit_gateway_routes(answer.items("Routes"), *HERE, "tgw-rtb-1")
    assert [(each.cidr, each.attachment_ids, each.state) for each in found] == [
        ("10.2.0.0/16", ("tgw-attach-1",), "active"),
        ("10.3.0.0/16", (), "blackhole"),
    ]


def test_routes_of_every_kind() -> None:
    (table,) = rows.route_tables(
        [
            {
                "RouteTableId": "rtb-1",
                "VpcId": "vpc-1",
                "Associations": [{"Main": True}, {"Main": False, "SubnetId": "subnet-1"}],
                "Routes": [
                    {"DestinationCidrBlock": "10.0.0.0/16", "GatewayId": "local", "State": "active"},
                    {"DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": "eigw-1", "State": "active"},
                    {"DestinationPrefixListId": "pl-1", "GatewayId": "vpce-1", "State": "active"},
                    {"DestinationCidrBlock": "10.9.0.0/16", "TransitGatewayId": "tgw-1", "State": "blackhole"},
                    {"DestinationCidrBlock": "0.0.0.0/0", "InstanceId": "i-1", "NetworkInterfaceId": "eni-1"},
                ],
            }
        ],
        *HERE,
    )
    assert (table.main, table.subnet_ids) == (True, ("subnet-1",))
    assert table.routes == (
        Route("10.0.0.0/16", "local"),
        Route("::/0", "eigw-1"),
        Route("pl-1", "vpce-1"),
        Route("10.9.0.0/16", "tgw-1", False),
        Route("0.0.0.0/0", "eni-1"),
    )


def test_flow_logs_of_all_ages() -> None:
    bucket, old, by_arn, firehose = described(
        FLOW_LOGS,
        {
            "FlowLogs": [
                {
                    "FlowLogId": "fl-1",
                    "ResourceId": "vpc-1",
                    "LogDestinationType": "s3",
                    "LogDestination": "arn:aws:s3:::logs/team/a/",
                    "DestinationOptions": {
                        "FileFormat": "parquet",
                        "HiveCompatiblePartitions": True,
                        "PerHourPartition": True,
                    },
                },
                {
                    "FlowLogId": "fl-2",
                    "ResourceId": "vpc-1",
                    "LogGroupName": "/vpc/flows",
                    "DeliverLogsStatus": "FAILED",
                },
                {
                    "FlowLogId": "fl-3",
                    "ResourceId": "vpc-1",
                    "LogDestinationType": "cloud-watch-logs",
                    "LogDestination": "arn:aws:logs:us-east-1:111111111111:log-group:/vpc/flows:*",
                },
                {
                    "FlowLogId": "fl-4",
                    "ResourceId": "tgw-1",
                    "LogDestinationType": "kinesis-data-firehose",
                    "LogDestination": "arn:aws:firehose:us-east-1:222222222222:deliverystream/d",
                },
            ]
        },
    )
    assert (bucket.bucket, bucket.prefix, bucket.file_format, bucket.hive, bucket.hourly) == (
        "logs",
        "team/a",
        "parquet",
        True,
        True,
    )
    assert old.destination == by_arn.destination == "arn:aws:logs:us-east-1:111111111111:log-group:/vpc/flows"
    assert (old.log_group, by_arn.log_group, old.delivery_status) == ("/vpc/flows", "/vpc/flows", "FAILED")
    assert (firehose.bucket, firehose.log_group) == (None, None)


def test_cidrs_that_are_being_taken_away_do_not_count() -> None:
    (vpc,) = rows.vpcs(
        [
            {
                "VpcId": "vpc-1",
                "OwnerId": "222222222222",
                "CidrBlock": "10.0.0.0/16",
                "CidrBlockAssociationSet": [
                    {"CidrBlock": "10.9.0.0/16", "CidrBlockState": {"State": "disassociated"}},
                    {"CidrBlock": "10.1.0.0/16", "CidrBlockState": {"State": "associated"}},
                    {"CidrBlock": "10.0.0.0/16", "CidrBlockState": {"State": "associated"}},
                ],
                "Ipv6CidrBlockAssociationSet": [
                    {"Ipv6CidrBlock": "2001:db8::/56", "Ipv6CidrBlockState": {"State": "associated"}}
                ],
            }
        ],
        *HERE,
    )
    # A VPC that is shared with this account belongs to its owner.
    assert (vpc.account_id, vpc.cidrs, vpc.cidrs6) == (
        "222222222222",
        ("10.0.0.0/16", "10.1.0.0/16"),
        ("2001:db8::/56",),
    )


# ---- routes of transit gateways and prefix lists


def attachment(id: str, owner: str, account: str = HERE[0], name: str = "") -> TransitGatewayAttachment:
    return TransitGatewayAttachment(
        id, "tgw-1", account, HERE[1], name, "vpc", f"vpc-{id[-1]}", tgw_owner=owner, route_table_id="tgw-rtb-1"
    )


def beyond(
    stubber_: Callable[[Any], None], *attachments: TransitGatewayAttachment, routes: Sequence[Route] = ()
) -> Any:
    """(snapshot, findings) of the calls that follow from attachments and routes."""
    with stubbed() as (asker, stubber):
        stubber_(stubber)
        asker.accounts._living[HERE[0]] = _Living(Account(HERE[0], "", "default", "ok"), None, HERE[1])
        run = _Run(Discovery(asker.accounts), None, lambda what, done, of: None)
        # one after the other, as a stubber wants them
        run._side_by_side = lambda what, jobs: [job() for _, job in jobs]  # type: ignore[method-assign]
        for each in attachments:
            run._keep("transit_gateway_attachments", [each], each.account_id)
        run._keep("route_tables", [RouteTable("rtb-1", "vpc-1", *HERE, routes=tuple(routes))], HERE[0])
        run._routes_beyond()
    return run._collected(1.0), findings_of(run.asker)


def test_the_owner_of_a_transit_gateway_asks_for_its_routes_once_per_table() -> None:
    def answers(stubber: Any) -> None:
        page = {"Routes": [{"DestinationCidrBlock": "10.2.0.0/16", "State": "active"}]}
        stubber.add_response("search_transit_gateway_routes", page)

    snapshot, findings = beyond(answers, attachment("tgw-attach-1", HERE[0]), attachment("tgw-attach-2", HERE[0]))
    assert [(each.route_table_id, each.cidr) for each in snapshot.transit_gateway_routes] == [
        ("tgw-rtb-1", "10.2.0.0/16")
    ]
    assert findings == []


def test_who_is_only_attached_does_not_ask() -> None:
    snapshot, findings = beyond(lambda stubber: None, attachment("tgw-attach-1", "222222222222"))
    assert (snapshot.transit_gateway_routes, findings) == ((), [])


def test_without_the_permission_the_finding_names_it_and_the_rest_goes_on() -> None:
    def answers(stubber: Any) -> None:
        stubber.add_client_error("search_transit_gateway_routes", "UnauthorizedOperation", "no", 403)
        stubber.add_response(
            "describe_prefix_lists", {"PrefixLists": [{"PrefixListId": "pl-1", "Cidrs": ["192.0.2.0/24"]}]}
        )

    snapshot, (finding,) = beyond(answers, attachment("tgw-attach-1", HERE[0]), routes=[Route("pl-1", "vpce-1")])
    assert (finding.severity, finding.account_id, finding.region) == ("warning", *HERE)
    assert finding.problem.startswith("ec2:SearchTransitGatewayRoutes is not allowed: ")
    assert finding.next_step.startswith("allow ec2:SearchTransitGatewayRoutes")
    assert [each.cidrs for each in snapshot.prefix_lists] == [("192.0.2.0/24",)]
    assert [each.attachment_id for each in snapshot.transit_gateway_attachments] == ["tgw-attach-1"]


def test_prefix_lists_of_customers_are_asked_for_entry_by_entry() -> None:
    def answers(stubber: Any) -> None:
        stubber.add_response(
            "describe_prefix_lists", {"PrefixLists": [{"PrefixListId": "pl-1", "Cidrs": ["192.0.2.0/24"]}]}
        )
        for n, cidr in enumerate(("10.8.0.0/16", "2001:db8::/48")):
            wanted = {"PrefixListId": "pl-2", "MaxResults": 100, **({"NextToken": "1"} if n else {})}
            page: dict[str, Any] = {"Entries": [{"Cidr": cidr, "Description": "an office"}]}
            stubber.add_response("get_managed_prefix_list_entries", page | ({} if n else {"NextToken": "1"}), wanted)
        stubber.add_client_error("get_managed_prefix_list_entries", "UnauthorizedOperation", "no", 403)

    routes = [Route("pl-1", "vpce-1"), Route("pl-2", "tgw-1"), Route("pl-3", "tgw-1")]
    snapshot, (finding,) = beyond(answers, routes=routes)
    assert {each.prefix_list_id: each.cidrs for each in snapshot.prefix_lists} == {
        "pl-1": ("192.0.2.0/24",),
        "pl-2": ("10.8.0.0/16", "2001:db8::/48"),
    }
    assert (finding.severity, finding.subject) == ("info", "pl-3")
    assert finding.problem.startswith("ec2:GetManagedPrefixListEntries is not allowed: ")


def test_an_attachment_has_its_name_from_one_account_and_its_routes_from_the_other() -> None:
    participant = replace(attachment("tgw-attach-1", HERE[0], "222222222222", name="to-prod"), route_table_id="")
    snapshot, _ = beyond(
        lambda stubber: stubber.add_response("search_transit_gateway_routes", {"Routes": []}),
        participant,
        attachment("tgw-attach-1", HERE[0]),
    )
    (found,) = snapshot.transit_gateway_attachments
    assert (found.name, found.account_id, found.route_table_id) == ("to-prod", HERE[0], "tgw-rtb-1")
