"""Every template passes cfn-lint and every policy passes parliament, for every way of delivery."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session
from cfnlint.config import ConfigMixIn
from cfnlint.decode import decode_str
from cfnlint.runner import Runner

from edfn_agent.config import load

from .conftest import VPC, printed, run, templates

HERE = ("--account", "123456789012", "--region", "eu-west-1")
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1"
POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/edfn-agent"
ABROAD_VPC = f"111111111111/eu-west-1/{VPC}"
EVERYTHING = {
    "s3": ("s3", *HERE, "--bucket", "my-logs", "--vpc", VPC, "--subnet", "subnet-0011223344"),
    "s3 parquet": (
        "s3",
        *HERE,
        "--bucket",
        "my-logs",
        "--vpc",
        VPC,
        "--parquet",
        "--hive",
        "--hourly",
        "--prefix",
        "a",
    ),
    "s3 kms": ("s3", *HERE, "--bucket", "my-logs", "--vpc", VPC, "--kms", "new"),
    "s3 other key": ("s3", *HERE, "--bucket", "b01", "--vpc", VPC, "--kms", "arn:aws:kms:eu-west-1:123456789012:key/1"),
    "s3 existing": ("s3", *HERE, "--bucket", "my-logs", "--vpc", VPC, "--existing-bucket"),
    "s3 central": ("s3", *HERE, "--bucket", "my-logs", "--vpc", f"111111111111/us-east-1/{VPC}", "--vpc", VPC),
    "s3 tags": ("s3", *HERE, "--bucket", "my-logs", "--vpc", VPC, "--tag-key", "instance=Name"),
    "s3 gateway": ("s3", *HERE, "--bucket", "my-logs", "--transit-gateway", "tgw-0011223344556677a"),
    "s3 gov": (
        "s3",
        *HERE[:2],
        "--region",
        "us-gov-west-1",
        "--bucket",
        "b01",
        "--vpc",
        VPC,
    ),
    "s3 existing queue": (
        *("s3", *HERE, "--bucket", "b01", "--existing-bucket", "--existing-queue", "--queue", "q", "--vpc", VPC),
        *("--source-account", "222222222222", "--hourly", "--suffix", ".gz"),
    ),
    "s3 fields": (
        *("s3", *HERE, "--bucket", "b01", "--vpc", VPC, "--field-version", "5", "--no-ecs-fields"),
        *("--interval", "600", "--traffic", "REJECT", "--expire-days", "0", "--source-account", "222222222222"),
    ),
    "s3 as documented": ("s3", *HERE, "--bucket", "b01", "--vpc", VPC, "--hive", "--as-documented"),
    "s3 attachment": ("s3", *HERE, "--bucket", "b01", "--transit-gateway", "tgw-attach-0011223344556677a"),
    "cloudwatch other key": (
        *("cloudwatch", *HERE, "--vpc", VPC, "--kms", KEY, "--role", "FlowLogs", "--retention-days", "7"),
    ),
    "cloudwatch existing": ("cloudwatch", *HERE, "--vpc", VPC, "--existing-log-group", "--log-format", "default"),
    "kinesis existing": (
        *("kinesis", *HERE, "--vpc", VPC, "--existing-log-group", "--existing-stream", "--stream", "central"),
        *("--kms", KEY, "--transit-gateway", "tgw-0011223344556677a"),
    ),
    "firehose existing": (
        *("firehose", *HERE, "--bucket", "b01", "--existing-bucket", "--vpc", VPC, "--vpc", ABROAD_VPC, "--kms", KEY),
        *("--delivery-stream", "d", "--delivery-role", "r", "--buffer-seconds", "0", "--buffer-mib", "128"),
    ),
    "http abroad": (
        *("firehose-http", *HERE, "--bucket", "b01", "--kms", "new", "--vpc", ABROAD_VPC, "--as-documented"),
        *("--url", "https://flows.example.com/", "--retry-seconds", "300"),
    ),
    "http existing": (
        *("firehose-http", *HERE, "--bucket", "b01", "--existing-bucket", "--vpc", VPC),
        *("--url", "https://flows.example.com/"),
    ),
    "central existing": (
        *("central", *HERE, "--bucket", "b01", "--existing-bucket", "--vpc", VPC, "--existing-log-group"),
        *("--source-account", "222222222222", "--as-documented"),
    ),
    "china": ("s3", *HERE[:2], "--region", "cn-north-1", "--bucket", "b01", "--vpc", VPC, "--field-version", "5"),
    "cloudwatch": ("cloudwatch", *HERE, "--vpc", VPC, "--interface", "eni-0011223344556677a"),
    "cloudwatch kms": ("cloudwatch", *HERE, "--vpc", VPC, "--kms", "new"),
    "cloudwatch alone": ("cloudwatch", *HERE),
    "kinesis": ("kinesis", *HERE, "--vpc", VPC),
    "kinesis kms": ("kinesis", *HERE, "--vpc", VPC, "--kms", "new", "--shards", "0", "--stream-hours", "48"),
    "firehose": ("firehose", *HERE, "--bucket", "my-logs", "--vpc", VPC),
    "firehose across": (
        "firehose",
        *HERE,
        "--bucket",
        "my-logs",
        "--vpc",
        f"111111111111/eu-west-1/{VPC}",
        "--kms",
        "new",
    ),
    "http": ("firehose-http", *HERE, "--bucket", "my-logs", "--vpc", VPC, "--url", "https://flows.example.com/"),
    "http secret": (
        *("firehose-http", *HERE, "--bucket", "my-logs", "--vpc", VPC, "--url", "https://flows.example.com/"),
        *("--secret", "arn:aws:secretsmanager:eu-west-1:123456789012:secret:edfn-AbCdEf"),
    ),
    "central": ("central", *HERE, "--bucket", "my-logs", "--vpc", f"111111111111/eu-west-1/{VPC}"),
    "central kms": ("central", *HERE, "--bucket", "b01", "--vpc", f"111111111111/eu-west-1/{VPC}", "--kms", "new"),
    "central every kms": (
        *("central", *HERE, "--bucket", "b01", "--vpc", VPC, "--vpc", f"111111111111/eu-west-1/{VPC}"),
        *("--kms", "new", "--log-group-kms", "new"),
    ),
    "central other keys": (
        *("central", *HERE, "--bucket", "b01", "--vpc", VPC, "--kms", "arn:aws:kms:eu-west-1:123456789012:key/1"),
        *("--log-group-kms", "arn:aws:kms:eu-west-1:123456789012:key/2"),
    ),
    "central stream kms": ("central", *HERE, "--vpc", VPC, "--kms", "new", "--log-group-kms", "new"),
    "central stream": ("central", *HERE, "--vpc", f"111111111111/eu-west-1/{VPC}", "--organization", "o-a1b2c3d4e5"),
    "policy": (
        *("policy", "--agent-identity", "arn:aws:iam::123456789012:role/edfn-agent"),
        *("--role", "arn:aws:iam::111111111111:role/EdfnAgent,an-id", "--input", "s3", "--input", "cloudwatch_logs"),
        *("--input", "kinesis", "--input", "firehose", "--simulate"),
    ),
    "policy exact": (
        *("policy", "--agent-identity", "arn:aws:iam::123456789012:user/edfn-agent", "--bucket", "my-logs/AWSLogs/"),
        *("--queue", "arn:aws:sqs:eu-west-1:123456789012:edfn", "--log-group", "/vpc/flow-logs"),
        *("--stream", "arn:aws:kinesis:eu-west-1:123456789012:stream/a,fan-out"),
        *("--kms-key", "arn:aws:kms:eu-west-1:123456789012:key/1"),
    ),
    "policy elsewhere": (
        *("policy", "--agent-identity", "arn:aws:iam::123456789012:role/service/edfn-agent", "--input", "s3"),
        *("--role", "arn:aws:iam::111111111111:role/teams/network/EdfnAgent,an-id", "--bucket", POINT),
    ),
    "like edfn": ("policy", "--like-edfn", "--account", "123456789012"),
}


@pytest.fixture(scope="module")
def parliament() -> Any:
    """parliament asks pkg_resources for two file names; newer setuptools do not have that module any more."""
    if importlib.util.find_spec("pkg_resources") is None:
        stand_in = types.ModuleType("pkg_resources")

        def resource_filename(package: str, name: str) -> str:
            spec = importlib.util.find_spec(package)
            assert spec is not None
            assert spec.origin is not None
            return str(Path(spec.origin).parent / name)

        stand_in.resource_filename = resource_filename  # type: ignore[attr-defined]
        sys.modules["pkg_resources"] = stand_in
    return importlib.import_module("parliament")


@pytest.fixture(scope="module")
def lint() -> Callable[[Any], list[str]]:
    """cfn-lint, whose rules are read once: they take longer than the templates."""
    runner = Runner(ConfigMixIn(regions=["eu-west-1"]))

    def faults(template: Any) -> list[str]:
        decoded, wrong = decode_str(json.dumps(template))
        assert not wrong
        return [f"{fault.rule.id} {fault.message} {fault.path}" for fault in runner.validate_template(decoded)]

    return faults


def test_the_linter_sees_faults(lint: Callable[[Any], list[str]]) -> None:
    [template] = templates(*EVERYTHING["s3"])
    template["Resources"]["Queue"]["Properties"]["VisibilityTimeout"] = "soon"
    template["Resources"]["FlowLogVpc00112233344556677"]["Properties"]["Colour"] = "blue"
    assert {fault.split()[0] for fault in lint(template)} == {"E3012", "E3002"}
    assert lint(templates(*EVERYTHING["s3"])[0]) == []


@pytest.mark.parametrize("words", EVERYTHING.values(), ids=EVERYTHING.keys())
def test_cfn_lint(words: tuple[str, ...], lint: Callable[[Any], list[str]]) -> None:
    found = templates(*words)
    assert found or any("existing" in word for word in words)
    for template in found:
        assert lint(template) == []


# parliament's list of AWS actions and their resources is older than AWS. Each entry: why it is not a fault.
_KNOWN = {
    "RESOURCE_STAR": "the actions take no narrower resource",
    "UNKNOWN_ACTION": "newer than the list",
    "MISMATCHED_TYPE_BUT_USABLE": "StringLike on an ARN, as AWS documents it",
}
_IDENTITY_TYPES = {"AWS::IAM::Role", "AWS::IAM::ManagedPolicy"}


@pytest.mark.parametrize("words", EVERYTHING.values(), ids=EVERYTHING.keys())
def test_parliament(words: tuple[str, ...], parliament: Any) -> None:
    for template in templates(*words):
        for name, entry in template["Resources"].items():
            if entry["Type"] not in _IDENTITY_TYPES:
                continue
            documents = [one["PolicyDocument"] for one in entry["Properties"].get("Policies", [])]
            documents += [entry["Properties"]["PolicyDocument"]] if "PolicyDocument" in entry["Properties"] else []
            for document in documents:
                text = json.dumps(document).replace(
                    '{"Fn::GetAtt": ["Key", "Arn"]}', '"arn:aws:kms:eu-west-1:123456789012:key/1"'
                )
                text = re.sub(r"arn:aws-(us-gov|cn):", "arn:aws:", text)
                policy = parliament.analyze_policy_string(text)
                faults = [f"{name}: {one.issue} {one.detail} {one.location}" for one in policy.findings]
                assert [fault for fault in faults if fault.split()[1] not in _KNOWN] == []


def test_actions_exist() -> None:
    """Every action of every policy is a call of the service, or one of the few that are permissions only."""
    permissions_only = {
        *("iam:PassRole", "iam:CreateServiceLinkedRole", "logs:CreateLogDelivery", "logs:DeleteLogDelivery"),
        *("logs:ListLogDeliveries", "logs:GetLogDelivery", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:*"),
        *("s3:ListBucketMultipartUploads", "s3:GetBucketNotification", "s3:ListBucket", "s3:*"),
    }
    services = {"firehose": "firehose", "logs": "logs", "s3": "s3", "cloudwatch": "cloudwatch", "events": "events"}
    session, seen = Session(), set()
    for words in EVERYTHING.values():
        seen |= set(re.findall(r"^\s*(?:- |Action: )([a-z0-9]+:[A-Z*][A-Za-z*]+)$", printed(*words), re.MULTILINE))
    unknown = []
    for action in sorted(seen - permissions_only):
        service, _, operation = action.partition(":")
        model = session.get_service_model(services.get(service, service))
        if action in (
            "kinesis:DescribeStream*",
            "sqs:DeleteMessage*",
            "sqs:ChangeMessageVisibility*",
            "s3:ObjectCreated",
        ):
            continue
        if operation not in model.operation_names:
            unknown.append(action)
    assert unknown == []
    assert len(seen) > 60


def test_nothing_is_a_star_that_could_be_narrower() -> None:
    """`Resource: "*"` stands only beside actions that take no narrower one."""
    may = {
        *(f"ec2:Describe{what}" for what in ("FlowLogs", "Instances", "InternetGateways", "NatGateways")),
        *(f"ec2:Describe{what}" for what in ("NetworkInterfaces", "PrefixLists", "Regions", "RouteTables", "Subnets")),
        *("ec2:DescribeTransitGatewayAttachments", "ec2:DescribeVpcEndpoints", "ec2:DescribeVpcPeeringConnections"),
        *("ec2:DescribeVpcs", "iam:ListAccountAliases", "logs:DescribeLogGroups", "logs:DescribeDestinations"),
        "events:ListRules",
        "ec2:GetManagedPrefixListEntries",  # AWS's own lists are nobody's account's
        *("logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:ListLogDeliveries", "logs:GetLogDelivery"),
        "cloudwatch:PutMetricData",
    }
    for label, words in EVERYTHING.items():
        if label == "like edfn" or "--as-documented" in words:
            continue
        for template in templates(*words):
            for entry in template["Resources"].values():
                properties = entry["Properties"]
                documents = [one["PolicyDocument"] for one in properties.get("Policies", [])]
                if entry["Type"] == "AWS::IAM::ManagedPolicy":
                    documents.append(properties["PolicyDocument"])
                for statement in (one for document in documents for one in document["Statement"]):
                    if statement["Resource"] == "*":
                        actions = statement["Action"]
                        assert set([actions] if isinstance(actions, str) else actions) <= may, label


def test_every_service_principal_is_conditioned() -> None:
    """Whoever trusts an AWS service says on whose behalf (confused deputy). One exception, which AWS documents so."""
    exceptions = {"delivery.logs.amazonaws.com in SourceRole"}
    loose = set()
    for words in EVERYTHING.values():
        for template in templates(*words) if "--as-documented" not in words else ():
            for name, entry in template["Resources"].items():
                for key in ("AssumeRolePolicyDocument", "PolicyDocument", "KeyPolicy"):
                    document = entry["Properties"].get(key)
                    for statement in (document or {}).get("Statement", []):
                        principal = statement.get("Principal", {})
                        if "Service" in principal and "Condition" not in statement:
                            loose.add(f"{principal['Service']} in {name}")
    assert loose == exceptions


def test_the_agent_takes_the_configuration_that_is_printed(tmp_path: Path) -> None:
    for label, words in EVERYTHING.items():
        if words[0] == "policy":
            continue
        shown = run(*words).stderr
        text = shown.partition("# The agent's configuration to read it:\n")[2]
        assert text.startswith("inputs:\n"), label
        if words[0] == "firehose-http":  # its files are not on this machine
            for name in ("firehose.pem", "firehose.key", "firehose-access-key"):
                (tmp_path / name).write_text("x")
            text = text.replace("/etc/edfn-agent", str(tmp_path))
        (tmp_path / "agent.yaml").write_text(f"collectors: [udp://192.0.2.10:4739]\n{text}")
        config = load(tmp_path / "agent.yaml")
        assert any((config.inputs.s3, config.inputs.cloudwatch_logs, config.inputs.kinesis, config.inputs.firehose))


def test_scripts_are_bash() -> None:
    import subprocess

    for words in EVERYTHING.values():
        text = printed(*words, "--format", "cli")
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)
        assert "%{" not in text
