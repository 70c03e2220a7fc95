"""Requests in hand, and those acknowledged lately: a replay is answered and its records are not exported again.

Firehose keeps the request id over its retries. A retry that comes while the first try is still in hand joins it; one
that comes after the acknowledgement is answered at once. A request that failed is forgotten: its retry is a new try.
All of it is memory: after a restart a replay is exported again, which is a duplicate and never a loss.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable

from edfn_agent.delivery import Outcome
from edfn_agent.inputs.firehose.body import Refusal

_TAKEN = (Outcome.ACKNOWLEDGED, Outcome.DUPLICATE)

# The worst of a request's deliveries decides. What must come again weighs most: an answer of 413 for the other part
# would lose the records that were only delayed.
_WEIGHT = {Outcome.ACKNOWLEDGED: 0, Outcome.DUPLICATE: 0, Outcome.QUARANTINED: 1, Outcome.RETURNED: 2}


class Entry:
    """One request that is being worked on."""

    __slots__ = ("_lock", "_on_finish", "_waiting", "finished", "outcome", "reason")

    def __init__(self, on_finish: Callable[[Entry], None]) -> None:
        self.finished = threading.Event()
        self.outcome = Outcome.ACKNOWLEDGED
        self.reason = ""
        self._waiting = 0
        self._lock = threading.Lock()
        self._on_finish = on_finish

    @property
    def taken(self) -> bool:
        return self.outcome in _TAKEN

    def expect(self, deliveries: int) -> None:
        self._waiting = deliveries
        if not deliveries:
            self._finish()

    def settle(self, outcome: Outcome, reason: str) -> None:
        """One delivery of it has been settled."""
        with self._lock:
            if self._waiting <= 0:
                return
            if _WEIGHT[outcome] > _WEIGHT[self.outcome]:
                self.outcome, self.reason = outcome, reason
            self._waiting -= 1
            if self._waiting:
                return
        self._finish()

    def abandon(self, reason: str) -> None:
        """It could not even be handed over."""
        with self._lock:
            if self.finished.is_set():
                return
            self._waiting = 0
            self.outcome, self.reason = Outcome.RETURNED, reason
        self._finish()

    def _finish(self) -> None:
        self._on_finish(self)
        self.finished.set()


class Requests:
    """Request ids, in hand and done."""

    def __init__(self, window: float, limit: int, clock: Callable[[], float]) -> None:
        self._window = window
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._in_hand: dict[bytes, Entry] = {}
        self._done: OrderedDict[bytes, float] = OrderedDict()

    def enter(self, stream: str, request_id: str) -> tuple[Entry, bool]:
        """The entry of a request, and whether the caller is the first and has to do the work."""
        key = _key(stream, request_id)
        with self._lock:
            self._forget()
            if key in self._done:
                done = Entry(lambda entry: None)
                done.finished.set()
                return done, False
            known = self._in_hand.get(key)
            if known is not None:
                return known, False
            entry = self._in_hand[key] = Entry(lambda entry: self._finished(key, entry))
            return entry, True

    def _finished(self, key: bytes, entry: Entry) -> None:
        with self._lock:
            self._in_hand.pop(key, None)
            if entry.taken:
                self._done[key] = self._clock()

    def _forget(self) -> None:
        oldest_kept = self._clock() - self._window
        while self._done:
            key, finished_at = next(iter(self._done.items()))
            if finished_at >= oldest_kept and len(self._done) < self._limit:
                return
            del self._done[key]


def _key(stream: str, request_id: str) -> bytes:
    return hashlib.blake2b(f"{stream}\0{request_id}".encode(), digest_size=16).digest()


class Reserve:
    """Octets that bodies may cost at one time. Who finds none left waits, with the body still unread."""

    def __init__(self, octets: int) -> None:
        self._free = self._total = octets
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        return self._free

    def take(self, octets: int, within: float) -> int:
        octets = min(octets, self._total)
        with self._changed:
            if not self._changed.wait_for(lambda: self._free >= octets, within):
                raise Refusal(503, "the agent is busy; try again")
            self._free -= octets
        return octets

    def give_back(self, octets: int) -> None:
        with self._changed:
            self._free += octets
            self._changed.notify_all()
