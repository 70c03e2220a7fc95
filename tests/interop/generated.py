"""Flow logs made up for tests: as many rows as the real export in the samples has, and everything it lacks.

Half the files are an export task of CloudWatch Logs (a time in front of each line of version 2), half are S3 objects of
version 5 and later with a header line: several VPCs, IPv6, TCP flags, directions, packet addresses, milliseconds,
counters beyond 32 bits, `-` here and there. The same on every run.
"""

from __future__ import annotations

import gzip
import random
from datetime import UTC, datetime
from pathlib import Path

OK, SKIPDATA, NODATA = 23_250, 109, 96  # as in the real export
V2 = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)
V8 = (
    "version vpc-id interface-id account-id type srcaddr dstaddr srcport dstport pkt-srcaddr pkt-dstaddr protocol "
    "bytes packets start end action tcp-flags flow-direction reject-reason pkt-src-aws-service traffic-path log-status"
)
TRANSIT_GATEWAY = (  # the default of Transit Gateway flow logs: all there is
    "version resource-type account-id tgw-id tgw-attachment-id tgw-src-vpc-account-id tgw-dst-vpc-account-id "
    "tgw-src-vpc-id tgw-dst-vpc-id tgw-src-subnet-id tgw-dst-subnet-id tgw-src-eni tgw-dst-eni tgw-src-az-id "
    "tgw-dst-az-id tgw-pair-attachment-id srcaddr dstaddr srcport dstport protocol packets bytes start end log-status "
    "type packets-lost-no-route packets-lost-blackhole packets-lost-mtu-exceeded packets-lost-ttl-expired tcp-flags "
    "region flow-direction pkt-src-aws-service pkt-dst-aws-service"
)
VPCS = ("vpc-0a1b2c3d4e5f60718", "vpc-0b1b2c3d4e5f60719", "vpc-0c1b2c3d4e5f6071a")
BEGIN = 1_734_192_000


def write(folder: Path, ok: int = OK, skipdata: int = SKIPDATA, nodata: int = NODATA, files: int = 12) -> Path:
    """`files` gzip files below `folder` with so many rows of each kind altogether."""
    rng = random.Random(ok)
    kinds = ["OK"] * ok + ["SKIPDATA"] * skipdata + ["NODATA"] * nodata
    rng.shuffle(kinds)
    for number in range(files):
        interface = f"eni-{number + 1:017x}"
        rows = [_row(rng, kind, interface, VPCS[number % len(VPCS)]) for kind in kinds[number::files]]
        if number % 2:
            text = V8 + "\n" + "".join(_line(row, V8) for row in rows)
            name = f"123456789012_vpcflowlogs_us-east-1_fl-1234abcd_20241214T1600Z_{number:08x}.log.gz"
        else:
            text = "".join(_time(row) + _line({**row, "version": "2"}, V2) for row in rows)
            name = f"exportedlogs/task/{interface}-all/000000.gz"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode(), 1))
    return folder


