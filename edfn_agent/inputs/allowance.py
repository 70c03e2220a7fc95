"""Octets that several readers may hold together: what is handed over and not settled is bounded, however many read.

In: what somebody is about to hold, and what was let go. Out: their turn. Never: a wait where nothing is held, so a
single thing that is larger than all of it passes alone.
"""

from __future__ import annotations

import threading


class Allowance:
    def __init__(self, octets: int) -> None:
        self._most = octets
        self._held = 0
        self._room = threading.Condition()

    @property
    def held(self) -> int:
        return self._held

    def take(self, octets: int, stop: threading.Event) -> bool:
        """Wait until there is room. False: `stop` came first, and nothing was taken."""
        with self._room:
            while self._held and self._held + octets > self._most:
                if stop.is_set():
                    return False
                self._room.wait(0.5)
            self._held += octets
            return True

    def give(self, octets: int) -> None:
        with self._room:
            self._held -= octets
            self._room.notify_all()
