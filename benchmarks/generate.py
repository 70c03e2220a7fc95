"""Synthetic flow logs for the benchmarks: as large as wanted, the same for the same seed, unkind where real ones are.

In: layout, number of records, seed. Out: a gzip file as S3 delivers it (header line, then records), and beside it, with
--map, the exporter of each VPC and interface as JSON. Never: anything random that the seed does not decide.

400 interfaces in 12 VPCs; the far ends are drawn by Zipf's law from 100,000 IPv4 and 10,000 IPv6 addresses; one record
in twenty is IPv6, one in ten NODATA or SKIPDATA, one in twelve REJECT; records of all interfaces and both families in
random order, which is the worst case for anything that groups them.

    python benchmarks/generate.py v2 500000 small.log.gz --map exporters.json
"""

from __future__ import annotations

import argparse
import gzip
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

INTERFACES = 400
VPCS = 12
FAR_V4 = 100_000
FAR_V6 = 10_000
CHUNK = 100_000
START = 1_735_922_400  # 2025-01-03 16:40:00 UTC
GZIP_LEVEL = 6

V2 = (
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"
)
V5 = (
    f"{V2} vpc-id subnet-id instance-id tcp-flags type pkt-srcaddr pkt-dstaddr region az-id sublocation-type "
    "sublocation-id pkt-src-aws-service pkt-dst-aws-service flow-direction traffic-path"
)
LAYOUTS = {"v2": V2, "v5": V5}


class Network:
    """The VPCs, their interfaces and what is outside. The same for every layout and size."""

    def __init__(self) -> None:
        rng = np.random.default_rng(20250103)
        number = iter(rng.integers(0, 1 << 63, 4 * (VPCS + INTERFACES)).tolist())

        def some_id(prefix: str) -> str:
            return f"{prefix}-0{next(number) & (1 << 64) - 1:016x}"

        self.vpcs = [some_id("vpc") for _ in range(VPCS)]
        subnets = [some_id("subnet") for _ in range(VPCS * 3)]
        self.vpc_of = (np.arange(INTERFACES) % VPCS).tolist()
        self.interfaces = [some_id("eni") for _ in range(INTERFACES)]
        instances = [some_id("i") if n % 3 else "-" for n in range(INTERFACES)]
        self.near_v4 = [f"10.{self.vpc_of[n]}.{n // 250}.{n % 250 + 4}" for n in range(INTERFACES)]
        self.near_v6 = [f"2600:1f18:{self.vpc_of[n] + 1:x}00::{n + 16:x}" for n in range(INTERFACES)]
        # What does not differ between the records of one interface, ready to be written.
        self.head = [f"{{}} 123456789012 {eni} ".format for eni in self.interfaces]
        self.of_vpc = [
            f"{self.vpcs[vpc]} {subnets[vpc * 3 + n % 3]} {instances[n]}" for n, vpc in enumerate(self.vpc_of)
        ]
        self.of_place = [f"us-east-1 use1-az{n % 3 + 1} - -" for n in range(INTERFACES)]
        self.far_v4 = [_v4(value) for value in rng.integers(0x0B000000, 0xDF000000, FAR_V4).tolist()]
        self.far_v6 = [
            socket.inet_ntop(socket.AF_INET6, b"\x2a\x00" + rng.bytes(2) + bytes(4) + rng.bytes(8))
            for _ in range(FAR_V6)
        ]

    def exporters(self) -> dict[str, str]:
        """Every VPC and every interface -> the exporter's address."""
        address = [f"10.{vpc}.0.1" for vpc in range(VPCS)]
        return {
            **dict(zip(self.vpcs, address, strict=True)),
            **{eni: address[vpc] for eni, vpc in zip(self.interfaces, self.vpc_of, strict=True)},
        }


def _v4(value: int) -> str:
    return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"


