"""A collector or a file: a transport, the IPFIX session on it, and its pace.

In: records by exporter. Out: IPFIX messages on the transport, templates and options before the data that need them;
`send` returns when all of it is handed over, however often the session has to begin anew. Never: other collectors.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping

from edfn_agent.export import tables
from edfn_agent.export.pace import Pace
from edfn_agent.export.parts import fitted
from edfn_agent.export.rows import Runs
from edfn_agent.export.tables import Tables
from edfn_agent.export.transports.base import REPORT_EVERY, SessionEnded, Transport, TransportDown, TransportFault
from edfn_agent.inventory.exporters import Exporter
from ipfix import ExportingProcess, Messages, Records, Template

FIRST_TEMPLATE_PAUSE = 0.005
"""Seconds between a template that is new to a collector and its first data over UDP: goflow2 decodes with two workers,
and data overtook the template in 107 of 500 tries without a pause, in none with 1 ms."""

MENDED_AFTER = 5.0
"""Seconds after which a service tries again what only a person can mend: a file of TLS that is missing or wrong."""


class Stopped(Exception):
    """The agent is stopping (or exports elsewhere now), and a required collector has not taken everything."""


MOST_OCTETS = 4 << 20
"""Octets of records that are made into messages at a time: what a destination holds beside the batch itself."""


class Destination:
    """A collector or a file: a transport, the IPFIX session on it, and its pace. Used by one thread at a time.

    `cut`, set by any other, ends a `send` that goes on: it raises Stopped as soon as it looks up.
    """

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
        self.handed = 0  # flow records handed over of what `send` was given last
        self.dropped = 0  # flow records that it missed, because it is not required and did not keep up
        self.down: str = ""  # why it is down, for health
        self.cut = threading.Event()
        self._pace = pace
        # Paced, a batch may take minutes; neither templates nor the export time may grow old over it.
        self._at_once = max(1, int(pace.rate * min(1.0, template_refresh / 2))) if pace.rate else 0
        self._clock = clock
        self.wait = wait if wait is not None else self.cut.wait  # True: stop waiting, the agent is stopping
        self.report = report
        self._session = transport.session
        self._told: dict[str, int] = {}  # exporter -> changes of its interface table that this session knows
        self._exporters: dict[str, Exporter] = {}  # those that this session has announced, as it announced them
        self._shortened = 0  # records, since it was last said
        self._said_at: float | None = None
        self._retry_at = 0.0
        self._open = False

    def send(self, runs: Runs, known: Tables, domains: Callable[[Exporter], int]) -> None:
        """Hand over all records, through as many sessions as it takes; Stopped when told to stop before that."""
        rest = runs = self._fitted(runs)
        self.handed = 0
        while rest:
            self._get_ready()
            try:
                self._send(rest, known, domains)
                return
            except _Interrupted as interrupted:
                # over UDP what was accepted is gone and must not go twice; a broken stream may have lost all of it
                rest = runs if self.transport.reliable else interrupted.rest
                if self.transport.reliable:
                    self.handed = 0

    def _fitted(self, runs: Runs) -> Runs:
        """The same, but records that no message can hold have their longest strings cut."""
        size = self.process.max_message_size
        done: Runs = []
        for exporter, some in runs:
            fits = [fitted(records, size) for records in some]
            self._shortened += sum(count for _, count in fits)
            done.append((exporter, [records for records, _ in fits]))
        if self._shortened and (self._said_at is None or self._clock() - self._said_at >= REPORT_EVERY):
            self._said_at = self._clock()
            self._say_shortened()
        return done

    def _say_shortened(self) -> None:
        if self._shortened:
            what = "record was" if self._shortened == 1 else "records were"
            self.report(
                f"{self.transport.name}: {self._shortened:,} {what} longer than a message of"
                f" {self.process.max_message_size} octets, the longest strings cut: raise the message size"
            )
        self._shortened = 0

    def drain(self, timeout: float) -> bool:
        return self.transport.drain(timeout)

    def close(self) -> None:
        self._say_shortened()
        self.transport.close()

    def refresh(self, known: Tables, domains: Callable[[Exporter], int]) -> None:
        """Templates and tables of idle exporters again, when they are due; a collector may have been restarted."""
        idle: Runs = [(exporter, []) for exporter in self._exporters.values()]
        if self._open and not self.transport.reliable:
            try:
                self._announce(idle, known, domains)
            except _Interrupted:
                return

    def skip(self, records: Mapping[int, int]) -> None:
        """So many flow records of these domains will not be sent: sequence numbers tell the collector."""
        for domain, count in records.items():
            self.process.skip(domain, count)

    def _get_ready(self) -> None:
        """Open the transport if need be, however long that takes."""
        while not self._open:
            pause = self._retry_at - self._clock()
            if pause > 0:
                if self.wait(min(pause, 1.0)) or self.cut.is_set():
                    raise Stopped(f"{self.transport.name}: {self.down}")
                continue
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
                self.report(f"{self.transport.name}: back")
            self._open, self.down = True, ""

    def _went_down(self, error: TransportDown) -> None:
        if str(error) != self.down:
            self.report(f"{error}; trying again")
        self._open, self.down = False, str(error)
        self._retry_at = self._clock() + error.retry_after

    def _send(self, runs: Runs, known: Tables, domains: Callable[[Exporter], int]) -> None:
        if self._announce(runs, known, domains) and not self.transport.reliable:
            self.wait(FIRST_TEMPLATE_PAUSE)
        for number, (exporter, records) in enumerate(runs):
            left = records
            while left:
                if self.cut.is_set():
                    raise Stopped(f"{self.transport.name}: told to stop")
                part = _first(left, self._at_once)
                try:
                    if self._at_once and (number or left is not records):
                        self._announce([(exporter, left)], known, domains)  # what came due over the ones before
                    messages = self.process.data(domains(exporter), part, int(time.time()))
                    self._hand_over(messages, exporter, flows=True)
                except _Interrupted as interrupted:
                    left = _without(left, interrupted.handed_over)
                    interrupted.rest = [(exporter, left), *runs[number + 1 :]] if left else runs[number + 1 :]
                    raise
                left = _without(left, sum(run.count for run in part))
        if self.transport.reliable:
            self._drain()

    def _drain(self) -> None:
        """Until all of it has left for good; a session that ends before that takes it all along."""
        try:
            while not self.transport.drain(1.0):
                if self.wait(0.0) or self.cut.is_set():
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
            # To a collector another address is another exporter, which has announced nothing. Another name is told at
            # once, too: over TCP the tables would not come again.
            if due or before not in (None, exporter):
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

    def _hand_over(self, messages: Messages, exporter: Exporter, *, flows: bool = False) -> None:
        handed_over = 0
        for burst in self._pace.bursts(messages):
            try:
                self.transport.send(burst, exporter.address)
            except (SessionEnded, TransportDown) as error:
                if isinstance(error, TransportDown):
                    self._went_down(error)
                sent = int(burst.counts[: error.sent].sum())
                self.records += sent
                self.handed += sent if flows else 0
                raise _Interrupted(handed_over + sent) from error
            except TransportFault:
                self._open = False  # nobody knows what of it was sent: the next try is a session of its own
                raise
            handed_over += burst.records
            self.records += burst.records
            self.handed += burst.records if flows else 0


class _Interrupted(Exception):
    """The session ended while records were handed over."""

    def __init__(self, handed_over: int) -> None:
        super().__init__()
        self.handed_over = handed_over  # records of the exporter in hand
        self.rest: Runs = []


def _first(runs: list[Records], most_records: int) -> list[Records]:
    """As many records of these runs as are made into messages at a time; 0 records: as their octets allow."""
    first: list[Records] = []
    octets = MOST_OCTETS
    left = most_records or sum(run.count for run in runs)
    for run in runs:
        count = min(left, _records_in(run, octets))
        if not count and first:
            break
        first.append(run if count >= run.count else run[: max(1, count)])
        left -= first[-1].count
        octets -= first[-1].octets.size
        if first[-1] is not run or not left:
            break
    return first


def _records_in(run: Records, octets: int) -> int:
    """How many records from the first on fit into so many octets."""
    if run.octets.size <= octets:
        return run.count
    if run.ends is None:
        return max(0, octets) // (run.length or 1)
    return bisect_right(run.ends.data, octets)


def _without(runs: list[Records], count: int) -> list[Records]:
    """These runs less their first `count` records."""
    left = []
    for records in runs:
        skip = min(count, records.count)
        count -= skip
        if skip < records.count:
            left.append(records[skip : records.count])
    return left
