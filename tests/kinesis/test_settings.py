"""What the daemon is told: properties, flags, environment; and what a stream may be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edfn_agent.inputs.kinesis import java, launch, stream
from edfn_agent.inputs.kinesis.daemon import Daemon, describe_exit, environment, flags
from edfn_agent.inputs.kinesis.input import KinesisInput, worker_id
from edfn_agent.inputs.kinesis.java import Missing
from edfn_agent.inputs.kinesis.properties import properties
from edfn_agent.inputs.kinesis.stream import Keys, Standing, StreamError, StreamSettings, application_for, standing
from edfn_agent.inputs.kinesis.supervisor import Pauses, State

from .conftest import until

ARN = "arn:aws:kinesis:eu-west-1:111111111111:stream/flow-logs"


def text(settings: StreamSettings, **other: Any) -> str:
    return properties(
        settings,
        application=settings.application,
        worker_id="edfn-host-1",
        executable="/bin/sh /run/x.courier",
        **other,
    )


def test_the_properties_of_a_polled_stream() -> None:
    assert text(StreamSettings(ARN)) == (
        "executableName = /bin/sh /run/x.courier\n"
        "applicationName = edfn-agent-flow-logs\n"
        "streamName = flow-logs\n"
        "regionName = eu-west-1\n"
        "workerId = edfn-host-1\n"
        "AwsCredentialsProvider = ContainerCredentialsProvider\n"
        "initialPositionInStream = TRIM_HORIZON\n"
        "retrievalMode = POLLING\n"
        "metricsLevel = NONE\n"
        "callProcessRecordsEvenForEmptyRecordList = true\n"
        "timeoutInSeconds = 3600\n"
        "shutdownGraceMillis = 10000\n"
        "failoverTimeMillis = 10000\n"
        "shardSyncIntervalMillis = 5000\n"
        "leaseAssignmentIntervalMillis = 10000\n"
        "parentShardPollIntervalMillis = 2000\n"
        "isGracefulLeaseHandoffEnabled = false\n"
        "maxRecords = 10000\n"
        "idleTimeBetweenReadsInMillis = 1000\n"
    )


def test_the_properties_of_a_stream_with_fan_out_from_a_time() -> None:
    settings = StreamSettings(
        ARN,
        enhanced_fan_out=True,
        initial_position=datetime(2026, 1, 15, 10, 0, tzinfo=UTC),
        application_name="flows.second",
    )
    lines = text(settings, metrics_level="SUMMARY").splitlines()
    assert "retrievalMode = FANOUT" in lines
    assert "applicationName = flows.second" in lines
    assert "initialPositionInStreamExtended = 1768471200" in lines
    assert "metricsLevel = SUMMARY" in lines
    # any polling property would choose polling, were the mode not written
    assert not any(line.startswith(("maxRecords", "idleTime", "initialPositionInStream ")) for line in lines)


def test_values_are_escaped_as_java_reads_them() -> None:
    written = properties(StreamSettings(ARN), application="a", worker_id="räk\\n", executable="e")
    assert "workerId = r\\u00e4k\\\\n\n" in written
    with pytest.raises(ValueError, match="line break"):
        properties(StreamSettings(ARN), application="a", worker_id="a\nregionName = x", executable="e")


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"arn": "arn:aws:s3:::bucket"}, "is no ARN of a Kinesis data stream"),
        ({"application_name": "a b"}, "application name 'a b'"),
        ({"initial_position": "EARLIEST"}, "TRIM_HORIZON, LATEST or a time"),
        ({"max_records": 10_001}, "1 to 10000"),
        ({"idle_time": 0.1}, "0.2"),
    ],
)
def test_settings_that_cannot_be(setting: dict[str, Any], reason: str) -> None:
    with pytest.raises(StreamError, match=reason):
        StreamSettings(**({"arn": ARN} | setting))


def test_streams_are_told_apart_by_account_region_and_name() -> None:
    settings = StreamSettings("arn:aws-us-gov:kinesis:us-gov-west-1:111111111111:stream/a.b_c-D")
    assert (settings.partition, settings.region, settings.account_id, settings.name, settings.key) == (
        "aws-us-gov",
        "us-gov-west-1",
        "111111111111",
        "a.b_c-D",
        "111111111111.us-gov-west-1.a.b_c-D",
    )


@pytest.mark.parametrize(("shards", "heap"), [(None, 384), (1, 192), (4, 384), (20, 1408)])
def test_the_heap_follows_the_shards(shards: int | None, heap: int) -> None:
    assert flags(shards) == [
        "-Xms16m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Xss512k",
        f"-Xmx{heap}m",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
    ]


def test_given_flags_come_last_and_win() -> None:
    assert flags(4, ["-Xss1m"]) == [*flags(4), "-Xss1m"]
    given = flags(4, ["-Xmx1g"])
    assert [each for each in given if each.startswith("-Xmx")] == ["-Xmx1g"]
    given = flags(1, ["-XX:+UseG1GC"])
    assert "-XX:+UseSerialGC" not in given, "Java starts with one collector only"
    assert "-Xmx192m" in given


def test_java_sees_no_secret_of_the_agent() -> None:
    own = {
        "PATH": "/bin",
        "EDFN_EXTERNAL_ID": "secret",
        "AWS_ACCESS_KEY_ID": "secret",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "secret",
        "AWS_PROFILE": "hub",
        "AWS_CA_BUNDLE": "/ca.pem",
        "AWS_ENDPOINT_URL_STS": "http://sts",
        "HTTPS_PROXY": "http://proxy:3128",
        "NO_PROXY": "10.0.0.0/8",
    }
    assert environment(own, {"TOKEN": "t"}, "eu-west-1", {"kinesis": "http://k", "dynamodb": "http://d.{region}"}) == {
        "PATH": "/bin",
        "AWS_CA_BUNDLE": "/ca.pem",
        "AWS_ENDPOINT_URL_STS": "http://sts",
        "AWS_ENDPOINT_URL_KINESIS": "http://k",
        "AWS_ENDPOINT_URL_DYNAMODB": "http://d.eu-west-1",
        "HTTPS_PROXY": "http://proxy:3128",
        "NO_PROXY": "10.0.0.0/8,127.0.0.1",
        "no_proxy": "10.0.0.0/8,127.0.0.1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_REGION": "eu-west-1",
        "TOKEN": "t",
    }


def test_pauses_grow_to_a_minute_and_start_again() -> None:
    pauses = Pauses(chance=lambda: 0.5)
    assert [pauses.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    pauses.reset()
    assert pauses.next() == 1
    assert 0.8 <= Pauses(chance=lambda: 0.0).next() <= Pauses(chance=lambda: 1.0).next() < 1.21


def test_a_worker_id_stays_with_its_state_directory(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = worker_id(tmp_path)
    assert worker_id(tmp_path) == first
    assert worker_id(tmp_path / "other") != first


# ---- the stream's standing, with answers that no emulator gives


class ServiceError(Exception):
    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class Account:
    """Answers of AWS, by call."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def keys(self) -> Keys:
        raise NotImplementedError

    def client(self, service: str) -> Any:
        return self

    def __getattr__(self, call: str) -> Any:
        def answer(**_: Any) -> Any:
            if isinstance(self._answers[call], Exception):
                raise self._answers[call]
            return self._answers[call]

        return answer