def lines(layout: str, records: int, seed: int = 1, network: Network | None = None) -> Iterator[str]:
    """The header line and the records, in pieces of CHUNK records, each line with its newline."""
    network = network or Network()
    rng = np.random.default_rng(seed)
    yield LAYOUTS[layout] + "\n"
    for first in range(0, records, CHUNK):
        yield _chunk(layout, min(CHUNK, records - first), START + 60 * (first // CHUNK), rng, network)


def _chunk(layout: str, n: int, start: int, rng: np.random.Generator, net: Network) -> str:
    interface = rng.integers(0, INTERFACES, n).tolist()
    six = (rng.random(n) < 0.05).tolist()
    far = np.minimum(rng.zipf(1.2, n), FAR_V4) - 1
    fars = [net.far_v6[f % FAR_V6] if s else net.far_v4[f] for f, s in zip(far.tolist(), six, strict=True)]
    nears = [net.near_v6[i] if s else net.near_v4[i] for i, s in zip(interface, six, strict=True)]
    inward = rng.random(n) < 0.5
    inwards = inward.tolist()
    ports = rng.integers(1024, 65536, n).tolist()
    services = np.array([443, 80, 53, 22, 5432, 8080, 3306, 123])[rng.integers(0, 8, n)].tolist()
    protocol = np.array([6, 6, 6, 6, 6, 6, 17, 17, 17, 1])[rng.integers(0, 10, n)].tolist()
    packets = np.minimum(rng.zipf(1.6, n), 5_000_000)
    octets = (packets * rng.integers(40, 1500, n)).tolist()
    begin = start + rng.integers(0, 60, n)
    end = (begin + rng.integers(0, 60, n)).tolist()
    action = np.array(["ACCEPT", "REJECT"])[(rng.random(n) < 1 / 12).astype(np.intp)].tolist()
    status = rng.random(n)
    idle = np.where(status < 0.09, 1, np.where(status < 0.10, 2, 0)).tolist()
    flags = np.array([2, 18, 19, 3, 27, 1, 4, 0])[rng.integers(0, 8, n)].tolist()
    path = rng.integers(1, 9, n).tolist()
    service = np.array(["-", "-", "-", "-", "-", "-", "S3", "DYNAMODB", "AMAZON"])[rng.integers(0, 9, n)].tolist()
    columns = zip(
        *(interface, six, nears, fars, inwards, ports, services, protocol, packets.tolist(), octets, begin.tolist()),
        *(end, action, idle, flags, path, service),
        strict=True,
    )
    out = []
    full = layout == "v5"
    head = net.head
    for i, s, near, other, to_us, port, known, proto, pkts, octs, b, e, act, none, flag, via, svc in columns:
        if none:
            line = f"{head[i](5 if full else 2)}- - - - - - - {b} {e} - {'NODATA' if none == 1 else 'SKIPDATA'}"
            if full:
                line += f" {net.of_vpc[i]} - - - - {net.of_place[i]} - - - -"
            out.append(line)
            continue
        if proto == 1:
            port = known = 0
        source, destination, sport, dport = (other, near, port, known) if to_us else (near, other, known, port)
        line = (
            f"{head[i](5 if full else 2)}{source} {destination} {sport} {dport} {58 if s and proto == 1 else proto} "
            f"{pkts} {octs} {b} {e} {act} OK"
        )
        if full:
            line += (
                f" {net.of_vpc[i]} {flag if proto == 6 else 0} {'IPv6' if s else 'IPv4'} {source} {destination} "
                f"{net.of_place[i]} {f'{svc} - ingress -' if to_us else f'- {svc} egress {via}'}"
            )
        out.append(line)
    out.append("")
    return "\n".join(out)


def write(layout: str, records: int, file: IO[bytes], seed: int = 1) -> None:
    # No name and no time in the header of the gzip file: the same records are the same octets.
    with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:
        for piece in lines(layout, records, seed):
            packed.write(piece.encode())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("layout", choices=sorted(LAYOUTS))
    parser.add_argument("records", type=int)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--map", type=Path, help="write the exporter map (JSON) here too")
    given = parser.parse_args(arguments)
    with given.file.open("wb") as file:
        write(given.layout, given.records, file, given.seed)
    if given.map:
        given.map.write_text(json.dumps(Network().exporters(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
