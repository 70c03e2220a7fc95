"""Kinesis for the demo: ministack, in a process of its own on loopback; moto is not enough for Amazon's client library.

In: the VPC whose log group is subscribed to the stream. Out: the stream, and records in it as a subscription filter
writes them (gzip, CONTROL_MESSAGE and DATA_MESSAGE). Nothing outside this machine is spoken to.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3

from edfn_agent.demo.traffic import DemoVpc, chunks
from edfn_agent.inputs.kinesis import java, launch
from edfn_agent.inputs.kinesis.input import worker_id

STREAM = "flow-logs"
SHARDS = 2
SERVICES = ("kinesis", "dynamodb", "cloudwatch")
"""What the client library speaks to."""
EVENTS = 500  # in one record; CloudWatch Logs sends dozens to hundreds
START_TIME = 30.0


def lacking() -> str:
    """What is not there that Kinesis needs, and how to get it; empty when all is."""
    try:
        java.find()
    except java.Missing as missing:
        return str(missing)
    if any(importlib.util.find_spec(name) is None for name in ("ministack", "cbor2")):
        return "The demo's Kinesis needs ministack and cbor2. Install them with: pip install 'edfn-agent[demo]'"
    return ""


class EmbeddedKinesis:
    """One account's Kinesis, with the DynamoDB and CloudWatch that the client library wants."""

    def __init__(self, account: str, region: str, folder: Path) -> None:
        self.account, self.region = account, region
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        own = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "MINISTACK_ACCOUNT_ID": account}
        own |= {"SERVICES": "kinesis,dynamodb,cloudwatch,monitoring", "TMPDIR": str(folder)}
        self._log = folder / "ministack.log"
        self._sent = 0
        # Ends with this process, however that ends.
        launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid())]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*launcher, sys.executable, "-m", "ministack"],
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def arn(self) -> str:
        return f"arn:aws:kinesis:{self.region}:{self.account}:stream/{STREAM}"

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            self.region,
            endpoint_url=self.url,
            aws_access_key_id=self.account,
            aws_secret_access_key="demo",
        )

    def make(self, state: Path) -> None:
        """The stream, with leases held by the agent whose state directory this is, as after any earlier run.

        The first run of an application waits: at random up to half a minute before it makes its leases, so that many
        that start at once do not all do so. That is no sight for a demo.
        """
        kinesis, dynamodb = self.client("kinesis"), self.client("dynamodb")
        kinesis.create_stream(StreamName=STREAM, ShardCount=SHARDS)
        kinesis.get_waiter("stream_exists").wait(StreamName=STREAM, WaiterConfig={"Delay": 1})
        directory = state / "kinesis"
        directory.mkdir(mode=0o700, parents=True)
        table = f"edfn-agent-{STREAM}"
        dynamodb.create_table(
            TableName=table,
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for shard in kinesis.list_shards(StreamName=STREAM)["Shards"]:
            lease = {
                "leaseKey": {"S": shard["ShardId"]},
                "leaseOwner": {"S": worker_id(directory)},
                "checkpoint": {"S": "TRIM_HORIZON"},
                "checkpointSubSequenceNumber": {"N": "0"},
                "leaseCounter": {"N": "0"},
                "ownerSwitchesSinceCheckpoint": {"N": "0"},
                "startingHashKey": {"S": shard["HashKeyRange"]["StartingHashKey"]},
                "endingHashKey": {"S": shard["HashKeyRange"]["EndingHashKey"]},
            }
            dynamodb.put_item(TableName=table, Item=lease)
        text = "CWL CONTROL MESSAGE: Checking health of destination Kinesis stream."
        self._put([_envelope("CONTROL_MESSAGE", "CloudwatchLogs", "", "", [text])])

    def put_events(self, vpc: DemoVpc, group: str, lines: list[str]) -> None:
        """Flow-log lines of a log group, as its subscription filter sends them: an envelope for each log stream."""
        envelopes = []
        for interface in vpc.interfaces:
            stream = f"{interface.interface_id}-all"
            own = [line for line in lines if interface.interface_id in line]
            envelopes += [
                _envelope("DATA_MESSAGE", vpc.account_id, group, stream, part) for part in chunks(own, EVENTS)
            ]
        for part in range(0, len(envelopes), 100):
            self._put(envelopes[part : part + 100])

    def _put(self, envelopes: list[bytes]) -> None:
        # AWS takes random keys; with these, too, both shards get some.
        records = [{"Data": data, "PartitionKey": f"{self._sent + n}"} for n, data in enumerate(envelopes)]
        self._sent += len(records)
        answer = self.client("kinesis").put_records(StreamName=STREAM, Records=records)
        if answer["FailedRecordCount"]:
            raise RuntimeError(f"{answer['FailedRecordCount']} records were not taken by the demo's Kinesis")

    def _wait(self) -> None:
        kinesis = self.client("kinesis")
        end = time.monotonic() + START_TIME
        while True:
            try:
                kinesis.list_streams()
                return
            except Exception as error:
                if self._process.poll() is not None or time.monotonic() > end:
                    said = self._log.read_text(errors="replace")[-500:]
                    raise RuntimeError(f"the demo's Kinesis does not start: {error}\n{said}") from error
                time.sleep(0.1)


def _envelope(kind: str, owner: str, group: str, stream: str, messages: list[str]) -> bytes:
    now = int(time.time() * 1000)
    envelope = {
        "messageType": kind,
        "owner": owner,
        "logGroup": group,
        "logStream": stream,
        "subscriptionFilters": ["edfn-agent"] if group else [],
        "logEvents": [{"id": f"{n}", "timestamp": now, "message": message} for n, message in enumerate(messages)],
    }
    return gzip.compress(json.dumps(envelope).encode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