def summary(status: str = "ACTIVE", **other: Any) -> dict[str, Any]:
    return {"StreamDescriptionSummary": {"StreamStatus": status, "OpenShardCount": 3, **other}}


@pytest.mark.parametrize(
    ("answer", "gone", "denied", "problem"),
    [
        (summary(), False, False, ""),
        (summary("UPDATING"), False, False, ""),
        (summary("CREATING"), False, False, "being created"),
        (summary("DELETING"), True, False, "being deleted"),
        (ServiceError("ResourceNotFoundException"), True, False, "not there"),
        (ServiceError("AccessDeniedException"), False, True, "kinesis:DescribeStreamSummary is refused"),
        (ServiceError("403", 403), False, True, "is refused"),
        (ServiceError("ExpiredTokenException"), False, True, "is refused"),
        (ConnectionError("no route"), False, False, "cannot be described: no route"),
    ],
)
def test_what_aws_says_of_a_stream(answer: Any, gone: bool, denied: bool, problem: str) -> None:
    now = standing(StreamSettings(ARN), Account(describe_stream_summary=answer))
    assert (now.gone, now.denied) == (gone, denied)
    assert problem in now.problem
    assert bool(problem) == bool(now.problem)
    if problem:
        assert "flow-logs in account 111111111111, eu-west-1" in now.problem


