"""An AWS (moto, over HTTP on loopback) in which every way of delivery can be laid, and what AWS would deliver on it.

What moto does not do is done here, and nothing else is made up: flow logs in S3 with a prefix, in another account's
bucket, with destination options, and a status that is not always FAILED; subscription filters that point at a
CloudWatch Logs destination; a message goes to one of those who ask at the same time, and to nobody who is dead. moto
delivers nothing by itself: tests put the objects, events and requests.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from edfn_agent.demo.aws import EmbeddedAws
from edfn_agent.formats.layout import DEFAULT, Layout
from tests.setup.conftest import take_destinations

HOME, SHOP, BANK, STRANGER = "111111111111", "222222222222", "333333333333", "999999999999"
REGION = "us-east-1"


@dataclass(frozen=True)
class Watched:
    """A VPC or transit gateway whose traffic is logged."""

    account: str
    name: str
    id: str
    interface: str
    subnet: str = ""

    @property
    def kind(self) -> str:
        return "TransitGateway" if self.id.startswith("tgw-") else "VPC"


class Cloud(EmbeddedAws):
    """Made of accounts HOME (where the agent's identity, buckets and streams are), SHOP and BANK."""

    def __init__(self) -> None:
        self._patches = pytest.MonkeyPatch()
        _mend_moto(self._patches)
        _mend_queues(self._patches)
        take_destinations(self._patches)
        super().__init__()
        for account in (HOME, SHOP, BANK):
            self._remove_default_vpc(account, REGION)
        self._networks = 0

    def close(self) -> None:
        super().close()
        self._patches.undo()

    def at(self, service: str, account: str = HOME, region: str = REGION) -> Any:
        return self.client(account, region, service)

    # -- what is logged

    def vpc(self, name: str, account: str = SHOP) -> Watched:
        self._networks += 1
        ec2, network = self.at("ec2", account), f"10.{self._networks}.0.0/16"
        vpc = ec2.create_vpc(CidrBlock=network)["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=network, AvailabilityZone=f"{REGION}a")["Subnet"]["SubnetId"]
        interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
        ec2.create_tags(Resources=[vpc], Tags=[{"Key": "Name", "Value": name}])
        return Watched(account, name, vpc, interface, subnet)

    def gateway(self, name: str, account: str = SHOP) -> Watched:
        made = self.at("ec2", account).create_transit_gateway()["TransitGateway"]["TransitGatewayId"]
        return Watched(account, name, made, f"tgw-attach-{made[4:]}")

    def flow_log(self, watched: Watched, layout: Layout | None, kind: str, to: str, **more: Any) -> str:
        request: dict[str, Any] = {
            "ResourceType": watched.kind,
            "ResourceIds": [watched.id],
            "LogDestinationType": kind,
        }
        if kind == "cloud-watch-logs":
            role = f"arn:aws:iam::{watched.account}:role/FlowLogs"
            request |= {"LogGroupName": to, "DeliverLogsPermissionArn": role}
        else:
            request["LogDestination"] = to
        if watched.kind == "VPC":
            request["TrafficType"] = "ALL"
        if layout is not None and layout != DEFAULT:
            request["LogFormat"] = " ".join(f"${{{name}}}" for name in layout.names)
        made = self.at("ec2", watched.account).create_flow_logs(**request, **more)
        assert not made["Unsuccessful"], made
        return str(made["FlowLogIds"][0])

    # -- where it goes

    def bucket(self, name: str, queue: str) -> None:
        """A bucket of HOME that announces everything in a queue with a dead-letter queue."""
        s3, sqs = self.at("s3"), self.at("sqs")
        arn = f"arn:aws:sqs:{REGION}:{HOME}:{queue}"
        allow = {"Effect": "Allow", "Principal": {"Service": "s3.amazonaws.com"}, "Action": "sqs:SendMessage"}
        policy = {"Version": "2012-10-17", "Statement": [{**allow, "Resource": arn}]}
        sqs.create_queue(QueueName=f"{queue}-dead")
        redrive = {"deadLetterTargetArn": f"{arn}-dead", "maxReceiveCount": 5}
        attributes = {"Policy": json.dumps(policy), "RedrivePolicy": json.dumps(redrive)}
        sqs.create_queue(QueueName=queue, Attributes=attributes)
        s3.create_bucket(Bucket=name)
        told = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
        s3.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration=told)

    def delivery_stream(self, name: str, bucket: str, prefix: str, url: str = "") -> str:
        """Its ARN. With a URL it posts there, and the bucket is for what fails."""
        s3 = {"RoleARN": f"arn:aws:iam::{HOME}:role/Deliver", "BucketARN": f"arn:aws:s3:::{bucket}", "Prefix": prefix}
        to: dict[str, Any] = {"ExtendedS3DestinationConfiguration": s3}
        if url:
            endpoint = {"Url": url, "Name": "edfn-agent", "AccessKey": "not told again by AWS"}
            to = {"HttpEndpointDestinationConfiguration": {"EndpointConfiguration": endpoint, "S3Configuration": s3}}
        made = self.at("firehose").create_delivery_stream(DeliveryStreamName=name, **to)
        return str(made["DeliveryStreamARN"])

    def destination(self, name: str, target: str) -> str:
        """A CloudWatch Logs destination of HOME; its ARN."""
        role = f"arn:aws:iam::{HOME}:role/ToTarget"
        made = self.at("logs").put_destination(destinationName=name, targetArn=target, roleArn=role)
        return str(made["destination"]["arn"])

    def log_group(self, account: str, name: str, *subscribers: str) -> str:
        logs = self.at("logs", account)
        logs.create_log_group(logGroupName=name)
        for number, arn in enumerate(subscribers):
            logs.put_subscription_filter(
                logGroupName=name, filterName=f"all-{number}", filterPattern="", destinationArn=arn
            )
        return f"arn:aws:logs:{REGION}:{account}:log-group:{name}"

    # -- what AWS writes there

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.at("s3").put_object(Bucket=bucket, Key=key, Body=body)

    def log(self, account: str, group: str, stream: str, lines: Sequence[str]) -> None:
        logs = self.at("logs", account)
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        now = int(time.time() * 1000) - 1000
        events = [{"timestamp": now, "message": line} for line in lines]
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)

    def waiting(self, queue: str, account: str = HOME) -> int:
        """Messages of a queue that nobody has deleted."""
        from moto.backends import get_backend

        return len(get_backend("sqs")[account][REGION].get_queue(queue)._messages)


