"""What is wrong in AWS is found, with what mends it; what people and scripts see of it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from faultproxy import FaultProxy, error

from tests.doctor.world import ACCOUNT, BUCKET, QUEUE, REGION, World, checks, configured, named, one, run

from edfn_agent.cli import main  # isort: skip

OTHER = "222222222222"


@pytest.fixture
def config(world: World, proxy: FaultProxy, collector: str, tmp_path: Path) -> Path:
    return configured(tmp_path, proxy.url, world.key, collectors=[collector])


def test_people_see_what_is_well_first_and_faults_last(world: World, config: Path, proxy: FaultProxy) -> None:
    proxy.deny("ReceiveMessage")
    proxy.deny("DescribeNatGateways")
    result = run("doctor", "-c", config)
    assert result.exit_code == 1
    text = result.stdout
    order = ["This machine", "Collectors", "Accounts", "Regions", "Permissions", "Flow logs", "Buckets", "Queues"]
    order += [
        "Log groups",
        "Kinesis streams",
        "Not tried",
        "Faults (2)",
        "warning permission.ec2",
        "error   permission.sqs",
    ]
    places = [text.index(words) for words in order if words[0].isupper()]
    assert places == sorted(places)
    faults = text[text.index("Faults (2)") :]
    # the gravest at the very end
    assert faults.index("ec2:DescribeNatGateways") < faults.index("sqs:ReceiveMessage")
    assert '"Action": "sqs:ReceiveMessage"' in faults
    assert "1 warning, 1 error." in faults


def test_a_role_that_refuses(world: World, proxy: FaultProxy, collector: str, tmp_path: Path) -> None:
    role = f"arn:aws:iam::{OTHER}:role/EdfnAgent"
    proxy.rules.append(lambda call: error(call, "AccessDenied", "no", 403) if call.operation == "AssumeRole" else None)
    roles = {"roles": [{"arn": role, "external_id": "correct-horse"}], "session_duration": "2h"}
    result = run(
        "doctor", "-c", configured(tmp_path, proxy.url, world.key, collectors=[collector], aws=roles), "--json"
    )
    assert result.exit_code == 1
    alive, dead = named(checks(result), "account.identity")
    assert (alive["account_id"], alive["status"]) == (ACCOUNT, "ok")
    assert (dead["account_id"], dead["status"], dead["resource"]) == (OTHER, "error", role)
    assert "external id" in dead["text"]
    assert json.loads(dead["fix"]) == {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role}
    assert "correct-horse" not in result.output


def test_a_role_with_an_external_id_and_a_session(
    world: World, proxy: FaultProxy, collector: str, tmp_path: Path
) -> None:
    roles = {"roles": [{"arn": f"arn:aws:iam::{OTHER}:role/EdfnAgent", "external_id": "correct-horse"}]}
    file = configured(tmp_path, proxy.url, None, collectors=[collector], aws=roles)
    result = run("doctor", "-c", file, "--json")
    found = checks(result)
    assert one(found, "account.identity")["text"] == "reached by a role of the configuration, with an external id"
    assert "60 min" in one(found, "account.session")["text"]
    assert "correct-horse" not in result.output


def test_a_region_that_does_not_answer(world: World, proxy: FaultProxy, collector: str, tmp_path: Path) -> None:
    proxy.refuse("OptInRequired", "not subscribed", region="me-south-1", status=403)
    aws = {"regions": [REGION, "me-south-1"]}
    file = configured(tmp_path, proxy.url, world.key, collectors=[collector], aws=aws)
    well, ill = sorted(
        named(checks(run("doctor", "-c", file, "--json")), "region.reachable"), key=lambda c: c["region"] != REGION
    )
    assert (well["status"], well["text"]) == ("ok", "3 VPCs, 3 flow logs")
    assert (ill["region"], ill["status"]) == ("me-south-1", "error")


class TestThings:
    """Each is broken, looked at, and mended again."""

    def test_a_bucket_that_announces_nothing(self, world: World, config: Path) -> None:
        s3 = world.client("s3")
        before = s3.get_bucket_notification_configuration(Bucket=BUCKET)["QueueConfigurations"]
        s3.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration={})
        try:
            found = checks(run("doctor", "-c", config, "--json"))
        finally:
            s3.put_bucket_notification_configuration(
                Bucket=BUCKET, NotificationConfiguration={"QueueConfigurations": before}
            )
        fault = next(each for each in named(found, "flow-log.source") if each["status"] == "error")
        assert fault["resource"] == world.flow_logs["shop"]
        words = shlex.split(fault["fix"])
        assert words[:3] == ["edfn-agent", "setup", "s3"]
        assert accepted(fault["fix"])

    def test_a_queue_without_policy_dead_letters_and_time(self, world: World, config: Path) -> None:
        sqs, url = world.client("sqs"), world.queue_url
        names = ("Policy", "RedrivePolicy", "VisibilityTimeout")
        before = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        sqs.set_queue_attributes(
            QueueUrl=url, Attributes={"Policy": "", "RedrivePolicy": "", "VisibilityTimeout": "10"}
        )
        try:
            found = checks(run("doctor", "-c", config, "--json"))
        finally:
            sqs.set_queue_attributes(QueueUrl=url, Attributes={name: before[name] for name in names})
        policy = one(found, "queue.policy")
        assert policy["status"] == "error"
        assert json.loads(policy["fix"])["Condition"]["ArnEquals"] == {"aws:SourceArn": f"arn:aws:s3:::{BUCKET}"}
        letters = one(found, "queue.dead-letters")
        assert letters["status"] == "info"
        assert "--queue-name objects-dead-letters" in letters["fix"]
        assert one(found, "queue.timeout")["status"] == "info"

    def test_a_queue_under_awss_own_key(self, world: World, config: Path) -> None:
        world.encrypt_queue("alias/aws/sqs")
        try:
            found = checks(run("doctor", "-c", config, "--json"))
        finally:
            world.encrypt_queue("")
        assert one(found, "queue.encryption")["status"] == "error"

    def test_keys_that_nobody_who_has_to_may_use(self, world: World, config: Path) -> None:
        """Each has the policy that KMS gives a key by itself; then what the doctor says is put into it."""
        kms, s3, kinesis = (world.client(name) for name in ("kms", "s3", "kinesis"))
        arns = [kms.create_key()["KeyMetadata"]["Arn"] for _ in range(3)]
        rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": arns[0]}}
        s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [rule]})
        world.encrypt_queue(arns[1])
        kinesis.start_stream_encryption(StreamName="lab", EncryptionType="KMS", KeyId=arns[2])
        try:
            found = checks(run("doctor", "-c", config, "--json"))
            assert {each["resource"] for each in named(found, "key.state") if each["status"] == "ok"} == set(arns)
            policies = {each["resource"]: each for each in named(found, "key.policy")}
            assert policies.keys() == set(arns[:2])
            for arn, service in zip(arns[:2], ("delivery.logs.amazonaws.com", "s3.amazonaws.com"), strict=True):
                assert policies[arn]["status"] == "warning"
                statement = json.loads(policies[arn]["fix"])
                assert statement["Principal"] == {"Service": service}
                whole = json.loads(kms.get_key_policy(KeyId=arn, PolicyName="default")["Policy"])
                whole["Statement"].append(statement)
                kms.put_key_policy(KeyId=arn, PolicyName="default", Policy=json.dumps(whole))
            kms.disable_key(KeyId=arns[2].rpartition("/")[2])
            kms.schedule_key_deletion(KeyId=arns[1].rpartition("/")[2], PendingWindowInDays=7)
            found = checks(run("doctor", "-c", config, "--json"))
            assert {each["status"] for each in named(found, "key.policy")} == {"ok"}
            off = {each["resource"]: each["fix"] for each in named(found, "key.state") if each["status"] == "error"}
            assert {arn: re.findall(r"aws kms ([a-z-]+)", fix) for arn, fix in off.items()} == {
                arns[1]: ["cancel-key-deletion", "enable-key"],
                arns[2]: ["enable-key"],
            }
        finally:
            s3.delete_bucket_encryption(Bucket=BUCKET)
            world.encrypt_queue("")
            kinesis.stop_stream_encryption(StreamName="lab", EncryptionType="KMS", KeyId=arns[2])

    def test_a_flow_log_that_fails_and_a_vpc_without_one(self, world: World, config: Path) -> None:
        from moto.backends import get_backend

        log = get_backend("ec2")[ACCOUNT][REGION].flow_logs[world.flow_logs["office"]]
        log.deliver_logs_status, log.deliver_logs_error_message = "FAILED", "Access error"
        bare = world.cloud.vpc(ACCOUNT, REGION, "bare", "10.9.0.0/16")
        try:
            found = checks(run("doctor", "-c", config, "--json"))
        finally:
            log.deliver_logs_status = "SUCCESS"
            world.client("ec2").delete_vpc(VpcId=bare)
        failed = next(each for each in named(found, "flow-log.delivery") if each["status"] == "warning")
        assert failed["resource"] == world.flow_logs["office"]
        assert "logs:PutLogEvents" in failed["fix"]
        missing = next(each for each in named(found, "vpc.flow-log") if each["status"] == "warning")
        assert missing["resource"] == bare
        assert accepted(missing["fix"])

    def test_a_log_group_that_is_silent(self, world: World, config: Path, proxy: FaultProxy) -> None:
        streams = {"logStreams": [{"logStreamName": "eni-1", "creationTime": 1000, "lastIngestionTime": 1700000000000}]}
        from faultproxy import Reply

        proxy.rules.append(
            lambda call: (
                Reply(200, json.dumps(streams).encode(), "application/x-amz-json-1.1")
                if call.operation == "DescribeLogStreams"
                else None
            )
        )
        silent = one(checks(run("doctor", "-c", config, "--json")), "log-group.events")
        assert (silent["status"], silent["text"]) == ("warning", "none since 2023-11-14 22:13 UTC")

    def test_a_consumer_left_behind(self, world: World, config: Path) -> None:
        stream = f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/lab"
        kinesis = world.client("kinesis")
        kinesis.register_stream_consumer(StreamARN=stream, ConsumerName="edfn-agent-lab")
        try:
            left = one(checks(run("doctor", "-c", config, "--json")), "stream.consumer")
        finally:
            kinesis.deregister_stream_consumer(StreamARN=stream, ConsumerName="edfn-agent-lab")
        assert left["fix"] == f"edfn-agent kinesis deregister {stream}"

    def test_a_queue_of_the_configuration_that_is_not_there(
        self, world: World, proxy: FaultProxy, collector: str, tmp_path: Path
    ) -> None:
        inputs = {"s3": {"queues": [QUEUE, f"{QUEUE}-gone"]}}
        file = configured(tmp_path, proxy.url, world.key, collectors=[collector], inputs=inputs)
        there = {
            each["resource"]: each["status"]
            for each in named(checks(run("doctor", "-c", file, "--json")), "queue.there")
        }
        assert there == {QUEUE: "ok", f"{QUEUE}-gone": "error"}


def accepted(command: str) -> bool:
    """Whether `edfn-agent setup` takes a command as it is printed."""
    from click.testing import CliRunner

    result = CliRunner().invoke(main, shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    return "Resources" in result.stdout


class TestConfiguration:
    def test_none(self) -> None:
        result = run("doctor")
        assert (result.exit_code, result.stdout) == (2, "")

    def test_one_that_cannot_be_used(self, tmp_path: Path) -> None:
        (tmp_path / "bad.yaml").write_text("colectors: [udp://127.0.0.1]")
        assert run("doctor", "-c", tmp_path / "bad.yaml").exit_code == 2

    def test_no_region(self, tmp_path: Path) -> None:
        (tmp_path / "c.yaml").write_text("collectors: [udp://127.0.0.1]")
        result = run("doctor", "-c", tmp_path / "c.yaml")
        assert result.exit_code == 2
        assert "aws.region" in result.output
