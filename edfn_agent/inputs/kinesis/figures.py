"""What is counted per stream and shard: plain numbers, for health and metrics to read at any time.

In: what the couriers' connections and the daemon's supervisor see. Out: `StreamFigures` and `ShardFigures`, readable
from any thread (each number is whole by itself). Never: a name that is not the configured stream or one of its shards:
the number of series is bounded by the shards under lease.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

WAITED = 0.15
"""Seconds without a batch after which the library had none in store: the next is news, not an answer of long ago."""


@dataclass(slots=True)
class ShardFigures:
    """One shard while this agent holds its lease."""

    name: str
    pid: int
    records: int = 0
    octets: int = 0
    batches: int = 0
    outgoing: int = 0
    """Records received whose batch is not settled yet."""
    behind_ms: int | None = None
    """MillisBehindLatest of the newest batch."""
    checkpoints: int = 0
    checkpoint_retries: int = 0
    checkpoint: str | None = None
    """The last sequence number checkpointed by this courier."""
    exported_to: float | None = None
    """Unix seconds: every record that reached the shard before has been exported."""
    settle_seconds: float = 0.0
    """From a batch's first record to its last one settled, summed; divided by `batches` it is the mean."""
    _arrived: float | None = None
    """Unix seconds: when the newest record received had reached the shard."""
    _settled: float | None = None
    """Unix seconds: when the batch before was."""

    def received(self, records: int, octets: int, behind_ms: int | None, arrived_ms: int | None) -> None:
        self.records += records
        self.octets += octets
        self.outgoing += records
        self.behind_ms = behind_ms
        if arrived_ms is not None:
            self._arrived = arrived_ms / 1000
        elif not records and behind_ms is not None and self._settled and time.time() - self._settled > WAITED:
            self._arrived = max(self._arrived or 0.0, self._settled - behind_ms / 1000)

    def settled(self, returned: bool, seconds: float) -> None:
        self.outgoing = 0
        self.batches += 1
        self.settle_seconds += seconds
        self._settled = time.time()
        if not returned and self._arrived is not None:
            self.exported_to = self._arrived

    def checkpointed(self, sequence: str | None, tries: int) -> None:
        self.checkpoints += 1
        self.checkpoint_retries += tries - 1
        self.checkpoint = sequence


@dataclass(slots=True)
class StreamFigures:
    """One stream: its shards under lease here, and sums that go on when a shard is handed over."""

    arn: str
    shards: dict[str, ShardFigures] = field(default_factory=dict)
    restarts: int = 0
    """Daemon processes that ended without being asked to."""
    couriers_lost: int = 0
    last_loss: str = ""
    shards_ended: int = 0
    leases_lost: int = 0
    _past_records: int = 0
    _past_octets: int = 0
    _past_checkpoints: int = 0
    _exported_to: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return self.arn.partition("/")[2]

    @property
    def region(self) -> str:
        return self.arn.split(":")[3]

    @property
    def records(self) -> int:
        with self._lock:
            return self._past_records + sum(shard.records for shard in self.shards.values())

    @property
    def octets(self) -> int:
        with self._lock:
            return self._past_octets + sum(shard.octets for shard in self.shards.values())

    @property
    def checkpoints(self) -> int:
        with self._lock:
            return self._past_checkpoints + sum(shard.checkpoints for shard in self.shards.values())

    @property
    def behind_ms(self) -> int | None:
        """Of the shard that is furthest behind."""
        with self._lock:
            return max((s.behind_ms for s in self.shards.values() if s.behind_ms is not None), default=None)

    @property
    def exported_to(self) -> float | None:
        """Of the shard that is furthest behind; as it was last known of all of them."""
        with self._lock:
            known = [shard.exported_to for shard in self.shards.values()]
            if known and all(known):
                self._exported_to = min(each for each in known if each is not None)
            return self._exported_to

    def leases(self) -> list[ShardFigures]:
        with self._lock:
            return sorted(self.shards.values(), key=lambda shard: shard.name)

    def arrived(self, shard: str, pid: int) -> ShardFigures:
        figures = ShardFigures(shard, pid)
        with self._lock:
            self._keep(self.shards.get(shard))
            self.shards[shard] = figures
        return figures

    def left(self, shard: ShardFigures, why: str, expected: bool) -> None:
        with self._lock:
            if self.shards.get(shard.name) is shard:  # else its successor was quicker, and has counted it already
                self._keep(self.shards.pop(shard.name))
            if why == "shardEnded":
                self.shards_ended += 1
            elif why == "leaseLost":
                self.leases_lost += 1
            elif not expected:
                self.couriers_lost += 1
                self.last_loss = f"{shard.name}: {why}"

    def _keep(self, shard: ShardFigures | None) -> None:
        if shard is not None:
            self._past_records += shard.records
            self._past_octets += shard.octets
            self._past_checkpoints += shard.checkpoints
