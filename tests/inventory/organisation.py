"""A small organisation in moto: four accounts, three regions, twelve VPCs, every way a flow log can go.

    111111111111  profile `network`      us-east-1, eu-west-1   S3 (bucket in logging), CloudWatch Logs
    222222222222  role, external id      us-east-1, eu-west-1   Kinesis (stream in logging), transit gateway
    333333333333  role                   us-east-1, us-west-2   the logging account: bucket, queue, stream; Firehose
    444444444444  role that is refused   (the fault proxy says so)

VPC CIDRs overlap on purpose: `shared-*` are all 10.0.0.0/16.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

NETWORK, WORKLOAD, LOGGING, DEAD = "111111111111", "222222222222", "333333333333", "444444444444"
EXTERNAL_ID = "correct-horse"
REGIONS = ("us-east-1", "eu-west-1", "us-west-2")
FORMAT = "${version} ${vpc-id} ${interface-id} ${srcaddr} ${dstaddr} ${bytes} ${start} ${end} ${log-status}"


def role(account: str) -> str:
    return f"arn:aws:iam::{account}:role/EdfnAgent"


@dataclass
class Cloud:
    """moto behind one URL, seen as any account."""

    url: str
    _clients: dict[tuple[str, str, str], Any] = field(default_factory=dict)

    def client(self, account: str, region: str, service: str) -> Any:
        import boto3

        key = (account, region, service)
        if key not in self._clients:
            client = boto3.session.Session().client(
                service,
                region_name=region,
                endpoint_url=self.url,
                aws_access_key_id="seed",
                aws_secret_access_key="seed",
            )
            client.meta.events.register(
                "before-call", lambda params, **_: params["headers"].update({"x-moto-account-id": account})
            )
            self._clients[key] = client
        return self._clients[key]

    def post(self, path: str, body: bytes = b"") -> None:
        with urlopen(Request(self.url + path, body, {"Content-Type": "text/plain"}, method="POST")) as answer:
            answer.read()

    def reset(self) -> None:
        self.post("/moto-api/reset")

    @contextmanager
    def enforcing_permissions(self) -> Iterator[None]:
        """Signatures and identity policies are checked from here on."""
        self.post("/moto-api/reset-auth", b"0")
        try:
            yield
        finally:
            self.post("/moto-api/reset-auth", b"inf")

    def user(self, account: str, name: str, policy: Mapping[str, Any] | None = None) -> tuple[str, str]:
        """An IAM user's key, which is how moto tells whose account a call is for."""
        iam = self.client(account, "us-east-1", "iam")
        iam.create_user(UserName=name)
        if policy is not None:
            iam.put_user_policy(UserName=name, PolicyName="edfn", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return key["AccessKeyId"], key["SecretAccessKey"]

    def vpc(self, account: str, region: str, name: str, cidr: str, *more: str) -> str:
        ec2 = self.client(account, region, "ec2")
        vpc: str = ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
        ec2.create_tags(Resources=[vpc], Tags=[{"Key": "Name", "Value": name}])
        for each in more:
            ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock=each)
        return vpc

    def subnet(self, account: str, region: str, vpc: str, cidr: str) -> str:
        ec2 = self.client(account, region, "ec2")
        subnet: str = ec2.create_subnet(VpcId=vpc, CidrBlock=cidr)["Subnet"]["SubnetId"]
        return subnet

    def flow_log(self, account: str, region: str, resource: str, **more: Any) -> str:
        kind = {"vpc": "VPC", "subnet": "Subnet", "eni": "NetworkInterface", "tgw": "TransitGateway"}
        arguments: dict[str, Any] = {
            "ResourceIds": [resource],
            "ResourceType": kind[resource.split("-")[0]],
            "LogFormat": FORMAT,
            "MaxAggregationInterval": 60,
            **({} if resource.startswith("tgw") else {"TrafficType": "ALL"}),
            **more,
        }
        if "LogGroupName" in more:
            arguments["DeliverLogsPermissionArn"] = f"arn:aws:iam::{account}:role/flow-logs"
        made = self.client(account, region, "ec2").create_flow_logs(**arguments)
        assert not made["Unsuccessful"], made["Unsuccessful"]
        id: str = made["FlowLogIds"][0]
        return id

    def without_default_vpcs(self, *accounts: str, regions: Sequence[str] = REGIONS) -> None:
        for account in accounts:
            for region in regions:
                ec2 = self.client(account, region, "ec2")
                for vpc in ec2.describe_vpcs()["Vpcs"]:
                    for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])[
                        "Subnets"
                    ]:
                        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
                    gateways = ec2.describe_internet_gateways()["InternetGateways"]
                    for gateway in gateways:
                        for each in gateway["Attachments"]:
                            ec2.detach_internet_gateway(
                                InternetGatewayId=gateway["InternetGatewayId"], VpcId=each["VpcId"]
                            )
                    ec2.delete_vpc(VpcId=vpc["VpcId"])


