"""Flow logs through `edfn-agent export` to nfcapd, nfacctd and tshark: every record, field by field.

What has to arrive is read from the text by `oracle.py`, which shares no code with the product. What a layout lacks must
be missing for tshark; the other collectors show their own nothing for it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import generated
import oracle
import pytest
from capture import Capture, messages, options_messages
from checks import NOT_HERE, SAMPLES, check, check_nfacctd, check_nfcapd, check_tshark
from collectors import Nfacctd, Nfcapd, Tshark
from command import KEYS, Names, export


def through_all(files: Path | list[Path], nfcapd: Nfcapd, nfacctd: Nfacctd, tmp_path: Path, *arguments: str) -> None:
    paths = [files] if isinstance(files, Path) else files
    expected = [flow for path in paths for file in _files(path) for flow in oracle.flows(oracle.lines(file))]
    capture = tmp_path / "flows.pcap"
    summary = export(paths, "--output", capture, *arguments, to=[nfcapd, nfacctd])
    assert summary["records_exported"] == len(expected)
    shown = Tshark(capture)
    names = Names(shown)
    check_tshark(shown, expected, names)
    options = options_messages(messages(capture))
    check_nfcapd(nfcapd, expected, names, {("127.0.0.1", domain): count for (_, domain), count in options.items()})
    check_nfacctd(nfacctd, expected, names)


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=NOT_HERE)
def test_a_real_export_of_23455_lines(nfcapd: Nfcapd, nfacctd: Nfacctd, tmp_path: Path) -> None:
    folder = SAMPLES / "cwl-export"
    assert sum(1 for _ in oracle.lines(folder)) == 23_455
    through_all(folder, nfcapd, nfacctd, tmp_path)


def test_a_made_export_of_as_many_lines(nfcapd: Nfcapd, nfacctd: Nfacctd, tmp_path: Path) -> None:
    through_all(generated.write(tmp_path / "logs"), nfcapd, nfacctd, tmp_path)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=NOT_HERE)
def test_every_text_sample(nfcapd: Nfcapd, nfacctd: Nfacctd, tmp_path: Path) -> None:
    through_all(_files(SAMPLES / "text"), nfcapd, nfacctd, tmp_path)


@pytest.mark.parametrize("size", [512, 1400, 3900, 8900])
def test_every_size_of_message(size: int, nfcapd: Nfcapd, nfacctd: Nfacctd, tmp_path: Path) -> None:
    folder = generated.write(tmp_path / "logs", ok=3000, skipdata=10, nodata=10, files=4)
    through_all(folder, nfcapd, nfacctd, tmp_path, "--max-message-size", str(size))


def test_templates_again_in_mid_stream(nfcapd: Nfcapd, nfacctd: Nfacctd, tmp_path: Path) -> None:
    """Captured on the way to nfcapd: one file of one VPC, 0.3 seconds long, its templates every 50 milliseconds."""
    folder = generated.write(tmp_path / "logs", ok=3000, skipdata=0, nodata=0, files=1)
    expected = [flow for file in _files(folder) for flow in oracle.flows(oracle.lines(file))]
    capture = Capture(tmp_path / "lo.pcap", nfcapd.port)
    summary = export(folder, "--template-refresh", "0.05", to=[nfcapd, nfacctd], pace="10000")
    sent = capture.messages(summary["collectors"][0]["messages"])
    times = Counter(id for one in sent for id in one.templates)
    assert min(times.values()) >= 4, times
    shown = Tshark(capture.file, port=nfcapd.port)
    names = Names(shown)
    assert (shown.malformed, shown.sequence_complaints, shown.without_template) == ([], [], 0)
    check(map(names.named, shown.records), expected, KEYS)
    check_nfcapd(nfcapd, expected, names, options_messages(sent))
    check_nfacctd(nfacctd, expected, names)


def test_several_vpcs_each_from_its_own_address(nfcapd: Nfcapd, nfacctd: Nfacctd, tmp_path: Path) -> None:
    folder = generated.write(tmp_path / "logs", ok=3000, skipdata=0, nodata=0, files=6)
    addresses = {vpc: f"10.{number}.0.1" for number, vpc in enumerate(generated.VPCS, 1)}
    (tmp_path / "map.yaml").write_text("".join(f"{vpc}: {address}\n" for vpc, address in addresses.items()))
    addresses[oracle.UNATTRIBUTED] = "10.99.0.1"
    arguments = [
        "--exporter-map",
        str(tmp_path / "map.yaml"),
        "--exporter",
        "10.99.0.1",
        "--exporter-address",
        "source",
    ]
    expected = [flow for file in _files(folder) for flow in oracle.flows(oracle.lines(file))]
    expected = [{**one, "exporter": addresses[one["vpc"]]} for one in expected]
    capture = Capture(tmp_path / "lo.pcap", nfcapd.port)
    summary = export(folder, *arguments, to=[nfcapd, nfacctd], pace="10000")
    assert {one["mode"].split(":")[0] for one in summary["collectors"]} == {"source"}
    sent = capture.messages(summary["collectors"][0]["messages"])
    shown = Tshark(capture.file, port=nfcapd.port)
    names = Names(shown)
    check_tshark(shown, expected, names)
    check(map(names.named, shown.records), expected, [*KEYS, "exporter"])
    assert {one["exporter"] for one in expected} == set(addresses.values())
    check_nfcapd(nfcapd, expected, names, options_messages(sent))
    check_nfacctd(nfacctd, expected, names)


@pytest.mark.parametrize("kind", [Nfcapd, Nfacctd])
def test_a_collector_behind_ipv6(kind: type[Nfcapd] | type[Nfacctd], tmp_path: Path) -> None:
    folder = generated.write(tmp_path / "logs", ok=300, skipdata=0, nodata=0, files=2)
    expected = [flow for file in _files(folder) for flow in oracle.flows(oracle.lines(file))]
    collector = kind(tmp_path / "collector", "::1")
    collector.start()
    try:
        export(folder, "--output", tmp_path / "flows.pcap", to=[collector])
        names = Names(Tshark(tmp_path / "flows.pcap"))
        if isinstance(collector, Nfacctd):
            check_nfacctd(collector, expected, names)
        else:
            options = options_messages(messages(tmp_path / "flows.pcap"))
            by_domain = {("::1", domain): count for (_, domain), count in options.items()}
            check_nfcapd(collector, [{**one, "exporter": "::1"} for one in expected], names, by_domain)
    finally:
        collector.stop()
