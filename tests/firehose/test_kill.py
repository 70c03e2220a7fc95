"""kill -9 in the middle: what Firehose was told is delivered is in the file, and it sends the rest again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from .conftest import KEY, Firehose

AGENT = """
import os, sys, time
from pathlib import Path
from edfn_agent.inputs.firehose import EndpointSettings, FirehoseEndpoint

out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def submit(delivery):
    octets = b"".join(delivery.chunks())
    time.sleep(0.002)
    os.write(out, octets)
    delivery.release()

endpoint = FirehoseEndpoint(EndpointSettings("127.0.0.1", int(sys.argv[3]), access_key_file=Path(sys.argv[2])), submit)
print(endpoint.start()[1], flush=True)
time.sleep(60)
"""


def start(out: Path, key_file: Path, port: int = 0) -> tuple[subprocess.Popen[str], int]:
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(out), str(key_file), str(port)], stdout=subprocess.PIPE, text=True
    )
    assert agent.stdout is not None
    return agent, int(agent.stdout.readline())


def test_nothing_is_lost_by_kill_9(tmp_path: Path, key_file: Path) -> None:
    out = tmp_path / "exported"
    agent, port = start(out, key_file)
    acknowledged: set[str] = set()
    lock = threading.Lock()
    stop = time.monotonic() + 20

    def deliver(worker: int) -> None:
        """One shard of Firehose: a request is tried, with its id, until it is answered with 200."""
        firehose = Firehose("127.0.0.1", port, key=KEY, timeout=5)
        for number in range(60):
            request_id = f"{worker}-{number}"
            while time.monotonic() < stop:
                try:
                    if firehose.post([request_id.encode()], request_id).status == 200:
                        break
                except (OSError, ValueError):
                    pass
                time.sleep(0.02)
            with lock:
                acknowledged.add(request_id)

    workers = [threading.Thread(target=deliver, args=(worker,)) for worker in range(4)]
    for thread in workers:
        thread.start()
    try:
        for _ in range(2):
            time.sleep(0.15)
            os.kill(agent.pid, signal.SIGKILL)
            agent.wait()
            exported = out.read_text().split()
            with lock:
                assert acknowledged - set(exported) == set()
            agent, _ = start(out, key_file, port)
        for thread in workers:
            thread.join(25)
    finally:
        agent.kill()
        agent.wait()
        assert agent.stdout is not None
        agent.stdout.close()
    assert acknowledged == {f"{worker}-{number}" for worker in range(4) for number in range(60)}
    assert set(out.read_text().split()) == acknowledged
