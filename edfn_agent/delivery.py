"""A delivery: one thing a source handed over and waits to have settled, exactly once.

An S3 object named in a queue message, a page of log events, a batch of Kinesis records, a request of Firehose, a file.
Whoever works on a delivery holds it; the last to let go settles it. It is acknowledged when nobody holds it and nothing
went wrong, otherwise returned (the source will hand it over again) or quarantined (it will never be readable). This
module does no input and no output: the source gives a callback that does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from edfn_agent.formats.layout import Layout


class Outcome(Enum):
    """What became of a delivery. In the order of weight: a lighter word takes back no heavier one."""

    ACKNOWLEDGED = "acknowledged"
    DUPLICATE = "duplicate"
    RETURNED = "returned"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where records came from, as far as the source knows. Records of one origin share every attribution rule."""

    input: str  # files, s3, cloudwatch_logs, kinesis, firehose
    source: str  # the queue, log group, stream or endpoint: a bounded set, used as a metric label
    account_id: str | None = None
    region: str | None = None
    log_group: str | None = None
    flow_log_id: str | None = None
    vpc_id: str | None = None  # when the flow log's resource says it


class Delivery:
    """One delivery and its fate.

    `chunks()` gives the octets as they were delivered (compressed or not) and may be called once. `settle` is called
    exactly once, from whichever thread lets go last, with the outcome and, unless acknowledged, the reason.
    """

    __slots__ = (
        *("_holders", "_lock", "_outcome", "_reason"),
        *("chunks", "layout", "layouts", "name", "origin", "settle", "octets", "settled_hook"),
    )

    def __init__(
        self,
        origin: Origin,
        name: str,
        chunks: Callable[[], Iterable[bytes]],
        settle: Callable[[Outcome, str], None],
        layout: Layout | None = None,
    ) -> None:
        self.origin = origin
        self.name = name  # what a person would call it: a path, s3://bucket/key, group:stream
        self.chunks = chunks
        self.layout = layout  # when the source knows it; a header line or schema in the octets wins
        self.layouts: Sequence[Layout] = ()  # those it may have; an envelope's own log group goes before them
        self.octets = 0  # read so far, as delivered
        self.settled_hook: Callable[[Delivery], None] | None = None  # for who counts, after the source was told
        self.settle = settle
        self._lock = threading.Lock()
        self._holders = 1  # the one who made it, until the reading is over
        self._outcome = Outcome.ACKNOWLEDGED
        self._reason = ""

    def hold(self) -> None:
        """One more part of the agent works with this delivery's records."""
        with self._lock:
            if self._holders == 0:
                raise RuntimeError(f"{self.name}: held after it was settled")
            self._holders += 1

    def fail(self, outcome: Outcome, reason: str) -> None:
        """Note that it cannot be acknowledged. It is settled all the same only when the last holder lets go."""
        with self._lock:
            if _WEIGHT[outcome] > _WEIGHT[self._outcome]:
                self._outcome, self._reason = outcome, reason

    @property
    def settled(self) -> bool:
        return self._holders == 0

    def release(self) -> None:
        """Let go. The last one to do so settles the delivery."""
        with self._lock:
            if self._holders == 0:
                raise RuntimeError(f"{self.name}: released more often than held")
            self._holders -= 1
            if self._holders:
                return
        try:
            self.settle(self._outcome, self._reason)
        finally:
            if self.settled_hook is not None:
                self.settled_hook(self)


_WEIGHT = {outcome: weight for weight, outcome in enumerate(Outcome)}
