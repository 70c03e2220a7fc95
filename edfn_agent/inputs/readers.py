"""The readers of one input, one for each source (a queue, a log group), kept in step with what is to be read.

In: the sources, from the configuration or from discovery, as often as they change, and settings. Out: running readers
and their health. Never: one source waiting for another; a dead one is tried again by its reader, with growing pauses.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Generic, Protocol, TypeVar

import structlog

from edfn_agent.inputs.clock import Clock, Deadline
from edfn_agent.inputs.health import Health
from edfn_agent.ops.metrics import Metrics


class SourceReader(Protocol):
    """Reads one source in threads of its own."""

    def start(self) -> None: ...

    def health(self) -> Health: ...

    def stop_reading(self) -> None:
        """At once, without waiting: nothing new is taken."""

    def stop(self, deadline: Deadline) -> None:
        """Wait for what is in hand until `deadline`, give back the rest."""


SAID = 10
"""Sources named one by one when many are begun at a time; the rest is counted. All are in the metrics."""

log = structlog.get_logger("edfn.inputs")

Source = TypeVar("Source", bound=Hashable)
Settings = TypeVar("Settings")


class Readers(ABC, Generic[Source, Settings]):
    """`set_sources` as often as they change; `stop_reading` and `stop` end it for good."""

    def __init__(self, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        self._settings, self._metrics, self._clock = settings, metrics, clock
        self._readers: dict[Source, SourceReader] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._waiting: Deadline | None = None  # of a change under way

    @abstractmethod
    def _reader(self, source: Source) -> SourceReader:
        """A reader with the settings in force, not started."""

    @abstractmethod
    def _say(self, source: Source) -> None:
        """That this source is read from now on."""

    def set_sources(self, wanted: Sequence[Source], timeout: float = 30.0) -> None:
        """Read exactly these from now on. One that is dropped finishes what it has in hand, within `timeout`."""
        self._change(wanted, self._settings, timeout)

    def set_settings(self, settings: Settings, timeout: float = 30.0) -> None:
        """Other settings: each source finishes what it has in hand and goes on with them."""
        self._change(list(self._readers), settings, timeout)

    def health(self) -> list[Health]:
        return [reader.health() for reader in list(self._readers.values())]

    def stop_reading(self, timeout: float) -> None:
        """At once, without waiting: nothing new is taken, and nobody starts any more. A change under way goes on
        waiting for what is in hand, but for `timeout` at the most."""
        self._ended = True
        waiting = self._waiting
        if waiting is not None:
            waiting.bring_forward(timeout)
        for reader in list(self._readers.values()):
            reader.stop_reading()

    def stop(self, timeout: float) -> None:
        """Wait `timeout` seconds for what is in hand, then give it back. The pipeline still runs."""
        deadline = Deadline(self._clock, timeout)
        self.stop_reading(timeout)
        with self._lock:
            readers = list(self._readers.values())
            self._readers.clear()
            _stop_all(readers, deadline)

    def _change(self, wanted: Sequence[Source], settings: Settings, timeout: float) -> None:
        with self._lock:
            keep = set(wanted) if settings == self._settings else set()
            self._settings = settings
            gone = {source: self._readers.pop(source) for source in list(self._readers) if source not in keep}
            self._waiting = Deadline(self._clock, 0.0 if self._ended else timeout)
            _stop_all(list(gone.values()), self._waiting)
            self._waiting = None
            for reader in (reader for source, reader in gone.items() if source not in wanted):
                label = reader.health()
                self._metrics.source_failing.remove(label.input, label.source)
                self._metrics.input_lag.remove(label.input, label.source)
            begun = [source for source in wanted if source not in self._readers and not self._ended]
            for number, source in enumerate(begun):
                self._readers[source] = self._reader(source)
                self._readers[source].start()
                if number < SAID:
                    self._say(source)
            if len(begun) > SAID:
                log.info("reading more, too", more=len(begun) - SAID, like=str(begun[SAID]))


def _stop_all(readers: Sequence[SourceReader], deadline: Deadline) -> None:
    """All at the same time: the deadline is one for all of them."""
    for reader in readers:
        reader.stop_reading()
    threads = [threading.Thread(target=reader.stop, args=(deadline,), daemon=True) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
