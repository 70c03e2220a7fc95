"""An AWS of the demo's own: moto in this process, on loopback, with two accounts whose VPCs write flow logs.

In: the Kinesis to use, if there is one. Out: accounts, VPCs and sources that discovery finds, and flow logs delivered
while the agent runs: objects in S3 announced through SQS, events in CloudWatch Logs, records in Kinesis. Nothing
outside this machine is spoken to.
"""

from __future__ import annotations

import gzip
import json
import logging
import time
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import boto3

from edfn_agent.demo.traffic import DemoInterface, DemoVpc, branch, flow_log, vpcs
from edfn_agent.formats.layout import DEFAULT

if TYPE_CHECKING:
    from edfn_agent.demo.kinesis import EmbeddedKinesis

ROLE = "arn:aws:iam::{account}:role/EdfnAgent"
EXTERNAL_ID = "demo"
QUEUE = "flow-log-objects"
LOG_GROUP = "/vpc/flow-logs"
DELIVERY_ROLE = "arn:aws:iam::{account}:role/FlowLogs"

REGIONS = ("us-east-1", "eu-central-1")

S3, CLOUDWATCH, KINESIS = "S3 through SQS", "CloudWatch Logs", "Kinesis"
WAYS = {"shop": S3, "office": CLOUDWATCH, "lab": S3}


@dataclass(frozen=True, slots=True)
class Source:
    """A VPC in the embedded AWS, and where its flow log goes."""

    vpc: DemoVpc
    way: str
    place: str  # bucket or log group
    flow_log_id: str