def _mend_moto(patches: pytest.MonkeyPatch) -> None:
    from moto.ec2.models.flow_logs import FlowLogsBackend
    from moto.ec2.responses.flow_logs import FlowLogs

    create, answer = FlowLogsBackend.create_flow_logs, FlowLogs.create_flow_logs

    def create_flow_logs(self: Any, **given: Any) -> Any:
        # moto looks for the bucket by its ARN with the prefix, in the caller's account only
        in_s3 = given["log_destination_type"] == "s3"
        made, errors = create(self, **given | ({"log_destination_type": "kinesis-data-firehose"} if in_s3 else {}))
        for each in made:
            each.log_destination_type = "s3" if in_s3 else each.log_destination_type
            each.deliver_logs_status, each.deliver_logs_error_message = "SUCCESS", None
        return made, errors

    def create_with_options(self: Any) -> Any:
        result = answer(self)
        options = self._get_param("DestinationOptions")
        for id in result.result["FlowLogIds"] if options else ():
            self.ec2_backend.flow_logs[id].destination_options = options
        return result

    patches.setattr(FlowLogsBackend, "create_flow_logs", create_flow_logs)
    patches.setattr(FlowLogs, "create_flow_logs", create_with_options)


_receiving = threading.Lock()
_generation = 0


def _mend_queues(patches: pytest.MonkeyPatch) -> None:
    from moto.sqs.models import SQSBackend

    receive = SQSBackend.receive_message

    def patient(self: Any, queue_name: str, count: int, wait: int, visibility: int, names: Any = None) -> Any:
        end, generation = time.monotonic() + wait, _generation
        while generation == _generation:
            with _receiving:
                found = receive(self, queue_name, count, 0, visibility, names)
            if found or time.monotonic() >= end:
                return found
            time.sleep(0.03)
        return []

    patches.setattr(SQSBackend, "receive_message", patient)


def drop_polls() -> None:
    """Whoever waits for messages is dead."""
    global _generation
    _generation += 1
