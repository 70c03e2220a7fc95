"""Logs that name more VPCs and interfaces than anybody has: bounded in memory, nothing in a wrong place."""

from __future__ import annotations

import pytest

from edfn_agent import enrich
from edfn_agent.delivery import Delivery, Origin
from edfn_agent.enrich import Enricher, Flows
from edfn_agent.formats.reader import Reader
from edfn_agent.inventory import mapped
from edfn_agent.inventory.mapped import MappedDirectory


def flows_of(text: str, enricher: Enricher) -> list[Flows]:
    reader, found = Reader(), list[Flows]()
    delivery = Delivery(Origin("files", "files"), "flows.log", lambda: [text.encode()], lambda outcome, why: None)
    reader.feed(delivery, lambda batch: found.append(enricher.enrich(batch)))
    reader.flush(lambda batch: found.append(enricher.enrich(batch)))
    return found


def lines(count: int) -> str:
    return "vpc-id interface-id srcaddr\n" + "".join(f"vpc-{n:x} eni-{n:x} 10.0.0.1\n" for n in range(count))


def test_twenty_thousand_vpcs_have_an_address_and_a_domain_each() -> None:
    directory = MappedDirectory()  # this took a minute when each looked through all addresses
    exporters = [directory.exporter_of_vpc(f"vpc-{n:x}") for n in range(20_000)]
    assert len({exporter.address for exporter in exporters if exporter}) == 20_000
    assert len({exporter.domain for exporter in exporters if exporter}) == 20_000


def test_of_more_than_can_be_told_apart_the_rest_is_unattributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "MOST_EXPORTERS", 4)
    monkeypatch.setattr(mapped, "MOST_INTERFACES", 6)
    (flows,) = flows_of(lines(10), Enricher(MappedDirectory()))
    named = [flows.exporters[code].key for code in flows.exporter.tolist()]
    assert named == ["vpc-0", "vpc-1", "vpc-2", *["unattributed"] * 7]
    assert flows.ingress is not None
    assert [index > 0 for index in flows.ingress.tolist()] == [True] * 6 + [False] * 4


def test_no_exporter_takes_the_number_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrich, "MOST_EXPORTERS", 3)
    enricher = Enricher(MappedDirectory())
    (flows,) = flows_of(lines(5), enricher)
    assert [flows.exporters[code].key for code in flows.exporter.tolist()] == ["vpc-0", "vpc-1", *["unattributed"] * 3]
    assert enricher.unattributed_rows == 3
