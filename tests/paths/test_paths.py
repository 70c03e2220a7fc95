"""Flow logs on every path that AWS has, through the whole agent, compared record by record at a collector."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.firehose.conftest import Firehose
from tests.firehose.test_tls import certificate, trusting

from .agent import Agent, Collector, compare, free_port, until
from .cloud import Cloud
from .laid import BUCKET, PATHS, QUEUE, Site
from .shapes import Traffic

ACCESS_KEY = "a-key-of-twenty-and-more"


@dataclass
class Ran:
    """What one agent made of all paths."""

    traffic: Traffic
    collector: Collector
    agent: Agent
    refused: dict[str, str]  # path -> what the endpoint said


@pytest.fixture(scope="module")
def ran(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("paths")
    chain, private = certificate(folder, "flows.example.com")
    (folder / "access-key").write_text(ACCESS_KEY + "\n")
    endpoint = Firehose("127.0.0.1", free_port(), trusting(chain), ACCESS_KEY)
    cloud.bucket(BUCKET, QUEUE)
    site = Site(cloud, Traffic(), endpoint)
    deliveries, refused = [], dict[str, str]()
    for lay in PATHS:
        site.path = lay.__name__
        deliveries.append((lay.__name__, lay(site)))
    inputs = {
        "s3": {"layouts": site.bucket_layouts},
        "cloudwatch_logs": {
            "interval": "1s",
            "start_from": "10m",
            "log_groups": site.groups,
            "layouts": site.group_layouts,
        },
        "firehose": {
            "listen": f"127.0.0.1:{endpoint.port}",
            "certificate": str(chain),
            "key": str(private),
            "access_key_file": str(folder / "access-key"),
            "layouts": site.stream_layouts,
        },
    }
    collector = Collector()
    agent = Agent(folder, cloud, collector, inputs, free_port()).start()
    try:
        for name, deliver in deliveries:
            site.path = name
            try:
                deliver()
            except AssertionError as error:
                refused[name] = str(error)
        wanted = {number for records in site.traffic.expected.values() for number in records}
        with contextlib.suppress(AssertionError):  # each path says itself what is missing
            until(lambda: wanted <= set(collector.records) and cloud.waiting(QUEUE) == 0)
        yield Ran(site.traffic, collector, agent, refused)
    finally:
        status = agent.stop()
        collector.close()
    assert status == 0, agent.log


@pytest.mark.parametrize("path", [lay.__name__ for lay in PATHS])
def test_every_record_once_and_right(ran: Ran, path: str) -> None:
    assert ran.refused.get(path) is None
    compare(ran.collector, ran.traffic.expected[path])
    assert not ran.traffic.refused.get(path, set()) & set(ran.collector.records)


def test_nothing_else_came_and_nothing_was_left(ran: Ran, cloud: Cloud) -> None:
    wanted = {number for records in ran.traffic.expected.values() for number in records}
    assert set(ran.collector.records) == wanted
    assert ran.collector.errors == 0
    refused = sum(map(len, ran.traffic.refused.values()))
    assert ran.agent.metric("edfn_records_skipped_total", 'status="other_source"') == refused
    assert ran.agent.metric("edfn_records_exported_total") == len(wanted)
    assert ran.agent.metric("edfn_lines_malformed_total") == 0
    assert ran.agent.metric("edfn_deliveries_total", 'outcome="quarantined"') == 0
    assert cloud.waiting(QUEUE) == 0
