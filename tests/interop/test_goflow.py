"""Every record at goflow2 and at Telegraf, field by field: both profiles, each VPC from its own address."""

from __future__ import annotations

from pathlib import Path

import generated
import oracle
import pytest
from checks import ABSENT, check
from collectors import Tshark
from command import KEYS, Names, export
from elements import AWS, ZERO, elements, enterprise
from goflow import Goflow2, Telegraf

PACE = "3000"  # both write JSON


@pytest.mark.parametrize("kind", [Goflow2, Telegraf])
@pytest.mark.parametrize("profile", ["standard", "aws"])
def test_every_record(kind: type[Goflow2] | type[Telegraf], profile: str, tmp_path: Path) -> None:
    folder = generated.write(tmp_path / "logs", ok=1200, skipdata=0, nodata=0, files=6)
    addresses = {vpc: f"10.{number}.0.1" for number, vpc in enumerate(generated.VPCS, 1)}
    (tmp_path / "map.yaml").write_text("".join(f"{vpc}: {address}\n" for vpc, address in addresses.items()))
    addresses[oracle.UNATTRIBUTED] = "10.99.0.1"
    expected = []
    for file in sorted(folder.rglob("*.gz")):
        lines = list(oracle.lines(file))
        layout = set(lines[0].split() if "srcaddr" in lines[0] else oracle.DEFAULT)
        expected += [
            flow | enterprise(flow, layout) | {"exporter": addresses[flow["vpc"]]} for flow in oracle.flows(lines)
        ]
    told = [one for one in elements() if one["id"] < 10100] if profile == "aws" else []
    absent = ABSENT | {one["name"]: ZERO[one["type"]] for one in told}
    collector = kind(tmp_path / "collector")
    collector.start()
    try:
        arguments = ["--exporter-map", str(tmp_path / "map.yaml"), "--exporter", "10.99.0.1", *(AWS if told else [])]
        export(folder, "--output", tmp_path / "flows.pcap", *arguments, to=[collector], pace=PACE)
        names = Names(Tshark(tmp_path / "flows.pcap"))
        shown = [names.named(one) for one in collector.records(len(expected))]
        keys = [*KEYS, "exporter", *(one["name"] for one in told)]
        check(({**absent, **one} for one in shown), ({**absent, **one} for one in expected), keys)
        for one in shown:
            assert one["exporter"] == one["exporter_field"]
    finally:
        collector.stop()
