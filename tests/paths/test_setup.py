"""Every `setup` path: made by --apply, read back by `run-now` without a finding, and used: what arrives is exported.

moto delivers nothing from flow logs and nothing behind a CloudWatch Logs destination, so the objects, envelopes and
requests at the end of each path are put there by the test; the events of the Kinesis path it does carry, and another
program plays the daemon of the Kinesis Client Library, which does not speak with moto. It takes a
destination for a filter's target only because `cloud` makes it, forgets DeliverCrossAccountRole, and is spoken to in
plain HTTP, which the buckets of setup refuse: that one statement is taken out of their policies.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError
from click.testing import CliRunner

from edfn_agent.commands.setup import setup
from edfn_agent.formats.layout import Layout
from edfn_agent.inputs.queues import Queue
from tests.firehose.conftest import Firehose

from .agent import Agent, Collector, compare, free_port, until
from .cloud import REGION, Cloud, Watched
from .played_daemon import installed
from .shapes import Traffic, envelope, firehose_key, key, members, messages, parquet, with_header

HUB, SPOKE = "444444444444", "555555555555"
ACCESS_KEY = "a-key-of-twenty-and-more"
INTRODUCTION = "# The agent's configuration to read it:\n"


@dataclass
class Made:
    """What setup made, and what the agent is told of it."""

    cloud: Cloud
    inputs: dict[str, Any] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)
    vpcs: dict[str, Watched] = field(default_factory=dict)
    deliveries: dict[str, Callable[[], None]] = field(default_factory=dict)

    def setup(self, *words: str) -> None:
        where = ("--account", HUB, "--region", REGION, "--assume", f"{SPOKE}=arn:aws:iam::{SPOKE}:role/admin")
        done = CliRunner().invoke(setup, [*words, *where, "--apply", "--yes"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        text = done.stderr.partition(INTRODUCTION)[2].partition("\n#")[0]
        for name, section in ((yaml.safe_load(text) or {}).get("inputs") or {}).items():
            known = self.inputs.setdefault(name, {})
            for setting, value in (section or {}).items():
                known[setting] = known.get(setting, []) + value if isinstance(value, list) else value

    def watch(self, name: str, account: str = HUB) -> tuple[Watched, str]:
        vpc = self.vpcs[name] = self.cloud.vpc(name, account)
        return vpc, f"{account}/{REGION}/{vpc.id}"

    def flow_log(self, watched: Watched) -> tuple[str, Layout]:
        """As it is there: its id and its layout."""
        found = self.cloud.at("ec2", watched.account).describe_flow_logs()["FlowLogs"]
        [mine] = [each for each in found if each["ResourceId"] == watched.id]
        return mine["FlowLogId"], Layout.parse(mine["LogFormat"])

    def put(self, bucket: str, key: str, body: bytes) -> None:
        self.cloud.at("s3", HUB).put_object(Bucket=bucket, Key=key, Body=body)


@pytest.fixture(scope="module")
def made(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("setup")
    for account in (HUB, SPOKE):
        cloud._remove_default_vpc(account, REGION)
    cloud.at("iam", HUB)
    keys = cloud._sessions[HUB].get_credentials()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": cloud.url,
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_SESSION_TOKEN": keys.token,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }.items():
            patch.setenv(name, value)
        yield _all(Made(cloud), folder)


def _all(made: Made, folder: Path) -> Made:
    lines = made.traffic.lines

    def s3() -> None:
        vpc, id = made.watch("s3", SPOKE)
        gateway = made.cloud.gateway("tgw", SPOKE)
        transit = f"{SPOKE}/{REGION}/{gateway.id}"
        made.setup("s3", "--name", "s3", "--bucket", "setup-s3", "--vpc", id, "--transit-gateway", transit)

        def deliver() -> None:
            for watched in (vpc, gateway):
                flow_log, layout = made.flow_log(watched)
                made.put("setup-s3", key(SPOKE, flow_log), with_header(lines("s3", watched, layout), layout))

        made.deliveries["s3"] = deliver

    def s3_parquet() -> None:
        vpc, id = made.watch("s3-parquet")
        options = ("--parquet", "--hive", "--hourly", "--prefix", "columns", "--kms", "new")
        made.setup("s3", "--name", "parquet", "--bucket", "setup-parquet", "--vpc", id, *options)

        def deliver() -> None:
            flow_log, layout = made.flow_log(vpc)
            name = key(HUB, flow_log, prefix="columns/", hive=True, hourly=True, end="parquet")
            made.put("setup-parquet", name, parquet(lines("s3 parquet", vpc, layout), layout))

        made.deliveries["s3 parquet"] = deliver

    def cloudwatch() -> None:
        vpc, id = made.watch("cloudwatch")
        made.setup("cloudwatch", "--name", "cloudwatch", "--log-group", "/setup/api", "--vpc", id)

        def deliver() -> None:
            _, layout = made.flow_log(vpc)
            made.cloud.log(HUB, "/setup/api", f"{vpc.interface}-all", lines("cloudwatch", vpc, layout))

        made.deliveries["cloudwatch"] = deliver

    def firehose() -> None:
        vpc, id = made.watch("firehose")
        made.setup("firehose", "--name", "firehose", "--bucket", "setup-firehose", "--vpc", id)

        def deliver() -> None:
            _, layout = made.flow_log(vpc)
            body = gzip.compress(messages(lines("firehose", vpc, layout)))
            made.put("setup-firehose", firehose_key("flow-logs/", "firehose", ".gz"), body)

        made.deliveries["firehose"] = deliver

    def firehose_abroad() -> None:
        vpc, id = made.watch("firehose-abroad", SPOKE)
        made.setup("firehose", "--name", "abroad", "--bucket", "setup-abroad", "--vpc", id)

        def deliver() -> None:
            _, layout = made.flow_log(vpc)
            body = gzip.compress(messages(lines("firehose abroad", vpc, layout)))
            made.put("setup-abroad", firehose_key("flow-logs/", "abroad", ".gz"), body)

        made.deliveries["firehose abroad"] = deliver

    def firehose_http() -> None:
        vpc, id = made.watch("firehose-http")
        (folder / "access-key").write_text(ACCESS_KEY + "\n")
        more = ("--url", "https://flows.example.com/", "--access-key-file", str(folder / "access-key"))
        made.setup("firehose-http", "--name", "http", "--bucket", "setup-http", "--vpc", id, *more)
        told = made.inputs["firehose"]
        del told["certificate"], told["key"]  # behind a proxy that ends TLS
        told |= {"listen": f"127.0.0.1:{free_port()}", "access_key_file": str(folder / "access-key")}

        def deliver() -> None:
            _, layout = made.flow_log(vpc)
            stream = f"arn:aws:firehose:{REGION}:{HUB}:deliverystream/http"
            port = int(made.inputs["firehose"]["listen"].rpartition(":")[2])
            records = [messages([line]) for line in lines("firehose-http", vpc, layout)]
            posted = Firehose("127.0.0.1", port, key=ACCESS_KEY).post(records, X_Amz_Firehose_Source_Arn=stream)
            assert posted.status == 200, posted

        made.deliveries["firehose-http"] = deliver

    def central() -> None:
        near, one = made.watch("central-near")
        far, other = made.watch("central-far", SPOKE)
        group = "/setup/central"
        where = ("--bucket", "setup-central", "--log-group", group, "--vpc", one, "--vpc", other)
        made.setup("central", "--name", "central", *where)

        def deliver() -> None:
            parts = [
                envelope(vpc.account, group, f"{vpc.interface}-all", lines("central", vpc, made.flow_log(vpc)[1]))
                for vpc in (near, far)
            ]
            made.put("setup-central", firehose_key("flow-logs/", "central"), members(*parts))

        made.deliveries["central"] = deliver

    def kinesis() -> None:
        vpc, id = made.watch("kinesis")
        gateway = made.cloud.gateway("tgw-kinesis", HUB)
        group = "/setup/kinesis"
        watched = ("--vpc", id, "--transit-gateway", f"{HUB}/{REGION}/{gateway.id}")
        made.setup("kinesis", "--name", "kinesis", "--log-group", group, "--kms", "new", *watched)

        def deliver() -> None:
            """By moto's own subscription."""
            for each in (vpc, gateway):
                made.cloud.log(HUB, group, f"{each.interface}-all", lines("kinesis", each, made.flow_log(each)[1]))

        made.deliveries["kinesis"] = deliver

    def central_kinesis() -> None:
        vpc, id = made.watch("central-kinesis", SPOKE)
        group = "/setup/central-kinesis"
        names = ("--log-group", group, "--destination", "ToKinesis", "--filter", "ToKinesis")
        made.setup("central", "--name", "central-kinesis", *names, "--vpc", id)

        def deliver() -> None:
            body = members(envelope(SPOKE, group, "eni-all", lines("central kinesis", vpc, made.flow_log(vpc)[1])))
            made.cloud.at("kinesis", HUB).put_record(StreamName="central-kinesis", Data=body, PartitionKey="eni")

        made.deliveries["central kinesis"] = deliver

    for each in (
        s3,
        s3_parquet,
        cloudwatch,
        firehose,
        firehose_abroad,
        firehose_http,
        central,
        kinesis,
        central_kinesis,
    ):
        each()
    _allow_plain_http(made.cloud)
    return made


