"""The printed commands, run by bash with the real aws command against moto, make what --apply makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from .conftest import HOME, REGION, VPC, printed

pytestmark = pytest.mark.skipif(
    not (shutil.which("aws") and shutil.which("jq")), reason="the aws command and jq are not here"
)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    (tmp_path / "bin").mkdir()
    sleep = tmp_path / "bin" / "sleep"  # moto knows a new role at once
    sleep.write_text("#!/bin/sh\n")
    sleep.chmod(0o755)
    # Version 1 of the command takes SQS to its old address whatever the environment says.
    real, url = shutil.which("aws"), f"http://{host}:{port}"
    (tmp_path / "bin" / "aws").write_text(f'#!/bin/sh\nexec {real} --endpoint-url {url} "$@"\n')
    (tmp_path / "bin" / "aws").chmod(0o755)
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON", "VIRTUAL_ENV"))},
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_PAGER": "",
    }
    server.stop()


@pytest.mark.slow
def test_the_script_of_firehose_http(environment: dict[str, str], tmp_path: Path) -> None:
    """It has what is difficult: JSON in arguments, a key's ARN, waiting, a secret that must be in no argument."""
    made = {"endpoint_url": environment["AWS_ENDPOINT_URL"], "region_name": REGION}
    made |= {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    vpc = boto3.client("ec2", **made).create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    words = ("firehose-http", "--account", HOME, "--region", REGION, "--bucket", "my-logs", "--kms", "new")
    script = printed(*words, "--vpc", vpc, "--url", "https://flows.example.com/", "--format", "cli")
    (tmp_path / "key").write_text("a-key-of-twenty-and-more\n")
    environment["ACCESS_KEY_FILE"] = str(tmp_path / "key")
    done = subprocess.run(["bash", "-x"], input=script, text=True, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    arguments = [line for line in done.stderr.splitlines() if " aws " in line or line.startswith("+ aws")]
    assert not any("a-key-of-twenty-and-more" in line for line in arguments)
    stream = boto3.client("firehose", **made).describe_delivery_stream(DeliveryStreamName="edfn-flow-logs")
    [target] = stream["DeliveryStreamDescription"]["Destinations"]
    assert target["HttpEndpointDestinationDescription"]["EndpointConfiguration"]["Url"] == "https://flows.example.com/"
    assert len(boto3.client("ec2", **made).describe_flow_logs()["FlowLogs"]) == 1
    rule = boto3.client("s3", **made).get_bucket_encryption(Bucket="my-logs")["ServerSideEncryptionConfiguration"]
    assert rule["Rules"][0]["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"].startswith("arn:aws:kms:")


@pytest.mark.slow
def test_entries_of_an_existing_bucket_by_commands(environment: dict[str, str]) -> None:
    made = {"endpoint_url": environment["AWS_ENDPOINT_URL"], "region_name": REGION}
    made |= {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    s3 = boto3.client("s3", **made)
    s3.create_bucket(Bucket="shared")
    vpc = boto3.client("ec2", **made).create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    words = ("s3", "--account", HOME, "--region", REGION, "--bucket", "shared", "--existing-bucket", "--vpc", vpc)
    script = printed(*words, "--format", "cli")
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "EdfnFlowLogsAWSLogDeliveryWrite" in s3.get_bucket_policy(Bucket="shared")["Policy"]
    [told] = s3.get_bucket_notification_configuration(Bucket="shared")["QueueConfigurations"]
    assert told["Id"].startswith("edfn-flow-logs-")


def test_two_accounts_are_not_mixed_up(environment: dict[str, str]) -> None:
    """The part of the other account stops when the credentials are not of that account."""
    words = ("firehose", "--account", HOME, "--region", REGION, "--bucket", "my-logs")
    script = printed(*words, "--vpc", f"111111111111/{REGION}/{VPC}", "--format", "cli")
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, env=environment, check=False)
    assert done.returncode == 1
    assert "these are not credentials of account 111111111111" in done.stderr
    with_profiles = printed(
        *(*words, "--vpc", f"111111111111/{REGION}/{VPC}", "--format", "cli"),
        *("--profile", "111111111111=network", "--profile", f"{HOME}=logs"),
    )
    assert "--profile network" in with_profiles
    assert "not credentials" not in with_profiles
