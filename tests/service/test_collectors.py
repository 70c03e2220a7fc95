"""Collectors that are restarted, stall, are dead, ask for certificates; what is seen on the wire."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service.aws import Cloud
from tests.service.certificates import Authority
from tests.service.collector import Collector
from tests.service.service import Service, until

Install = Callable[..., Service]
BATCH = 16384
"""Records that the agent hands over at a time: what it has to send again when a connection goes."""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    folder = tmp_path / "certificates"
    folder.mkdir()
    return Authority(folder)


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_stream_is_broken_in_the_middle(scheme: str, cloud: Cloud, install: Install, authority: Authority) -> None:
    """Three times. Nothing is lost; what comes twice was in hand."""
    described: dict[str, Any] = {}
    context = None
    if scheme == "tls":
        context = authority.mutual("collector")
        certificate, key = authority.issue("agent")
        described = {"ca_file": str(authority.file), "certificate": str(certificate), "key": str(key)}
    collector = Collector(scheme, context)
    service = install({"url": collector.url, **described}, ipfix={"records_per_second": 8000}).start()
    restarts = 3
    for _ in range(restarts):
        for source in (cloud.shop, cloud.lab):
            cloud.put(source, 2500)
        before = collector.total
        until(lambda before=before: collector.total > before + 400, service.tail)
        collector.close(service.pid)
        collector.open()
    until(lambda: collector.unique == cloud.written, lambda: (collector.unique, cloud.written, service.tail()))
    until(lambda: cloud.queued() == 0)
    assert collector.sessions == restarts + 1
    assert collector.total - collector.unique <= restarts * BATCH
    assert max(collector.repeated().values(), default=0) <= restarts
    assert collector.missing == collector.unknown == collector.errors == 0
    assert service.metric("edfn_send_errors_total", collector.url) >= restarts
    assert service.stop() == 0, service.tail()
    collector.close()


def test_tls_to_a_stranger_is_refused(cloud: Cloud, install: Install, authority: Authority, tmp_path: Path) -> None:
    """A certificate of somebody else's: nothing is sent, nothing acknowledged, and health says why."""
    other = tmp_path / "other"
    other.mkdir()
    collector = Collector("tls", Authority(other, "stranger").mutual("collector"))
    certificate, key = authority.issue("agent")
    described = {"ca_file": str(authority.file), "certificate": str(certificate), "key": str(key)}
    service = install({"url": collector.url, **described}).start()
    cloud.write(200, per_delivery=50)
    until(lambda: "certificate is not accepted" in str(service.ready()), service.tail)
    assert not service.ready()["ready"]
    assert collector.total == 0
    assert cloud.queued() > 0
    collector.close()


def test_files_of_tls_that_are_not_there(cloud: Cloud, install: Install, authority: Authority) -> None:
    """A key that a renewal has not written yet: it waits, and returns nothing to the queue meanwhile."""
    collector = Collector("tls", authority.mutual("collector"))
    certificate, key = authority.issue("agent")
    secret = key.read_bytes()
    key.unlink()
    described = {"ca_file": str(authority.file), "certificate": str(certificate), "key": str(key)}
    service = install({"url": collector.url, **described}).start()
    cloud.write(400, per_delivery=100)
    until(lambda: "agent.key" in str(service.ready()["reasons"]), service.tail)
    assert service.metric("edfn_deliveries_total", "returned") == 0
    key.write_bytes(secret)
    until(lambda: collector.unique == cloud.written, service.tail)
    collector.close()


def test_udp_collector_that_is_restarted(cloud: Cloud, install: Install) -> None:
    """What it forgot, it is told again without being asked; what was sent to nobody is counted."""
    collector = Collector("udp")
    service = install(collector, ipfix={"template_refresh": "10s"}, exporters={"address_mode": "field"}).start()
    cloud.write(800, per_delivery=100)
    until(lambda: collector.unique == cloud.written, service.tail)
    collector.close()
    templates = collector.templates
    collector.open()
    until(lambda: collector.templates > templates, service.tail)
    until(lambda: len(collector.names) == 4)
    cloud.write(800, per_delivery=100)
    until(lambda: collector.unique == cloud.written, service.tail)
    assert collector.unknown == 0
    collector.close()
    until(lambda: service.metric("edfn_send_errors_total", collector.url) > 0, service.tail)


def test_a_required_collector_holds_back_and_resumes(cloud: Cloud, collector: Collector, install: Install) -> None:
    second = Collector("tcp")
    second.close()
    service = install(collector, second).start()
    cloud.write(800, per_delivery=100)
    until(lambda: second.url in str(service.ready()["reasons"]), service.tail)
    assert not service.ready()["ready"]
    assert cloud.queued() == 4
    assert not collector.received() - cloud.in_hand(service.state)
    second.open()
    until(lambda: second.unique == cloud.written == collector.unique, service.tail)
    until(lambda: cloud.queued() == 0 and not cloud.in_hand(service.state), service.tail)
    assert second.repeated() == {}
    until(lambda: service.ready()["ready"])
    second.close()


@pytest.mark.parametrize("way", ["refuses", "stalls"])
def test_an_optional_one_holds_nobody_back(way: str, cloud: Cloud, collector: Collector, install: Install) -> None:
    optional = Collector("tcp")
    if way == "refuses":
        optional.close()
    else:
        optional.stall(True)
    service = install({"url": optional.url, "required": False}, collector).start()
    for _ in range(3):
        cloud.write(8000, per_delivery=2000)
        until(lambda: collector.unique == cloud.written, service.tail, 40)
    until(lambda: cloud.queued() == 0)
    assert collector.repeated() == {}
    ready = service.ready()
    assert ready["ready"]
    if way == "refuses":
        assert optional.url in str(ready["reasons"])
        optional.open()
    else:
        optional.stall(False)
    # it gets what comes from some time on, without another restart
    for _ in range(100):
        before = optional.total
        cloud.put(cloud.shop, 50)
        until(lambda: collector.unique == cloud.written, service.tail)
        if way == "refuses" and optional.total > before:
            break
        if way == "stalls" and cloud.written in optional.received():
            break
    else:
        raise AssertionError(f"the optional collector never came back: {service.tail()}")
    optional.close()


def test_rate_and_size_on_the_wire(cloud: Cloud, collector: Collector, install: Install) -> None:
    """Options records included: rate * (time + 10 ms) and one burst, give or take the receiver's clock."""
    rate, size = 4000, 700
    service = install(collector, ipfix={"records_per_second": rate, "max_message_size": size}).start()
    cloud.write(12000, per_delivery=1000)
    until(lambda: collector.unique == cloud.written, service.tail)
    assert max(collector.sizes) <= size
    assert max(collector.sizes) > size - 80  # they are filled
    times = collector.times
    steady = [n for n, (_, records) in enumerate(times) if records > 5]
    first, last = steady[0], steady[-1]
    seconds = times[last][0] - times[first][0]
    records = sum(records for _, records in times[first : last + 1])
    assert records <= rate * (seconds + 0.5)


def test_small_payloads_share_messages(cloud: Cloud, collector: Collector, install: Install) -> None:
    """Objects of two records each: far fewer messages than objects."""
    queue = install(collector, inputs={"s3": {"concurrency": 16}})
    for _ in range(150):
        cloud.put(cloud.shop, 2, idle=False)
    queue.start()
    until(lambda: collector.unique == cloud.written and cloud.queued() == 0, queue.tail)
    assert collector.repeated() == {}
    assert collector.flow_messages < 75, collector.flow_messages
