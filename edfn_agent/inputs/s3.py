"""The S3 input: all queues that announce objects, each with a reader of its own (queue_reader.py).

In: queues, clients, settings. Out: deliveries, to `submit`. What is in hand and what was sent is known over all queues,
as two of them may announce one object.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from edfn_agent.delivery import Delivery
from edfn_agent.inputs.claims import Claims
from edfn_agent.inputs.clock import Clock
from edfn_agent.inputs.queue_reader import INPUT, Clients, QueueReader, Settings
from edfn_agent.inputs.queues import Queue
from edfn_agent.inputs.readers import Readers
from edfn_agent.inputs.sent import Sent
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State

log = structlog.get_logger("edfn.inputs.s3")


class S3Input(Readers[Queue, Settings]):
    def __init__(
        self,
        clients: Clients,
        submit: Callable[[Delivery], object],
        state: State,
        metrics: Metrics,
        settings: Settings | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(settings or Settings(), metrics, clock or Clock())
        self._clients, self._submit, self._state = clients, submit, state
        self._claims = Claims()
        self._sent = Sent(INPUT, state, metrics, self._clock)

    def stop(self, timeout: float) -> None:
        super().stop(timeout)
        self._sent.stop()

    def _reader(self, source: Queue) -> QueueReader:
        return QueueReader(
            source,
            self._clients,
            self._submit,
            self._state,
            self._metrics,
            self._settings,
            self._claims,
            self._sent,
            self._clock,
        )

    def _say(self, source: Queue) -> None:
        log.info("reading queue", source=source.name, account=source.account_id, region=source.region)


__all__ = ["Clients", "Queue", "S3Input", "Settings"]