@dataclass
class Organisation:
    cloud: Cloud
    credentials_file: Path
    vpcs: dict[str, str]  # name -> id
    flow_logs: dict[str, str]
    queue_arn: str
    stream_arn: str
    group_arns: dict[str, str]


def build(cloud: Cloud, directory: Path) -> Organisation:
    cloud.without_default_vpcs(NETWORK, WORKLOAD, LOGGING)
    vpcs: dict[str, str] = {}
    for account, region, name, *cidrs in (
        (NETWORK, "us-east-1", "shared-a", "10.0.0.0/16", "100.65.0.0/20"),
        (NETWORK, "us-east-1", "edge", "10.1.0.0/16"),
        (NETWORK, "eu-west-1", "edge-eu", "10.2.0.0/16"),
        (NETWORK, "eu-west-1", "unlogged", "10.3.0.0/16"),
        (WORKLOAD, "us-east-1", "shared-b", "10.0.0.0/16"),
        (WORKLOAD, "us-east-1", "stream-1", "10.4.0.0/16"),
        (WORKLOAD, "eu-west-1", "stream-2", "10.5.0.0/16"),
        (WORKLOAD, "eu-west-1", "both", "10.6.0.0/16"),
        (LOGGING, "us-east-1", "shared-c", "10.0.0.0/20"),
        (LOGGING, "us-east-1", "firehose", "10.7.0.0/16"),
        (LOGGING, "us-west-2", "parts", "10.8.0.0/16"),
        (LOGGING, "us-west-2", "quiet", "10.9.0.0/16"),
    ):
        vpcs[name] = cloud.vpc(account, region, name, *cidrs)
    organisation = Organisation(cloud, directory / "credentials", vpcs, {}, "", "", {})
    _inside(cloud, organisation)
    _logging(cloud, organisation)
    _flow_logs(cloud, organisation)
    key, secret = cloud.user(NETWORK, "edfn")
    organisation.credentials_file.write_text(
        f"[network]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    )
    return organisation


def _inside(cloud: Cloud, organisation: Organisation) -> None:
    """Instances, gateways, an endpoint, a peering, a transit gateway."""
    ec2 = cloud.client(NETWORK, "us-east-1", "ec2")
    vpc = organisation.vpcs["shared-a"]
    subnet = cloud.subnet(NETWORK, "us-east-1", vpc, "10.0.1.0/24")
    for name in ("web-1", "web-2"):
        ec2.run_instances(
            ImageId="ami-12c6146b",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}],
        )
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address)
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.create_vpc_endpoint(
        VpcId=vpc, ServiceName="com.amazonaws.us-east-1.sqs", VpcEndpointType="Interface", SubnetIds=[subnet]
    )
    peering = ec2.create_vpc_peering_connection(
        VpcId=vpc, PeerVpcId=organisation.vpcs["stream-1"], PeerOwnerId=WORKLOAD, PeerRegion="us-east-1"
    )["VpcPeeringConnection"]["VpcPeeringConnectionId"]
    cloud.client(WORKLOAD, "us-east-1", "ec2").accept_vpc_peering_connection(VpcPeeringConnectionId=peering)
    cloud.subnet(LOGGING, "us-west-2", organisation.vpcs["parts"], "10.8.1.0/24")


