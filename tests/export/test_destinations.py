"""Several destinations side by side: each at its own pace, and what one that is not required misses."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest

from edfn_agent.delivery import Delivery, Origin
from edfn_agent.enrich import Enricher
from edfn_agent.export.destination import MOST_OCTETS, Destination, Stopped
from edfn_agent.export.exporter import FlowExporter
from edfn_agent.export.lanes import Lane
from edfn_agent.export.pace import Pace
from edfn_agent.export.rows import Settings
from edfn_agent.export.tables import Tables
from edfn_agent.export.transports.base import TransportDown, TransportFault
from edfn_agent.formats.reader import Reader
from edfn_agent.inventory.exporters import Exporter
from edfn_agent.inventory.mapped import MappedDirectory
from edfn_agent.pipeline import Pipeline
from ipfix import IANA, CollectingProcess, Message, Messages, Records, Template

PATIENCE = 20.0
SHOP = Exporter("vpc-0a", IPv4Address("10.1.0.1"), "configured", 7)
FLOW = Template(300, [IANA.by_name("octetDeltaCount")])


class Wire:
    """A transport that takes messages while its gate is open."""

    def __init__(self, *, reliable: bool = False) -> None:
        self.name = "udp://192.0.2.10:4739"
        self.reliable = reliable
        self.session = self.messages = self.octets = 0
        self.errors: Counter[str] = Counter()
        self.gate = threading.Event()
        self.gate.set()
        self.met: threading.Barrier | None = None
        self.opening: Exception | None = None
        self.sending: Exception | None = None
        self.sizes: list[int] = []  # octets of each call
        self.closed = False
        self._collector = CollectingProcess()
        self.received: list[Message] = []

    def open(self) -> None:
        if self.opening is not None:
            raise self.opening
        self.session += 1

    def send(self, messages: Messages, source: IPv4Address | None) -> None:
        assert self.gate.wait(PATIENCE)
        if self.met is not None and self.messages >= 1:  # not for templates
            self.met.wait(PATIENCE)
        if self.sending is not None:
            raise self.sending
        self.messages += len(messages)
        self.sizes.append(messages.buffer.size)
        self.received += [self._collector.receive(one, self.session) for one in messages]

    def drain(self, timeout: float) -> bool:
        return True

    def close(self) -> None:
        self.closed = True

    @property
    def flows(self) -> list[int]:
        return [
            int(record["octetDeltaCount"])  # type: ignore[arg-type]
            for message in self.received
            for data in message.data
            if not data.is_options
            for record in data
        ]


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def destination(wire: Wire, **settings: Any) -> Destination:
    return Destination(wire, pace=Pace(0), **settings)


@pytest.fixture
def pipeline() -> Iterator[Callable[..., Callable[[int], Exception | None]]]:
    """`pipeline(destination, ...)` gives `send(n)`: the n-th flow, through everything."""
    exporters: list[FlowExporter] = []

    def make(*destinations: Destination) -> Callable[[int], Exception | None]:
        exporter = FlowExporter(Settings(), destinations)
        exporters.append(exporter)
        carrier = Pipeline(Reader, Enricher(MappedDirectory({})), exporter)

        def send(number: int) -> Exception | None:
            text = f"srcaddr dstaddr bytes\n10.0.0.1 10.0.0.2 {number}\n".encode()
            fate: list[str] = []
            origin = Origin("files", "files")
            carrier.submit(Delivery(origin, str(number), lambda: [text], lambda outcome, why: fate.append(why)))
            try:
                carrier.flush()
            except Exception as error:
                return error
            assert fate == [""]
            return None

        return send

    yield make
    for exporter in exporters:
        for one in exporter.destinations:
            one.cut.set()
            one.transport.gate.set()  # type: ignore[attr-defined]
        exporter.close()
        assert all(one.transport.closed for one in exporter.destinations)  # type: ignore[attr-defined]


def test_all_that_are_required_are_sent_to_at_the_same_time(pipeline: Any) -> None:
    """Each is in the middle of its `send` when the other is: one after the other they would never meet."""
    wires = Wire(), Wire(), Wire()
    met = threading.Barrier(3)
    for wire in wires:
        wire.met = met
    send = pipeline(*map(destination, wires))
    assert send(1) is None
    assert [wire.flows for wire in wires] == [[1], [1], [1]]


def test_what_goes_wrong_with_one_ends_it_for_all(pipeline: Any) -> None:
    """One is down for good, the other cannot be written at all: that is said, and nobody waits for the first."""
    dead, wrong = Wire(), Wire()
    dead.opening = TransportDown("dead: nobody there", retry_after=1000.0)
    wrong.opening = TransportFault("wrong: cannot be written")
    for order in ((dead, wrong), (wrong, dead)):
        assert str(pipeline(*map(destination, order))(1)) == "wrong: cannot be written"


def test_after_a_failure_the_next_batch_goes_to_all(pipeline: Any) -> None:
    wires = Wire(), Wire()
    send = pipeline(*map(destination, wires))
    wires[1].sending = TransportFault("does not fit")
    assert str(send(1)) == "does not fit"
    wires[1].sending = None
    assert send(2) is None
    assert [wire.flows[-1] for wire in wires] == [2, 2]


def test_one_that_is_not_required_holds_nobody_back(pipeline: Any) -> None:
    slow, other = Wire(), Wire()
    slow.gate.clear()
    send = pipeline(destination(slow, required=False), destination(other))
    for number in range(50):
        assert send(number) is None
    assert other.flows == list(range(50))
    assert slow.flows == []
    slow.gate.set()
    until(lambda: slow.flows == list(range(50)))


def test_one_that_is_down_is_waited_for_in_its_own_time(pipeline: Any) -> None:
    down, other = Wire(), Wire()
    down.opening = TransportDown("nobody there", retry_after=0.01)
    send = pipeline(destination(other), destination(down, required=False))
    assert [send(number) for number in range(3)] == [None] * 3
    assert other.flows == [0, 1, 2]
    down.opening = None
    until(lambda: down.flows == [0, 1, 2])


@pytest.mark.parametrize("reliable", [False, True], ids=["udp", "tcp"])
def test_type_records_come_before_the_templates_they_describe(reliable: bool) -> None:
    """libfixbuf applies them to templates that come later. Over UDP they come again with every refresh."""
    wire, now = Wire(reliable=reliable), [0.0]
    target = destination(wire, template_refresh=60.0, clock=lambda: now[0])
    exporter = FlowExporter(Settings("aws", 4242), [target], type_records=True)
    carrier = Pipeline(Reader, Enricher(MappedDirectory({})), exporter)
    text = b"version vpc-id srcaddr dstaddr bytes\n5 vpc-0a 10.0.0.1 10.0.0.2 9\n"
    for now[0] in (0.0, 30.0, 60.0):
        carrier.submit(Delivery(Origin("files", "files"), "one", lambda: [text], lambda *_: None))
        carrier.flush()
    order = [(t.id, len(m.data)) for m in wire.received for t in m.templates if t.id in (260, 300)]
    assert [id for id, _ in order] == [260, 300] * (1 if reliable else 2)
    told = [record for m in wire.received for d in m.data if d.set_id == 260 for record in d]
    assert {record["informationElementName"]: record["informationElementId"] for record in told}["awsVpcId"] == 10005
    assert [record["awsVpcId"] for m in wire.received for d in m.data if d.set_id == 300 for record in d] == [
        "vpc-0a"
    ] * 3
    assert [m.error for m in wire.received if m.error] == []
    exporter.close()


def batch(first: int, count: int) -> list[tuple[Exporter, list[Records]]]:
    return [(SHOP, [FLOW.records({"octetDeltaCount": list(range(first, first + count))})])]


@pytest.mark.parametrize("reliable", [False, True], ids=["udp", "tcp"])
def test_what_does_not_fit_is_dropped_counted_said_and_seen(reliable: bool) -> None:
    wire, said = Wire(reliable=reliable), []
    target = destination(wire, required=False, report=said.append)
    lane = Lane(target, Tables(), lambda exporter: exporter.domain, queue_octets=8 * 100)
    wire.gate.clear()
    for first in range(0, 300, 50):  # 8 octets a record: two of these fit
        lane.offer(batch(first, 50))
    assert target.dropped == 200
    assert len(said) == 1
    assert said[0].startswith(f"{wire.name}: 50 flow records were not sent to it, as it takes less than comes")
    wire.gate.set()
    until(lambda: len(wire.flows) == 100)
    lane.offer(batch(300, 50))
    until(lambda: len(wire.flows) == 150)
    assert wire.flows == [*range(100), *range(300, 350)]
    assert [message.gap for message in wire.received if message.gap] == [200]  # as many as it missed
    times = Counter(template.id for message in wire.received for template in message.templates)
    assert set(times.values()) == ({1} if reliable else {2})  # a wide gap may have made it forget them
    assert [message.error for message in wire.received if message.error] == []
    lane.close()
    assert wire.closed
    assert len(said) == 2
    assert "150 flow records" in said[1]


def test_a_batch_larger_than_the_queue_goes_when_nothing_waits() -> None:
    wire = Wire()
    lane = Lane(destination(wire), Tables(), lambda exporter: exporter.domain, queue_octets=80)
    lane.offer(batch(0, 50))
    until(lambda: wire.flows == list(range(50)))
    lane.close()


def test_where_none_is_required_reading_waits_for_room(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edfn_agent.export.lanes.Lane.has_room", lambda lane, octets: not lane._octets)
    one, two = Wire(), Wire()
    one.gate.clear()
    two.gate.clear()
    send = pipeline(destination(one, required=False), destination(two, required=False))
    assert send(1) is None
    answers: list[Exception | None] = []
    waiting = threading.Thread(target=lambda: answers.append(send(2)))
    waiting.start()
    time.sleep(0.1)
    assert answers == []
    two.gate.set()
    waiting.join(PATIENCE)
    assert answers == [None]
    until(lambda: two.flows == [1, 2])


def test_at_the_end_what_waits_is_sent_and_what_stands_still_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edfn_agent.export.lanes.CLOSING", 0.2)
    wire, said = Wire(), []
    lane = Lane(destination(wire, report=said.append), Tables(), lambda exporter: exporter.domain)
    for first in range(0, 50, 10):
        lane.offer(batch(first, 10))
    lane.close()
    assert (wire.flows, wire.closed, said) == (list(range(50)), True, [])
    down = Wire()
    down.opening = TransportDown("nobody there", retry_after=1000.0)
    target = destination(down, report=said.append)
    lane = Lane(target, Tables(), lambda exporter: exporter.domain)
    for first in range(0, 50, 10):
        lane.offer(batch(first, 10))
    lane.close()
    assert (down.closed, target.dropped) == (True, 50)
    assert sum(int(line.split()[1]) for line in said if "not sent" in line) == 50


def test_messages_are_made_of_so_many_octets_at_a_time() -> None:
    """What a destination holds beside the batch is bounded, whatever a batch is."""
    count = 3 * MOST_OCTETS // 8
    wire = Wire()
    target = destination(wire)
    target.send(batch(0, count), Tables(), lambda exporter: exporter.domain)
    assert len(wire.sizes) == 4  # templates, then three parts
    assert max(wire.sizes) < MOST_OCTETS * 1.1
    assert sum(message.records for message in wire.received) == count + 3  # three options records
    texts = Template(301, [IANA.by_name("interfaceName")])
    long = [(SHOP, [texts.records({"interfaceName": ["x" * 1000] * 12000})])]
    wire.sizes.clear()
    target.send(long, Tables(), lambda exporter: exporter.domain)
    assert len(wire.sizes) == 4
    assert max(wire.sizes) < MOST_OCTETS * 1.1


def test_told_to_stop_it_stops_between_two_parts() -> None:
    wire = Wire()
    target = destination(wire)
    target.cut.set()
    with pytest.raises(Stopped):
        target.send(batch(0, 10), Tables(), lambda exporter: exporter.domain)
