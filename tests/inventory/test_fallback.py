"""What is read when a Kinesis stream fails for good, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from organisation import Cloud
from test_sources import ALL, GROUP, STREAM, WORLD, A, R, group, to_group, to_s3

from edfn_agent import sources as sources_module
from edfn_agent.config import load
from edfn_agent.delivery import Delivery, Origin, Outcome
from edfn_agent.inputs.kinesis import java
from edfn_agent.inventory.accounts import Accounts, AwsSettings
from edfn_agent.inventory.current import Current
from edfn_agent.inventory.model import FlowLog
from edfn_agent.inventory.sources import EnabledInputs, SourcePlan
from edfn_agent.ops.metrics import Metrics
from edfn_agent.sources import Sources
from edfn_agent.state import State

GONE = replace(WORLD.streams[0], status="", problem="the stream does not exist")
HERE, THERE = Origin("kinesis", "flows", log_group="flows"), Origin("cloudwatch_logs", GROUP, A, R, "flows")


def plan(
    *flow_logs: FlowLog, inputs: EnabledInputs = ALL, seen: Mapping[str, str] | None = None, **world: Any
) -> SourcePlan:
    return SourcePlan(replace(WORLD, flow_logs=flow_logs, **world), inputs, seen=seen or {})


class TestPlan:
    def test_what_kinesis_brings_is_not_exported_again_from_elsewhere(self) -> None:
        made = plan(to_group(), to_s3())
        assert made.owns(HERE, "vpc-1")
        assert not made.owns(THERE, "vpc-1")
        assert not made.owns(Origin("s3", "arn:aws:sqs:x", flow_log_id="fl-s3"), "vpc-1")
        assert made.fallbacks == []

    def test_a_stream_that_is_gone_gives_way_to_its_log_group(self) -> None:
        made = plan(to_group(), streams=(GONE,))
        assert made.source_of("vpc-1") == f"cloudwatch_logs:{GROUP}"
        assert made.owns(THERE, "vpc-1")
        assert not made.owns(HERE, "vpc-1")
        (finding,) = made.fallbacks
        assert finding in made.findings
        assert (finding.severity, finding.account_id, finding.region, finding.subject) == ("warning", A, R, STREAM)
        assert finding.problem == (
            f"the stream cannot be read (the stream does not exist); read instead: vpc-1 from cloudwatch_logs:{GROUP}"
        )

    def test_s3_goes_before_the_log_group(self) -> None:
        made = plan(to_group(), to_s3(), streams=(GONE,))
        assert made.source_of("vpc-1") == "s3:logs"
        assert [each.problem.partition("instead: ")[2] for each in made.fallbacks] == ["vpc-1 from s3:logs"]

    def test_a_dead_account_is_as_good_as_gone(self) -> None:
        stranger = replace(GONE, problem="it belongs to account 111111111111, which is not reachable")
        made = plan(to_group(), streams=(stranger,))
        assert made.source_of("vpc-1") == f"cloudwatch_logs:{GROUP}"
        assert "not reachable" in made.fallbacks[0].problem

    def test_what_the_reading_found_counts_although_discovery_knows_nothing_of_it(self) -> None:
        made = plan(to_group(), seen={STREAM: "kinesis:DescribeStreamSummary is refused"})
        assert made.source_of("vpc-1") == f"cloudwatch_logs:{GROUP}"
        assert "DescribeStreamSummary is refused" in made.fallbacks[0].problem

    def test_a_stream_that_is_being_read_is_not_given_up_because_it_cannot_be_asked(self) -> None:
        made = plan(to_group(), streams=(replace(GONE, problem="its account is not reachable"),), seen={STREAM: ""})
        assert made.source_of("vpc-1") == f"kinesis:{STREAM}"
        assert made.fallbacks == []

    def test_one_finding_for_a_stream_of_many(self) -> None:
        flow_logs = [to_group(f"fl-{n}", f"vpc-{n}") for n in range(5)]
        made = plan(*flow_logs, streams=(GONE,))
        (finding,) = made.fallbacks
        assert finding.problem.endswith(f"vpc-2 from cloudwatch_logs:{GROUP} and 2 more")

    def test_without_anything_else_the_flow_log_is_what_is_in_trouble(self) -> None:
        made = plan(to_group(), inputs=replace(ALL, cloudwatch_logs=None), streams=(GONE,))
        assert made.fallbacks == []
        assert [(each.severity, each.subject) for each in made.findings] == [("error", "fl-cwl")]

    def test_a_log_group_without_any_subscription_has_nothing_to_fall_back_from(self) -> None:
        assert plan(to_group(), log_groups=(group(),)).fallbacks == []


# -- through Sources, against moto ------------------------------------------------------------------------------------


class World:
    """A log group subscribed to a stream, in moto; Sources and Current as an agent has them."""

    def __init__(self, url: str, folder: Path) -> None:
        import boto3

        def client(service: str) -> Any:
            return boto3.client(service, R, endpoint_url=url, aws_access_key_id="x", aws_secret_access_key="x")

        self.account = client("sts").get_caller_identity()["Account"]
        self.logs, self.kinesis = client("logs"), client("kinesis")
        self.kinesis.create_stream(StreamName="flows", ShardCount=1)
        self.stream = f"arn:aws:kinesis:{R}:{self.account}:stream/flows"
        self.group = f"arn:aws:logs:{R}:{self.account}:log-group:flows"
        self.logs.create_log_group(logGroupName="flows")
        self.logs.create_log_stream(logGroupName="flows", logStreamName="eni-1-all")
        self.logs.put_subscription_filter(
            logGroupName="flows",
            filterName="f",
            filterPattern="",
            destinationArn=self.stream,
            roleArn="arn:aws:iam::1:role/r",
        )
        ec2 = client("ec2")
        self.vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        ec2.create_flow_logs(
            ResourceType="VPC",
            ResourceIds=[self.vpc],
            TrafficType="ALL",
            LogDestinationType="cloud-watch-logs",
            LogGroupName="flows",
            DeliverLogsPermissionArn="arn:aws:iam::1:role/r",
        )
        path = folder / "edfn-agent.yaml"
        services = ("ec2", "sts", "iam", "logs", "s3", "sqs", "sns", "events", "kinesis", "firehose", "dynamodb")
        endpoints = ", ".join(f"{service}: '{url}'" for service in services)
        path.write_text(
            "collectors: [udp://127.0.0.1:9]\n"
            f"aws: {{region: {R}, regions: [{R}], endpoints: {{{endpoints}}}}}\n"
            "inputs: {kinesis: {}, cloudwatch_logs: {interval: 1s, start_from: 1h}}\n"
            f"state_directory: {folder / 'state'}\n"
        )
        config = load(path)
        self.state = State(config.state_directory)
        self.accounts = Accounts(AwsSettings.of(config.aws))
        self.accounts.open()
        self.submitted: list[str] = []
        self.current = Current(config, self.state, lambda known: self.sources.follow(known))
        reach = self.accounts
        self.sources = Sources(
            config, self._take, self.current, reach.client, reach.credentials, self.state, Metrics(), 0, 1
        )
        self.current.seen_streams = self.sources.seen_streams
        self.sources.start()

    def _take(self, delivery: Delivery) -> None:
        self.submitted.append(delivery.origin.input)
        delivery.fail(Outcome.ACKNOWLEDGED, "")
        delivery.release()

    @property
    def source(self) -> str | None:
        return self.current.known.plan.source_of(self.vpc)

    def log(self) -> None:
        event = {"timestamp": int(time.time() * 1000), "message": "2 1 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 1 1 2 ACCEPT OK"}
        self.logs.put_log_events(logGroupName="flows", logStreamName="eni-1-all", logEvents=[event])

    def close(self) -> None:
        self.sources.stop_reading(5.0)
        self.sources.stop(5.0)
        self.state.close()


@pytest.fixture
def world(empty_cloud: Cloud, tmp_path: Path) -> Iterator[Callable[[], World]]:
    made: list[World] = []

    def make() -> World:
        made.append(World(empty_cloud.url, tmp_path))
        return made[0]

    yield make
    for each in made:
        each.close()


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_stream_deleted_between_two_discoveries(world: Callable[[], World], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise java.Missing("no Java, and nothing starts")

    monkeypatch.setattr(java, "find", none)
    here = world()
    monkeypatch.setattr(here.sources, "seen_streams", dict)
    here.current.seen_streams = dict
    here.current.discover(here.accounts)
    assert here.source == f"kinesis:{here.stream}"
    here.log()
    time.sleep(1.5)
    assert here.submitted == []
    here.kinesis.delete_stream(StreamName="flows")
    here.current.discover(here.accounts)
    assert here.source == f"cloudwatch_logs:{here.group}"
    assert "the stream does not exist" in here.current.known.plan.fallbacks[0].problem
    until(lambda: here.submitted)
    assert set(here.submitted) == {"cloudwatch_logs"}


def test_a_machine_without_java_reads_the_next_source(
    world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise java.Missing("Kinesis needs Java")

    monkeypatch.setattr(java, "find", none)
    here = world()
    here.current.discover(here.accounts)
    assert here.source == f"kinesis:{here.stream}"
    here.current.reconsider()
    assert here.source == f"cloudwatch_logs:{here.group}"
    assert "Kinesis needs Java" in here.current.known.plan.fallbacks[0].problem
    before = here.current.known
    here.current.reconsider()
    assert here.current.known is before, "nothing new, nothing done"
    here.log()
    until(lambda: here.submitted)
    assert any("unavailable: Kinesis needs Java" in each for each in here.sources.problems())


def test_what_its_own_supervisor_finds_is_enough(world: Callable[[], World], monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        java.find()
    except java.Missing as missing:
        pytest.skip(str(missing))
    monkeypatch.setattr(sources_module, "FOR_GOOD", 0.5)
    here = world()
    # Discovery has seen the stream; when the daemon is to start, it is gone. So no Java process is ever started.
    here.log()
    here.sources._running = False
    here.current.discover(here.accounts)
    here.kinesis.delete_stream(StreamName="flows")
    here.sources.start()
    here.sources.follow(here.current.known)
    assert here.source == f"kinesis:{here.stream}"
    until(lambda: here.sources.seen_streams().get(here.stream))
    here.current.reconsider()
    assert here.source == f"cloudwatch_logs:{here.group}"
    assert "Was it deleted?" in here.current.known.plan.fallbacks[0].problem
    until(lambda: here.submitted)
    assert any("kinesis" in each and "gone" in each for each in here.sources.problems()), "it is still looked at"
