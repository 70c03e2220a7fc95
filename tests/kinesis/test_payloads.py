"""Everything that a stream may carry, through the real daemon and the whole agent, compared field by field.

One stream that three accounts' log groups are subscribed to, read from its beginning; beside it one that is read from
LATEST on by an application that never ran.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from edfn_agent.formats.layout import DEFAULT, Layout
from edfn_agent.state import FILE_NAME
from tests.paths.agent import Agent, Collector, compare, free_port, until
from tests.paths.cloud import BANK, HOME, REGION, SHOP, STRANGER, Cloud, Watched
from tests.paths.shapes import CONTROL, CUSTOM, NAMELESS, REVERSED, Traffic, envelope, key, members, with_header

from .aggregated import aggregated
from .conftest import client
from .installation import PROGRAM, children, command_of

pytestmark = pytest.mark.slow

STREAM, LATE = "central", "late"
TRAIL = ['{"eventVersion":"1.08","eventSource":"ec2.amazonaws.com"}', "START RequestId: 1", "plain words of a program"]
FIRST_SHARD = ("0", "1", "12345678901234567890")
"""Hash keys of the first of two shards."""


class Reader(Agent):
    """The agent, with KCL's clocks set short."""

    def command(self, *words: str) -> list[str]:
        return [sys.executable, str(PROGRAM), *words, "-c", str(self.path)]

    def leases(self, stream: str) -> int:
        return int(self.metric("edfn_kinesis_leases", f"stream/{stream}"))

    def has_noted(self, stream: str) -> bool:
        """Whether it knows how far the stream is exported."""
        with closing(sqlite3.connect(f"file:{self.path.parent}/state/{FILE_NAME}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT count(*) FROM cursor WHERE input LIKE ?", (f"kinesis:%:stream/{stream}",))
            return bool(found.fetchone()[0])

    def courier(self, stream: str) -> int:
        """One of a stream's."""
        assert self.process is not None
        for daemon in children(self.process.pid):
            if f".{stream}.properties".encode() in command_of(daemon):
                return next(each for each in children(daemon) if b"courier.py" in command_of(each))
        raise AssertionError(f"{stream} has no daemon")


@dataclass
class Site:
    """Who writes to the stream, what was written, and what must come of it."""

    cloud: Cloud
    kinesis: Any
    traffic: Traffic = field(default_factory=Traffic)
    layouts: list[dict[str, str]] = field(default_factory=list)
    passed_over: Traffic = field(default_factory=lambda: Traffic(number=10_000))
    """Of the same VPCs by other ways: not exported as long as the stream is read."""
    shop: Watched | None = None
    rubbish: int = 0
    others: int = 0  # events of log groups that hold no flow logs

    def subscribed(self, name: str, account: str, layout: Layout, group: str, destination: str) -> Watched:
        """A VPC whose flow log goes to a log group of its account that is subscribed to the stream."""
        vpc = self.cloud.vpc(name, account)
        self.cloud.log_group(account, group, destination)
        self.cloud.flow_log(vpc, layout, "cloud-watch-logs", group)
        return vpc

    def put(self, data: bytes, hash_key: str = "", stream: str = STREAM) -> None:
        more = {"ExplicitHashKey": hash_key} if hash_key else {}
        self.kinesis.put_record(StreamName=stream, Data=data, PartitionKey=str(self.traffic.number), **more)


def lay(site: Site) -> None:
    """All of it, before the agent starts."""
    cloud, lines = site.cloud, site.traffic.lines
    cloud.at("kinesis").create_stream(StreamName=STREAM, ShardCount=2)  # moto wants to know what is subscribed
    arn = f"arn:aws:kinesis:{REGION}:{HOME}:stream/{STREAM}"
    destination = cloud.destination("flows", arn)
    home = site.subscribed("home", HOME, NAMELESS, "/home", arn)
    shop = site.subscribed("shop", SHOP, REVERSED, "/flows", destination)
    site.shop = shop
    bank = site.subscribed("bank", BANK, CUSTOM, "/flows", destination)
    stranger = Watched(STRANGER, "vpc-0abcdef0123456789", "vpc-0abcdef0123456789", "eni-0abcdef0123456789")
    site.layouts.append(
        {
            "log_group": f"arn:aws:logs:{REGION}:{STRANGER}:log-group:/flows",
            "log_format": " ".join(f"${{{name}}}" for name in CUSTOM.names),
        }
    )

    site.put(gzip.compress(CONTROL))
    # One group name, three accounts: each has its own layout, VPC and exporter.
    site.put(members(envelope(SHOP, "/flows", "eni-all", lines("one account", shop, REVERSED))))
    site.put(members(envelope(BANK, "/flows", "eni-all", lines("another account", bank, CUSTOM))))
    site.put(members(envelope(STRANGER, "/flows", "eni-all", lines("a stranger", stranger, CUSTOM))))
    # These say neither VPC nor interface: the log group does.
    site.put(members(envelope(HOME, "/home", "eni-all", lines("nameless", home, NAMELESS))))
    # Several envelopes in one record: gzip members, one member, none.
    several = [
        [
            envelope(SHOP, "/flows", "eni-all", lines(f"several {n}", shop, REVERSED)),
            CONTROL,
            envelope(BANK, "/flows", "eni-all", lines(f"several {n}", bank, CUSTOM)),
        ]
        for n in range(3)
    ]
    site.put(members(*several[0]))
    site.put(gzip.compress(b"\n".join(several[1])))
    site.put(b"".join(several[2]))
    # Lines without an envelope: with a header line; without one they are of a layout of the stream's flow logs.
    site.put(with_header(lines("with a header", bank, DEFAULT), DEFAULT))
    site.put("\n".join([*lines("plain", shop, REVERSED), *lines("plain", bank, CUSTOM)]).encode())
    # The Producer Library's: hash keys of their own, or those of their partition keys; rubbish among them.
    first, second, third = (
        members(envelope(SHOP, "/flows", "eni-all", lines("aggregated", shop, REVERSED))) for _ in range(3)
    )
    rubbish = ("k2", FIRST_SHARD[1], b"rubbish")
    users = [("k1", FIRST_SHARD[0], first), rubbish, ("k1", FIRST_SHARD[2], second), ("k2", FIRST_SHARD[1], third)]
    site.put(aggregated(users), FIRST_SHARD[0])
    whole = lines("aggregated", bank, CUSTOM)
    site.put(aggregated([("key", None, line.encode()) for line in whole]), _hash_of("key"))
    # What nobody can read.
    damaged = bytearray(aggregated([("k", FIRST_SHARD[0], b"never seen")]))
    damaged[-1] ^= 1
    site.put(bytes(damaged))
    site.put(b"\x1f\x8b damaged gzip")
    site.put(bytes(range(256)))
    site.rubbish = 4
    # What is no flow log, alone and in good company.
    site.put(members(envelope(SHOP, "/trail", "s", TRAIL)))
    site.put(
        members(envelope(SHOP, "/trail", "s", TRAIL), envelope(SHOP, "/flows", "s", lines("mixed", shop, REVERSED)))
    )
    site.others = 2 * len(TRAIL)
    # The same VPCs' traffic by other ways: S3's is counted and not exported, the log group is not read.
    flow_log = cloud.flow_log(shop, DEFAULT, "s3", "arn:aws:s3:::flows")
    elsewhere = site.passed_over.lines("elsewhere", shop, DEFAULT)
    cloud.put("flows", key(SHOP, flow_log), with_header(elsewhere, DEFAULT))
    cloud.log(HOME, "/home", "eni-all", site.passed_over.lines("not read", home, NAMELESS))
    # The other stream: only what comes later is read.
    for line in lines("too early", shop, DEFAULT, refused=True):
        site.put(line.encode(), stream=LATE)


def _hash_of(partition_key: str) -> str:
    return str(int(hashlib.md5(partition_key.encode()).hexdigest(), 16))


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    yield made
    made.close()


def test_everything_that_a_stream_may_carry(cloud: Cloud, aws: str, tmp_path: Path) -> None:
    kinesis = client("kinesis", aws, HOME)
    site = Site(cloud, kinesis)
    kinesis.create_stream(StreamName=STREAM, ShardCount=2)
    kinesis.create_stream(StreamName=LATE, ShardCount=1)
    cloud.bucket("flows", "flows")
    lay(site)
    streams = [
        {"arn": f"arn:aws:kinesis:{REGION}:{HOME}:stream/{STREAM}", "idle_time": 0.25},
        {"arn": f"arn:aws:kinesis:{REGION}:{HOME}:stream/{LATE}", "idle_time": 0.25, "initial_position": "LATEST"},
    ]
    inputs = {
        "kinesis": {"streams": streams, "layouts": site.layouts, "shutdown_grace": "5s"},
        "cloudwatch_logs": {"interval": "1s"},
        "s3": {},
    }
    collector = Collector()
    agent = Reader(tmp_path, cloud, collector, inputs, free_port())
    configuration = yaml.safe_load(agent.path.read_text())
    configuration["aws"]["endpoints"] |= dict.fromkeys(("kinesis", "dynamodb", "cloudwatch"), aws)
    agent.path.write_text(yaml.safe_dump(configuration))
    agent.start()
    try:
        expected = site.traffic.expected
        wanted = {number for records in expected.values() for number in records}
        until(lambda: wanted <= set(collector.records), lambda: wanted - set(collector.records), 90)

        # A dead courier is noticed without a record, and nothing comes again.
        until(lambda: agent.metric("edfn_deliveries_in_flight", '"kinesis"') == 0)
        os.kill(agent.courier(STREAM), signal.SIGKILL)
        until(lambda: agent.metric("edfn_kinesis_daemon_restarts_total", f"stream/{STREAM}") == 1)
        until(lambda: agent.leases(STREAM) == 2)

        until(lambda: agent.leases(LATE) == 1, lambda: agent.log, 90)
        for line in site.traffic.lines("late", site.shop, DEFAULT):
            site.put(line.encode(), stream=LATE)
        wanted |= set(expected["late"])
        until(lambda: wanted <= set(collector.records), lambda: wanted - set(collector.records))
        for records in expected.values():
            compare(collector, records)
        assert set(collector.records) == wanted
        assert collector.errors == 0
        assert agent.metric("edfn_deliveries_total", '"kinesis"', 'outcome="quarantined"') == site.rubbish
        assert agent.metric("edfn_records_skipped_total", 'status="other_log_group"') == site.others
        shadowed = len(site.passed_over.expected["elsewhere"])
        skipped = lambda: agent.metric("edfn_records_skipped_total", 'status="other_source"')  # noqa: E731
        until(lambda: skipped() == shadowed, lambda: (skipped(), agent.log))
        assert agent.metric("edfn_records_exported_total") == len(wanted)
        assert not agent.metric("edfn_deliveries_total", '"cloudwatch_logs"')

        # The stream goes. What was left to it, or was not looked at, since it was last read is made up for.
        until(lambda: agent.has_noted(STREAM))
        kinesis.delete_stream(StreamName=STREAM)
        expected |= site.passed_over.expected
        wanted |= {number for records in site.passed_over.expected.values() for number in records}
        until(lambda: wanted <= set(collector.records), lambda: (wanted - set(collector.records), agent.log[-4000:]))
        for records in expected.values():
            compare(collector, records)
        assert set(collector.records) == wanted
    finally:
        status = agent.stop()
        collector.close()
    assert status == 0, agent.log
