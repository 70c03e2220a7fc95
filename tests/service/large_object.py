"""An object as large as one likes, made up while it is read: lines of one length, so that any range of it is known.

In: how many records, and after how many octets a connection breaks. Out: a rule for the fault proxy that answers GET
for the object's key instead of the emulator, and what was asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from edfn_agent.demo.aws import QUEUE
from tests.inputs.faults import Fault, Request, Streamed
from tests.service.aws import Cloud, Source

BLOCK = 4096
"""Lines made at a time."""


class LargeObject:
    def __init__(self, source: Source, records: int, first: int, now: int, broken_after: int) -> None:
        names = source.vpc.layout.names
        values = {
            "version": "2", "account-id": source.vpc.account_id, "vpc-id": source.vpc.vpc_id,
            "interface-id": source.vpc.interfaces[0].interface_id, "srcaddr": str(source.vpc.interfaces[0].address),
            "dstaddr": "198.51.100.7", "srcport": "40000", "dstport": "443", "protocol": "6", "packets": "1",
            "bytes": "%010d", "start": str(now - 20), "end": str(now - 5), "action": "ACCEPT", "log-status": "OK",
        }  # fmt: skip
        self._line = " ".join(values.get(name, "-") for name in names) + "\n"
        self._header = (" ".join(names) + "\n").encode()
        self._width = len(self._line % 0)
        self._first, self._broken_after = first, broken_after
        self.size = len(self._header) + records * self._width
        self.key = f"AWSLogs/{source.vpc.account_id}/large.log"
        self._source = source
        self.ranges: list[int] = []  # where each reading began

    def announce(self, cloud: Cloud) -> None:
        """As S3 would."""
        vpc = self._source.vpc
        sqs = cloud.client(vpc.account_id, vpc.region, "sqs")
        about = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "awsRegion": vpc.region,
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": self._source.place}, "object": {"key": self.key, "size": self.size, "eTag": "e"}},
        }
        url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"Records": [about]}))

    def rule(self, request: Request) -> Fault | None:
        if request.method != "GET" or not request.path.partition("?")[0].endswith(self.key):
            return None
        start = int(found.group(1)) if (found := re.match(r"bytes=(\d+)-", request.headers.get("range", ""))) else 0
        self.ranges.append(start)
        return Streamed(self.size, start, self._octets(start))

    def _octets(self, start: int) -> Iterator[bytes]:
        """From `start` on, until the connection breaks."""
        end = min(self.size, start + self._broken_after)
        if start < len(self._header):
            yield self._header[start:end]
            start = len(self._header)
        while start < end:
            line, skip = divmod(start - len(self._header), self._width)
            number = self._first + line
            block = (self._line * BLOCK % tuple(range(number, number + BLOCK))).encode()
            part = block[skip : skip + min(end, self.size) - start]
            yield part
            start += len(part)


def peak(pid: int) -> int:
    """The most octets of memory a process ever had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) << 10
