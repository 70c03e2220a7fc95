"""Whether a source can be read: what `/readyz` and the log say of one queue or log group.

In: each try's success or fault, by what was tried (receiving from a queue and reading the objects fail apart). Out: an
immutable `Health` for whoever asks, and how long to pause before the next try. A source that fails is asked again with
growing pauses and never stops another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edfn_agent.inputs.clock import Clock, Pauses
from edfn_agent.ops.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Health:
    input: str
    source: str
    ok: bool | None  # None: not tried yet
    since: float  # Unix seconds: in this state since
    error: str = ""
    next_try: float | None = None  # Unix seconds
    last_success: float | None = None


class HealthRecord:
    """The one that is written. Safe to use from several threads."""

    def __init__(
        self,
        input: str,
        source: str,
        clock: Clock,
        log: Any,
        metrics: Metrics,
        pauses: Callable[[], Pauses] = Pauses,
    ) -> None:
        self._clock, self._log, self._new_pauses = clock, log, pauses
        self._lock = threading.Lock()
        self._gauge = metrics.source_failing.labels(input, source)
        self._faults: dict[str, tuple[str, float, Pauses]] = {}
        self._now = Health(input, source, None, clock.now())

    def get(self) -> Health:
        return self._now

    def succeeded(self, what: str) -> None:
        now = self._clock.now()
        with self._lock:
            before = self._now
            self._faults.pop(what, None)
            self._change(not self._faults, now, now)
        if before.ok is False and not self._faults:
            self._log.info("source works again", source=before.source, failed_for_s=round(now - before.since))

    def failed(self, what: str, error: str, **facts: Any) -> float:
        """Note it, say it, and return how long to pause."""
        now = self._clock.now()
        with self._lock:
            pauses = self._faults[what][2] if what in self._faults else self._new_pauses()
            pause = pauses.next()
            self._faults[what] = (error, now + pause, pauses)
            self._change(False, now, self._now.last_success)
        self._log.warning("source fails", source=self._now.source, error=error, next_try_s=round(pause, 1), **facts)
        return pause

    def _change(self, ok: bool, now: float, last_success: float | None) -> None:
        before = self._now
        since = before.since if before.ok is ok else now
        errors = "; ".join(error for error, _, _ in self._faults.values())
        next_try = min((when for _, when, _ in self._faults.values()), default=None)
        self._now = Health(before.input, before.source, ok, since, errors, next_try, last_success)
        self._gauge.set(0 if ok else 1)