def _allow_plain_http(cloud: Cloud) -> None:
    s3 = cloud.at("s3", HUB)
    for bucket in s3.list_buckets()["Buckets"]:
        try:
            policy = json.loads(s3.get_bucket_policy(Bucket=bucket["Name"])["Policy"])
        except ClientError:
            continue
        policy["Statement"] = [each for each in policy["Statement"] if each["Effect"] == "Allow"]
        if policy["Statement"]:
            s3.put_bucket_policy(Bucket=bucket["Name"], Policy=json.dumps(policy))
        else:
            s3.delete_bucket_policy(Bucket=bucket["Name"])


def agent(made: Made, folder: Path, collector: Collector, inputs: dict[str, Any]) -> Agent:
    return Agent(folder, made.cloud, collector, inputs, free_port(), (HUB, SPOKE), installed(folder))


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


def test_run_now_finds_all_of_it_and_nothing_wrong(made: Made, tmp_path: Path, collector: Collector) -> None:
    """With the configuration that setup printed."""
    status, found = agent(made, tmp_path, collector, made.inputs).run_now()
    assert found["findings"] == []
    assert status == 0
    sources = {row["name"]: row["source"].partition(":")[0] for row in found["vpcs"]}
    assert sources == {
        "s3": "s3",
        "s3-parquet": "s3",
        "cloudwatch": "cloudwatch_logs",
        "firehose": "s3",
        "firehose-abroad": "s3",
        "firehose-http": "firehose",
        "central-near": "s3",
        "central-far": "s3",
        "kinesis": "kinesis",
        "central-kinesis": "kinesis",
    }
    assert not [row for row in found["buckets"] if row["problem"]]
    assert {row["name"]: row["enabled"] for row in found["log_groups"]}["/setup/api"]


