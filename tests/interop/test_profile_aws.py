"""Profile aws: every field of every text sample in nfacctd and tshark, each taught the elements as people would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import generated
import oracle
import pytest
from capture import messages, options_messages
from checks import NOT_HERE, SAMPLES, check_nfacctd, check_nfcapd, check_tshark
from collectors import Nfacctd, Nfcapd, Record, Tshark
from command import KEYS, Names, export
from elements import AWS, NUMBER, ZERO, elements, enterprise, primitives, sent_octets, shown_octets


@cache
def of_vpc() -> list[Record]:
    """The elements for VPC flow logs."""
    return [one for one in elements() if one["id"] < 10100]


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
    asked = primitives(of_vpc()[half::2])
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
    for path, (file, flows) in captures.items():
        export(path, "--output", file, *AWS, pace="0")
        shown = Tshark(file)
        assert (shown.malformed, shown.sequence_complaints, shown.without_template) == ([], [], 0)
        got = Counter(
            (record["src"], record["dst"], record.get("octets"), *shown_octets(private))
            for record, private in zip(shown.records, shown.elements, strict=True)
        )
        sent = Counter((flow["src"], flow["dst"], flow.get("octets"), *sent_octets(flow)) for flow in flows)
        assert got == sent, path.name


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
    told = Counter(
        (
            *(int.from_bytes(one[f"cflow.{key}"], "big") for key in ("private_enterprise_number", *_NUMBERED)),
            *(one[f"cflow.information_element_{key}"].decode() for key in ("name", "description")),
        )
        for one in names.types
    )
    kinds = {"unsigned8": 1, "unsigned64": 4, "string": 13, "ipv4Address": 18, "ipv6Address": 19}  # IANA's registry
    assert told == {
        (NUMBER, one["id"], kinds[one["type"]], one["name"], one["description"]): len(names.exporters)
        for one in elements()
    }
    options = options_messages(messages(capture))
    by_domain = {("127.0.0.1", domain): count for (_, domain), count in options.items()}
    check_nfcapd(nfcapd, expected, names, by_domain)
    check_nfacctd(nfacctd, expected, names, complains=True)


_NUMBERED = ("information_element_id", "information_element_data_type")
