"""Is the agent alive: does everything that has work in hand get on with it?

In: from each loop of the agent, that it went on (`moved`) or has nothing to do (`idle`). Out: who is stuck. It is what
the watchdog of systemd and `/healthz` ask. Never: a timer that says yes by itself; a loop that hangs says nothing, and
after `patience` that is the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds without a sign from a loop that has work. Longer than any single thing a loop does without looking up: a call
of AWS with its retries (60 s), a send that waits for a collector in steps of a second."""


class Progress:
    def __init__(self, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self._last: dict[str, float | None] = {}  # None: idle
        self._lock = threading.Lock()

    def moved(self, who: str) -> None:
        """A step was done, or a wait for something outside (a collector that is down) is still on purpose."""
        with self._lock:
            self._last[who] = self._clock()

    def idle(self, who: str) -> None:
        """Nothing in hand: it may be silent as long as it likes."""
        with self._lock:
            self._last[who] = None

    def gone(self, who: str) -> None:
        """The loop ended as it should."""
        with self._lock:
            self._last.pop(who, None)

    def stuck(self) -> dict[str, float]:
        """Who has work and gave no sign for longer than the patience, and for how many seconds."""
        now = self._clock()
        with self._lock:
            silent = {who: now - last for who, last in self._last.items() if last is not None}
        return {who: seconds for who, seconds in silent.items() if seconds > self._patience}

    def alive(self) -> bool:
        return not self.stuck()