class EmbeddedAws:
    """moto's server, and clients for its accounts."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self._sessions: dict[str, Any] = {}
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._objects = 0
        self._kinesis: EmbeddedKinesis | None = None

    def close(self) -> None:
        self._server.stop()

    def client(self, account: str, region: str, service: str) -> Any:
        key = (account, region, service)
        if key not in self._clients:
            if account not in self._sessions:
                sts = boto3.client("sts", "us-east-1", endpoint_url=self.url, **_KEYS)
                got = sts.assume_role(RoleArn=ROLE.format(account=account), RoleSessionName="demo")["Credentials"]
                self._sessions[account] = boto3.Session(
                    got["AccessKeyId"], got["SecretAccessKey"], got["SessionToken"], region_name="us-east-1"
                )
            self._clients[key] = self._sessions[account].client(service, region, endpoint_url=self.url)
        return self._clients[key]

    def seed(self, kinesis: EmbeddedKinesis | None = None) -> list[Source]:
        """Make the demo's VPCs, and a flow log for each."""
        wanted = vpcs()
        self._kinesis = kinesis
        for account in sorted({vpc.account_id for vpc in wanted}):
            for region in REGIONS:
                self._remove_default_vpc(account, region)
        sources = [self._seed(vpc, WAYS[vpc.name]) for vpc in wanted]
        if kinesis is not None:
            source = self._seed(branch(), KINESIS)
            self._subscribe(source, kinesis.arn)
            sources.append(source)
        return sources

    def _remove_default_vpc(self, account: str, region: str) -> None:
        """Every new account has one in each region; here they would only be seven lines of findings."""
        ec2 = self.client(account, region, "ec2")
        for vpc in ec2.describe_vpcs()["Vpcs"]:
            mine = [{"Name": "vpc-id", "Values": [vpc["VpcId"]]}]
            for subnet in ec2.describe_subnets(Filters=mine)["Subnets"]:
                ec2.delete_subnet(SubnetId=subnet["SubnetId"])
            ec2.delete_vpc(VpcId=vpc["VpcId"])

    def _seed(self, wanted: DemoVpc, way: str) -> Source:
        vpc = self._network(wanted)
        place = self._bucket(vpc) if way == S3 else self._log_group(vpc)
        request: dict[str, Any] = {"ResourceType": "VPC", "ResourceIds": [vpc.vpc_id], "TrafficType": "ALL"}
        if way == S3:
            request |= {"LogDestinationType": "s3", "LogDestination": f"arn:aws:s3:::{place}"}
        else:
            role = DELIVERY_ROLE.format(account=vpc.account_id)
            request |= {
                "LogDestinationType": "cloud-watch-logs",
                "LogGroupName": place,
                "DeliverLogsPermissionArn": role,
            }
        if vpc.layout != DEFAULT:
            request["LogFormat"] = " ".join(f"${{{name}}}" for name in vpc.layout.names)
        made = self.client(vpc.account_id, vpc.region, "ec2").create_flow_logs(**request)
        return Source(vpc, way, place, made["FlowLogIds"][0])

    def _network(self, wanted: DemoVpc) -> DemoVpc:
        """The VPC with its subnet, gateway, route and named instances; ids and addresses as AWS gave them."""
        ec2 = self.client(wanted.account_id, wanted.region, "ec2")
        vpc_id = ec2.create_vpc(CidrBlock=str(wanted.network))["Vpc"]["VpcId"]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc_id)
        tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc_id]}])["RouteTables"]
        ec2.create_route(RouteTableId=tables[0]["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        zone = f"{wanted.region}a"
        subnet = ec2.create_subnet(VpcId=vpc_id, CidrBlock=str(wanted.network), AvailabilityZone=zone)["Subnet"]
        interfaces = []
        for interface in wanted.interfaces:
            made = ec2.run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1, SubnetId=subnet["SubnetId"])
            instance = made["Instances"][0]
            eni = instance["NetworkInterfaces"][0]
            _name(ec2, instance["InstanceId"], interface.name)
            interfaces.append(
                DemoInterface(
                    eni["NetworkInterfaceId"],
                    instance["InstanceId"],
                    interface.name,
                    IPv4Address(eni["PrivateIpAddress"]),
                    interface.address6,
                )
            )
        _name(ec2, vpc_id, wanted.name)
        _name(ec2, gateway, f"{wanted.name}-internet")
        return replace(wanted, vpc_id=vpc_id, subnet_id=subnet["SubnetId"], interfaces=tuple(interfaces))

    def _bucket(self, vpc: DemoVpc) -> str:
        """A bucket that announces its objects in a queue, one of each for an account."""
        bucket = f"flow-logs-{vpc.account_id}"
        s3, sqs = self.client(vpc.account_id, vpc.region, "s3"), self.client(vpc.account_id, vpc.region, "sqs")
        s3.create_bucket(Bucket=bucket)
        queue = f"arn:aws:sqs:{vpc.region}:{vpc.account_id}:{QUEUE}"
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "s3.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": queue,
                    "Condition": {"StringEquals": {"aws:SourceAccount": vpc.account_id}},
                }
            ],
        }
        sqs.create_queue(QueueName=f"{QUEUE}-dead")
        redrive = {"deadLetterTargetArn": f"{queue}-dead", "maxReceiveCount": 5}
        attributes = {"Policy": json.dumps(policy), "RedrivePolicy": json.dumps(redrive)}
        sqs.create_queue(QueueName=QUEUE, Attributes=attributes)
        notification = {"QueueConfigurations": [{"QueueArn": queue, "Events": ["s3:ObjectCreated:*"]}]}
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=notification)
        return bucket

    def _log_group(self, vpc: DemoVpc) -> str:
        logs = self.client(vpc.account_id, vpc.region, "logs")
        logs.create_log_group(logGroupName=LOG_GROUP)
        for interface in vpc.interfaces:
            logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=f"{interface.interface_id}-all")
        return LOG_GROUP

    def _subscribe(self, source: Source, stream: str) -> None:
        """Where the flow log's log group is sent on to. moto only looks whether it has a stream of that name, too."""
        account, region = source.vpc.account_id, source.vpc.region
        self.client(account, region, "kinesis").create_stream(StreamName=stream.rpartition("/")[2], ShardCount=1)
        self.client(account, region, "logs").put_subscription_filter(
            logGroupName=source.place,
            filterName="edfn-agent",
            filterPattern="",
            destinationArn=stream,
            roleArn=DELIVERY_ROLE.format(account=account),
        )

    def deliver(self, source: Source, flows: int, seed: int) -> Any:
        """Write so many flows of the last minute as AWS delivers them; what was written (`traffic.Written`)."""
        vpc = source.vpc
        now = int(time.time())
        written = flow_log(vpc, flows, now - 60, seed)
        if source.way == S3:
            self._put_object(source, written.lines, now)
        elif source.way == KINESIS:
            assert self._kinesis is not None
            self._kinesis.put_events(vpc, source.place, written.lines)
        else:
            self._put_events(source, written.lines, now)
        return written

    def _put_object(self, source: Source, lines: list[str], now: int) -> None:
        vpc = source.vpc
        self._objects += 1
        day, minute = time.strftime("%Y/%m/%d", time.gmtime(now)), time.strftime("%Y%m%dT%H%MZ", time.gmtime(now))
        key = (
            f"AWSLogs/{vpc.account_id}/vpcflowlogs/{vpc.region}/{day}/"
            f"{vpc.account_id}_vpcflowlogs_{vpc.region}_{source.flow_log_id}_{minute}_{self._objects:08x}.log.gz"
        )
        body = gzip.compress("\n".join([" ".join(vpc.layout.names), *lines, ""]).encode())
        self.client(vpc.account_id, vpc.region, "s3").put_object(Bucket=source.place, Key=key, Body=body)

    def _put_events(self, source: Source, lines: list[str], now: int) -> None:
        vpc = source.vpc
        logs = self.client(vpc.account_id, vpc.region, "logs")
        for interface in vpc.interfaces:
            events = [
                {"timestamp": (now - 60) * 1000, "message": line} for line in lines if interface.interface_id in line
            ]
            if events:
                logs.put_log_events(
                    logGroupName=source.place, logStreamName=f"{interface.interface_id}-all", logEvents=events
                )


_KEYS = {"aws_access_key_id": "demo", "aws_secret_access_key": "demo"}


def environment() -> dict[str, str]:
    """The identity that the agent has in the demo; nothing of the caller's own comes near it."""
    return {
        "AWS_ACCESS_KEY_ID": _KEYS["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": _KEYS["aws_secret_access_key"],
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    }


def _name(ec2: Any, resource: str, name: str) -> None:
    ec2.create_tags(Resources=[resource], Tags=[{"Key": "Name", "Value": name}])
