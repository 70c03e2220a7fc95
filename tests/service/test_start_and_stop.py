"""Starting and stopping in one process: a stop that comes while the start is under way, an endpoint that is taken."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from edfn_agent import agent as module
from edfn_agent.agent import Agent
from edfn_agent.config import load

CONFIG = """
collectors: [udp://127.0.0.1:9]
exporters: {address_mode: field}
aws: {region: us-east-1, regions: [us-east-1]}
state_directory: STATE
http: {listen: null}
"""


def test_stop_waits_for_what_is_half_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "edfn-agent.yaml"
    path.write_text(CONFIG.replace("STATE", str(tmp_path / "state")))
    half, go_on = threading.Event(), threading.Event()
    told: list[str] = []

    class Schedule:
        def __init__(self, *_: object) -> None: ...

        def start(self) -> None:
            half.set()
            assert go_on.wait(20)
            told.append("started")

        def stop(self) -> None:
            told.append("stopped")

        def run_now(self) -> None: ...

    monkeypatch.setattr(module, "Schedule", Schedule)
    monkeypatch.setattr(Agent, "discover", lambda _: None)
    agent = Agent(load(path))
    starting = threading.Thread(target=agent.start, daemon=True)
    starting.start()
    assert half.wait(20)
    stopping = threading.Thread(target=agent.stop, daemon=True)
    stopping.start()
    assert agent.stopping.wait(20)
    go_on.set()
    stopping.join(20)
    assert told == ["started", "stopped"]


def test_an_endpoint_that_is_taken_is_named_in_health_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Agent, "discover", lambda _: None)
    path = tmp_path / "edfn-agent.yaml"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        inputs = f"inputs: {{firehose: {{listen: '127.0.0.1:{port}'}}}}\n"
        path.write_text(CONFIG.replace("STATE", str(tmp_path / "state")) + inputs)
        agent = Agent(load(path))
        agent.start()
        assert any(f"{port}" in each for each in agent.degraded()), agent.degraded()
    agent._sources.follow(agent._current.known)
    assert agent.degraded() == []
    agent.stop()
