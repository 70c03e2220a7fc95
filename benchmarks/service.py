"""The service beside `export`: the same flow-log objects from S3 (ministack, over HTTP) to UDP, and from files to UDP.

    python benchmarks/service.py                 three rounds of 16 objects of 100,000 records, and 2,000 small objects

CPU is user and system time of the agent: from the announcements to the last acknowledgement for the service, the whole
process less a run over a file of one record for `export`. The sink polls on the other core, which it shares with the
emulator: wall time says more of that than of the agent. Per object: 2,000 objects of about 1 kB.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from edfn_agent.formats.layout import DEFAULT

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from run import Sink, cores, measure  # noqa: E402

ACCOUNT, REGION = "123456789012", "us-east-1"
TICKS = os.sysconf("SC_CLK_TCK")
LINE = (
    "2 123456789012 eni-{eni:017x} 10.0.{a}.{b} 198.51.100.{c} {port} 443 6 {packets} {octets} {start} {end} ACCEPT OK"
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def body(records: int, seed: int) -> bytes:
    """One object in the default format, as AWS writes it."""
    now = int(time.time()) - 60
    lines = [" ".join(DEFAULT.names)]
    for number in range(records):
        n = number * 2654435761 + seed
        lines.append(
            LINE.format(
                eni=n % 40, a=n % 200, b=n // 7 % 250, c=n // 11 % 250, port=1024 + n % 60000,
                packets=1 + n % 90, octets=60 + n % 90000, start=now, end=now + n % 50,
            )
        )  # fmt: skip
    return gzip.compress("\n".join([*lines, ""]).encode(), 6)


@contextmanager
def ministack() -> Iterator[str]:
    port = free_port()
    environment = os.environ | {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "LOG_LEVEL": "ERROR"}
    core = cores()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "ministack"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url + "/_ministack/health", timeout=1).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)


class Bucket:
    def __init__(self, url: str, name: str) -> None:
        settings: dict[str, Any] = {
            "endpoint_url": url,
            "region_name": REGION,
            "aws_access_key_id": ACCOUNT,
            "aws_secret_access_key": "x",
            "config": Config(s3={"addressing_style": "path"}),
        }
        self.s3, self.sqs = boto3.client("s3", **settings), boto3.client("sqs", **settings)
        self.name = name
        self.s3.create_bucket(Bucket=name)
        self.url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        self.arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        self.keys: list[tuple[str, int]] = []

    def put(self, number: int, data: bytes) -> None:
        name = f"{ACCOUNT}_vpcflowlogs_{REGION}_fl-0a1_{number:08x}.log.gz"
        key = f"AWSLogs/{ACCOUNT}/vpcflowlogs/{REGION}/2026/01/01/{name}"
        self.s3.put_object(Bucket=self.name, Key=key, Body=data)
        self.keys.append((key, len(data)))

    def announce(self) -> None:
        """All that was put since the last time, ten messages a call, as S3 would."""
        keys, self.keys = self.keys, []
        messages = [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": REGION,
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": self.name}, "object": {"key": key, "size": size, "eTag": "0"}},
            }
            for key, size in keys
        ]
        for first in range(0, len(messages), 10):
            part = messages[first : first + 10]
            entries = [{"Id": str(n), "MessageBody": json.dumps({"Records": [each]})} for n, each in enumerate(part)]
            self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def acknowledged(port: int) -> int:
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    except OSError:
        return -1
    wanted = 'edfn_deliveries_total{input="s3",outcome="acknowledged"} '
    return next((int(float(line[len(wanted) :])) for line in text.splitlines() if line.startswith(wanted)), 0)


def service(url: str, bodies: list[bytes], name: str, concurrency: int) -> tuple[float, float, int]:
    """(CPU seconds, wall seconds, data records at the sink) from the announcements to the last object acknowledged."""
    bucket = Bucket(url, name)
    bucket.put(1 << 24, body(1, 0))  # the first one pays for connections and imports
    warming, bucket.keys = bucket.keys, []
    for number, data in enumerate(bodies):
        bucket.put(number, data)
    rest, bucket.keys = bucket.keys, warming
    with tempfile.TemporaryDirectory() as folder, Sink() as sink:
        port = free_port()
        path = Path(folder) / "edfn-agent.yaml"
        endpoints = dict.fromkeys(("ec2", "sts", "s3", "sqs", "logs", "iam"), url)
        path.write_text(
            yaml.safe_dump(
                {
                    "collectors": [f"udp://127.0.0.1:{sink.port}"],
                    "exporters": {"address_mode": "field"},
                    "aws": {"region": REGION, "regions": [REGION], "endpoints": endpoints},
                    "discovery": {"schedule": "0 0 1 1 *"},
                    "inputs": {"s3": {"queues": [bucket.arn], "concurrency": concurrency, "duplicate_window": "12h"}},
                    "state_directory": str(Path(folder) / "state"),
                    "http": {"listen": f"127.0.0.1:{port}"},
                    "log": {"level": "error"},
                }
            )
        )
        environment = os.environ | {
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        agent = subprocess.Popen(
            [sys.executable, "-m", "edfn_agent.cli", "run", "-c", str(path)],
            env=environment,
            preexec_fn=lambda: os.sched_setaffinity(0, {cores()[0]}),
        )
        try:
            bucket.announce()
            while acknowledged(port) < 1 and agent.poll() is None:
                time.sleep(0.05)
            bucket.keys = rest
            used, began = cpu(agent.pid), time.monotonic()
            bucket.announce()
            while acknowledged(port) <= len(bodies) and agent.poll() is None:
                time.sleep(0.05)
            used, wall = cpu(agent.pid) - used, time.monotonic() - began
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(40)
    return used, wall, int(sink.counts["records"])


def export(bodies: list[bytes]) -> float:
    """CPU seconds of `edfn-agent export` of the same objects as files, start-up taken off."""
    with tempfile.TemporaryDirectory() as folder, Sink() as sink:
        paths = []
        for number, data in enumerate(bodies):
            paths.append(Path(folder) / f"{number}.log.gz")
            paths[-1].write_bytes(data)
        empty = Path(folder) / "empty.log.gz"
        empty.write_bytes(body(1, 0))
        agent = Path(sys.executable).with_name("edfn-agent")
        to = ["--collector", f"udp://127.0.0.1:{sink.port}", "--exporter-address", "field", "--json"]
        return measure([agent, "export", *paths, *to])[0] - measure([agent, "export", empty, *to])[0]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--objects", type=int, default=16)
    parser.add_argument("--records", type=int, default=100_000, help="of one object")
    parser.add_argument("--small", type=int, default=2000, help="objects of about 1 kB")
    given = parser.parse_args(arguments)
    large = [body(given.records, seed) for seed in range(given.objects)]
    small = [body(24, seed) for seed in range(given.small)]
    total, few = given.records * given.objects, 24 * given.small
    figures: dict[str, list[float]] = {}
    with ministack() as url:
        for number in range(given.rounds):
            used, wall, came = service(url, large, f"large-{number}", 2)
            figures.setdefault("service, CPU ns per record", []).append(used / total * 1e9)
            figures.setdefault("service, records per second of wall time", []).append(total / wall)
            assert came >= total, (came, total)
            figures.setdefault("export, CPU ns per record", []).append(export(large) / total * 1e9)
            used, wall, _ = service(url, small, f"small-{number}", 8)
            figures.setdefault("service, CPU us per small object", []).append(used / len(small) * 1e6)
            figures.setdefault("service, small objects per second", []).append(len(small) / wall)
            figures.setdefault("export, CPU us per small file", []).append(export(small) / len(small) * 1e6)
    print(f"{given.objects} objects of {given.records:,} records ({len(large[0]) >> 10} kB); "
          f"{given.small:,} of 24 records ({len(small[0])} octets, {few:,} records)")  # fmt: skip
    for name, values in figures.items():
        print(f"  {name:<50} {statistics.median(values):>12,.0f}   [{min(values):,.0f} to {max(values):,.0f}]")
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
