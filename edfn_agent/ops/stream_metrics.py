"""The metrics of Kinesis streams, asked for when Prometheus comes rather than kept.

In: `ask`, which tells of each stream that is read now. Out: metric families for prometheus_client. Never: a series of a
shard that this agent holds no lease of; what such shards brought goes on in the sums of their stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A shard under lease here."""

    name: str
    records: int
    checkpoints: int
    lag: float | None  # seconds


@dataclass(frozen=True, slots=True)
class StreamRow:
    arn: str
    state: str
    records: int
    octets: int
    checkpoints: int
    restarts: int
    couriers_lost: int
    shards: Sequence[ShardRow]


class StreamMetrics(Collector):
    def __init__(self) -> None:
        self.ask: Callable[[], Iterable[StreamRow]] = lambda: ()

    def describe(self) -> Iterable[Metric]:
        return _Families().all()

    def collect(self) -> Iterable[Metric]:
        families = _Families()
        for stream in self.ask():
            families.add(stream)
        return [family for family in families.all() if family.samples]


class _Families:
    def __init__(self) -> None:
        self.state = GaugeMetricFamily(
            "edfn_kinesis_daemon_state",
            "1 for the state of a stream's daemon: running, idle (others hold every lease), starting, restarting, "
            "waiting (another process of this installation reads), gone, denied, unavailable, stopped.",
            labels=["stream", "state"],
        )
        self.leases = GaugeMetricFamily(
            "edfn_kinesis_leases", "Shards of a stream that this agent holds the lease of.", labels=["stream"]
        )
        self.lag = GaugeMetricFamily(
            "edfn_kinesis_lag_seconds",
            "How far behind the newest record of a shard its last read was (MillisBehindLatest).",
            labels=["stream", "shard"],
        )
        self.records = CounterMetricFamily(
            "edfn_kinesis_records_total",
            "Kinesis records (of many flow records each) received, by stream.",
            labels=["stream"],
        )
        self.octets = CounterMetricFamily(
            "edfn_kinesis_bytes_total", "Octets in these records, as delivered (compressed).", labels=["stream"]
        )
        self.checkpoints = CounterMetricFamily(
            "edfn_kinesis_checkpoints_total", "Checkpoints made, by stream.", labels=["stream"]
        )
        self.restarts = CounterMetricFamily(
            "edfn_kinesis_daemon_restarts_total",
            "Times a daemon ended unasked and was started again.",
            labels=["stream"],
        )
        self.couriers_lost = CounterMetricFamily(
            "edfn_kinesis_couriers_lost_total", "Times the process of a shard ended unasked.", labels=["stream"]
        )
        self.shard_records = CounterMetricFamily(
            "edfn_kinesis_shard_records_total",
            "Kinesis records received of a shard since its lease is held here.",
            labels=["stream", "shard"],
        )
        self.shard_checkpoints = CounterMetricFamily(
            "edfn_kinesis_shard_checkpoints_total",
            "Checkpoints of a shard since its lease is held here.",
            labels=["stream", "shard"],
        )

    def all(self) -> list[Metric]:
        return list(vars(self).values())

    def add(self, stream: StreamRow) -> None:
        own = [stream.arn]
        self.state.add_metric([stream.arn, stream.state], 1)
        self.leases.add_metric(own, len(stream.shards))
        self.records.add_metric(own, stream.records)
        self.octets.add_metric(own, stream.octets)
        self.checkpoints.add_metric(own, stream.checkpoints)
        self.restarts.add_metric(own, stream.restarts)
        self.couriers_lost.add_metric(own, stream.couriers_lost)
        for shard in stream.shards:
            place = [stream.arn, shard.name]
            if shard.lag is not None:
                self.lag.add_metric(place, shard.lag)
            self.shard_records.add_metric(place, shard.records)
            self.shard_checkpoints.add_metric(place, shard.checkpoints)
