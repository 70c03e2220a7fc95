"""Time, as the inputs see it: an argument, so that tests do not wait and do not depend on the machine's speed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable


class Clock:
    """The machine's own. A test gives another with the same three methods."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        """Until `event` is set or `seconds` are over; whether it is set."""
        return event.wait(seconds)


class Deadline:
    """So many seconds from now, unless it is brought forward while somebody waits for it."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self.at = clock.monotonic() + seconds

    def left(self) -> float:
        return self.at - self._clock.monotonic()

    def bring_forward(self, seconds: float) -> None:
        self.at = min(self.at, self._clock.monotonic() + seconds)


class Pauses:
    """Growing pauses between tries: 1 s, 2 s, 4 s ... up to `most`, shortened by chance so that many do not march."""

    def __init__(self, first: float = 1.0, most: float = 300.0, chance: Callable[[], float] = random.random) -> None:
        self._first, self._most, self._chance = first, most, chance
        self._tries = 0

    def next(self) -> float:
        pause = min(self._most, self._first * 2.0 ** min(self._tries, 30))
        self._tries += 1
        return pause * (0.75 + 0.25 * self._chance())

    def reset(self) -> None:
        self._tries = 0
