"""An even stream instead of bursts: so many records a second and no more, options records included.

In: Messages that are ready. Out: the same messages, in order, in small bursts, each when its time has come. Never: a
message dropped or split.

A collector's default receive buffer holds some 2000 records; a longer unpaced burst is lost however slow the average.
So a burst is about a millisecond's worth of records, and the rate is kept by absolute deadlines, so that a sleep that
took too long is made up for, but never more than CREDIT's worth: over any time the records sent are at most
rate * (time + CREDIT) and one burst.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipfix import Messages

BURST_SECONDS = 0.001  # what a timer can keep; shorter sleeps only burn CPU
BURST_MESSAGES = 46  # one system call's worth of 1400 octets, and less than a default receive buffer holds (92)
CREDIT = 0.010  # seconds of rate that may be made up for after a late wake-up


class Pace:
    """The pace of one collector, over all its exporters. `records_per_second` 0: no limit."""

    def __init__(
        self,
        records_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """`sleep` may be the `wait` of an event that a stopping agent sets: what is left then goes unpaced."""
        if records_per_second < 0:
            raise ValueError(f"records_per_second {records_per_second} is below 0")
        self.rate = records_per_second
        self._clock = clock
        self._sleep = sleep
        self._due = clock()  # when everything that was let go is paid for

    def bursts(self, messages: Messages) -> Iterator[Messages]:
        """Parts of `messages` in order, each given at the time it is to be sent."""
        if not self.rate:
            if len(messages):
                yield messages
            return
        allowance = self.rate * BURST_SECONDS
        counts = messages.counts.tolist()
        first = 0
        while first < len(counts):
            records = counts[first]
            stop = first + 1
            while stop < len(counts) and stop - first < BURST_MESSAGES and records + counts[stop] <= allowance:
                records += counts[stop]
                stop += 1
            self._wait(records)
            yield messages[first:stop]
            first = stop

    def _wait(self, records: int) -> None:
        now = self._clock()
        if now < self._due:
            self._sleep(self._due - now)
            now = self._clock()
        self._due = max(self._due, now - CREDIT) + records / self.rate
