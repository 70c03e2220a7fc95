"""`edfn-agent flow-logs` over an organisation in moto: what is logged, how it is read, what has none."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[1] / "inventory"))

from faultproxy import FaultProxy
from organisation import EXTERNAL_ID, LOGGING, NETWORK, REGIONS, WORKLOAD, Cloud, Organisation, build, role

from edfn_agent.cli import main
from edfn_agent.inventory.model import Bucket, FlowLog, Interface, Notification, Queue, Snapshot, Vpc
from edfn_agent.inventory.sources import EnabledInputs, SourcePlan
from edfn_agent.ops.doctor.missing import commands, is_idle, without_flow_log

SERVICES = ("ec2", "sts", "iam", "logs", "s3", "sqs", "sns", "events", "kinesis", "firehose")


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FaultProxy, Organisation]]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    cloud = Cloud(f"http://{host}:{port}")
    cloud.reset()
    made = build(cloud, tmp_path_factory.mktemp("organisation"))
    key = made.credentials_file.read_text().split("aws_access_key_id = ")[1].split("\n")[0]
    with FaultProxy(cloud.url) as proxy:
        proxy.accounts[key] = NETWORK
        proxy.bucket_owners = {"central-logs": LOGGING, "quiet-logs": LOGGING}
        yield proxy, made
    server.stop()


@pytest.fixture
def organisation(proxy: tuple[FaultProxy, Organisation]) -> Organisation:
    return proxy[1]


@pytest.fixture
def config(proxy: tuple[FaultProxy, Organisation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "MOTO_ACCOUNT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hub")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hub")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    server, made = proxy
    server.calm()
    aws = {
        "region": "us-east-1",
        "regions": list(REGIONS),
        "credentials_file": str(made.credentials_file),
        "roles": [{"arn": role(WORKLOAD), "external_id": EXTERNAL_ID}, {"arn": role(LOGGING)}],
        "endpoints": dict.fromkeys(SERVICES, server.url),
    }
    file = tmp_path / "edfn-agent.yaml"
    written = {
        "collectors": ["udp://127.0.0.1:9"],
        "inputs": {"s3": {}, "cloudwatch_logs": {}, "kinesis": {}},
        "state_directory": str(tmp_path / "state"),
        "aws": aws,
    }
    file.write_text(json.dumps(written))  # JSON is YAML
    return file


def accepted(command: str) -> str:
    """What `edfn-agent setup` makes of a command as it is printed."""
    result = CliRunner().invoke(main, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_flow_log_is_listed_with_how_it_is_read(config: Path, organisation: Organisation) -> None:
    result = run("flow-logs", "-c", config, "--json", "--create-missing")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    rows = {each["flow_log_id"]: each for each in found["flow_logs"]}
    assert set(rows) == set(organisation.flow_logs.values())
    shared = rows[organisation.flow_logs["shared-a"]]
    assert {name: shared[name] for name in ("account_id", "region", "vpc_name", "resource_type")} == {
        "account_id": NETWORK,
        "region": "us-east-1",
        "vpc_name": "shared-a",
        "resource_type": "VPC",
    }
    assert (shared["destination_type"], shared["destination"]) == ("s3", "arn:aws:s3:::central-logs")
    assert (shared["format"], shared["fields"], shared["format_version"]) == ("custom", 9, 3)
    assert (shared["interval"], shared["traffic"], shared["status"]) == (60, "ALL", "ACTIVE")
    assert (shared["source"], shared["not_read_because"]) == ("s3:central-logs", None)
    assert rows[organisation.flow_logs["stream-1-cwl"]]["source"] == f"kinesis:{organisation.stream_arn}"
    assert rows[organisation.flow_logs["both-cwl"]]["not_read_because"] == "another flow log brings the same traffic"
    assert "no notification" in rows[organisation.flow_logs["quiet"]]["not_read_because"]
    part = rows[organisation.flow_logs["parts"]]
    assert (part["resource_type"], part["vpc_name"]) == ("subnet", "parts")
    assert [each["name"] for each in found["vpcs_without"]] == ["unlogged"]
    # New ones go where the others go, beside the queue that is there.
    [command] = found["commands"]
    assert f"--vpc {NETWORK}/eu-west-1/{organisation.vpcs['unlogged']}" in command
    assert "--bucket central-logs --existing-bucket --existing-queue --queue flow-logs" in command
    template = accepted(command)
    assert "AWS::EC2::FlowLog" in template
    assert "AWS::SQS::Queue" not in template
    # Nothing is kept of it.
    assert not (config.parent / "state").exists()


def test_for_people(config: Path, organisation: Organisation) -> None:
    result = run("flow-logs", "-c", config)
    assert result.exit_code == 0
    assert f"Flow logs ({len(organisation.flow_logs)})" in result.stdout
    assert "VPCs without a flow log (1)" in result.stdout
    assert "--create-missing" in result.stderr


def test_a_region_that_fails_is_said(
    config: Path, proxy: tuple[FaultProxy, Organisation], organisation: Organisation
) -> None:
    proxy[0].deny("DescribeFlowLogs", account=WORKLOAD)
    result = run("flow-logs", "-c", config, "--json")
    assert result.exit_code == 1
    assert f"{WORKLOAD} ec2:DescribeFlowLogs" in result.stderr


def test_what_was_stored_needs_no_call(config: Path, proxy: tuple[FaultProxy, Organisation]) -> None:
    nothing = run("flow-logs", "-c", config, "--stored")
    assert nothing.exit_code == 2
    assert "run-now" in nothing.output
    run("run-now", "-c", config)
    proxy[0].calm()
    result = run("flow-logs", "-c", config, "--stored", "--json")
    assert json.loads(result.stdout)["flow_logs"]
    assert proxy[0].calls == []
    assert "min ago" in result.stderr


# ---- commands for what is missing

BARE = Vpc("vpc-0000000000000000a", NETWORK, "us-east-1", "bare", ("10.0.0.0/16",))
LOGGED = replace(BARE, vpc_id="vpc-0000000000000000b", name="logged")
LOG = FlowLog("fl-1", NETWORK, "us-east-1", LOGGED.vpc_id, "s3", "arn:aws:s3:::logs/pre")
QUEUE = Queue(f"arn:aws:sqs:us-east-1:{NETWORK}:q", "http://q", NETWORK, "us-east-1", NETWORK, 300)
TOLD = Notification("sqs", QUEUE.arn, ("s3:ObjectCreated:*",), queues=(QUEUE.arn,))


def planned(*logs: FlowLog, **more: Any) -> SourcePlan:
    snapshot = Snapshot(at=0.0, vpcs=(BARE, LOGGED), flow_logs=logs, **more)
    return SourcePlan(snapshot, EnabledInputs(s3="discovered", cloudwatch_logs="discovered"))


class TestCommands:
    def test_beside_others_in_a_bucket(self) -> None:
        bucket = Bucket("logs", NETWORK, "us-east-1", (TOLD,))
        log = replace(LOG, file_format="parquet", hive=True, hourly=True)
        plan = planned(log, buckets=(bucket,), queues=(QUEUE,))
        [made] = commands(plan, without_flow_log(plan.snapshot))
        assert made.vpcs == (BARE.vpc_id,)
        assert "--prefix pre --parquet --hive --hourly" in made.command
        assert "AWS::EC2::FlowLog" in accepted(made.command)

    def test_beside_others_in_a_log_group(self) -> None:
        arn = f"arn:aws:logs:us-east-1:{NETWORK}:log-group:flows"
        plan = planned(replace(LOG, destination_type="cloud-watch-logs", destination=arn))
        [made] = commands(plan, without_flow_log(plan.snapshot))
        assert "setup cloudwatch" in made.command
        assert "--log-group flows --existing-log-group" in made.command
        assert "AWS::Logs::LogGroup" not in accepted(made.command)

    def test_where_nothing_is_read_yet(self) -> None:
        plan = planned()
        [made] = commands(plan, without_flow_log(plan.snapshot))
        assert made.vpcs == (BARE.vpc_id, LOGGED.vpc_id)
        template = accepted(made.command)
        assert "AWS::SQS::Queue" in template
        # Other VPCs have other names: a stack that is deployed again with others would lose the first ones.
        [other] = commands(plan, [BARE])
        assert other.command.split("--name ")[1].split()[0] != made.command.split("--name ")[1].split()[0]

    def test_default_vpcs_in_which_nothing_is(self) -> None:
        default = replace(BARE, is_default=True)
        assert is_idle(Snapshot(at=0.0, vpcs=(default,)), default)
        eni = Interface("eni-1", BARE.vpc_id, "subnet-1", NETWORK, "us-east-1")
        assert not is_idle(Snapshot(at=0.0, vpcs=(default,), interfaces=(eni,)), default)
        assert not is_idle(Snapshot(at=0.0, vpcs=(BARE,)), BARE)
