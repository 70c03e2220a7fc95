"""A destination in a thread of its own, so that its pace is nobody else's.

In: records, from the exporter's thread: either handed over and waited for (a required collector beside the first), or
offered (one that is not required). Out: the destination's `send`, in order. What is offered waits in a queue bounded in
octets; what does not fit is dropped for this collector alone, counted, said once an interval, and shows in its sequence
numbers. Never: holding back who offers.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from edfn_agent.export.destination import Destination, Stopped
from edfn_agent.export.rows import Runs
from edfn_agent.export.tables import Tables
from edfn_agent.export.transports.base import REPORT_EVERY
from edfn_agent.inventory.exporters import Exporter

QUEUE_OCTETS = 16 << 20
"""Octets of records that wait for one collector: some 350,000 flows of profile standard, so a restart of a few seconds
costs it nothing. Larger only where a single batch is."""

CLOSING = 2.0
"""Seconds that what is in the queue has at the end, and then what is being sent to stop."""


@dataclass(slots=True)
class _Batch:
    runs: Runs
    octets: int
    done: Future[None] | None = None  # somebody waits for it


@dataclass(slots=True)
class _Gap:
    """Records that were dropped between two batches, by observation domain."""

    records: dict[int, int] = field(default_factory=dict)


class Lane:
    """Its methods are for the exporter's thread; the destination is touched by the lane's alone, once it has begun."""

    def __init__(
        self,
        destination: Destination,
        known: Tables,
        domains: Callable[[Exporter], int],
        *,
        queue_octets: int = QUEUE_OCTETS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.destination = destination
        self._known = known
        self._domains = domains
        self._most = queue_octets
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: deque[_Batch | _Gap] = deque()
        self._octets = 0  # waiting, and being sent
        self._refresh = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._untold = 0  # dropped records that nobody was told of
        self._told_at: float | None = None

    def hand(self, runs: Runs) -> Future[None]:
        """Send these; the future is done when the destination has taken all of them."""
        done: Future[None] = Future()
        with self._changed:
            self._put(_Batch(runs, octets_of(runs), done))
        return done

    def offer(self, runs: Runs) -> None:
        """Send these if they fit in the queue."""
        octets = octets_of(runs)
        with self._changed:
            if not self._closing and self._fits(octets):
                self._put(_Batch(runs, octets))
                return
            if not (self._queue and isinstance(self._queue[-1], _Gap)):
                self._queue.append(_Gap())
            gap = self._queue[-1]
            assert isinstance(gap, _Gap)
            for exporter, some in runs:
                domain = self._domains(exporter)
                gap.records[domain] = gap.records.get(domain, 0) + sum(records.count for records in some)
        self._missed(records_of(runs))

    def has_room(self, octets: int) -> bool:
        with self._changed:
            return self._fits(octets)

    def refresh(self) -> None:
        """Templates and tables of idle exporters again, when they are due, in between batches."""
        with self._changed:
            if self._thread is not None:
                self._refresh = True
                self._changed.notify_all()

    def close(self) -> None:
        """What waits has CLOSING seconds to get out; the rest is dropped."""
        if self._thread is None:
            self.destination.close()
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(CLOSING)
        if self._thread.is_alive():
            self.destination.cut.set()
            self._thread.join(CLOSING)
        self._tell()

    def _fits(self, octets: int) -> bool:
        return not self._octets or self._octets + octets <= self._most

    def _put(self, batch: _Batch) -> None:
        self._queue.append(batch)
        self._octets += batch.octets
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._serve, name=f"export {self.destination.transport.name}", daemon=True
            )
            self._thread.start()
        self._changed.notify_all()

    # -- the lane's own thread

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not (self._queue or self._refresh or self._closing):
                    self._changed.wait()
                work = self._queue.popleft() if self._queue else None
                refresh, self._refresh = self._refresh, False
            if isinstance(work, _Gap):
                self.destination.skip(work.records)
            elif work is not None:
                self._send(work)
                with self._changed:
                    self._octets -= work.octets
            elif not refresh:
                break  # closing, and nothing is left
            if refresh:
                self._send_refresh()
        self.destination.close()

    def _send(self, batch: _Batch) -> None:
        try:
            self.destination.send(batch.runs, self._known, self._domains)
        except BaseException as error:
            if batch.done is not None:
                batch.done.set_exception(error)
                return
            if not isinstance(error, Stopped):
                self.destination.report(str(error) or type(error).__name__)
            self._missed(records_of(batch.runs) - self.destination.handed)
        else:
            if batch.done is not None:
                batch.done.set_result(None)

    def _send_refresh(self) -> None:
        try:
            self.destination.refresh(self._known, self._domains)
        except Exception as error:
            self.destination.report(str(error) or type(error).__name__)

    # -- either thread

    def _missed(self, records: int) -> None:
        now = self._clock()
        with self._changed:
            self.destination.dropped += records
            self._untold += records
            due = self._told_at is None or now - self._told_at >= REPORT_EVERY
        if due:
            self._told_at = now
            self._tell()

    def _tell(self) -> None:
        with self._changed:
            untold, self._untold = self._untold, 0
        if untold:
            why = "it is down" if self.destination.down else "it takes less than comes"
            self.destination.report(
                f"{self.destination.transport.name}: {untold:,} flow records were not sent to it, as {why}"
                " and it is not required; the others have them"
            )


def octets_of(runs: Runs) -> int:
    return sum(records.octets.size for _, some in runs for records in some)


def records_of(runs: Runs) -> int:
    return sum(records.count for _, some in runs for records in some)
