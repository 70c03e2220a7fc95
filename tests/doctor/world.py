"""A small world in moto in which all is well: one account, one region, each way a flow log is read.

shop    flow log -> bucket doctor-logs -> queue (with dead-letter queue and policy)
office  flow log -> log group office, read by the API
lab     flow log -> log group lab -> Kinesis stream lab
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "inventory"))

from organisation import Cloud

from edfn_agent.cli import main
from edfn_agent.setup.agent_policy import LIKE_EDFN

ACCOUNT, REGION = "111111111111", "us-east-1"
BUCKET = "doctor-logs"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:objects"
STREAM = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/lab"
SERVICES = ("ec2", "sts", "iam", "logs", "s3", "sqs", "sns", "events", "kinesis", "firehose", "dynamodb", "kms")

QUEUE_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "s3.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": QUEUE,
            "Condition": {"ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{BUCKET}"}},
        }
    ],
}

ORIGINAL: Mapping[str, Any] = {"Version": "2012-10-17", "Statement": list(LIKE_EDFN)}
"""The policy of the original product, as document 003 has it."""


def without(*actions: str) -> dict[str, Any]:
    """The original policy, less these actions as they are written there."""
    statements = [{**each, "Action": [one for one in each["Action"] if one not in actions]} for each in LIKE_EDFN]
    return {"Version": "2012-10-17", "Statement": statements}


@dataclass
class World:
    cloud: Cloud
    vpcs: dict[str, str]
    flow_logs: dict[str, str]
    key: tuple[str, str]

    def client(self, service: str) -> Any:
        return self.cloud.client(ACCOUNT, REGION, service)

    def allow(self, policy: Mapping[str, Any]) -> None:
        """What the agent may do from now on."""
        iam = self.client("iam")
        iam.put_user_policy(UserName="edfn", PolicyName="edfn", PolicyDocument=json.dumps(policy))

    def encrypt_queue(self, key: str) -> None:
        """With a key, or with none. moto forgets the queue's policy over it."""
        sqs = self.client("sqs")
        sqs.set_queue_attributes(QueueUrl=self.queue_url, Attributes={"KmsMasterKeyId": key})
        sqs.set_queue_attributes(QueueUrl=self.queue_url, Attributes={"Policy": json.dumps(QUEUE_POLICY)})

    @property
    def queue_url(self) -> str:
        return str(self.client("sqs").get_queue_url(QueueName="objects")["QueueUrl"])


def build(cloud: Cloud) -> World:
    cloud.reset()
    cloud.without_default_vpcs(ACCOUNT)
    vpcs = {
        name: cloud.vpc(ACCOUNT, REGION, name, f"10.{number}.0.0/16")
        for number, name in enumerate(("shop", "office", "lab"), 1)
    }
    _bucket(cloud)
    logs = {
        "shop": cloud.flow_log(
            ACCOUNT, REGION, vpcs["shop"], LogDestinationType="s3", LogDestination=f"arn:aws:s3:::{BUCKET}"
        )
    }
    _stream(cloud)
    for name in ("office", "lab"):
        _group(cloud, name)
        logs[name] = cloud.flow_log(
            ACCOUNT, REGION, vpcs[name], LogDestinationType="cloud-watch-logs", LogGroupName=name
        )
    from moto.backends import get_backend

    backend = get_backend("logs")[ACCOUNT][REGION]
    backend.groups["lab"].put_subscription_filter("to-stream", "", STREAM, "")
    for each in get_backend("ec2")[ACCOUNT][REGION].flow_logs.values():
        each.deliver_logs_status, each.deliver_logs_error_message = "SUCCESS", None  # moto fails those to log groups
    return World(cloud, vpcs, logs, cloud.user(ACCOUNT, "edfn", ORIGINAL))


def _bucket(cloud: Cloud) -> None:
    s3, sqs = cloud.client(ACCOUNT, REGION, "s3"), cloud.client(ACCOUNT, REGION, "sqs")
    sqs.create_queue(QueueName="objects-dead")
    redrive = {"deadLetterTargetArn": f"{QUEUE}-dead", "maxReceiveCount": 5}
    attributes = {"Policy": json.dumps(QUEUE_POLICY), "RedrivePolicy": json.dumps(redrive), "VisibilityTimeout": "300"}
    url = sqs.create_queue(QueueName="objects", Attributes=attributes)["QueueUrl"]
    s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_notification_configuration(
        Bucket=BUCKET,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": QUEUE, "Events": ["s3:ObjectCreated:*"]}]},
    )
    emptied(sqs, url)  # of S3's test message


def emptied(sqs: Any, url: str) -> None:
    while found := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for each in found:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])


def _stream(cloud: Cloud) -> None:
    cloud.client(ACCOUNT, REGION, "kinesis").create_stream(StreamName="lab", ShardCount=1)


def _group(cloud: Cloud, name: str) -> None:
    logs = cloud.client(ACCOUNT, REGION, "logs")
    logs.create_log_group(logGroupName=name)
    logs.create_log_stream(logGroupName=name, logStreamName="eni-1")
    event = {"timestamp": int(time.time() * 1000) - 60_000, "message": "a flow"}
    logs.put_log_events(logGroupName=name, logStreamName="eni-1", logEvents=[event])


def configured(directory: Path, url: str, key: tuple[str, str] | None, **changed: Any) -> Path:
    """A configuration file for the world behind `url`."""
    aws: dict[str, Any] = {"region": REGION, "regions": [REGION], "endpoints": dict.fromkeys(SERVICES, url)}
    if key is not None:
        credentials = directory / "credentials"
        credentials.write_text(f"[main]\naws_access_key_id = {key[0]}\naws_secret_access_key = {key[1]}\n")
        aws["credentials_file"] = str(credentials)
    config: dict[str, Any] = {
        "collectors": ["udp://127.0.0.1:9"],
        "exporters": {"address_mode": "field"},
        "inputs": {"s3": {}, "cloudwatch_logs": {}, "kinesis": {}},
        "state_directory": str(directory / "state"),
        **changed,
    }
    config["aws"] = aws | config.get("aws", {})
    file = directory / "edfn-agent.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    return file


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def checks(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def named(found: Sequence[dict[str, Any]], id: str) -> list[dict[str, Any]]:
    return [each for each in found if each["id"] == id]


def one(found: Sequence[dict[str, Any]], id: str) -> dict[str, Any]:
    some = named(found, id)
    assert len(some) == 1, [id, some]
    return some[0]
