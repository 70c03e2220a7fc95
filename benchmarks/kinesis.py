"""The way of a Kinesis record beside that of an S3 object: CPU of Java, couriers and agent for each flow record.

    python benchmarks/kinesis.py                 two sizes of record, then S3: about two minutes; needs Java

The stream (ministack, over HTTP, 2 shards) has records as a subscription filter writes them: gzip around an envelope
of so many log events. The real daemon, its couriers and the agent share one core; emulator, writer and sink the other.
CPU is user and system time from the first record put, when the daemon is warm, to the last one acknowledged.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import service as through_s3
from run import Sink, cores
from service import ACCOUNT, LINE, REGION, cpu, free_port, ministack

from tests.kinesis.installation import Stream, children, command_of

SHARDS = 2
WARM = 400  # records
MOST = 4 << 20  # octets of one PutRecords call; AWS takes 5 MiB


def record(events: int, seed: int) -> bytes:
    """One Kinesis record with so many flow records."""
    now = int(time.time()) - 60
    lines = [
        LINE.format(
            eni=seed % 40, a=n % 200, b=n // 7 % 250, c=n // 11 % 250, port=1024 + n % 60000,
            packets=1 + n % 90, octets=60 + n % 90000, start=now, end=now + n % 50,
        )
        for n in ((number + seed * events) * 2654435761 for number in range(events))
    ]  # fmt: skip
    envelope = {
        "messageType": "DATA_MESSAGE",
        "owner": ACCOUNT,
        "logGroup": "/vpc/flow-logs",
        "logStream": f"eni-{seed % 40:017x}-all",
        "subscriptionFilters": ["all"],
        "logEvents": [
            {"id": f"{seed:028d}{number:028d}", "timestamp": now * 1000, "message": line}
            for number, line in enumerate(lines)
        ],
    }
    return gzip.compress(json.dumps(envelope).encode(), 6)


def put(stream: Stream, records: list[bytes]) -> None:
    batch: list[dict[str, Any]] = []
    size = 0
    for number, data in enumerate([*records, b""]):
        if batch and (not data or len(batch) == 500 or size + len(data) > MOST):
            answer = stream.kinesis.put_records(StreamName=stream.name, Records=batch)
            assert answer["FailedRecordCount"] == 0
            batch, size = [], 0
        batch.append({"Data": data, "PartitionKey": str(number)})
        size += len(data)


def acknowledged(port: int) -> int:
    try:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    except OSError:
        return -1
    wanted = 'edfn_deliveries_total{input="kinesis",outcome="acknowledged"} '
    return next((int(float(line[len(wanted) :])) for line in text.splitlines() if line.startswith(wanted)), 0)


def through_kinesis(url: str, name: str, records: list[bytes]) -> tuple[dict[str, float], float]:
    """CPU seconds by process, and wall seconds."""
    stream = Stream(name, SHARDS, url, url, ACCOUNT)
    with tempfile.TemporaryDirectory() as folder, Sink() as sink:
        state = Path(folder) / "state"
        stream.prepare_leases(state)
        put(
            stream, [record(50, shard) for shard in range(WARM)]
        )  # these pay for connections, imports and the first JIT
        port = free_port()
        path = Path(folder) / "edfn-agent.yaml"
        services = ("ec2", "sts", "logs", "iam", "kinesis", "dynamodb", "cloudwatch")
        configuration = {
            "collectors": [f"udp://127.0.0.1:{sink.port}"],
            "exporters": {"address_mode": "field"},
            "aws": {"region": REGION, "regions": [REGION], "endpoints": dict.fromkeys(services, url)},
            "discovery": {"schedule": "0 0 1 1 *"},
            "inputs": {"kinesis": {"streams": [{"arn": stream.arn, "idle_time": 0.25}]}},
            "state_directory": str(state),
            "http": {"listen": f"127.0.0.1:{port}"},
            "log": {"level": "error"},
        }
        path.write_text(yaml.safe_dump(configuration))
        environment = os.environ | {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "x"}
        environment |= dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
        agent = subprocess.Popen(
            [sys.executable, "-m", "edfn_agent.cli", "run", "-c", str(path)],
            env=environment | {"AWS_EC2_METADATA_DISABLED": "true"},
            preexec_fn=lambda: os.sched_setaffinity(0, {cores()[0]}),
        )
        try:
            wait(agent, lambda: acknowledged(port) >= WARM)
            (java,) = [each for each in children(agent.pid) if b"MultiLangDaemon" in command_of(each)]
            couriers = [each for each in children(java) if b"courier.py" in command_of(each)]
            who = {"Java": [java], "couriers": couriers, "agent": [agent.pid]}
            before = {name: sum(map(cpu, pids)) for name, pids in who.items()}
            began = time.monotonic()
            put(stream, records)
            wait(agent, lambda: acknowledged(port) >= WARM + len(records))
            wall = time.monotonic() - began
            return {name: sum(map(cpu, pids)) - before[name] for name, pids in who.items()}, wall
        finally:
            agent.send_signal(signal.SIGTERM)
            agent.wait(40)
            stream.kinesis.delete_stream(StreamName=name)


def wait(agent: subprocess.Popen[bytes], condition: Any) -> None:
    while not condition():
        assert agent.poll() is None, "the agent ended"
        time.sleep(0.05)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--flows", type=int, default=3_200_000, help="of one round; of fewer, Java's warming up blurs the figures"
    )
    parser.add_argument("--events", type=int, nargs="*", default=[50, 500], help="flow records in one record")
    given = parser.parse_args(arguments)
    figures: dict[str, list[float]] = {}
    load = os.getloadavg()[0]
    with ministack() as url:
        for number in range(given.rounds):
            for events in given.events:
                flows = given.flows // (8 if events < 200 else 1)
                records = [record(events, seed) for seed in range(flows // events)]
                used, wall = through_kinesis(url, f"bench-{events}-{number}", records)
                size = f"{events} in a record of {sum(map(len, records)) / len(records) / 1024:.1f} kB"
                for name, seconds in {**used, "all": sum(used.values())}.items():
                    figures.setdefault(f"Kinesis, {size}: {name}, CPU ns per flow record", []).append(
                        seconds / flows * 1e9
                    )
                figures.setdefault(f"Kinesis, {size}: flow records per second, wall", []).append(flows / wall)
            objects = [through_s3.body(100_000, seed) for seed in range(given.flows // 100_000)]
            seconds, wall, _ = through_s3.service(url, objects, f"bench-{number}", 2)
            figures.setdefault("S3: agent, CPU ns per flow record", []).append(seconds / given.flows * 1e9)
            figures.setdefault("S3: flow records per second, wall", []).append(given.flows / wall)
    print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after; {given.rounds} rounds")
    for name, values in figures.items():
        print(f"  {name:<75} {statistics.median(values):>10,.0f}   [{min(values):,.0f} to {max(values):,.0f}]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
