"""Keys in, what they say out: literally, in every layout AWS and its users have."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfn_agent.inputs.keys import KeyFacts, KeyFilter, Kind, facts

A = "123456789012"
FILE = f"{A}_vpcflowlogs_us-gov-west-1_fl-0123456789abcdef0_20261121T1005Z_e2f1a3b4.log.gz"
FULL = KeyFacts(
    Kind.FLOW_LOG,
    A,
    "us-gov-west-1",
    "fl-0123456789abcdef0",
    datetime(2026, 11, 21, 10, 5, tzinfo=UTC),
    detail="vpcflowlogs",
)
HIVE = f"aws-account-id={A}/aws-service=vpcflowlogs/aws-region=us-gov-west-1/year=2026/month=11/day=21/"


@pytest.mark.parametrize(
    "folders",
    [
        f"AWSLogs/{A}/vpcflowlogs/us-gov-west-1/2026/11/21/",
        f"AWSLogs/{A}/vpcflowlogs/us-gov-west-1/2026/11/21/10/",
        f"my/own/prefix/AWSLogs/{A}/vpcflowlogs/us-gov-west-1/2026/11/21/",
        f"o-a1b2c3d4e5/AWSLogs/{A}/vpcflowlogs/us-gov-west-1/2026/11/21/",
        f"AWSLogs/o-a1b2c3d4e5/{A}/vpcflowlogs/us-gov-west-1/2026/11/21/",
        f"999999999999/prod-vpc/AWSLogs/{A}/vpcflowlogs/us-gov-west-1/2026/11/21/",
        f"AWSLogs/999999999999/x/AWSLogs/{A}/vpcflowlogs/us-gov-west-1/2026/11/21/",
        f"AWSLogs/{HIVE}",
        f"prefix/AWSLogs/{HIVE}hour=10/",
        f"AWSLogs/{HIVE.replace('aws-service=', 'service=')}",
        "",  # copied somewhere flat
        "replicated/from/elsewhere/",
    ],
)
def test_the_file_name_says_it_in_every_folder(folders: str) -> None:
    assert facts(folders + FILE) == FULL


@pytest.mark.parametrize("ending", [".log.gz", ".log.parquet", ".log"])
def test_endings(ending: str) -> None:
    assert facts(FILE.replace(".log.gz", ending)) == FULL


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (
            f"AWSLogs/{A}/vpcflowlogs/eu-west-1/2026/11/21/renamed.gz",
            KeyFacts(Kind.FLOW_LOG, A, "eu-west-1", detail="vpcflowlogs"),
        ),
        (
            f"AWSLogs/{HIVE}renamed.gz",
            KeyFacts(Kind.FLOW_LOG, A, "us-gov-west-1", detail="vpcflowlogs"),
        ),
        (
            "flow/2026/11/21/10/to-s3-4-2026-11-21-10-05-33-0a1b2c3d-1111-2222-3333-0a1b2c3d4e5f",
            KeyFacts(Kind.UNKNOWN, time=datetime(2026, 11, 21, 10, 5, 33, tzinfo=UTC)),
        ),
        (
            "2026/11/21/10/to-s3-4-2026-11-21-10-05-33-0a1b2c3d-1111-2222-3333-0a1b2c3d4e5f.gz",
            KeyFacts(Kind.UNKNOWN, time=datetime(2026, 11, 21, 10, 5, 33, tzinfo=UTC)),
        ),
        (
            "processing-failed/2026/11/21/10/to-s3-4-2026-11-21-10-05-33-0a1b2c3d-1111-2222-3333-0a1b2c3d4e5f",
            KeyFacts(Kind.UNKNOWN, time=datetime(2026, 11, 21, 10, 5, 33, tzinfo=UTC)),
        ),
        (f"processing-failed/{FILE}", FULL),  # a flow log in a folder of that name is one
        (
            "exported/cd09baab-c0d2-4559-81ae-01a27c925079/eni-03a5ba858714a7dbe-all/000000.gz",
            KeyFacts(Kind.UNKNOWN, log_stream="eni-03a5ba858714a7dbe-all"),
        ),
        ("exported/aws-logs-write-test", KeyFacts(Kind.WRITE_TEST)),
        ("anything at all", KeyFacts(Kind.UNKNOWN)),
        (
            f"AWSLogs/{A}/CloudTrail/us-east-1/2026/11/21/{A}_CloudTrail_us-east-1_20261121T1005Z_x.json.gz",
            KeyFacts(Kind.FOREIGN, A, "us-east-1", detail="CloudTrail"),
        ),
        (
            f"AWSLogs/{A}/elasticloadbalancing/us-east-1/2026/11/21/x.log.gz",
            KeyFacts(Kind.FOREIGN, A, "us-east-1", detail="elasticloadbalancing"),
        ),
        (f"AWSLogs/{A}/vpcflowlogs/", KeyFacts(Kind.FLOW_LOG, A, detail="vpcflowlogs")),
    ],
)
def test_keys(key: str, expected: KeyFacts) -> None:
    assert facts(key) == expected


def test_a_time_that_is_none_costs_only_the_time() -> None:
    assert facts(FILE.replace("20261121T1005Z", "20260231T9905Z")).time is None


@given(st.text())
def test_no_key_raises(key: str) -> None:
    facts(key)


def test_filter() -> None:
    assert KeyFilter().allows("anything")
    both = KeyFilter(("flow/", "AWSLogs/"), (".gz", ".parquet"))
    assert both.allows("flow/x.gz")
    assert not both.allows("flow/x.txt")
    assert not both.allows("other/x.gz")
