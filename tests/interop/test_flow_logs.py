"""Flow logs through `edfn-agent export` to nfcapd, nfacctd and tshark: every record, field by field.

What has to arrive is read from the text by `oracle.py`, which shares no code with the product. What a layout lacks must
be missing for tshark; the other collectors show their own nothing (ABSENT) for it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import generated
import oracle
import pytest
from collectors import Nfacctd, Nfcapd, Record, Tshark, merged
from command import KEYS, NFDUMP_HIDES, Names, export

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
NOT_HERE = "the samples of the team (../shared/samples) are not on this machine"
NOW = int(time.time()) * 1000
ABSENT: Record = dict.fromkeys(KEYS, 0) | {"in_name": "", "out_name": ""}


def check(got: Iterable[Record], expected: Iterable[Record], keys: Iterable[str]) -> None:
    """Both have the same records, each as often."""
    keys = list(keys)
    left, right = (Counter(tuple(one.get(key) for key in keys) for one in some) for some in (got, expected))
    lost, strange = right - left, left - right
    assert not lost, (
        f"{lost.total()} of {right.total()} records missing\n{keys}\n{_few(lost)}\nin their place\n{_few(strange)}"
    )
    assert not strange, f"{strange.total()} records that nobody sent\n{keys}\n{_few(strange)}"


def _few(records: Counter[tuple[object, ...]]) -> str:
    return "\n".join(f"{count} x {record}" for record, count in sorted(records.items(), key=str)[:6])


def check_nfcapd(nfcapd: Nfcapd, expected: list[Record], names: Names, exporter: str = "127.0.0.1") -> None:
    got = [names.named(one) for one in nfcapd.records()]
    keys = [key for key in [*KEYS, "exporter"] if key not in NFDUMP_HIDES]
    check(got, ({**ABSENT, "exporter": exporter, **one} for one in expected), keys)


def check_nfacctd(nfacctd: Nfacctd, expected: list[Record], names: Names) -> None:
    """It adds up records that agree in all else, takes those without octets for events, follows the exporter table."""
    keys = [key for key in KEYS if key not in ("octets", "packets")]
    counted = [{**ABSENT, **one} for one in expected if "octets" in one]
    events = {tuple(one.get(key, ABSENT[key]) for key in keys): one for one in expected if "octets" not in one}
    sent = merged([*counted, *({**ABSENT, **one, "packets": 0} for one in events.values())], keys)
    raw = nfacctd.records(len(counted) + len(events))
    assert all(one["exporter"] == one["exporter_field"] for one in raw)
    for one in raw:
        if one["start_ms"] >= NOW and one["end_ms"] == 0:  # no times in the record: it shows the export time
            one["start_ms"] = 0
    got = merged(map(names.named, raw), keys)
    lost, strange = sent - got, got - sent
    assert not lost, f"missing\n{keys}\n{_few(lost)}\nin their place\n{_few(strange)}"
    assert not strange, f"nobody sent\n{keys}\n{_few(strange)}"
    assert nfacctd.sequence_complaints() == []
    assert nfacctd.complaints() == []


def check_tshark(shown: Tshark, expected: list[Record], names: Names) -> None:
    assert (shown.malformed, shown.sequence_complaints, shown.without_template) == ([], [], 0)
    check(map(names.named, shown.records), expected, KEYS)
    assert {one["domain"] for one in shown.records} == names.exporters.keys() == names.sampled
    for one in shown.records:  # in a capture each exporter sends from its own address
        assert one["exporter"] == one["exporter_field"]


def only_options_cost(nfcapd: Nfcapd, messages: int) -> None:
    """nfdump does not count options records, so each message with some is one gap to it, and nothing else is."""
    assert sum(nfcapd.sequence_failures().values()) <= messages


def through_all(files: Path | list[Path], nfcapd: Nfcapd, nfacctd: Nfacctd, tmp_path: Path, *arguments: str) -> None:
    paths = [files] if isinstance(files, Path) else files
    expected = [flow for path in paths for file in _files(path) for flow in oracle.flows(oracle.lines(file))]
    capture = tmp_path / "flows.pcap"
    summary = export(paths, "--output", capture, *arguments, to=[nfcapd, nfacctd])
    assert summary["records_exported"] == len(expected)
    shown = Tshark(capture)
    names = Names(shown)
    check_tshark(shown, expected, names)
    check_nfcapd(nfcapd, expected, names)
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
