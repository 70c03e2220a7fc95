"""What is in hand is bounded in octets, whatever comes."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from edfn_agent import pipeline as module
from edfn_agent.delivery import Delivery, Origin
from edfn_agent.enrich import Enricher, Flows
from edfn_agent.formats.reader import Reader
from edfn_agent.inventory.mapped import MappedDirectory
from edfn_agent.pipeline import Pipeline

LINES = 100
TEXT = b"srcaddr dstaddr bytes\n" + b"10.0.0.1 10.0.0.2 40\n" * LINES


class Exporter:
    def __init__(self) -> None:
        self.rows = 0
        self.abandoned = threading.Event()

    def send(self, flows: Flows) -> None:
        self.rows += flows.batch.rows


def test_rows_that_wait_for_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of so many sources that no batch is ever full, and before any has waited long."""
    monkeypatch.setattr(module, "LINGER", 1e9)
    exporter: Any = Exporter()
    pipeline = Pipeline(Reader, Enricher(MappedDirectory({})), exporter, waiting=50_000)
    most = settled = 0

    def done(*_: object) -> None:
        nonlocal settled
        settled += 1

    for number in range(200):
        origin = Origin("s3", f"queue-{number % 50}", vpc_id=f"vpc-{number % 50}")
        pipeline.submit(Delivery(origin, str(number), lambda: [TEXT], done))
        most = max(most, pipeline.octets_waiting)
    assert 25_000 < most <= 50_000
    assert exporter.rows > 150 * LINES
    pipeline.flush()
    assert exporter.rows == 200 * LINES
    assert settled == 200
    assert pipeline.octets_waiting == pipeline.octets_in_flight == 0
