"""The order of the stages: deliveries are read, parsed, enriched, exported, and only then let go.

In: deliveries, from as many threads as inputs have. Out: settled deliveries. Each thread has a reader of its own, which
parses without the GIL; enriching and exporting is one at a time, so a slow collector holds back every input, which is
the back-pressure.

In memory are at any time: `WAITING` octets of rows that wait for company, over all readers; the batch that each thread
is filling (32,768 rows of some 100 octets; a thread for each object, log group or shard that is being read); the
exporter's queues (export/lanes.py); and what the inputs hold of deliveries that are not settled, which each bounds.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from edfn_agent.delivery import Delivery, Outcome
from edfn_agent.enrich import Enricher, Flows
from edfn_agent.export.destination import Stopped
from edfn_agent.export.exporter import FlowExporter
from edfn_agent.formats.batch import Counts, FlowBatch
from edfn_agent.formats.errors import FormatError, OtherLogGroup
from edfn_agent.formats.reader import Reader

LINGER = 0.2
"""Seconds that records of small deliveries wait for company before they are sent as they are."""

REFRESH_WAIT = 1.0
"""Seconds that a refresh of idle exporters waits for its turn."""

WAITING = 64 << 20
"""Octets of rows that may wait for company, over all readers; beyond that whoever has read exports at once. Hundreds of
sources make many small batches; sixty of one megabyte are the company they need."""

Observe = Callable[[Flows], None]


class Pipeline:
    """Carries deliveries from inputs to collectors."""

    def __init__(
        self,
        make_reader: Callable[[], Reader],
        enricher: Enricher,
        exporter: FlowExporter,
        *,
        observe: Observe = lambda flows: None,
        waiting: int = WAITING,
    ) -> None:
        self._most_waiting = waiting
        self._step = waiting >> 10  # growth of a reader's part before all is added up: small deliveries would feel it
        self._flying: set[Delivery] = set()  # submitted and not settled
        self._make_reader = make_reader
        self._enricher = enricher
        self._exporter = exporter
        self._observe = observe
        self._exporting = threading.Lock()
        self._seats: list[_Seat] = []
        self._free: deque[_Seat] = deque()

    def replace(self, enricher: Enricher | None = None, exporter: FlowExporter | None = None) -> None:
        """Go on with others, from the next batch on. What the old exporter was given has gone out; a batch that waits
        for a collector which is down goes to the new exporter, all of it."""
        if enricher is not None:
            self._enricher = enricher
        if exporter is not None:
            self._exporter.abandoned.set()
            with self._exporting:
                self._exporter.close()
                self._exporter = exporter

    def refresh(self) -> None:
        """Templates of idle exporters again, when they are due. Not while one waits for a collector: another time."""
        if self._exporting.acquire(timeout=REFRESH_WAIT):
            try:
                self._exporter.refresh()
            finally:
                self._exporting.release()

    def submit(self, delivery: Delivery) -> Exception | None:
        """Read a delivery to its end and export all full batches. What ended the reading, if it was not the end.

        The rest of it waits for company until `flush`. The delivery settles when its last record is out: acknowledged,
        quarantined when what is in it cannot be read, returned for any other reason (an exception may say which:
        `outcome`). Nothing is raised but what ends the process.
        """
        fault: Exception | None = None
        self._flying.add(delivery)
        delivery.settled_hook = self._landed
        try:
            seat = self._take_seat()
            try:
                self._flush_seat(seat, LINGER)
                seat.reader.feed(delivery, self._export)
                seat.waiting = seat.reader.pending_octets
                if seat.waiting >= seat.look_at:
                    seat.look_at = seat.waiting + self._step
                    if self.octets_waiting > self._most_waiting:
                        self._flush_seat(seat, 0.0)
            finally:
                if seat.since is None:
                    seat.since = time.monotonic()  # also without rows: counts wait to be told, too
                seat.counts.add(seat.reader.tally)
                self._free.append(seat)
        except OtherLogGroup as error:
            fault = error  # it is counted; to keep it for another try would be of no use to anybody
        except FormatError as error:
            delivery.fail(Outcome.QUARANTINED, str(error))
            fault = error
        except Exception as error:
            delivery.fail(getattr(error, "outcome", Outcome.RETURNED), str(error) or type(error).__name__)
            fault = error
        except BaseException:
            delivery.fail(Outcome.RETURNED, "the agent is ending")
            raise
        finally:
            delivery.release()
        return fault

    def flush(self, older_than: float = 0.0) -> None:
        """Export what waits in readers that are not at work, when it has waited for so many seconds."""
        for _ in range(len(self._seats)):
            try:
                seat = self._free.popleft()
            except IndexError:
                return
            try:
                self._flush_seat(seat, older_than)
            finally:
                self._free.append(seat)

    @property
    def octets_in_flight(self) -> int:
        """As delivered, of deliveries that are being read or wait to be settled."""
        return sum(delivery.octets for delivery in self._flying.copy())

    @property
    def octets_waiting(self) -> int:
        """Of rows that have been read and wait for company; without those that are being read."""
        return sum(seat.waiting for seat in self._seats)

    @property
    def counts(self) -> Counts:
        """What all deliveries so far held."""
        total = Counts()
        for seat in list(self._seats):
            total.add(seat.counts)
        return total

    def _flush_seat(self, seat: _Seat, older_than: float) -> None:
        if seat.since is not None and time.monotonic() - seat.since >= older_than:
            seat.reader.flush(self._export)
            seat.since = None  # not before: what could not be sent may have left other batches waiting
            seat.waiting = seat.look_at = 0

    def _export(self, batch: FlowBatch) -> None:
        try:
            self._observe(self._send(batch))
        except BaseException as error:
            for delivery in batch.deliveries:
                delivery.fail(Outcome.RETURNED, str(error))
            raise
        finally:
            batch.release()

    def _send(self, batch: FlowBatch) -> Flows:
        flows: Flows | None = None
        while True:
            with self._exporting:
                if flows is None:
                    flows = self._enricher.enrich(batch)
                try:
                    self._exporter.send(flows)
                    return flows
                except Stopped:
                    if not self._exporter.abandoned.is_set():
                        raise
            time.sleep(0.01)  # `replace` waits for the lock

    def _landed(self, delivery: Delivery) -> None:
        self._flying.discard(delivery)

    def _take_seat(self) -> _Seat:
        """A reader for this thread alone. A deque's ends are safe without a lock, and a small delivery feels one."""
        try:
            return self._free.pop()
        except IndexError:
            seat = _Seat(self._make_reader())
            self._seats.append(seat)
            return seat


class _Seat:
    """A reader, and since when records wait in it."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.since: float | None = None
        self.waiting = 0  # octets
        self.look_at = 0  # and when to add up what waits in all of them
        self.counts = Counts()
