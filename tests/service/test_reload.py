"""SIGHUP: what changes, changes without a loss; a faulty file changes nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.service import Service, until

Install = Callable[..., Service]


def test_another_collector_and_limit(cloud: Cloud, collector: Collector, install: Install) -> None:
    """Under load. Each record is at the old collector or at the new one."""
    other = Collector("tcp")
    service = install(collector, ipfix={"records_per_second": 3000}).start()
    cloud.write(6000, per_delivery=200)
    until(lambda: collector.unique > 500, service.tail)
    service.configure(collectors=[other.url], ipfix={"records_per_second": 20000, "max_message_size": 600})
    service.reload()
    cloud.write(400, per_delivery=100)
    until(lambda: len(collector.received() | other.received()) == cloud.written, service.tail)
    assert not collector.received() & other.received()
    assert other.unique > 400
    assert max(other.sizes) <= 600 < max(collector.sizes)
    until(lambda: service.metric("edfn_records_exported_total") == cloud.written)
    until(lambda: service.metric("edfn_messages_sent_total", other.url) == len(other.sizes))
    assert other.missing == other.unknown == 0
    assert service.stop() == 0
    other.close()


def test_away_from_a_dead_collector(cloud: Cloud, collector: Collector, install: Install) -> None:
    """The way out of a wrong address is the configuration: what waits for the dead one goes to the new one."""
    dead = Collector("tcp")
    dead.close()
    service = install(dead).start()
    cloud.write(1000, per_delivery=100)
    until(lambda: service.metric("edfn_deliveries_in_flight") >= 2)
    until(lambda: not service.ready()["ready"])
    service.configure(collectors=[collector.url])
    service.reload()
    until(lambda: collector.unique == cloud.written, service.tail)
    assert collector.repeated() == {}
    until(lambda: service.ready()["ready"], service.tail)


def test_inputs_come_and_go(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector, inputs={"cloudwatch_logs": None}).start()
    service.configuration["inputs"].pop("cloudwatch_logs")
    service.configure()
    service.reload()
    cloud.put(cloud.shop, 300)
    until(lambda: collector.unique == 300, service.tail)
    cloud.log(cloud.office, 300)
    service.configuration["inputs"] = {"cloudwatch_logs": {"interval": "1s", "start_from": "10m"}}
    service.configure()
    service.reload()
    cloud.put(cloud.lab, 300)
    until(lambda: collector.unique == 600, service.tail)
    service.configure(inputs={"s3": {"concurrency": 4}})
    service.reload()
    until(lambda: collector.unique == 900, service.tail)
    assert collector.repeated() == {}
    assert service.stop() == 0


def test_exporter_addresses(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector).start()
    cloud.put(cloud.shop, 100)
    until(lambda: collector.unique == 100, service.tail)
    vpc = cloud.shop.vpc
    domain = next(domain for domain, name in collector.names.items() if name == vpc.name)
    assert collector.exporters[domain] == str(vpc.router)
    service.configure(exporters={"vpcs": {vpc.vpc_id: "192.0.2.77"}})
    service.reload()
    cloud.put(cloud.shop, 100)
    until(lambda: collector.unique == 200, service.tail)
    assert collector.exporters[domain] == "192.0.2.77"
    assert service.metric("edfn_records_exported_total", vpc.vpc_id, "192.0.2.77") == 100


def test_a_faulty_file_is_refused(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector).start()
    good = service.path.read_text()
    service.path.write_text(good + "\nipfixx: {}\nlog: {level: loud}\n")
    service.reload(refused=True)
    assert "ipfixx" in service.log
    assert "loud" in service.log
    cloud.write(400, per_delivery=100)
    until(lambda: collector.unique == 400, service.tail)
    service.path.write_text(good)
    service.reload()
    assert service.stop() == 0


def test_a_stop_does_not_wait_for_a_reload(cloud: Cloud, install: Install) -> None:
    """The reload waits for what a dead collector does not take: 30 s if nobody asks for more."""
    dead = Collector("tcp")
    dead.close()
    service = install(dead, shutdown_timeout="5s").start()
    cloud.write(800, per_delivery=100)
    until(lambda: service.metric("edfn_deliveries_in_flight", "s3") >= 2)
    service.configure(inputs={"s3": {"concurrency": 4}})
    service.signal(signal.SIGHUP)
    until(lambda: service.says("reading the configuration again"), service.tail)
    assert service.stop(20) == 0, service.tail()
    until(lambda: sum(map(cloud.visible, (cloud.shop, cloud.lab))) == cloud.queued() > 0, "messages are held back")
    assert "Traceback" not in service.log
