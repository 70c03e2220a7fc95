"""What was sent already, as far as objects go: a second announcement of one object is recognised.

In: an object's identity after its acknowledgement. Out: whether it was there within the window. It is in the state, so
it survives a restart, and bounded by time and number there. Never: a mark before the acknowledgement (that would lose
the object), a wait for the disk, an exception (a state that does not work costs duplicates, nothing else).

Marks are written by a thread of their own, all that have come since the last time in one transaction: a commit waits
for the disk, and objects may come by the thousand a second. What is not written yet is known all the same; a kill in
between costs one repetition of it. While the state does not work, marks wait here, `MOST_WAITING` of them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import structlog

from edfn_agent.inputs.clock import Clock
from edfn_agent.inputs.notifications import ObjectRef
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State, StateError

PARTIAL_WINDOW = 12 * 3600.0
"""Seconds for which the finished objects of a message with several are remembered, whatever the window."""

MOST_WAITING = 100_000
"""Marks kept for a state that does not work: about 20 MB. Beyond that the oldest are forgotten."""

GROUP = 0.1
"""Seconds that a mark waits for others. Sooner than its message is deleted (keeper.DELETE_DELAY), and ten commits a
second cost a hundredth of a processor."""

TRY_AGAIN = 2.0
"""Seconds until a state that did not work is tried again."""

log = structlog.get_logger("edfn.inputs.s3")

Mark = tuple[str, str, float]
"""(table of `Seen`, key, window in seconds)"""


class Sent:
    """For all queues of the input. Safe to use from several threads."""

    def __init__(self, input: str, state: State, metrics: Metrics, clock: Clock) -> None:
        self._input, self._state, self._metrics, self._clock = input, state, metrics, clock
        self._waiting: dict[Mark, None] = {}  # oldest first
        self._lock = threading.Lock()
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None  # from the first mark on

    def stop(self) -> None:
        """All that was added is written, if it can be; what is added later (the pipeline sends its last records after
        the inputs have stopped) is written at once."""
        with self._lock:
            self._ending.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(TRY_AGAIN)
        self.write()

    def contains(self, ref: ObjectRef, message: str, several: bool, window: float) -> bool:
        """`message` is the queue message's id, `several` whether it names more than one object; `window` in seconds,
        0: duplicates are not looked for."""
        now = self._clock.now()
        marks = list(self._marks(ref, message, several, window))
        with self._lock:
            if any(mark in self._waiting for mark in marks):
                return True
        try:
            return any(self._state.seen.contains(input, key, now, window) for input, key, window in marks)
        except StateError as error:
            self._failed(error)
            return False

    def add(self, ref: ObjectRef, message: str, several: bool, window: float) -> None:
        with self._lock:
            self._waiting.update(dict.fromkeys(self._marks(ref, message, several, window)))
            while len(self._waiting) > MOST_WAITING:
                del self._waiting[next(iter(self._waiting))]
            if self._waiting and self._thread is None and not self._ending.is_set():
                self._thread = threading.Thread(target=self._run, name=f"sent {self._input}", daemon=True)
                self._thread.start()
        self._wake.set()
        if self._ending.is_set():
            self.write()

    def write(self) -> bool:
        """Write what waits, in one transaction for each table and window. False: the state does not work."""
        with self._lock:
            marks = list(self._waiting)
        kinds: dict[tuple[str, float], list[str]] = {}
        for input, key, window in marks:
            kinds.setdefault((input, window), []).append(key)
        try:
            for (input, window), keys in kinds.items():
                self._state.seen.add_many(input, keys, self._clock.now(), window)
        except StateError as error:
            self._failed(error)
            return False
        with self._lock:
            for mark in marks:
                self._waiting.pop(mark, None)
        return True

    def _run(self) -> None:
        while not self._ending.is_set():
            self._clock.wait(self._wake, None)
            self._clock.wait(self._ending, GROUP)
            self._wake.clear()
            if not self.write():
                self._clock.wait(self._ending, TRY_AGAIN)
                self._wake.set()

    def _marks(self, ref: ObjectRef, message: str, several: bool, window: float) -> Iterator[Mark]:
        if window > 0:
            yield self._input, _digest(ref.identity), window
        elif several:
            # So that the return of a message because of one object does not send the others again.
            yield f"{self._input}:partial", _digest(message + ref.identity), PARTIAL_WINDOW

    def _failed(self, error: StateError) -> None:
        self._metrics.state_errors.inc()
        log.error("state does not work, duplicates are possible", error=str(error))


def _digest(identity: str) -> str:
    """Keys are up to 1 kB; 16 octets of hash tell 500,000 of them apart."""
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
