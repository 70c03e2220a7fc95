"""An installation of the whole agent that reads Kinesis, and a stream with numbered flow records to read.

What arrives is counted by number at an IPFIX collector (tests/service/collector.py): none may be missing, and none may
be there twice unless something was killed.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edfn_agent.inputs.kinesis.input import worker_id
from tests.service.collector import Collector
from tests.service.service import Service, merged

from .conftest import ACCOUNT, client, until

PROGRAM = Path(__file__).with_name("agent_process.py")
REGION = "us-east-1"
EVENTS = 50
"""Flow records in one Kinesis record."""


def flow(number: int) -> str:
    """A flow-log line whose number is its octets."""
    return (
        f"2 {ACCOUNT} eni-0a1b2c3d4e5f60718 10.0.0.1 10.0.1.2 443 49152 6 10 {number} 1768471200 1768471260 ACCEPT OK"
    )


def subscription_record(numbers: range) -> bytes:
    events = [{"id": str(number), "timestamp": 1768471200000, "message": flow(number)} for number in numbers]
    envelope = {
        "messageType": "DATA_MESSAGE",
        "owner": ACCOUNT,
        "logGroup": "flow-logs",
        "logStream": "eni-0a1b2c3d4e5f60718-all",
        "subscriptionFilters": ["edfn"],
        "logEvents": events,
    }
    return gzip.compress(json.dumps(envelope).encode(), 1)


class Stream:
    """A stream, what was put into it, and the lease table made ready.

    KCL waits up to half a minute before it makes the leases of a new application; with the rows already there (as after
    any earlier run) it starts at once.
    """

    def __init__(
        self, name: str, shards: int, kinesis: str, dynamodb: str, account: str = ACCOUNT, application: str = ""
    ) -> None:
        self.name, self.account, self.application = name, account, application or f"edfn-agent-{name}"
        self.kinesis = client("kinesis", kinesis, account)
        self.dynamodb = client("dynamodb", dynamodb, account)
        self.written = 0
        self._last: dict[str, str] = {}  # shard -> sequence number of its newest record
        self.kinesis.create_stream(StreamName=name, ShardCount=shards)
        self.active()

    def active(self) -> None:
        describe = self.kinesis.describe_stream_summary
        until(lambda: describe(StreamName=self.name)["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE")

    @property
    def arn(self) -> str:
        return f"arn:aws:kinesis:{REGION}:{self.account}:stream/{self.name}"

    def open_shards(self) -> list[dict[str, Any]]:
        shards = self.kinesis.list_shards(StreamName=self.name)["Shards"]
        return [each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]

    def put(self, flows: int) -> None:
        first = self.written + 1
        self.written += flows
        records = [
            {"Data": subscription_record(range(number, number + EVENTS)), "PartitionKey": str(number)}
            for number in range(first, self.written + 1, EVENTS)
        ]
        for start in range(0, len(records), 100):
            answer = self.kinesis.put_records(StreamName=self.name, Records=records[start : start + 100])
            assert answer["FailedRecordCount"] == 0
            self._last |= {each["ShardId"]: each["SequenceNumber"] for each in answer["Records"]}

    def prepare_leases(self, state: Path) -> None:
        """As if the installation with that state had held them all before."""
        directory = state / "kinesis"
        directory.mkdir(parents=True, exist_ok=True)
        self.dynamodb.create_table(
            TableName=self.application,
            KeySchema=[{"AttributeName": "leaseKey", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "leaseKey", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for shard in self.open_shards():
            hash_range = shard["HashKeyRange"]
            lease = {
                "leaseKey": {"S": shard["ShardId"]},
                "checkpoint": {"S": "TRIM_HORIZON"},
                "checkpointSubSequenceNumber": {"N": "0"},
                "leaseCounter": {"N": "0"},
                "ownerSwitchesSinceCheckpoint": {"N": "0"},
                "startingHashKey": {"S": hash_range["StartingHashKey"]},
                "endingHashKey": {"S": hash_range["EndingHashKey"]},
                "leaseOwner": {"S": worker_id(directory)},
            }
            self.dynamodb.put_item(TableName=self.application, Item=lease)

    def checkpointed(self) -> bool:
        """Whether the lease table says of each shard that its newest record is done."""
        rows = self.dynamodb.scan(TableName=self.application)["Items"]
        done = {row["leaseKey"]["S"]: row["checkpoint"]["S"] for row in rows if "checkpoint" in row}
        return all(done.get(shard) in (last, "SHARD_END") for shard, last in self._last.items())


class Installation(Service):
    """One `edfn-agent run`: its folder, and the Java process and couriers that belong to it."""

    def __init__(
        self,
        folder: Path,
        server: str,
        kinesis: str,
        collector: Collector,
        streams: Sequence[dict[str, Any]],
        changes: dict[str, Any],
    ) -> None:
        """`server` speaks for all of AWS, but `kinesis` for Kinesis."""
        folder.mkdir(exist_ok=True)
        endpoints = {"dynamodb": server, "cloudwatch": server, "kinesis": kinesis}
        own = {
            "aws": {"regions": [REGION], "roles": [], "endpoints": endpoints},
            "ipfix": {"records_per_second": 0},
            "shutdown_timeout": "15s",
        }
        cloud: Any = SimpleNamespace(url=server)
        super().__init__(folder, cloud, [collector], **merged(own, changes))
        self.configuration["inputs"] = {"kinesis": {"shutdown_grace": "5s", "streams": list(streams)}}
        self.configure()
        self.failover = 10
        self.libraries: list[Path] = []  # that go before those of this environment

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(PROGRAM), *words, "-c", str(self.path)]

    def spawn(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(self.command("run"), env=self.environment(), stderr=log, stdout=log)

    def environment(self) -> dict[str, str]:
        """Emulators take a 12-digit access key for the account."""
        own = {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "x", "FAILOVER": str(self.failover)}
        own |= {"AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "250"}
        own["PYTHONPATH"] = os.pathsep.join(map(str, [*self.libraries, PROGRAM.parents[2]]))
        own |= dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
        return {**os.environ, **own}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), env=self.environment(), capture_output=True, text=True, timeout=60, check=False
        )

    def daemons(self) -> list[int]:
        return [pid for pid in children(self.pid) if b"MultiLangDaemon" in command_of(pid)]

    def daemon(self) -> int:
        """The one Java process, as soon as there is one."""
        return int(until(self.daemons, what=self.tail)[0])

    def couriers(self) -> list[int]:
        return [pid for daemon in self.daemons() for pid in children(daemon) if b"courier.py" in command_of(pid)]

    def leases(self) -> int:
        return int(self.metric("edfn_kinesis_leases"))

    def states(self) -> list[str]:
        return re.findall(r'edfn_kinesis_daemon_state\{state="(\w+)"', self.get("/metrics")[1])

    def troubles(self) -> str:
        """What health says of its sources."""
        return self.get("/readyz")[1]

    def clean_up(self) -> None:
        """Nothing of it is left, whatever the test did."""
        if self.process is None or self.ended:
            return
        daemons = self.daemons()
        self.signal(signal.SIGKILL)
        self.process.wait()
        for daemon in daemons:
            with suppress(ProcessLookupError):
                os.killpg(daemon, signal.SIGKILL)


def children(parent: int) -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _parent(entry) == parent]


def _parent(process: Path) -> int:
    with suppress(OSError):
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    return 0


def command_of(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
