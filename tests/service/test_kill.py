"""Kill -9 at random moments: nothing is lost, and nothing comes twice but what the dead agent had in hand."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.service import Service, until

Install = Callable[..., Service]
KILLS = 3


@pytest.mark.parametrize("scheme", ["udp", "tcp"])
def test_nothing_is_lost_and_little_is_repeated(scheme: str, cloud: Cloud, install: Install) -> None:
    chance = random.Random(f"kill {scheme}")
    collector = Collector(scheme)
    service = install(collector, ipfix={"records_per_second": 6000}).start()
    in_hand: list[set[int]] = []
    for _ in range(KILLS):
        cloud.write(3000, per_delivery=200)
        enough = collector.unique + chance.randrange(200, 2500)
        until(lambda enough=enough: collector.unique >= enough, service.tail)
        time.sleep(chance.random() / 5)  # not to choose the moment between two messages
        service.kill()
        in_hand.append(cloud.in_hand(service.state))
        service.start()
    until(lambda: collector.unique == cloud.written, lambda: (collector.unique, cloud.written, service.tail()))
    until(lambda: cloud.queued() == 0)
    assert service.stop() == 0, service.tail()
    for number, times in collector.repeated().items():
        assert times <= sum(number in records for records in in_hand), f"record {number} came {times} times too often"
    collector.close()


def test_kill_while_a_collector_is_down(cloud: Cloud, install: Install) -> None:
    collector = Collector("tcp")
    collector.close()
    service = install(collector).start()
    cloud.write(800, per_delivery=100)
    until(lambda: service.metric("edfn_deliveries_in_flight") >= 2)
    service.kill()
    collector.open()
    service.start()
    until(lambda: collector.unique == cloud.written, service.tail)
    assert collector.repeated() == {}
    collector.close()


def test_stop_with_work_in_hand(cloud: Cloud, install: Install) -> None:
    """What can be sent within shutdown_timeout is; status 0; the rest is read by the next one, nothing twice."""
    collector = Collector("udp")
    service = install(collector, ipfix={"records_per_second": 1000}, shutdown_timeout="12s").start()
    cloud.write(20000, per_delivery=500)
    until(lambda: collector.unique > 300, service.tail)
    assert service.stop() == 0, service.tail()
    assert collector.unique < cloud.written
    # At once, but for what SQS hands out while the agent hangs up: that waits for its visibility timeout.
    until(lambda: sum(map(cloud.visible, (cloud.shop, cloud.lab))) == cloud.queued(), "messages are held back")
    assert not collector.received() & cloud.in_hand(service.state), "sent, and not noted"
    service.configure(ipfix={"records_per_second": 30000})
    service.start()
    until(lambda: collector.unique == cloud.written, service.tail)
    assert collector.repeated() == {}
    collector.close()


def test_stop_returns_what_a_dead_collector_does_not_take(cloud: Cloud, install: Install) -> None:
    collector = Collector("tcp")
    collector.close()
    service = install(collector, shutdown_timeout="4s").start()
    cloud.write(800, per_delivery=100)
    until(lambda: service.metric("edfn_deliveries_in_flight", "s3") >= 2)
    assert service.stop() == 0, service.tail()
    until(lambda: sum(map(cloud.visible, (cloud.shop, cloud.lab))) == cloud.queued() > 0, "messages are held back")
    collector.open()
    service.start()
    until(lambda: collector.unique == cloud.written, service.tail)
    assert collector.repeated() == {}
    collector.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(number: int, cloud: Cloud, install: Install) -> None:
    collector = Collector("tcp")
    collector.close()
    service = install(collector, shutdown_timeout="10m").start()
    cloud.write(400, per_delivery=100)
    until(lambda: service.metric("edfn_deliveries_in_flight") >= 2)
    service.signal(number)
    until(lambda: service.says("stopping"), service.tail)
    assert not service.ended
    service.signal(number)
    until(lambda: service.ended, service.tail)
    assert service.process is not None
    assert service.process.returncode == 1


def test_signal_before_it_is_ready(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector)
    service.spawn()
    until(lambda: service.says("edfn-agent starts"), service.tail)
    assert service.stop() == 0, service.tail()
    assert "Traceback" not in service.log


def test_memory_and_descriptors_stay_flat(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector).start()
    figures = []
    for _ in range(6):
        cloud.write(2000, per_delivery=50)
        until(lambda: collector.unique == cloud.written and cloud.queued() == 0, service.tail)
        figures.append(service.memory())
    early, late = figures[2], figures[-1]
    assert late[0] < early[0] * 1.15 + (8 << 20), figures
    assert late[1] <= early[1] + 8, figures
