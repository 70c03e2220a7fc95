"""`edfn-agent demo` as a person runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edfn_agent.demo.kinesis import lacking

pytestmark = pytest.mark.slow


def demo(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edfn_agent.cli", "demo", "--flows", "400", *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


def numbers(text: str, pattern: str) -> list[int]:
    match = re.search(pattern, text)
    assert match, text
    return [int(each.replace(",", "")) for each in match.groups()]


def test_every_record_of_every_vpc_arrives() -> None:
    with_kinesis = not lacking()
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    flows = "1,600" if with_kinesis else "1,200"
    assert f"written {flows} = exported {flows} = received {flows}" in done.stdout
    assert bool(re.search(r"branch +10\.4\.0\.1 +Kinesis .* 400 ", done.stdout)) == with_kinesis
    assert " error " not in done.stderr
    assert "Traceback" not in done.stderr


def test_without_java_it_says_so_and_goes_on_and_a_message_that_the_collector_lost_is_noticed(tmp_path: Path) -> None:
    done = demo("--lose", "1", PATH=str(tmp_path), JAVA_HOME="")
    (said,) = [line for line in done.stderr.splitlines() if "without Kinesis" in line]
    assert "Install Java 17 or newer" in said
    assert done.returncode == 1
    written, exported, received = numbers(
        done.stdout, r"NOT ALL THERE: written ([\d,]+), exported ([\d,]+), received ([\d,]+)"
    )
    assert written == exported == 1200
    assert received < written
    assert numbers(done.stdout, r"missing by sequence number: ([\d,]+)") == [written - received]


def test_kinesis_that_is_asked_for_and_cannot_be_is_an_error(tmp_path: Path) -> None:
    done = demo("--kinesis", PATH=str(tmp_path), JAVA_HOME="")
    assert done.returncode == 1
    assert "Install Java" in done.stderr
