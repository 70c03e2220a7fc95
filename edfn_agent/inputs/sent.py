"""What was sent already, as far as objects go: a second announcement of one object is recognised.

In: an object's identity after its acknowledgement. Out: whether it was there within the window. It is in the state, so
it survives a restart, and bounded by time and number there. Never: a mark before the acknowledgement (that would lose
the object), an exception (a state that does not work costs duplicates, nothing else).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import structlog

from edfn_agent.inputs.clock import Clock
from edfn_agent.inputs.notifications import ObjectRef
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State, StateError

PARTIAL_WINDOW = 12 * 3600.0
"""Seconds for which the finished objects of a message with several are remembered, whatever the window."""

log = structlog.get_logger("edfn.inputs.s3")


class Sent:
    """`window` in seconds; 0: duplicates are not looked for."""

    def __init__(self, input: str, state: State, metrics: Metrics, clock: Clock, window: float) -> None:
        self._input, self._state, self._metrics, self._clock, self._window = input, state, metrics, clock, window

    def contains(self, ref: ObjectRef, message: str, several: bool) -> bool:
        """`message` is the queue message's id, `several` whether it names more than one object."""
        now = self._clock.now()
        try:
            marks = self._marks(ref, message, several)
            return any(self._state.seen.contains(input, key, now, window) for input, key, window in marks)
        except StateError as error:
            self._failed(error)
            return False

    def add(self, ref: ObjectRef, message: str, several: bool) -> None:
        try:
            for input, key, window in self._marks(ref, message, several):
                self._state.seen.add(input, key, self._clock.now(), window)
        except StateError as error:
            self._failed(error)

    def _marks(self, ref: ObjectRef, message: str, several: bool) -> Iterator[tuple[str, str, float]]:
        if self._window > 0:
            yield self._input, _digest(ref.identity), self._window
        elif several:
            # So that the return of a message because of one object does not send the others again.
            yield f"{self._input}:partial", _digest(message + ref.identity), PARTIAL_WINDOW

    def _failed(self, error: StateError) -> None:
        self._metrics.state_errors.inc()
        log.error("state does not work, duplicates are possible", error=str(error))


def _digest(identity: str) -> str:
    """Keys are up to 1 kB; 16 octets of hash tell 500,000 of them apart."""
    return hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
