"""Long strings: a record that no message can hold is cut to fit, and no batch is made into records all at once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfn_agent.delivery import Delivery, Origin
from edfn_agent.enrich import Enricher, Flows
from edfn_agent.export.parts import HEADERS, Parts, fitted
from edfn_agent.export.rows import RecordMaker, Settings
from edfn_agent.formats.reader import Reader
from edfn_agent.inventory.mapped import MappedDirectory
from ipfix import IANA, CollectingProcess, ExportingProcess, InformationElement, Records, Template

from .conftest import Export

FLOW = Template(
    300,
    [IANA.by_name("sourceIPv4Address"), *(InformationElement(f"text{n}", 600 + n, "string", 32473) for n in range(3))],
)


def records(*rows: tuple[str, str, str]) -> Records:
    texts = {f"text{n}": [row[n] for row in rows] for n in range(3)}
    return FLOW.records({"sourceIPv4Address": list(range(len(rows))), **texts}, len(rows))


def texts(some: Records, size: int) -> list[tuple[Any, ...]]:
    """What a collector reads, after seeing that messages of this size hold it."""
    exporter, collector = (
        ExportingProcess(size),
        CollectingProcess(IANA.extended(*(f.element for f in FLOW.fields[1:]))),
    )
    messages = [*exporter.announce(1, [FLOW], [], 0, 0), *exporter.data(1, [some], 0)]
    assert all(len(one) <= size for one in messages)
    found = [record for one in messages for data in collector.receive(one).data for record in data]
    assert [int(record["sourceIPv4Address"]) for record in found] == list(range(len(found)))
    return [tuple(record[f"text{n}"] for n in range(3)) for record in found]


def test_only_the_longest_strings_of_only_the_long_records_are_cut() -> None:
    some = records(("a" * 100, "b", "c"), ("d" * 200, "e" * 40, "f" * 200), ("g", "h", "i"))
    cut, count = fitted(some, 200 + HEADERS)
    assert count == 1
    # 4 octets of address, three of lengths, 40 of what is short: 153 are left for two
    assert texts(cut, 200 + HEADERS) == [("a" * 100, "b", "c"), ("d" * 76, "e" * 40, "f" * 76), ("g", "h", "i")]


def test_what_fits_is_left_alone() -> None:
    some = records(("a" * 100, "b" * 93, ""))
    assert fitted(some, 200 + HEADERS) == (some, 0)
    fixed = Template(301, [IANA.by_name("octetDeltaCount")]).records({"octetDeltaCount": [1, 2]})
    assert fitted(fixed, 512) == (fixed, 0)


def test_strings_are_cut_between_characters() -> None:
    cut, _ = fitted(records(("ü" * 200, "", "")), 100 + HEADERS)
    assert texts(cut, 100 + HEADERS) == [("ü" * 46, "", "")]  # 92 of 93 octets


@given(st.lists(st.tuples(*[st.text("aü€", max_size=400)] * 3), min_size=1, max_size=8), st.integers(520, 900))
def test_every_record_is_there_and_its_strings_begin_as_they_did(rows: list[tuple[str, str, str]], size: int) -> None:
    cut, count = fitted(records(*rows), size)
    found = texts(cut, size)
    assert len(found) == len(rows)
    assert sum(one != row for one, row in zip(found, rows, strict=True)) == count
    for one, row in zip(found, rows, strict=True):
        assert all(whole.startswith(part) for part, whole in zip(one, row, strict=True))
        if one != row:  # not more than needed: a character more in each, and it would not fit
            assert 4 + sum(len(part.encode()) + 3 for part in one) > size - HEADERS - 3 * 5


def flows(text: str) -> Flows:
    found: list[Flows] = []
    reader, enricher = Reader(), Enricher(MappedDirectory({}))
    delivery = Delivery(Origin("files", "files"), "test", lambda: [text.encode()], lambda *_: None)
    reader.feed(delivery, lambda batch: found.append(enricher.enrich(batch)))
    reader.flush(lambda batch: found.append(enricher.enrich(batch)))
    (one,) = found
    return one


@pytest.mark.parametrize("most", [1, 300, 2000, 10**9])
def test_the_parts_of_a_batch_are_the_batch(most: int) -> None:
    head = "version vpc-id interface-id srcaddr dstaddr bytes start end flow-direction ecs-task-arn something-new\n"
    rows = [
        f"5 vpc-0{n % 3} eni-0{n % 4} {'10.0.0.1 10.0.0.2' if n % 5 else '2001:db8::1 2001:db8::2'} {n} 1735922400 "
        f"{'-' if n % 7 == 0 else '1735922460'} ingress {'arn:' + 'x' * (n % 50)} new{n % 2}\n"
        for n in range(100)
    ]
    whole = flows(head + "".join(rows))
    maker = RecordMaker(Settings("aws", 4242))
    parts = list(Parts(most).of(whole))
    assert sum(part.batch.rows for part in parts) == 100
    assert (len(parts) == 1) == (most == 10**9)
    octets: dict[tuple[str, int], bytes] = {}
    for part in parts:
        for exporter, runs in maker.runs(part):
            for run in runs:
                key = (exporter.key, run.template.id)
                octets[key] = octets.get(key, b"") + run.octets.tobytes()
                assert most == 1 or len(run.octets) < most + 200 * run.count
    expected = {(e.key, run.template.id): run.octets.tobytes() for e, runs in maker.runs(whole) for run in runs}
    assert octets == expected


def test_a_long_record_is_exported_and_said(export: Export) -> None:
    line = f"10.0.0.1 10.0.0.2 99 arn:{'a' * 900} arn:{'b' * 900}\n"
    result = export("srcaddr dstaddr bytes ecs-cluster-arn ecs-task-arn\n" + line * 3, number=4242)
    assert (result.status, result.summary["records_exported"]) == (0, 3)
    assert [record["octetDeltaCount"] for record in result.flows] == [99] * 3
    assert {len(record["awsEcsClusterArn"]) for record in result.flows} == {len(result.flows[0]["awsEcsTaskArn"])}
    assert max(message.length for message in result.messages) <= 1400
    assert "3 records were longer than a message of 1400 octets" in result.stderr