@pytest.mark.parametrize(
    ("table", "application"),
    [
        ({"Table": {"CreationDateTime": datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)}}, "edfn-agent-flow-logs"),
        ({"Table": {"CreationDateTime": datetime(2026, 3, 1, 11, 59, 58, tzinfo=UTC)}}, "edfn-agent-flow-logs"),
        ({"Table": {"CreationDateTime": datetime(2026, 1, 1, tzinfo=UTC)}}, "edfn-agent-flow-logs-20260301T120000"),
        (ServiceError("ResourceNotFoundException"), "edfn-agent-flow-logs"),
        (ServiceError("AccessDeniedException"), "edfn-agent-flow-logs"),
    ],
)
def test_leases_of_a_former_stream_are_left_alone(table: Any, application: str) -> None:
    now = Standing(created=datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC))
    assert application_for(StreamSettings(ARN), now, Account(describe_table=table)) == application


def test_when_the_lease_table_cannot_be_looked_at_nothing_is_guessed() -> None:
    now = Standing(created=datetime(2026, 3, 1, tzinfo=UTC))
    with pytest.raises(ServiceError):
        application_for(StreamSettings(ARN), now, Account(describe_table=ServiceError("InternalServerError", 500)))


# ---- Java and the jars


def java_that_says(directory: Path, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "java"
    program.write_text(f"#!/bin/sh\necho '{text}' >&2\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', "17.0.15"),
        ('openjdk version "21" 2023-09-19', "21"),
        ('java version "25.0.1-ea" 2026-01-01', "25.0.1-ea"),
    ],
)
def test_a_java_that_will_do(tmp_path: Path, says: str, version: str) -> None:
    program = java_that_says(tmp_path, says)
    assert java.find_java({"PATH": str(tmp_path)}) == (program, version)


def test_java_home_goes_first_and_an_old_one_is_passed_over(tmp_path: Path) -> None:
    java_that_says(tmp_path / "old" / "bin", 'java version "1.8.0_442"')
    new = java_that_says(tmp_path / "new", 'openjdk version "17.0.1"')
    assert java.find_java({"JAVA_HOME": str(tmp_path / "old"), "PATH": str(tmp_path / "new")})[0] == new
    with pytest.raises(Missing, match=r"17 or newer; found .*old/bin/java \(1.8.0_442\)\. Install Java 17"):
        java.find_java({"JAVA_HOME": str(tmp_path / "old"), "PATH": "/nowhere"})


def test_no_java() -> None:
    with pytest.raises(Missing, match=r"openjdk-17-jre-headless"):
        java.find_java({"PATH": "/nowhere"})


@pytest.mark.parametrize(
    ("jars", "reason"),
    [
        (None, "is not installed"),
        ({}, "without its jars"),
        ({"amazon-kinesis-client-multilang-3.1.3.jar": b"x", "netty.jar": b""}, r"empty jars in .*netty\.jar"),
    ],
)
def test_jars_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jars: dict[str, bytes] | None, reason: str
) -> None:
    if jars is not None:
        place = tmp_path / "amazon_kclpy" / "jars"
        place.mkdir(parents=True)
        (place.parent / "__init__.py").write_text("raise RuntimeError('must not be imported')")
        for name, octets in jars.items():
            (place / name).write_bytes(octets)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(Missing, match=reason) as missing:
        java.find_jars()
    assert "pip install" in str(missing.value)


