"""Made-up VPCs and the flow logs they would write: the same every time, so that what arrives can be compared.

In: a seed and a number of flows. Out: VPCs with interfaces, lines of flow log in each VPC's layout, and the totals that
a collector should see. Nothing here is random at run time, and nothing touches the network.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from edfn_agent.formats.fields import FIELDS
from edfn_agent.formats.layout import DEFAULT, Layout

ALL_VPC_FIELDS = Layout(
    tuple(f.name for f in FIELDS if not f.name.startswith(("tgw-", "packets-lost", "resource-type")))
)
CUSTOM = Layout.parse(
    "version vpc-id subnet-id instance-id interface-id account-id type srcaddr dstaddr srcport dstport pkt-srcaddr "
    "pkt-dstaddr protocol bytes packets start end action tcp-flags log-status flow-direction traffic-path region az-id"
)
SHORT = Layout.parse(
    "interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status flow-direction"
)


@dataclass(frozen=True, slots=True)
class DemoInterface:
    interface_id: str
    instance_id: str
    name: str
    address: IPv4Address
    address6: str


@dataclass(frozen=True, slots=True)
class DemoVpc:
    vpc_id: str
    name: str
    account_id: str
    region: str
    subnet_id: str
    network: IPv4Network
    interfaces: tuple[DemoInterface, ...]
    layout: Layout

    @property
    def router(self) -> IPv4Address:
        return self.network.network_address + 1


@dataclass(slots=True)
class Written:
    """What went into the flow logs of one VPC."""

    flows: int = 0
    octets: int = 0
    packets: int = 0
    denied: int = 0
    nodata: int = 0
    skipdata: int = 0
    lines: list[str] = field(default_factory=list)


def vpcs() -> list[DemoVpc]:
    """Three VPCs in two accounts: default layout, a custom one, and one with every field there is."""
    return [
        _vpc(1, "shop", "111111111111", "us-east-1", "10.1.0.0/16", DEFAULT, ("web-1", "web-2", "db-1")),
        _vpc(2, "office", "111111111111", "eu-central-1", "10.2.0.0/16", CUSTOM, ("vpn-gw", "files", "print")),
        _vpc(3, "lab", "222222222222", "us-east-1", "10.3.0.0/16", ALL_VPC_FIELDS, ("gpu-1", "gpu-2", "notebook")),
    ]


def branch() -> DemoVpc:
    """The VPC whose log group is subscribed to a Kinesis stream, where there is Kinesis."""
    return _vpc(4, "branch", "222222222222", "eu-central-1", "10.4.0.0/16", SHORT, ("till-1", "till-2", "camera"))


def _vpc(
    number: int, name: str, account: str, region: str, network: str, layout: Layout, hosts: tuple[str, ...]
) -> DemoVpc:
    net = IPv4Network(network)
    prefix6 = IPv6Network(f"2600:1f18:{number:x}::/48").network_address
    interfaces = tuple(
        DemoInterface(
            f"eni-{number:02x}{host:015x}",
            f"i-{number:02x}{host:015x}",
            f"{name}-{label}",
            net.network_address + 10 + host,
            str(prefix6 + 10 + host),
        )
        for host, label in enumerate(hosts)
    )
    vpc_id, subnet_id = f"vpc-{number:02x}{'0' * 15}", f"subnet-{number:02x}{'0' * 15}"
    return DemoVpc(vpc_id, name, account, region, subnet_id, net, interfaces, layout)


def flow_log(vpc: DemoVpc, flows: int, start: int, seed: int = 0) -> Written:
    """So many flows of a VPC within a minute from `start` (Unix seconds), with NODATA and SKIPDATA rows between."""
    # not for secrets: the same lines every time
    rng = random.Random(f"{vpc.vpc_id} {seed}")
    written = Written()
    for number in range(flows):
        if number % 25 == 7:
            kind = "SKIPDATA" if number % 100 == 7 else "NODATA"
            written.lines.append(_line(vpc, _idle(vpc, rng, start, kind)))
            written.nodata += kind == "NODATA"
            written.skipdata += kind == "SKIPDATA"
        values = _flow(vpc, rng, start)
        written.lines.append(_line(vpc, values))
        written.flows += 1
        written.octets += int(values["bytes"])
        written.packets += int(values["packets"])
        written.denied += values["action"] == "REJECT"
    return written


def chunks(lines: list[str], size: int) -> Iterator[list[str]]:
    for first in range(0, len(lines), size):
        yield lines[first : first + size]


def _line(vpc: DemoVpc, values: dict[str, str]) -> str:
    return " ".join(values.get(name, "-") for name in vpc.layout.names)


def _idle(vpc: DemoVpc, rng: random.Random, start: int, status: str) -> dict[str, str]:
    interface = rng.choice(vpc.interfaces)
    return {**_place(vpc, interface), "start": str(start), "end": str(start + 59), "log-status": status}


def _place(vpc: DemoVpc, interface: DemoInterface) -> dict[str, str]:
    version = "2" if vpc.layout == DEFAULT else "11" if vpc.layout == ALL_VPC_FIELDS else "5"
    return {
        "version": version,
        "account-id": vpc.account_id,
        "interface-id": interface.interface_id,
        "vpc-id": vpc.vpc_id,
        "subnet-id": vpc.subnet_id,
        "instance-id": interface.instance_id,
        "region": vpc.region,
        "az-id": f"{vpc.region[:2]}{vpc.region[3]}1-az1",
    }


def _flow(vpc: DemoVpc, rng: random.Random, start: int) -> dict[str, str]:
    interface = rng.choice(vpc.interfaces)
    six = rng.random() < 0.15
    own = interface.address6 if six else str(interface.address)
    far = f"2001:db8::{rng.randrange(1, 200):x}" if six else str(IPv4Address("198.51.100.0") + rng.randrange(1, 200))
    out = rng.random() < 0.5
    protocol = rng.choices((6, 17, 58 if six else 1), (80, 17, 3))[0]
    service, client = rng.choice((22, 53, 80, 443, 443, 443, 3306, 5432)), rng.randrange(32768, 61000)
    ports = (0, 0) if protocol in (1, 58) else (client, service) if out else (service, client)
    denied = rng.random() < 0.06
    packets = 1 if denied else rng.choices((2, 8, 40, 900), (60, 25, 12, 3))[0]
    begin = start + rng.randrange(0, 30)
    source, destination = (own, far) if out else (far, own)
    return {
        **_place(vpc, interface),
        "srcaddr": source,
        "dstaddr": destination,
        "pkt-srcaddr": source,
        "pkt-dstaddr": destination,
        "srcport": str(ports[0]),
        "dstport": str(ports[1]),
        "protocol": str(protocol),
        "packets": str(packets),
        "bytes": str(packets * rng.randrange(40, 1500)),
        "start": str(begin),
        "end": str(begin + rng.randrange(1, 30)),
        "action": "REJECT" if denied else "ACCEPT",
        "log-status": "OK",
        "type": "IPv6" if six else "IPv4",
        "tcp-flags": str(rng.choice((2, 3, 18, 19)) if protocol == 6 else 0),
        "flow-direction": "egress" if out else "ingress",
        "traffic-path": "8" if out else "-",
    }
