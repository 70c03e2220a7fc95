"""The order of the stages: deliveries are read, parsed, enriched, exported, and only then let go.

In: deliveries, from as many threads as inputs have. Out: settled deliveries. Each thread has a reader of its own, which
parses without the GIL; enriching and exporting is one at a time, so a slow collector holds back every input, which is
the back-pressure. In hand at any time are at most the batch of each reader and what the inputs hold themselves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from edfn_agent.delivery import Delivery, Outcome
from edfn_agent.enrich import Enricher, Flows
from edfn_agent.export.exporter import FlowExporter, Stopped
from edfn_agent.formats.batch import Counts, FlowBatch
from edfn_agent.formats.errors import FormatError
from edfn_agent.formats.reader import Reader

LINGER = 0.2
"""Seconds that records of small deliveries wait for company before they are sent as they are."""

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
    ) -> None:
        self.enricher = enricher
        self.counts = Counts()
        self._make_reader = make_reader
        self._exporter = exporter
        self._observe = observe
        self._exporting = threading.Lock()
        self._readers: list[_Seat] = []
        self._free: list[_Seat] = []
        self._seats = threading.Lock()

    def submit(self, delivery: Delivery) -> FormatError | None:
        """Read a delivery to its end and export all full batches. The fault that ended the reading, if one did.

        The rest of it waits for company until `flush`. The delivery settles when its last record is out. Never raises
        for what is in a delivery; the caller's own faults (Stopped, a broken disk) come through after the delivery was
        returned to its source.
        """
        fault: FormatError | None = None
        try:
            with self._seat() as seat:
                try:
                    self._export(seat.reader.feed(delivery))
                except FormatError as error:
                    fault = error
                    delivery.fail(Outcome.QUARANTINED, str(error))
                finally:
                    seat.since = time.monotonic() if seat.reader.pending_rows else None
                    with self._seats:
                        self.counts.add(seat.reader.tally)
        except BaseException as error:
            delivery.fail(Outcome.RETURNED, f"{type(error).__name__}: {error}")
            raise
        finally:
            delivery.release()
        return fault

    def flush(self, older_than: float = 0.0) -> None:
        """Export what waits in the readers for at least so many seconds; skip readers that are at work."""
        now = time.monotonic()
        with self._seats:
            due = [seat for seat in self._free if seat.since is not None and now - seat.since >= older_than]
            self._free = [seat for seat in self._free if seat not in due]
        for seat in due:
            try:
                self._export(seat.reader.flush())
            finally:
                seat.since = None
                with self._seats:
                    self._free.append(seat)

    def _export(self, batches: Iterable[FlowBatch]) -> None:
        for batch in batches:
            try:
                with self._exporting:
                    flows = self.enricher.enrich(batch)
                    self._exporter.send(flows)
                self._observe(flows)
            except BaseException as error:
                for delivery in batch.deliveries:
                    delivery.fail(Outcome.RETURNED, str(error))
                raise
            finally:
                batch.release()

    @contextmanager
    def _seat(self) -> Iterator[_Seat]:
        with self._seats:
            seat = self._free.pop() if self._free else None
        if seat is None:
            seat = _Seat(self._make_reader())
            with self._seats:
                self._readers.append(seat)
        try:
            yield seat
        finally:
            with self._seats:
                self._free.append(seat)


class _Seat:
    """A reader, and since when records wait in it."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.since: float | None = None


__all__ = ["LINGER", "Pipeline", "Stopped"]
