"""What another source has to make up for when a stream has failed for good.

In: how far each stream is exported, and the S3 objects whose records a stream brings as well. Out: from when on a log
group is to be read instead of the stream; the objects that have to be read again. Both are in the state, so that a
restart in between forgets neither. Never: reading, a step past what was exported.

Until a stream counts as failed (minutes), its VPCs' records go on arriving in S3 and in log groups. A log group keeps
them: it is read from where the stream was exported to. Of a queue's messages only the objects are left, so those that
were let go because of a stream are remembered for as long as the stream might not have brought the same records.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import structlog

from edfn_agent.inventory.sources import SourcePlan
from edfn_agent.state import State, StateError

STORED_EVERY = 10.0
"""Seconds between two notes of how far a stream is: so much more is repeated at most."""

LATE = 900.0
"""Seconds by which a log group, and so the stream, may have records later than S3 has them: both are delivered "best
effort", within five and ten minutes as a rule (Amazon VPC User Guide, "Flow logs basics")."""

KEPT = 86400.0
"""Seconds for which all of this is remembered at most: what a stream keeps unless it is told otherwise."""

log = structlog.get_logger("edfn.sources")


@dataclass(frozen=True, slots=True)
class Aside:
    """An object that was let go because a stream brings its records."""

    flow_log_id: str
    name: str  # s3://bucket/key
    queue: str
    at: float  # Unix seconds


class Takeover:
    """Of one worker; `workers` share the state."""

    def __init__(self, state: State, worker: int, workers: int) -> None:
        self._state = state
        self._worker, self._workers = worker, workers
        self._noted: dict[str, tuple[float, float]] = {}  # stream -> (monotonic, exported to)

    # -- how far streams are

    def note(self, stream: str, exported_to: float) -> None:
        at, before = self._noted.get(stream, (-STORED_EVERY, 0.0))
        if exported_to == before or time.monotonic() - at < STORED_EVERY:
            return
        try:
            self._state.cursors.set(_stream(stream), f"w{self._worker}", exported_to)
        except StateError as error:
            log.error("how far the stream is exported cannot be stored", source=stream, error=str(error))
            return
        self._noted[stream] = (time.monotonic(), exported_to)

    def exported_to(self, streams: Iterable[str]) -> float | None:
        """Unix seconds: what reached any of them before has been exported. None: nothing was read of them lately."""
        own = {f"w{worker}" for worker in range(self._workers)}
        found = [
            float(at) for each in streams for key, at in self._state.cursors.list(_stream(each)).items() if key in own
        ]
        return min((at for at in found if at > time.time() - KEPT), default=None)

    def group_from(self, plan: SourcePlan, group: str) -> float | None:
        """From when on a log group (ARN) has what its streams did not bring; None: as far as it was read itself.

        Only where all that is read of the group was a stream's before: nothing else must be passed over.
        """
        homes = {way.home for way in plan.chosen.values() if way.end == group}
        found = [self.exported_to(plan.lost_streams(home)) for home in homes]
        return min((each for each in found if each is not None), default=None) if None not in found else None

    # -- objects

    def remember(self, plan: SourcePlan, flow_log_id: str | None, name: str, queue: str) -> None:
        """An object is going to be read; its records are counted and let go if a stream brings them."""
        if flow_log_id is None or not plan.streamed_instead(flow_log_id):
            return
        try:
            self._state.cursors.set(_objects(flow_log_id), name, [queue, time.time()])
        except StateError as error:
            log.error("object cannot be remembered, should its stream fail", object=name, error=str(error))

    def again(self, plan: SourcePlan) -> Iterator[Aside]:
        """Objects that are read for a stream that has failed, and were let go when it may have failed already."""
        for id, way in plan.chosen.items():
            lost = plan.lost_streams(way.home) if way.input == "s3" else ()
            if lost:
                self._forget(id, (self.exported_to(lost) or 0.0) - LATE)
                yield from self._of(id)

    def forget(self, plan: SourcePlan) -> None:
        """What streams have brought by now need not be remembered."""
        for each in plan.snapshot.flow_logs:
            streams = plan.streamed_instead(each.flow_log_id)
            if streams:
                self._forget(each.flow_log_id, (self.exported_to(streams) or 0.0) - LATE)

    def done(self, aside: Aside) -> None:
        self._state.cursors.delete(_objects(aside.flow_log_id), aside.name)

    def _of(self, flow_log_id: str) -> list[Aside]:
        rows = self._state.cursors.list(_objects(flow_log_id))
        return [Aside(flow_log_id, name, queue, at) for name, (queue, at) in rows.items()]

    def _forget(self, flow_log_id: str, before: float) -> None:
        before = max(before, time.time() - KEPT)
        for each in self._of(flow_log_id):
            if each.at < before:
                self.done(each)


def _stream(arn: str) -> str:
    return f"kinesis:{arn}"


def _objects(flow_log_id: str) -> str:
    return f"s3:aside:{flow_log_id}"


__all__ = ["Aside", "Takeover"]
