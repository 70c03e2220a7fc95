"""What Prometheus sees of Kinesis streams."""

from __future__ import annotations

from edfn_agent.ops.metrics import Metrics
from edfn_agent.ops.stream_metrics import ShardRow, StreamRow

ARN = "arn:aws:kinesis:eu-west-1:111111111111:stream/flow-logs"


def lines(metrics: Metrics) -> list[str]:
    text = metrics.exposition().decode()
    return [line for line in text.splitlines() if line.startswith("edfn_kinesis")]


def test_a_stream_and_its_shards() -> None:
    metrics = Metrics()
    shards = [ShardRow("shardId-000000000000", 30, 4, 1.5), ShardRow("shardId-000000000001", 0, 0, None)]
    metrics.streams.ask = lambda: [StreamRow(ARN, "running", 130, 91_000, 14, 2, 1, shards)]
    assert lines(metrics) == [
        f'edfn_kinesis_daemon_state{{state="running",stream="{ARN}"}} 1.0',
        f'edfn_kinesis_leases{{stream="{ARN}"}} 2.0',
        f'edfn_kinesis_lag_seconds{{shard="shardId-000000000000",stream="{ARN}"}} 1.5',
        f'edfn_kinesis_records_total{{stream="{ARN}"}} 130.0',
        f'edfn_kinesis_bytes_total{{stream="{ARN}"}} 91000.0',
        f'edfn_kinesis_checkpoints_total{{stream="{ARN}"}} 14.0',
        f'edfn_kinesis_daemon_restarts_total{{stream="{ARN}"}} 2.0',
        f'edfn_kinesis_couriers_lost_total{{stream="{ARN}"}} 1.0',
        f'edfn_kinesis_shard_records_total{{shard="shardId-000000000000",stream="{ARN}"}} 30.0',
        f'edfn_kinesis_shard_records_total{{shard="shardId-000000000001",stream="{ARN}"}} 0.0',
        f'edfn_kinesis_shard_checkpoints_total{{shard="shardId-000000000000",stream="{ARN}"}} 4.0',
        f'edfn_kinesis_shard_checkpoints_total{{shard="shardId-000000000001",stream="{ARN}"}} 0.0',
    ]


def test_without_streams_there_is_nothing() -> None:
    assert lines(Metrics()) == []
