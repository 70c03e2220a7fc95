"""How long to leave a collector alone after it failed. In: the time of each try. Out: seconds. Never: sleeping."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from edfn_agent.export.transports.base import Transport, TransportDown

FIRST = 1.0
LONGEST = 60.0
STEADY_AFTER = 10.0
"""Seconds a session must have held for the next pause to be short again: a collector that accepts and hangs up at
once would otherwise be called every second for ever."""


class Backoff:
    """Pauses that double from FIRST to LONGEST, each drawn from its upper half: agents must not call in step."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._clock = clock
        self._uniform = uniform
        self._failures = 0
        self._up_since: float | None = None

    def succeeded(self) -> None:
        self._up_since = self._clock()

    def failed(self) -> float:
        """Note a failure; the pause in seconds before the next try."""
        if self._up_since is not None and self._clock() - self._up_since >= STEADY_AFTER:
            self._failures = 0
        self._up_since = None
        longest = min(LONGEST, FIRST * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._uniform(longest / 2, longest)


def open_when_up(
    transport: Transport,
    *,
    sleep: Callable[[float], object] = time.sleep,
    stopping: Callable[[], bool] = lambda: False,
    down: Callable[[TransportDown], None] = lambda error: None,
) -> bool:
    """Open `transport`, trying again until it is open (True) or `stopping()` (False). `down` hears of every failure.

    `sleep` may be the `wait` of an event that a stopping agent sets.
    """
    while not stopping():
        try:
            transport.open()
            return True
        except TransportDown as error:
            down(error)
            sleep(error.retry_after)
    return False
