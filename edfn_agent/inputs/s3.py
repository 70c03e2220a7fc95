"""The S3 input: all queues that announce objects, each with a reader of its own (queue_reader.py).

In: queues, from the configuration or from discovery, as often as they change. Out: deliveries, to `submit`. Never: one
queue waiting for another; a dead one is tried again with growing pauses and shown in `health`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import structlog

from edfn_agent.delivery import Delivery
from edfn_agent.inputs.claims import Claims
from edfn_agent.inputs.clock import Clock
from edfn_agent.inputs.health import Health
from edfn_agent.inputs.queue_reader import INPUT, Clients, QueueReader, Settings
from edfn_agent.inputs.queues import Queue
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State

log = structlog.get_logger("edfn.inputs.s3")


class S3Input:
    """All queues. `start`, `set_queues` as often as discovery finds others, `stop_reading`, `stop`."""

    def __init__(
        self,
        clients: Clients,
        submit: Callable[[Delivery], object],
        state: State,
        metrics: Metrics,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._clients, self._submit, self._state, self._metrics = clients, submit, state, metrics
        self._settings = settings or Settings()
        self._clock = clock or Clock()
        self._claims = Claims()
        self._readers: dict[Queue, QueueReader] = {}
        self._lock = threading.Lock()

    def set_queues(self, wanted: Sequence[Queue], timeout: float = 30.0) -> None:
        """Read exactly these from now on. A queue that is dropped finishes what it has in hand, within `timeout`."""
        self._change(wanted, self._settings, timeout)

    def set_settings(self, settings: Settings, timeout: float = 30.0) -> None:
        """Other settings: each queue finishes what it has in hand and starts again with them."""
        self._change(list(self._readers), settings, timeout)

    def _change(self, wanted: Sequence[Queue], settings: Settings, timeout: float) -> None:
        with self._lock:
            keep = set(wanted) if settings == self._settings else set()
            self._settings = settings
            gone = [self._readers.pop(queue) for queue in list(self._readers) if queue not in keep]
            _stop_all(gone, self._clock.monotonic() + timeout)
            for reader in gone:
                if reader.queue not in wanted:
                    self._metrics.source_failing.remove(INPUT, reader.queue.name)
                    self._metrics.input_lag.remove(INPUT, reader.queue.name)
            for queue in wanted:
                if queue not in self._readers:
                    self._readers[queue] = self._reader(queue)
                    self._readers[queue].start()
                    log.info("reading queue", source=queue.name, account=queue.account_id, region=queue.region)

    def _reader(self, queue: Queue) -> QueueReader:
        return QueueReader(
            queue,
            self._clients,
            self._submit,
            self._state,
            self._metrics,
            self._settings,
            self._claims,
            self._clock,
        )

    def health(self) -> list[Health]:
        return [reader.health() for reader in list(self._readers.values())]

    def stop_reading(self) -> None:
        """At once, without waiting: no new messages."""
        for reader in list(self._readers.values()):
            reader.stop_reading()

    def stop(self, timeout: float) -> None:
        """Stop reading; wait `timeout` seconds for what is in hand, then give it back. The pipeline still runs."""
        with self._lock:
            readers = list(self._readers.values())
            self._readers.clear()
            _stop_all(readers, self._clock.monotonic() + timeout)


def _stop_all(readers: Sequence[QueueReader], deadline: float) -> None:
    """All at the same time: the deadline is one for all of them."""
    for reader in readers:
        reader.stop_reading()
    threads = [threading.Thread(target=reader.stop, args=(deadline,), daemon=True) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


__all__ = ["Clients", "Queue", "S3Input", "Settings"]