def write_transit_gateways(folder: Path, ok: int = 600) -> Path:
    """Two transit gateways with three attachments each: a file in the default layout, one in an order of its own."""
    rng = random.Random(ok)
    folder.mkdir(parents=True)
    mixed = TRANSIT_GATEWAY.split()
    rng.shuffle(mixed)
    for number, layout in enumerate((TRANSIT_GATEWAY, " ".join(mixed))):
        rows = [_transit_gateway_row(rng, f"tgw-0{number}b1c2d3e4f506172") for _ in range(ok // 2)]
        rows.append({**rows[0], "log-status": "NODATA", "srcaddr": "-", "dstaddr": "-"})
        text = layout + "\n" + "".join(_line(row, layout) for row in rows)
        (folder / f"tgw{number}.log.gz").write_bytes(gzip.compress(text.encode(), 1))
    return folder


def _transit_gateway_row(rng: random.Random, tgw: str) -> dict[str, str]:
    row = _row(rng, "OK", "", "")
    for name in ("vpc-id", "interface-id", "action", "reject-reason", "pkt-srcaddr", "pkt-dstaddr", "traffic-path"):
        row.pop(name, None)
    own, pair = rng.sample(range(3), 2)
    sides = {"src": own, "dst": pair}
    for side, number in sides.items():
        if rng.random() < 0.1:
            continue  # a VPN or a peering knows neither VPC nor interface
        row |= {
            f"tgw-{side}-vpc-account-id": f"{number}23456789012",
            f"tgw-{side}-vpc-id": f"vpc-0{number}b1c2d3e4f506172",
            f"tgw-{side}-subnet-id": f"subnet-0{number}b1c2d3e4f506172",
            f"tgw-{side}-eni": f"eni-0{number}b1c2d3e4f506172",
            f"tgw-{side}-az-id": f"use1-az{number}",
        }
    row |= {
        "version": "6",
        "resource-type": "TransitGateway",
        "tgw-id": tgw,
        "tgw-attachment-id": f"{tgw.replace('tgw', 'tgw-attach')}{own}",
        "region": "us-east-1",
    }
    if rng.random() < 0.9:
        row["tgw-pair-attachment-id"] = f"{tgw.replace('tgw', 'tgw-attach')}{pair}"
    for reason in ("no-route", "blackhole", "mtu-exceeded", "ttl-expired"):
        row[f"packets-lost-{reason}"] = str(rng.choice([0, 0, rng.randrange(2**40)]))
    return row


def _line(row: dict[str, str], layout: str) -> str:
    return " ".join(row.get(name, "-") for name in layout.split()) + "\n"


def _time(row: dict[str, str]) -> str:
    seconds = int(row["start"]) if len(row["start"]) < 12 else int(row["start"]) // 1000
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z ")


def _row(rng: random.Random, kind: str, interface: str, vpc: str) -> dict[str, str]:
    start = BEGIN + rng.randrange(3300)
    row = {
        "version": "8",
        "vpc-id": vpc,
        "interface-id": interface,
        "account-id": "123456789012",
        "start": str(start),
        "end": str(start + rng.randrange(60)),
        "log-status": kind,
    }
    if kind != "OK":
        return row
    six = rng.random() < 0.3
    proto = rng.choice([6, 6, 6, 17, 58 if six else 1, 47])
    rejected = rng.random() < 0.1
    packets = rng.choice([1, rng.randrange(1, 2000), rng.randrange(2**33)])
    row |= {
        "type": "IPv6" if six else "IPv4",
        "srcaddr": _address(rng, six),
        "dstaddr": _address(rng, six),
        "srcport": str(rng.randrange(65536) if proto in (6, 17) else 0),
        "dstport": str(rng.choice([22, 53, 443, rng.randrange(65536)]) if proto in (6, 17) else 0),
        "protocol": str(proto),
        "packets": str(packets),
        "bytes": str(packets * rng.randrange(40, 1500)),
        "action": "REJECT" if rejected else "ACCEPT",
        "tcp-flags": str(rng.randrange(256) if proto == 6 else 0),
        "flow-direction": rng.choice(["ingress", "egress"]),
    }
    if rng.random() < 0.5:
        row |= {"pkt-srcaddr": _address(rng, six), "pkt-dstaddr": _address(rng, six)}
    if rng.random() < 0.1:
        row |= {"pkt-src-aws-service": rng.choice(["S3", "DYNAMODB"]), "traffic-path": str(rng.randrange(1, 9))}
    if rng.random() < 0.1:
        row |= {"start": str(start * 1000 + rng.randrange(1000)), "end": str((start + 60) * 1000 + rng.randrange(1000))}
    if rejected and rng.random() < 0.5:
        row["reject-reason"] = rng.choice(["BPA", "EC"])
        if rng.random() < 0.5:
            del row["bytes"]  # AWS leaves it out of what VPC Block Public Access rejects
    if rng.random() < 0.05:
        del row["flow-direction"]
    return row


def _address(rng: random.Random, six: bool) -> str:
    if six:
        return "2001:db8:" + ":".join(f"{rng.randrange(65536):x}" for _ in range(6))
    return "10." + ".".join(str(rng.randrange(256)) for _ in range(3))
