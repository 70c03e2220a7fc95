"""Stands for Java and the MultiLangDaemon, which do not speak with moto: reads a stream with one shard from its
beginning, by the properties file that the agent wrote, and plays the daemon's side of the protocol with the courier.

What the real daemon does is tested in tests/kinesis. Called as `java` is: `-version`, or with --properties-file.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def installed(folder: Path) -> dict[str, str]:
    """The environment in which the agent finds this program as its Java, and jars beside it."""
    java = folder / "jre" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" "$@"\n')
    java.chmod(0o755)
    jars = folder / "packages" / "amazon_kclpy" / "jars"
    jars.mkdir(parents=True)
    (jars.parent / "__init__.py").write_text("")
    (jars / "amazon-kinesis-client-multilang-3.1.3.jar").write_bytes(b"a jar")
    packages = os.pathsep.join(filter(None, (str(folder / "packages"), os.environ.get("PYTHONPATH"))))
    return {"JAVA_HOME": str(folder / "jre"), "PYTHONPATH": packages}


class Child:
    """A courier."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, message: dict[str, Any]) -> None:
        """Until it says that it is done; its checkpoints succeed."""
        self._say(message)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line) if line.strip() else {}
            if answer.get("action") == "checkpoint":
                self._say({"action": "checkpoint", "sequenceNumber": answer["sequenceNumber"], "error": None})
            elif answer.get("action") == "status":
                return
        sys.exit(1)

    def _say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()


def main(arguments: list[str]) -> None:
    if "-version" in arguments:
        sys.stderr.write('openjdk version "17.0.13" 2024-10-15\n')
        return
    import boto3

    text = Path(arguments[arguments.index("--properties-file") + 1]).read_text()
    properties = dict(line.split(" = ", 1) for line in text.splitlines())
    kinesis = boto3.client("kinesis", region_name=properties["regionName"])
    stream = {"StreamName": properties["streamName"]}
    [shard] = [each["ShardId"] for each in kinesis.list_shards(**stream)["Shards"]]
    at = {**stream, "ShardId": shard, "ShardIteratorType": properties["initialPositionInStream"]}
    iterator = kinesis.get_shard_iterator(**at)["ShardIterator"]
    courier = Child(properties["executableName"].split(" "))
    courier.ask({"action": "initialize", "shardId": shard, "sequenceNumber": "TRIM_HORIZON", "subSequenceNumber": 0})
    while True:
        answer = kinesis.get_records(ShardIterator=iterator)
        iterator = answer["NextShardIterator"]
        records = [
            {
                "action": "record",
                "data": base64.b64encode(each["Data"]).decode(),
                "partitionKey": each["PartitionKey"],
                "sequenceNumber": each["SequenceNumber"],
                "subSequenceNumber": 0,
            }
            for each in answer["Records"]
        ]
        courier.ask({"action": "processRecords", "records": records, "millisBehindLatest": 0})
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1:])