def _logging(cloud: Cloud, organisation: Organisation) -> None:
    """The logging account: a bucket with a queue, a stream."""
    s3, sqs = cloud.client(LOGGING, "us-east-1", "s3"), cloud.client(LOGGING, "us-east-1", "sqs")
    dead = sqs.create_queue(QueueName="flow-logs-dead")["QueueUrl"]
    dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 5})
    queue = sqs.create_queue(QueueName="flow-logs", Attributes={"RedrivePolicy": redrive, "VisibilityTimeout": "300"})[
        "QueueUrl"
    ]
    organisation.queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    for bucket in ("central-logs", "quiet-logs"):
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_notification_configuration(
        Bucket="central-logs",
        NotificationConfiguration={
            "QueueConfigurations": [
                {
                    "QueueArn": organisation.queue_arn,
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": [{"Name": "suffix", "Value": ".log.gz"}]}},
                }
            ]
        },
    )
    kinesis = cloud.client(LOGGING, "us-east-1", "kinesis")
    kinesis.create_stream(StreamName="flow-logs", ShardCount=2)
    organisation.stream_arn = kinesis.describe_stream_summary(StreamName="flow-logs")["StreamDescriptionSummary"][
        "StreamARN"
    ]
    cloud.client(LOGGING, "us-east-1", "firehose").create_delivery_stream(
        DeliveryStreamName="flow-logs-firehose",
        ExtendedS3DestinationConfiguration={
            "RoleARN": f"arn:aws:iam::{LOGGING}:role/firehose",
            "BucketARN": "arn:aws:s3:::central-logs",
            "Prefix": "firehose/",
        },
    )


def _flow_logs(cloud: Cloud, organisation: Organisation) -> None:
    vpcs, logs = organisation.vpcs, organisation.flow_logs
    s3 = {"LogDestinationType": "s3", "LogDestination": "arn:aws:s3:::central-logs"}
    for account, region, name in (
        (NETWORK, "us-east-1", "shared-a"),
        (NETWORK, "eu-west-1", "edge-eu"),
        (WORKLOAD, "us-east-1", "shared-b"),
        (LOGGING, "us-east-1", "shared-c"),
        (WORKLOAD, "eu-west-1", "both"),
    ):
        logs[name] = cloud.flow_log(account, region, vpcs[name], **s3)
    for account, region, name, group in (
        (NETWORK, "us-east-1", "edge", "edge-flow-logs"),
        (WORKLOAD, "us-east-1", "stream-1", "streamed"),
        (WORKLOAD, "eu-west-1", "stream-2", "streamed"),
        (WORKLOAD, "eu-west-1", "both", "both-flow-logs"),
    ):
        cwl = cloud.client(account, region, "logs")
        cwl.create_log_group(logGroupName=group)
        organisation.group_arns[name] = f"arn:aws:logs:{region}:{account}:log-group:{group}"
        logs[f"{name}-cwl"] = cloud.flow_log(
            account, region, vpcs[name], LogDestinationType="cloud-watch-logs", LogGroupName=group
        )
    for region in ("us-east-1", "eu-west-1"):
        _subscribe(WORKLOAD, region, "streamed", organisation.stream_arn)
    logs["firehose"] = cloud.flow_log(
        LOGGING,
        "us-east-1",
        vpcs["firehose"],
        LogDestinationType="kinesis-data-firehose",
        LogDestination=f"arn:aws:firehose:us-east-1:{LOGGING}:deliverystream/flow-logs-firehose",
    )
    subnet = cloud.client(LOGGING, "us-west-2", "ec2").describe_subnets()["Subnets"][0]["SubnetId"]
    logs["parts"] = cloud.flow_log(LOGGING, "us-west-2", subnet, **s3)
    logs["quiet"] = cloud.flow_log(
        LOGGING, "us-west-2", vpcs["quiet"], LogDestinationType="s3", LogDestination="arn:aws:s3:::quiet-logs"
    )


def _subscribe(account: str, region: str, group: str, destination: str) -> None:
    """A filter to another account's stream: moto's API takes only streams of the same account, its backend any."""
    from moto.backends import get_backend

    found = get_backend("logs")[account][region].groups[group]
    found.put_subscription_filter("to-stream", "", destination, "")
