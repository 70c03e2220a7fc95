"""The inventory of a running agent: addresses given by commands, discovery on SIGHUP and for what flows name."""

from __future__ import annotations

import csv
import gzip
import io
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.service import Service, until

Install = Callable[..., Service]


@contextmanager
def another_vpc(cloud: Cloud, name: str, cidr: str) -> Iterator[str]:
    """A VPC that was not there when the agent started."""
    vpc = cloud.shop.vpc
    ec2 = cloud.client(vpc.account_id, vpc.region, "ec2")
    id = str(ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"])
    ec2.create_tags(Resources=[id], Tags=[{"Key": "Name", "Value": name}])
    try:
        yield id
    finally:
        ec2.delete_vpc(VpcId=id)


def domain_of(collector: Collector, name: str) -> int:
    return next(domain for domain, found in collector.names.items() if found == name)


def test_commands_beside_a_running_agent(cloud: Cloud, collector: Collector, install: Install) -> None:
    """Given, imported and taken away again: seen on the wire each time, with no restart and no reload."""
    service = install(collector).start()
    cloud.put(cloud.shop, 50)
    until(lambda: collector.unique == cloud.written, service.tail)
    vpc, office = cloud.shop.vpc, cloud.office.vpc
    domain = domain_of(collector, vpc.name)

    def seen(address: str) -> None:
        """The address comes to be that of the VPC's flows."""
        end = time.monotonic() + 30
        while collector.exporters[domain] != address:
            assert time.monotonic() < end, (collector.exporters, service.tail())
            cloud.put(cloud.shop, 10)
            until(lambda: collector.unique == cloud.written, service.tail)

    done = service.run("exporters", "assign", vpc.vpc_id, "192.0.2.50")
    assert (done.returncode, done.stdout) == (0, f"{vpc.vpc_id} is exported as 192.0.2.50.\n")
    seen("192.0.2.50")

    table = service.run("exporters", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(table)))
    for row in rows:
        if row["vpc_id"] in (vpc.vpc_id, office.vpc_id):
            row["exporter"] = str(ip_address("192.0.2.60") + (row["vpc_id"] == office.vpc_id))
    file = service.folder / "table.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    done = service.run("exporters", "import", str(file))
    assert (done.returncode, done.stdout.split(" of ")[0]) == (0, "2")
    seen("192.0.2.60")

    done = service.run("exporters", "release", vpc.vpc_id)
    assert done.returncode == 0, done.stderr
    seen(str(vpc.router))
    assert collector.repeated() == {}
    assert service.stop() == 0


def test_a_signal_starts_a_discovery(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector).start()
    with another_vpc(cloud, "annex", "10.77.0.0/16") as id:
        assert id not in service.run("exporters", "--json").stdout
        service.signal(signal.SIGHUP)
        until(lambda: id in service.log, service.tail)  # inventory changed
        found = json.loads(service.run("exporters", "--json").stdout)["exporters"]
        assert [(each["name"], each["exporter"]) for each in found if each["vpc_id"] == id] == [("annex", "10.77.0.1")]
    assert service.stop() == 0


def test_a_stranger_in_the_flows_starts_a_discovery(cloud: Cloud, collector: Collector, install: Install) -> None:
    """At once, and then not again for five minutes."""
    service = install(collector).start()

    def put(vpc_id: str) -> None:
        cloud.written += 1
        now = int(time.time())
        header = "vpc-id interface-id srcaddr dstaddr bytes packets start end log-status"
        line = f"{vpc_id} eni-0123456789abcdef0 10.78.0.4 10.78.0.5 {cloud.written} 1 {now - 9} {now} OK"
        key = cloud._key(cloud.shop).replace(cloud.shop.flow_log_id, f"fl-{vpc_id[4:]}")
        cloud.put_body(cloud.shop, key, gzip.compress(f"{header}\n{line}\n".encode()))
        until(lambda: collector.unique == cloud.written, service.tail)

    with another_vpc(cloud, "stranger", "10.78.0.0/16") as id:
        put(id)  # is exported though nobody knows it
        until(lambda: service.says("discovered") == 1, service.tail)
        assert service.says("flows name what the inventory does not know") == 1
        put(id)
        until(lambda: "stranger" in collector.names.values(), service.tail)
        put("vpc-0123456789abcdef0")
        until(lambda: service.says("flows name what the inventory does not know") == 2, service.tail)
        time.sleep(2)
        assert service.says("discovered") == 1
    assert service.stop() == 0