def test_versions_are_told_whatever_is_missing() -> None:
    assert set(java.versions({"PATH": "/nowhere"})) == {"amazon-kclpy", "Kinesis Client Library", "Java"}


def test_without_java_the_input_says_so_and_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(java, "find", lambda: (_ for _ in ()).throw(Missing("Kinesis needs Java")))
    without = KinesisInput(
        [StreamSettings(ARN)],
        submit=lambda _: None,
        quarantine=lambda *_: None,
        access=lambda _: Account(),
        state_directory=tmp_path,
    )
    without.start()
    (health,) = without.health()
    assert (health.state, health.detail, health.well) == (State.UNAVAILABLE, "Kinesis needs Java", False)
    without.reload([])
    assert without.health() == []
    without.stop()


@pytest.mark.parametrize("wrong", [{"metrics_level": "ALL"}, {"instance": "a b"}])
def test_settings_of_the_input_that_cannot_be(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(StreamError):
        KinesisInput(
            [],
            submit=lambda _: None,
            quarantine=lambda *_: None,
            access=lambda _: Account(),
            state_directory=tmp_path,
            **wrong,
        )


# ---- a process in the daemon's place


def run(tmp_path: Path, script: str) -> Daemon:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_WRONLY)
    try:
        return Daemon("flow-logs", ["/bin/sh", "-c", script], {"PATH": "/bin:/usr/bin"}, lock)
    finally:
        os.close(lock)


def test_its_log_goes_into_the_agents_with_its_level(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    daemon = run(
        tmp_path,
        "echo 'KCL|WARN|LeaseRenewer|slow' >&2; echo 'KCL|ERROR|Worker|failed' >&2; echo 'java.io.IOException: x' >&2;"
        " echo '\tat y' >&2; echo 'KCL|INFO|Worker|well' >&2; sleep 0.5; echo 'Unrecognized VM option'; exit 1",
    )
    until(daemon.ended)
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "kinesis flow-logs: LeaseRenewer: slow"),
        ("ERROR", "kinesis flow-logs: Worker: failed\njava.io.IOException: x\n\tat y"),
        ("INFO", "kinesis flow-logs: Worker: well"),
        ("ERROR", "kinesis flow-logs: java: Unrecognized VM option"),
    ]
    assert list(daemon.tail)[1:3] == ["ERROR Worker: failed", "java.io.IOException: x"]
    assert daemon.ended() == "status 1"


def test_a_long_line_does_not_fill_the_memory(tmp_path: Path) -> None:
    daemon = run(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo done")
    until(daemon.ended)
    assert sum(len(line) for line in daemon.tail) < 10_000


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, "gave up starting"), (1, "status 1"), (3, "out of memory"), (143, "told to end"), (-9, "killed by SIGKILL")],
)
def test_every_exit_has_a_name(status: int, text: str) -> None:
    assert text in describe_exit(status)


def test_it_does_not_outlive_its_parent(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = (
        "import subprocess, sys, os, time\n"
        f"child = subprocess.Popen([sys.executable, {launch.__file__!r}, str(os.getpid()), '/bin/sleep', '60'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        child = int(until(lambda: pid_file.exists() and pid_file.read_text()))
        until(lambda: b"sleep" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0])
    finally:
        parent.kill()
        parent.wait()
    until(lambda: not running(child), 5)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_files_are_for_the_owner_only(tmp_path: Path) -> None:
    from edfn_agent.inputs.kinesis.supervisor import _write

    path = _write(tmp_path / "x.properties", "text")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stream.METRICS_LEVELS == ("NONE", "SUMMARY", "DETAILED")
    assert time.time() - path.stat().st_mtime < 60
