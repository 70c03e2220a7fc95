"""Flow logs that other people captured or published (see ../shared/samples/README.md), every one of them."""

from __future__ import annotations

import base64
import json

import pytest

from edfn_agent.formats.batch import Counts
from edfn_agent.formats.errors import NotAFlowLog

pytestmark = pytest.mark.usefixtures("both_engines")

TEXTS = {
    "awsdocs-nat-zonal-no-version.log": Counts(flows=6),
    "awsdocs-v2-default.log": Counts(flows=5, nodata=1, skipdata=1),
    "awsdocs-v3-tcp-flags.log": Counts(flows=8),
    "awsdocs-v3-tgw-eni.log": Counts(flows=4),
    "awsdocs-v5-traffic-path.log": Counts(flows=2),
    "awsdocs-v9-nat-regional-no-version.log": Counts(flows=6),
    "flowlogs-reader-v2-messages.txt": Counts(flows=3, nodata=1, skipdata=1),
    "flowlogs-reader-v3.log": Counts(flows=2),
    "flowlogs-reader-v4.log": Counts(flows=2),
    "flowlogs-reader-v5.log": Counts(flows=2, malformed=1),  # "bogus line", on purpose
    "flowlogs-reader-v6.log": Counts(without_addresses=1),  # a layout without addresses
    "ktranslate-v2-2018.log": Counts(flows=6),
    "ktranslate-v3-2020.log": Counts(flows=1),
    "vrl-v7-ecs.log": Counts(flows=1),
    "vrl-v8-v11.log": Counts(flows=2),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(read, samples, name):
    octets = (samples / "text" / name).read_bytes()
    got = read(octets)
    assert (got.fault, got.tally) == (None, TEXTS[name])
    # against the words themselves
    lines = [line.split() for line in octets.decode().splitlines() if line.strip()]
    names = lines.pop(0) if not lines[0][0].isdigit() else list(got.batches[0].layout.names)
    rows = [dict(zip(names, line, strict=True)) for line in lines if len(line) == len(names)]
    flows = [row for row in rows if row.get("srcaddr", "-") != "-"]
    assert [{name: as_word(name, value) for name, value in row.items()} for row in got.rows] == flows


def as_word(name: str, value: int | str | None) -> str:
    if value is None:
        return "-"
    return str(value // 1000) if isinstance(value, int) and name in ("start", "end") else str(value)


def test_every_text_is_looked_at(samples):
    assert {path.name for path in (samples / "text").iterdir()} == set(TEXTS)


def test_the_export_task(read, samples):
    total = Counts()
    octets = packets = rejected = 0
    files = sorted((samples / "cwl-export").rglob("*.gz"))
    for path in files:
        got = read(path.read_bytes(), chunk=5000)
        assert got.fault is None
        total.add(got.tally)
        for batch in got.batches:
            octets += int(batch.integers("bytes").values.sum())
            packets += int(batch.integers("packets").values.sum())
        rejected += sum(row["action"] == "REJECT" for row in got.rows)
    assert len(files) == 12
    assert total == Counts(flows=23_250, nodata=96, skipdata=109)
    assert (octets, packets, rejected) == (3_786_460_443, 2_502_137, 1_034)


def test_subscriptions(read, samples):
    folder = samples / "cwl-subscription"
    got = read((folder / "data-message-2023.json.gz").read_bytes())
    assert [(row["srcaddr"], row["bytes"]) for row in got.rows] == [("10.5.81.140", 120)]
    assert got.batches[0].origin.log_group == "VPCFlowLogGroup"
    assert got.batches[0].origin.account_id == "647604195155"
    control = read((folder / "control-message-2023.json.gz").read_bytes())
    assert (control.fault, control.tally, control.reader.control_messages) == (None, Counts(), 1)
    four = read((folder / "four-envelopes-no-delimiter.json").read_bytes())
    assert [row["protocol"] for row in four.rows] == [6, 6, 6, 6], "extractedFields say otherwise, and do not count"
    assert read((folder / "extracted-fields-event-2019.json").read_bytes()).tally == Counts(flows=1)


def test_firehose(read, samples):
    records = [
        base64.b64decode(line) for line in (samples / "firehose" / "direct-records-2022.b64").read_bytes().split()
    ]
    for record in records:
        assert read(record).tally == Counts(flows=1)
    assert read(b"".join(records)).tally == Counts(flows=4)
    request = json.loads((samples / "firehose" / "http-request-direct-2024.json").read_bytes())
    assert read(base64.b64decode(request["records"][0]["data"])).tally == Counts(flows=1)


def test_parquet(read, samples):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install 'edfn-agent[parquet]'")
    got = read((samples / "parquet" / "flowlogs-reader-flows.parquet").read_bytes())
    assert got.tally == Counts(flows=1, nodata=2)
    assert got.rows == [
        {
            "version": 2,
            "account-id": "123456789010",
            "interface-id": "eni-102010ab",
            "srcaddr": "198.51.100.1",
            "dstaddr": "192.0.2.1",
            "srcport": 443,
            "dstport": 49152,
            "protocol": 6,
            "packets": 10,
            "bytes": 840,
            "start": 1439387263000,
            "end": 1439387264000,
            "action": "ACCEPT",
            "log-status": "OK",
        }
    ]


def test_notifications_are_no_flow_logs(read, samples):
    for path in (samples / "notifications").iterdir():
        got = read(path.read_bytes())
        assert isinstance(got.fault, NotAFlowLog)
        assert str(got.fault).startswith("JSON, but no log events (keys: ")
