"""An AWS for whole-agent tests: the demo's, with four VPCs in two accounts, where every record has a number of its own.

The number stands where flow logs have `bytes`, so a collector can say of each record how often it came. After a kill
`in_hand` says which records the dead agent may have sent without anything having noted it: those, and no others, may
come twice.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edfn_agent.demo import traffic
from edfn_agent.demo.aws import CLOUDWATCH, LOG_GROUP, QUEUE, REGIONS, S3, EmbeddedAws, Source
from edfn_agent.demo.traffic import CUSTOM
from edfn_agent.inputs.event_ids import MINUTE, event_id
from edfn_agent.inputs.notifications import parse
from edfn_agent.inputs.sent import _digest

ACCOUNTS = ("111111111111", "222222222222")
VISIBILITY = 5
"""Seconds until what a killed agent had in hand is seen again."""

_exclusive = threading.Lock()


class Cloud(EmbeddedAws):
    """moto, and everything that was ever written to it."""

    def __init__(self) -> None:
        super().__init__()
        _one_receiver_at_a_time()
        shop, office, lab = traffic.vpcs()
        edge = traffic._vpc(4, "edge", ACCOUNTS[1], REGIONS[0], "10.4.0.0/16", CUSTOM, ("lb-1", "lb-2"))
        for account in ACCOUNTS:
            for region in REGIONS:
                self._remove_default_vpc(account, region)
        ways = ((shop, S3), (lab, S3), (office, CLOUDWATCH), (edge, CLOUDWATCH))
        self.sources = [self._seed(vpc, way) for vpc, way in ways]
        self.shop, self.lab, self.office, self.edge = self.sources
        for source in (self.shop, self.lab):
            self.set_queue(source, VisibilityTimeout=str(VISIBILITY), RedrivePolicy="")
        self.written = 0  # the number of the newest record; the first is 1
        self.idle = 0  # NODATA and SKIPDATA rows
        self.refused = ""  # the account whose role nobody may assume
        _refuse(self)
        self._objects_of: dict[str, list[range]] = {}  # key -> numbers
        self._random = random.Random(20)
        self._templates: dict[str, list[dict[str, str]]] = {}

    # -- between tests

    def clean(self) -> None:
        """Nothing waits in a queue or a log group any more, and numbers begin again."""
        for source in (self.shop, self.lab):
            queue = self.queue(source)
            queue._messages.clear()
            queue.pending_messages.clear()
            queue.deleted_messages.clear()
        for source in (self.office, self.edge):
            self.delete_group(source)
            self._log_group(source.vpc)
        self.written = self.idle = 0
        self._objects_of.clear()

    def delete_group(self, source: Source) -> None:
        logs = self.client(source.vpc.account_id, source.vpc.region, "logs")
        logs.delete_log_group(logGroupName=LOG_GROUP)

    # -- traffic

    def lines(self, source: Source, count: int, idle: bool = True) -> list[str]:
        """So many flow records, numbered on from the last one, with NODATA rows between."""
        vpc, rng = source.vpc, self._random
        flows = self._templates.setdefault(vpc.vpc_id, [traffic._flow(vpc, rng, 0) for _ in range(200)])
        now = int(time.time())
        found = []
        for number in range(self.written + 1, self.written + count + 1):
            values = flows[number % len(flows)]
            values |= {"bytes": str(number), "packets": "1", "start": str(now - 20), "end": str(now - 5)}
            found.append(" ".join(values.get(name, "-") for name in vpc.layout.names))
            if idle and number % 25 == 7:
                found.append(traffic._line(vpc, traffic._idle(vpc, rng, now, "NODATA")))
                self.idle += 1
        self.written += count
        return found

    def put(self, source: Source, count: int, idle: bool = True) -> str:
        """One object with so many new records; its key."""
        first = self.written + 1
        body = gzip.compress(
            "\n".join([" ".join(source.vpc.layout.names), *self.lines(source, count, idle), ""]).encode(), 1
        )
        key = self._key(source)
        self._objects_of.setdefault(key, []).append(range(first, self.written + 1))
        self.put_body(source, key, body)
        return key

    def put_body(self, source: Source, key: str, body: bytes) -> None:
        self.client(source.vpc.account_id, source.vpc.region, "s3").put_object(Bucket=source.place, Key=key, Body=body)

    def _key(self, source: Source) -> str:
        vpc = source.vpc
        self._objects += 1
        return (
            f"AWSLogs/{vpc.account_id}/vpcflowlogs/{vpc.region}/{time.strftime('%Y/%m/%d')}/"
            f"{vpc.account_id}_vpcflowlogs_{vpc.region}_{source.flow_log_id}_20260101T0000Z_{self._objects:08x}.log.gz"
        )

    def log(self, source: Source, count: int, idle: bool = True) -> None:
        """So many new records as log events, spread over the streams of the interfaces."""
        vpc = source.vpc
        logs = self.client(vpc.account_id, vpc.region, "logs")
        streams: dict[str, list[str]] = {}
        place = vpc.layout.names.index("interface-id")
        for line in self.lines(source, count, idle):
            streams.setdefault(line.split(" ")[place], []).append(line)
        now = int(time.time() * 1000)
        for interface, lines in streams.items():
            for part in traffic.chunks(lines, 5000):
                events = [{"timestamp": now, "message": line} for line in part]
                logs.put_log_events(logGroupName=source.place, logStreamName=f"{interface}-all", logEvents=events)

    def write(self, count: int, per_delivery: int = 200) -> None:
        """Over all four sources, in turn."""
        left, number = count, 0
        while left:
            source, part = self.sources[number % 4], min(left, per_delivery)
            (self.put if source.way == S3 else self.log)(source, part)
            left, number = left - part, number + 1

    # -- looking in

    def queue(self, source: Source) -> Any:
        from moto.backends import get_backend

        return get_backend("sqs")[source.vpc.account_id][source.vpc.region].get_queue(QUEUE)

    def set_queue(self, source: Source, **attributes: str) -> None:
        sqs = self.client(source.vpc.account_id, source.vpc.region, "sqs")
        url = sqs.get_queue_url(QueueName=QUEUE)["QueueUrl"]
        sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)

    def queued(self, source: Source | None = None) -> int:
        """Messages not deleted, s3:TestEvent apart."""
        sources = [source] if source is not None else [self.shop, self.lab]
        return sum(bool(parse(message.body).objects) for each in sources for message in self._messages(each))

    def _messages(self, source: Source) -> Iterable[Any]:
        return list(self.queue(source)._messages)

    def visible(self, source: Source) -> int:
        return len(self.queue(source).messages)

    def show_again(self, source: Source) -> None:
        """Messages that were given back with a pause (longer than any is held) are to be had now."""
        held = (time.time() + VISIBILITY + 1) * 1000
        for message in self._messages(source):
            if message.visible_at > held:
                message.visible_at = 0

    def in_hand(self, state: Path) -> set[int]:
        """Numbers of the records that no agent is known to have sent: in a queue and not marked as sent, or log
        events behind no cursor. What of them has been received already is what the dead agent had in flight."""
        with sqlite3.connect(f"file:{state / 'state.sqlite3'}", timeout=60, uri=True) as db:
            seen = {key for (key,) in db.execute("SELECT key FROM seen WHERE input = 's3'")}
            cursors = db.execute("SELECT input, key, value FROM cursor").fetchall()
        found: set[int] = set()
        for source in (self.shop, self.lab):
            for message in self._messages(source):
                for ref in parse(message.body).objects:
                    if _digest(ref.identity) not in seen:
                        for numbers in self._objects_of.get(ref.key, ()):
                            found.update(numbers)
        for source in (self.office, self.edge):
            found |= self._events_in_hand(source, cursors)
        return found

    def _events_in_hand(self, source: Source, cursors: Sequence[tuple[str, str, str]]) -> set[int]:
        from moto.backends import get_backend

        vpc = source.vpc
        name = f"cloudwatch_logs:arn:aws:logs:{vpc.region}:{vpc.account_id}:log-group:{source.place}"
        rows = {key: json.loads(value) for input, key, value in cursors if input == name}
        floor = rows.pop("cursor", {"floor": 0})["floor"]
        done: set[int] = set()
        for text in rows.values():
            done.update(np.frombuffer(base64.b64decode(text), dtype="<u8").tolist())
        place = vpc.layout.names.index("bytes")
        found = set()
        group = get_backend("logs")[vpc.account_id][vpc.region].groups[source.place]
        for stream in group.streams.values():
            for event in stream.events:
                if event.timestamp // MINUTE < floor // MINUTE:
                    continue
                number = event.message.split(" ")[place]
                if number == "-" or event.timestamp < floor:
                    continue
                if event_id(stream.log_stream_name, event.timestamp, str(event.event_id)) not in done:
                    found.add(int(number))
        return found


_patched = False


def _one_receiver_at_a_time() -> None:
    """moto gives one message to two receivers that ask at the same moment; SQS hardly ever does. And where SQS notices
    that a receiver is gone, moto's long poll goes on for 20 s and takes a message for the dead: here it looks in
    between, and `drop_polls` ends it."""
    global _patched
    from moto.sqs.models import SQSBackend

    if _patched:
        return
    _patched = True
    receive = SQSBackend.receive_message

    def patient(self: Any, queue_name: str, count: int, wait: int, visibility: int, names: Any = None) -> Any:
        end, generation = time.monotonic() + wait, _generation
        while generation == _generation:
            with _exclusive:
                found = receive(self, queue_name, count, 0, visibility, names)
            if found or time.monotonic() >= end:
                return found
            time.sleep(0.03)
        return []

    SQSBackend.receive_message = patient


def _refuse(cloud: Cloud) -> None:
    """moto lets everyone assume every role, of every account."""
    from moto.core.exceptions import JsonRESTError
    from moto.sts.models import STSBackend

    assume = STSBackend.assume_role

    def checked(self: Any, *arguments: Any, **named: Any) -> Any:
        role = str(named.get("role_arn", ""))
        if cloud.refused and cloud.refused in role:
            error = JsonRESTError("AccessDenied", f"User is not authorized to perform sts:AssumeRole on {role}")
            error.code = 403
            raise error
        return assume(self, *arguments, **named)

    STSBackend.assume_role = checked


_generation = 0


def drop_polls() -> None:
    """Whoever polled is dead."""
    global _generation
    _generation += 1
