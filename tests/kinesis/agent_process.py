"""An agent of nothing but the Kinesis input, as a process that can be killed. One JSON object says what it is to do.

Each delivered record is unpacked, its flow-log lines are appended to a file, and it is settled from another thread some
moments later, as the pipeline does it. A line on stdin is answered with the input's health; SIGTERM stops it in order.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from typing import Any

import boto3
from botocore.credentials import RefreshableCredentials
from botocore.session import get_session

from edfn_agent.delivery import Delivery, Outcome
from edfn_agent.inputs.kinesis.input import KinesisInput
from edfn_agent.inputs.kinesis.properties import Timing
from edfn_agent.inputs.kinesis.stream import Access, SessionAccess, StreamSettings


def assumed(role: str, external_id: str, endpoint: str) -> Any:
    """A session whose keys come from AssumeRole, with a session shorter than botocore's own refreshing could bear."""
    sts = boto3.client(
        "sts",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="111111111111",
        aws_secret_access_key="x",
    )

    def refresh() -> dict[str, str]:
        answer = sts.assume_role(RoleArn=role, RoleSessionName="edfn", ExternalId=external_id, DurationSeconds=900)
        keys = answer["Credentials"]
        return {
            "access_key": keys["AccessKeyId"],
            "secret_key": keys["SecretAccessKey"],
            "token": keys["SessionToken"],
            "expiry_time": keys["Expiration"].isoformat(),
        }

    session = get_session()
    session._credentials = RefreshableCredentials.create_from_metadata(
        refresh(), refresh, "sts-assume-role", advisory_timeout=180, mandatory_timeout=60
    )
    return boto3.Session(botocore_session=session)


def main() -> None:
    task = json.loads(sys.argv[1])
    logging.basicConfig(filename=task["log"], level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    endpoints = task["endpoints"]
    out = os.open(task["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    waiting: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

    def export() -> None:
        while True:
            delivery = waiting.get()
            time.sleep(task.get("pause", 0))
            try:
                envelope = json.loads(gzip.decompress(b"".join(delivery.chunks())))
            except (OSError, ValueError) as error:
                delivery.fail(Outcome.QUARANTINED, str(error))
            else:
                os.write(out, "".join(event["message"] + "\n" for event in envelope["logEvents"]).encode())
            delivery.release()

    threading.Thread(target=export, daemon=True).start()

    def quarantine(delivery: Delivery, reason: str, payload: bytes) -> None:
        os.write(out, b"quarantined " + payload + b"\n")

    def access(settings: StreamSettings) -> Access:
        if role := task.get("role"):
            session = assumed(role, "external=id,with commas", endpoints["sts"])
        else:
            session = boto3.Session(settings.account_id, "x", region_name=settings.region)
        return SessionAccess(session, settings.region, endpoints)

    kinesis = KinesisInput(
        [StreamSettings(**each) for each in task["streams"]],
        submit=waiting.put,
        quarantine=quarantine,
        access=access,
        state_directory=task["state"],
        shutdown_grace=task.get("grace", 5.0),
        endpoints=endpoints,
        timing=Timing(shard_sync=1, lease_assignment=2, parent_poll=1, failover=task.get("failover", 10)),
        look_every=2,
    )
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    kinesis.start()

    def converse() -> None:
        for _ in sys.stdin:
            health = [
                {
                    "state": h.state.value,
                    "pid": h.pid,
                    "shards": h.shards,
                    "restarts": h.restarts,
                    "detail": h.detail,
                    "application": h.application,
                    "last_lines": h.last_lines,
                }
                for h in kinesis.health()
            ]
            figures = [
                {"behind_ms": f.behind_ms, "records": f.records, "checkpoints": f.checkpoints}
                for f in kinesis.figures()
            ]
            print(json.dumps([h | f for h, f in zip(health, figures, strict=True)]), flush=True)
        done.set()  # the test is gone

    threading.Thread(target=converse, daemon=True).start()
    done.wait()
    kinesis.stop()


if __name__ == "__main__":
    main()
