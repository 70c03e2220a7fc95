"""Profile aws: every field of every text sample in nfacctd and tshark, each taught the elements as people would."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import generated
import oracle
import pytest
from capture import messages, options_messages
from checks import NOT_HERE, SAMPLES, check_nfacctd, check_nfcapd, check_tshark
from collectors import Nfacctd, Nfcapd, Record, Tshark
from command import KEYS, Names, export, run

NUMBER = 4242
AWS = ["--profile", "aws", "--enterprise-number", str(NUMBER)]
FOR_NOTHING = {"awsEncryptionStatus": 255}  # other numbers are 0, addresses are 0.0.0.0 or ::, strings are empty
ZERO = {"unsigned8": 0, "unsigned64": 0, "ipv4Address": "0.0.0.0", "ipv6Address": "::", "string": ""}


@cache
def of_vpc() -> list[Record]:
    """The elements for VPC flow logs."""
    listed = run("elements", "--format", "json", "--enterprise-number", str(NUMBER)).stdout
    return [one for one in json.loads(listed) if one["id"] < 10100]


def primitives() -> list[tuple[str, tuple[str, int | str, str]]]:
    """The lines of `elements --format nfacctd`, those of VPC flow logs."""
    found: list[tuple[str, tuple[str, int | str, str]]] = []
    for line in run("elements", "--format", "nfacctd", "--enterprise-number", str(NUMBER)).stdout.splitlines():
        word = dict(pair.split("=") for pair in line.split())
        if int(word["field_type"].split(":")[1]) < 10100:
            found.append((word["name"], (word["field_type"], word["len"], word["semantics"])))
    return found


def enterprise(flow: Record, layout: set[str]) -> Record:
    """What each element has to say for a row; elements of fields that the layout lacks are not there."""
    family = "ipv6Address" if ":" in flow["src"] else "ipv4Address"
    values: Record = {}
    for one in of_vpc():
        name, kind, field = one["name"], one["type"], one["field"]
        if field not in layout or (kind.startswith("ipv") and kind != family):
            continue
        word = flow["words"].get(field)
        if field == "log-status":
            values[name] = 1
        elif word is None:
            values[name] = FOR_NOTHING.get(name, ZERO[kind])
        elif kind.startswith("unsigned"):
            values[name] = int(word)
        else:
            values[name] = unquote(word) if "-tag" in field else word
    return values


def samples() -> Iterator[tuple[Path, list[Record]]]:
    """Each sample with its flows, profile aws's values among them."""
    for path in sorted((SAMPLES / "text").iterdir()):
        head = next(oracle.lines(path)).split()
        layout = set(head if "srcaddr" in head else oracle.DEFAULT)
        yield path, [flow | enterprise(flow, layout) for flow in oracle.flows(oracle.lines(path))]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=NOT_HERE)
@pytest.mark.parametrize("half", [0, 1], ids=["odd", "even"])
def test_nfacctd_shows_every_field_of_every_sample(half: int, tmp_path: Path) -> None:
    """Half of the elements at a time: the 50th in one `aggregate` has the text of the 49th in pmacct 1.7.7."""
    asked = dict(primitives()[half::2])
    nfacctd = Nfacctd(tmp_path / "nfacctd", primitives=asked)
    nfacctd.start()
    try:
        expected = [flow for _, flows in samples() for flow in flows]
        export(SAMPLES / "text", "--output", tmp_path / "flows.pcap", *AWS, to=[nfacctd])
        names = Names(Tshark(tmp_path / "flows.pcap"))
        absent = {one["name"]: ZERO[one["type"]] for one in of_vpc()}
        check_nfacctd(nfacctd, [absent | flow for flow in expected], names, [*KEYS, *asked])
    finally:
        nfacctd.stop()


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=NOT_HERE)
def test_tshark_shows_every_field_of_every_sample(tmp_path: Path) -> None:
    """It has no names for them, so their order tells; empty strings are not shown."""
    captures = {path: (tmp_path / f"{path.stem}.ipfix", flows) for path, flows in samples() if flows}
    fixed_first = sorted(of_vpc(), key=lambda one: one["type"] == "string")
    for path, (file, flows) in captures.items():
        export(path, "--output", file, *AWS, pace="0")
        shown = Tshark(file)
        assert (shown.malformed, shown.sequence_complaints, shown.without_template) == ([], [], 0)
        got = Counter(
            (record["src"], record["dst"], record.get("octets"), *_enterprise(elements))
            for record, elements in zip(shown.records, shown.elements, strict=True)
        )
        sent = Counter((flow["src"], flow["dst"], flow.get("octets"), *_octets(flow, fixed_first)) for flow in flows)
        assert got == sent, path.name


def _enterprise(elements: list[tuple[str, bytes]]) -> list[bytes]:
    return [octets for name, octets in elements if name == "cflow.enterprise_private_entry" and octets]


def _octets(flow: Record, elements: list[Record]) -> Iterator[bytes]:
    for one in elements:
        value = flow.get(one["name"])
        if isinstance(value, int):
            yield value.to_bytes(one["length"], "big")
        elif one["type"].startswith("ipv") and value is not None:
            yield oracle.ip_address(value).packed
        elif value:
            yield value.encode()


def test_nfcapd_skips_what_it_does_not_know(nfcapd: Nfcapd, tmp_path: Path) -> None:
    folder = generated.write(tmp_path / "logs", ok=1000, skipdata=0, nodata=0, files=4)
    expected = [flow for path in sorted(folder.rglob("*.gz")) for flow in oracle.flows(oracle.lines(path))]
    export(folder, "--output", tmp_path / "flows.pcap", *AWS, to=[nfcapd])
    names = Names(Tshark(tmp_path / "flows.pcap"))
    options = options_messages(messages(tmp_path / "flows.pcap"))
    by_domain = {("127.0.0.1", domain): count for (_, domain), count in options.items()}
    check_nfcapd(nfcapd, expected, names, by_domain)


def test_type_records_disturb_nobody_and_say_what_elements_are(
    nfcapd: Nfcapd, nfacctd: Nfacctd, tmp_path: Path
) -> None:
    """pmacct 1.7.7 misreads their length and complains of gaps, and of nothing else."""
    folder = generated.write(tmp_path / "logs", ok=1000, skipdata=0, nodata=0, files=4)
    expected = [flow for path in sorted(folder.rglob("*.gz")) for flow in oracle.flows(oracle.lines(path))]
    capture = tmp_path / "flows.pcap"
    export(folder, "--output", capture, *AWS, "--type-records", to=[nfcapd, nfacctd])
    shown = Tshark(capture)
    names = Names(shown)
    check_tshark(shown, expected, names)
    listed = json.loads(run("elements", "--format", "json", "--enterprise-number", str(NUMBER)).stdout)
    told = Counter(
        (
            *(int.from_bytes(one[f"cflow.{key}"], "big") for key in ("private_enterprise_number", *_NUMBERED)),
            *(one[f"cflow.information_element_{key}"].decode() for key in ("name", "description")),
        )
        for one in names.types
    )
    kinds = {"unsigned8": 1, "unsigned64": 4, "string": 13, "ipv4Address": 18, "ipv6Address": 19}  # IANA's registry
    assert told == {
        (NUMBER, one["id"], kinds[one["type"]], one["name"], one["description"]): len(names.exporters) for one in listed
    }
    options = options_messages(messages(capture))
    by_domain = {("127.0.0.1", domain): count for (_, domain), count in options.items()}
    check_nfcapd(nfcapd, expected, names, by_domain)
    check_nfacctd(nfacctd, expected, names, complains=True)


_NUMBERED = ("information_element_id", "information_element_data_type")