def test_run_now_finds_the_same_by_itself(made: Made, tmp_path: Path, collector: Collector) -> None:
    inputs = {"s3": {}, "cloudwatch_logs": {}, "kinesis": {}, "firehose": made.inputs["firehose"]}
    status, found = agent(made, tmp_path, collector, inputs).run_now()
    assert found["findings"] == []
    assert status == 0


def test_the_doctor_finds_nothing_wrong(made: Made, tmp_path: Path, collector: Collector) -> None:
    idle = [{"log-status": "NODATA"}.get(name, "-") for name in made.flow_log(made.vpcs["cloudwatch"])[1].names]
    made.cloud.log(HUB, "/setup/api", "eni-idle-all", [" ".join(idle)])
    status, found = agent(made, tmp_path, collector, made.inputs).doctor()
    assert [each for each in found if each["status"] in ("error", "warning")] == []
    assert status == 0
    keys = {each["id"]: each["status"] for each in found if each["id"].startswith("key.")}
    assert keys == {"key.state": "ok", "key.policy": "ok"}
    names = {each["id"] for each in found if each["status"] == "ok"}
    assert {"bucket.policy", "queue.policy", "queue.dead-letters", "stream.active", "firehose.stream"} <= names


def test_what_is_delivered_is_exported(made: Made, tmp_path: Path, collector: Collector) -> None:
    """With the configuration that setup printed."""
    inputs = {**made.inputs, "cloudwatch_logs": {**made.inputs["cloudwatch_logs"], "interval": "1s"}}
    inputs["cloudwatch_logs"]["start_from"] = "10m"
    running = agent(made, tmp_path, collector, inputs).start()
    try:
        for deliver in made.deliveries.values():
            deliver()
        wanted = made.traffic.wanted
        until(lambda: len(collector.records) >= wanted, lambda: running.log)
        for records in made.traffic.expected.values():
            compare(collector, records)
        queues = [Queue.parse(each).name for each in made.inputs["s3"]["queues"]]
        until(lambda: not any(made.cloud.waiting(each.rpartition(":")[2], HUB) for each in queues))
    finally:
        assert running.stop() == 0, running.log
