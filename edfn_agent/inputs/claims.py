"""Which objects are in hand right now, so that two announcements of one object are not read side by side.

The durable memory (sent.py) knows what went out; this knows what is on its way. A second announcement waits for the
first: when that one is acknowledged it is a duplicate, otherwise it goes back to its queue.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from edfn_agent.delivery import Outcome

Waiter = Callable[[Outcome, str], None]


class Claims:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claimed: dict[str, list[Waiter]] = {}

    def claim(self, identity: str, waiter: Waiter) -> bool:
        """True: it is the caller's now. False: somebody has it, and `waiter` will be told how it came out."""
        with self._lock:
            if identity in self._claimed:
                self._claimed[identity].append(waiter)
                return False
            self._claimed[identity] = []
            return True

    def release(self, identity: str, outcome: Outcome) -> None:
        with self._lock:
            waiters = self._claimed.pop(identity, [])
        for waiter in waiters:
            if outcome is Outcome.ACKNOWLEDGED:
                waiter(Outcome.DUPLICATE, "announced twice at once")
            else:
                waiter(Outcome.RETURNED, f"announced twice at once, and the other one was {outcome.value}")
