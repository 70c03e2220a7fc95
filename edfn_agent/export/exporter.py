"""From flows to collectors: records once, messages per collector, handed over before `send` returns.

In: Flows. Out: IPFIX messages on every destination, templates and options before the data that need them. `send` blocks
while a required collector cannot take more; that is the agent's back-pressure. Never: reading, acknowledging.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from edfn_agent.enrich import Flows
from edfn_agent.export import tables
from edfn_agent.export.pace import Pace
from edfn_agent.export.rows import RecordMaker, Runs, Settings
from edfn_agent.export.tables import Tables
from edfn_agent.export.transports.base import SessionEnded, Transport, TransportDown, TransportFault
from edfn_agent.inventory.exporters import Exporter
from ipfix import ExportingProcess, Messages, Records, Template

FIRST_TEMPLATE_PAUSE = 0.005
"""Seconds between a template that is new to a collector and its first data over UDP: goflow2 decodes with two workers,
and data overtook the template in 107 of 500 tries without a pause, in none with 1 ms."""

WORKER_SHIFT = 24
"""An observation domain is the VPC's number (24 bits) with the worker's above it, so two processes never share one."""


MENDED_AFTER = 5.0
"""Seconds after which a service tries again what only a person can mend: a file of TLS that is missing or wrong."""


class Stopped(Exception):
    """The agent is stopping (or exports elsewhere now), and a required collector has not taken everything."""


class Destination:
    """A collector or a file: a transport, the IPFIX session on it, and its pace."""

    def __init__(
        self,
        transport: Transport,
        *,
        max_message_size: int = 1400,
        template_refresh: float = 60.0,
        pace: Pace,
        required: bool = True,
        patient: bool = False,
        wait: Callable[[float], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.transport = transport
        self.process = ExportingProcess(max_message_size, None if transport.reliable else template_refresh)
        self.required = required
        self._patient = patient  # wait until a TransportFault is mended, instead of raising it
        self.records = 0  # data records handed over, options records included
        self.dropped = 0  # flow records not sent while a collector that is not required was down
        self.down: str = ""  # why it is down, for health
        self._pace = pace
        # Paced, a batch may take minutes; neither templates nor the export time may grow old over it.
        self._at_once = max(1, int(pace.rate * min(1.0, template_refresh / 2))) if pace.rate else 0
        self._clock = clock
        self._wait = wait if wait is not None else _sleep  # True: stop waiting, the agent is stopping
        self._report = report
        self._session = transport.session
        self._told: dict[str, int] = {}  # exporter -> changes of its interface table that this session knows
        self._exporters: dict[str, Exporter] = {}  # those that this session has announced, as it announced them
        self._retry_at = 0.0
        self._open = False

    def send(self, runs: Runs, known: Tables, domains: Callable[[Exporter], int]) -> None:
        """Hand over all records, through as many sessions as it takes; Stopped when told to stop before that."""
        rest = runs
        while rest:
            if not self._ready():
                self.dropped += sum(records.count for _, some in rest for records in some)
                return
            try:
                self._send(rest, known, domains)
                return
            except _Interrupted as interrupted:
                # over UDP what was accepted is gone and must not go twice; a broken stream may have lost all of it
                rest = runs if self.transport.reliable else interrupted.rest

    def drain(self, timeout: float) -> bool:
        return self.transport.drain(timeout)

    def close(self) -> None:
        self.transport.close()

    def refresh(self, known: Tables, domains: Callable[[Exporter], int]) -> None:
        """Templates and tables of idle exporters again, when they are due; a collector may have been restarted."""
        idle: Runs = [(exporter, []) for exporter in self._exporters.values()]
        if self._open and not self.transport.reliable:
            try:
                self._announce(idle, known, domains)
            except _Interrupted:
                return

    def _ready(self) -> bool:
        """Open the transport if need be. False: it is down and not required, so go on without."""
        while not self._open:
            pause = self._retry_at - self._clock()
            if pause > 0:
                if not self.required:
                    return False
                if self._wait(pause):
                    raise Stopped(f"{self.transport.name}: {self.down}")
            try:
                self.transport.open()
            except TransportDown as error:
                self._went_down(error)
                continue
            except TransportFault as error:
                if not self._patient:
                    raise
                self._went_down(TransportDown(str(error), retry_after=MENDED_AFTER))
                continue
            if self.down:
                self._report(f"{self.transport.name}: back")
            self._open, self.down = True, ""
        return True

    def _went_down(self, error: TransportDown) -> None:
        if str(error) != self.down:
            self._report(f"{error}; trying again")
        self._open, self.down = False, str(error)
        self._retry_at = self._clock() + error.retry_after

    def _send(self, runs: Runs, known: Tables, domains: Callable[[Exporter], int]) -> None:
        if self._announce(runs, known, domains) and not self.transport.reliable:
            self._wait(FIRST_TEMPLATE_PAUSE)
        for number, (exporter, records) in enumerate(runs):
            left = records
            while left:
                part = _first(left, self._at_once) if self._at_once else left
                try:
                    if self._at_once and (number or left is not records):
                        self._announce([(exporter, left)], known, domains)  # what came due over the ones before
                    self._hand_over(self.process.data(domains(exporter), part, int(time.time())), exporter)
                except _Interrupted as interrupted:
                    left = _without(left, interrupted.handed_over)
                    interrupted.rest = [(exporter, left), *runs[number + 1 :]] if left else runs[number + 1 :]
                    raise
                left = _without(left, sum(run.count for run in part))
        if self.transport.reliable and self.required:  # nobody waits for a collector that may miss some
            self._drain()

    def _drain(self) -> None:
        """Until all of it has left for good; a session that ends before that takes it all along."""
        try:
            while not self.transport.drain(1.0):
                if self._wait(0.0):
                    raise Stopped(f"{self.transport.name}: does not take what was sent")
        except TransportDown as error:
            self._went_down(error)
            raise _Interrupted(0) from error

    def _announce(self, runs: Runs, known: Tables, domains: Callable[[Exporter], int]) -> bool:
        """Templates and options that are due for these runs. True when some are new to the collector."""
        if self._session != self.transport.session:
            self._session = self.transport.session
            self.process.restart()
            self._told.clear()
            self._exporters.clear()
        new = False
        messages: Iterable[Messages]
        now, export_time = self._clock(), int(time.time())
        for exporter, records in runs:
            domain = domains(exporter)
            wanted = {run.template.id: run.template for run in records} | {t.id: t for t in tables.TEMPLATES}
            wanted |= {t.id: t for t in self.process.templates(domain)}
            changes = known.changes(exporter)
            due = self.process.due(domain, wanted.values(), now)
            before = self._exporters.get(exporter.key)
            moved = before is not None and before.address != exporter.address
            if due or moved:  # to a collector, another address is another exporter, which has announced nothing
                new = new or moved or exporter.key not in self._told or any(t.id >= 300 for t in due)
                messages = self._announcement(domain, list(wanted.values()), known, exporter, now, export_time)
            elif changes > self._told[exporter.key]:
                news = known.interfaces(exporter, domain, self._told[exporter.key])
                messages = [self.process.data(domain, [news], export_time)]
            else:
                continue
            self._told[exporter.key] = changes
            self._exporters[exporter.key] = exporter
            try:
                for each in messages:
                    self._hand_over(each, exporter)
            except _Interrupted as interrupted:
                interrupted.rest, interrupted.handed_over = runs, 0
                raise
        return new

    def _announcement(
        self, domain: int, wanted: list[Template], known: Tables, exporter: Exporter, now: float, export_time: int
    ) -> Iterator[Messages]:
        """Templates and tables; before them type records, as libfixbuf applies those to templates that come later."""
        if known.types is not None:
            yield self.process.announce(domain, [known.types.template], [known.types], now, export_time)
            wanted = [template for template in wanted if template != known.types.template]
        yield self.process.announce(domain, wanted, known.all(exporter, domain), now, export_time)

    def _hand_over(self, messages: Messages, exporter: Exporter) -> None:
        handed_over = 0
        for burst in self._pace.bursts(messages):
            try:
                self.transport.send(burst, exporter.address)
            except (SessionEnded, TransportDown) as error:
                if isinstance(error, TransportDown):
                    self._went_down(error)
                sent = int(burst.counts[: error.sent].sum())
                self.records += sent
                raise _Interrupted(handed_over + sent) from error
            handed_over += burst.records
            self.records += burst.records


class _Interrupted(Exception):
    """The session ended while records were handed over."""

    def __init__(self, handed_over: int) -> None:
        super().__init__()
        self.handed_over = handed_over  # records of the exporter in hand
        self.rest: Runs = []


def _first(runs: list[Records], count: int) -> list[Records]:
    """The first `count` records of these runs."""
    first = []
    for records in runs:
        first.append(records[:count] if count < records.count else records)
        count -= first[-1].count
        if not count:
            break
    return first


def _without(runs: list[Records], count: int) -> list[Records]:
    """These runs less their first `count` records."""
    left = []
    for records in runs:
        skip = min(count, records.count)
        count -= skip
        if skip < records.count:
            left.append(records[skip : records.count])
    return left


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


class FlowExporter:
    """Makes records of flows once and sends them to every destination. Used by one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        destinations: Sequence[Destination],
        worker: int = 0,
        abandoned: threading.Event | None = None,
        *,
        type_records: bool = False,
    ) -> None:
        """`type_records`: say on the wire what the elements of profile aws are (RFC 5610)."""
        self.destinations = destinations
        self.abandoned = abandoned or threading.Event()  # who waits in `send` gives up: another exporter is in force
        self.flows = 0  # flow records handed over to every required destination
        self._maker = RecordMaker(settings)
        number = settings.enterprise_number if type_records and settings.profile == "aws" else None
        self._tables = Tables(None if number is None else tables.types(number))
        self._above = worker << WORKER_SHIFT

    def domain(self, exporter: Exporter) -> int:
        return exporter.domain | self._above

    def send(self, flows: Flows) -> None:
        """Returns when every required destination has taken every record of these flows."""
        for code, interface in flows.new_interfaces:
            self._tables.add(flows.exporters[code], interface)
        runs = self._maker.runs(flows)
        if runs:
            for destination in self.destinations:
                destination.send(runs, self._tables, self.domain)
            self.flows += sum(records.count for _, some in runs for records in some)

    def refresh(self) -> None:
        for destination in self.destinations:
            destination.refresh(self._tables, self.domain)

    def drain(self, timeout: float) -> bool:
        return all(destination.drain(timeout) for destination in self.destinations)

    def close(self) -> None:
        for destination in self.destinations:
            destination.close()
