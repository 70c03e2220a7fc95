"""What a collector shows, held against what the oracle read from the flow log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from collectors import Nfacctd, Nfcapd, Record, Tshark, merged
from command import KEYS, NFDUMP_HIDES, Names

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
NOT_HERE = "the samples of the team (../shared/samples) are not on this machine"
NOW = int(time.time()) * 1000
ABSENT: Record = dict.fromkeys(KEYS, 0) | {"in_name": "", "out_name": ""}


def check(got: Iterable[Record], expected: Iterable[Record], keys: Iterable[str]) -> None:
    """Both have the same records, each as often."""
    keys = list(keys)
    left, right = (Counter(_key(one, keys) for one in some) for some in (got, expected))
    lost, strange = right - left, left - right
    assert not lost, (
        f"{lost.total()} of {right.total()} records missing\n{keys}\n{_few(lost)}\nin their place\n{_few(strange)}"
    )
    assert not strange, f"{strange.total()} records that nobody sent\n{keys}\n{_few(strange)}"


def _few(records: Counter[tuple[object, ...]]) -> str:
    return "\n".join(f"{count} x {record}" for record, count in sorted(records.items(), key=str)[:6])


def check_nfcapd(nfcapd: Nfcapd, expected: list[Record], names: Names, options: Mapping[tuple[str, int], int]) -> None:
    """The exporter is who sent it. nfdump takes each message with options records for a gap, and nothing else."""
    got = [names.named(one) for one in nfcapd.records()]
    keys = [key for key in [*KEYS, "exporter"] if key not in NFDUMP_HIDES]
    check(got, ({**ABSENT, "exporter": "127.0.0.1", **one} for one in expected), keys)
    for exporter, failures in nfcapd.sequence_failures().items():
        assert failures <= options[exporter]


def check_nfacctd(
    nfacctd: Nfacctd, expected: list[Record], names: Names, shown: Iterable[str] = KEYS, *, complains: bool = False
) -> None:
    """It adds up records that agree in all else, takes those without octets for events, follows the exporter table.

    On a busy machine the print plugin of pmacct 1.7.7 once in a while counts one record twice: one in half a million,
    with every datagram there once and no gap in the sequence numbers. That one is let pass.
    """
    keys = [key for key in shown if key not in ("octets", "packets")]
    counted = [{**ABSENT, **one} for one in expected if "octets" in one]
    events = {_key({**ABSENT, **one}, keys) for one in expected if "octets" not in one}
    raw = nfacctd.records(len(counted) + len(events))
    for one in raw:
        assert one["exporter"] == one["exporter_field"]
        if one["start_ms"] >= NOW and one["end_ms"] == 0:  # no times in the record: it shows the export time
            one["start_ms"] = 0
    named = [names.named(one) for one in raw]
    sent, got = merged(counted, keys), merged((one for one in named if one["flows"]), keys)
    lost, strange = sent - got, got - sent
    if 0 < len(strange) <= 3 and all(amount == sent[key] for key, amount in strange.items()):
        strange.clear()  # see above
    assert not lost, f"missing\n{keys}\n{_few(lost)}\nin their place\n{_few(strange)}"
    assert not strange, f"nobody sent\n{keys}\n{_few(strange)}"
    assert {_key(one, keys) for one in named if not one["flows"]} == events
    assert bool(nfacctd.sequence_complaints()) == complains
    assert nfacctd.complaints() == []


def _key(record: Record, keys: Iterable[str]) -> tuple[object, ...]:
    return tuple(record.get(key) for key in keys)


def check_tshark(shown: Tshark, expected: list[Record], names: Names) -> None:
    assert (shown.malformed, shown.sequence_complaints, shown.without_template) == ([], [], 0)
    check(map(names.named, shown.records), expected, KEYS)
    assert {one["domain"] for one in shown.records} == names.exporters.keys() == names.sampled
    for one in shown.records:  # in a capture each exporter sends from its own address
        assert one["exporter"] == one["exporter_field"]
