"""How fast an API may be called: one token bucket per account, region and action, shared by everything that calls it.

Workers do not see each other's calls, so each has its share of the rate: a whole one where it is the only worker with a
log group in that account and region, a half where two are (`set_sharers`).

AWS counts calls per account and region, people in the console included, so the agent stays below the quota and gives
way when it is told to: each throttling halves the rate, a quiet spell raises it again. Never: a call that is dropped.
AWS CloudWatch Logs User Guide, "CloudWatch Logs quotas".
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from edfn_agent.inputs.clock import Clock

RATES: Mapping[str, float] = {
    "FilterLogEvents": 4.0,  # quota: 5 or 10 a second, by region
    "GetLogEvents": 8.0,  # 10 or 25
    "DescribeLogStreams": 4.0,  # 5 or 25
    "DescribeLogGroups": 2.0,  # 5 or 10
}
"""Calls a second: below the smallest quota any region has, with room for other users."""

OTHER_RATE = 2.0
LEAST = 0.05
"""Share of the rate that is kept however often the account throttles: 0.2 calls a second of 4."""

RECOVERY = 0.1
"""Share of the full rate that is won back with every ten seconds without throttling."""


class Bucket:
    def __init__(self, rate: float, clock: Clock) -> None:
        self.full = self.rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = 1.0  # no burst: the quota is counted by the second
        self._at = clock.monotonic()
        self._throttled_at = self._at

    def take(self, stop: threading.Event) -> float:
        """Wait for one's turn. Returns the seconds waited; returns early when `stop` is set."""
        with self._lock:
            now = self._clock.monotonic()
            if self.rate < self.full and now - self._throttled_at >= 10.0:
                self._throttled_at = now
                self.rate = min(self.full, self.rate + RECOVERY * self.full)
            self._tokens = min(1.0, self._tokens + (now - self._at) * self.rate)
            self._at = now
            self._tokens -= 1.0
            pause = max(0.0, -self._tokens / self.rate)
        if pause > 0:
            self._clock.wait(stop, pause)
        return pause

    def set_full(self, rate: float) -> None:
        """Another full rate; what throttling has taken of it stays taken."""
        with self._lock:
            if rate != self.full:
                self.rate *= rate / self.full
                self.full = rate

    def throttled(self) -> None:
        with self._lock:
            self._throttled_at = self._clock.monotonic()
            self.rate = max(self.full * LEAST, self.rate / 2)


class Quotas:
    def __init__(self, clock: Clock, rates: Mapping[str, float] = RATES) -> None:
        self._clock, self._rates = clock, rates
        self._lock = threading.Lock()
        self._buckets: dict[tuple[str, str, str], Bucket] = {}
        self._sharers: dict[tuple[str, str], int] = {}

    def set_sharers(self, sharers: Mapping[tuple[str, str], int]) -> None:
        """How many workers call by account and region, this one among them."""
        with self._lock:
            self._sharers = dict(sharers)
            for key, bucket in self._buckets.items():
                bucket.set_full(self._share(key))

    def _share(self, key: tuple[str, str, str]) -> float:
        account_id, region, action = key
        return self._rates.get(action, OTHER_RATE) / max(1, self._sharers.get((account_id, region), 1))

    def bucket(self, account_id: str, region: str, action: str) -> Bucket:
        key = (account_id, region, action)
        with self._lock:
            if key not in self._buckets:
                self._buckets[key] = Bucket(self._share(key), self._clock)
            return self._buckets[key]
