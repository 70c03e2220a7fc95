"""The two files the MultiLangDaemon reads: its properties and its logback configuration.

In: settings. Out: text. Never: a credential, or a line whose value comes from outside unescaped.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from edfn_agent.inputs.kinesis.stream import StreamSettings


@dataclass(frozen=True, slots=True)
class Timing:
    """KCL's clocks, in seconds. The defaults are measured: start-up and hand-over in seconds rather than minutes."""

    shard_sync: float = 5.0
    """After the leases of a new application are made, KCL sleeps this long; one ListShards call each time (KCL: 60)."""
    lease_assignment: float = 10.0
    """How often the leader looks for leases without an owner. Each time costs a scan of the lease table (KCL: 20)."""
    parent_poll: float = 2.0
    """How often the shards after a split or a merge look whether their parents are done (KCL: 10)."""
    failover: float = 10.0
    """A lease not renewed for this long is free to others. KCL's default; shorter loses leases to short pauses."""
    silent_courier: int = 3600
    """A courier that does not answer for this long takes the whole daemon down. That is long because a collector that
    is away (TCP) lets a batch wait; the courier itself leaves after a minute when the agent hangs."""


def properties(
    settings: StreamSettings,
    *,
    application: str,
    worker_id: str,
    executable: str,
    metrics_level: str = "NONE",
    shutdown_grace: float = 10.0,
    timing: Timing | None = None,
) -> str:
    """`executable` is split at spaces by the daemon, and knows no quotes."""
    timing = timing or Timing()
    lines = {
        "executableName": executable,
        "applicationName": application,
        "streamName": settings.name,
        "regionName": settings.region,
        "workerId": worker_id,
        # The keys come from the agent over loopback, whatever way it has them itself.
        "AwsCredentialsProvider": "ContainerCredentialsProvider",
        **_position(settings),
        # Without it KCL chooses fan-out, which is billed.
        "retrievalMode": "FANOUT" if settings.enhanced_fan_out else "POLLING",
        "metricsLevel": metrics_level,
        # Every read is then a word to the courier, so a dead one is noticed on an idle stream, and the lag is known.
        "callProcessRecordsEvenForEmptyRecordList": "true",
        "timeoutInSeconds": str(timing.silent_courier),
        "shutdownGraceMillis": _millis(shutdown_grace),
        "failoverTimeMillis": _millis(timing.failover),
        "shardSyncIntervalMillis": _millis(timing.shard_sync),
        "leaseAssignmentIntervalMillis": _millis(timing.lease_assignment),
        "parentShardPollIntervalMillis": _millis(timing.parent_poll),
        # KCL's graceful handoff can leave a shard with nobody to read it, for as long as its former owner runs: the row
        # keeps its checkpointOwner (awslabs/amazon-kinesis-client pull request 1743; seen with 3.1.3). Without it, a
        # lease that is moved between two running agents may repeat the batch under way.
        "isGracefulLeaseHandoffEnabled": "false",
    }
    if not settings.enhanced_fan_out:
        lines["maxRecords"] = str(settings.max_records)
        lines["idleTimeBetweenReadsInMillis"] = _millis(settings.idle_time)
    return "".join(f"{key} = {_escape(value)}\n" for key, value in lines.items())


def _position(settings: StreamSettings) -> dict[str, str]:
    if isinstance(settings.initial_position, datetime):
        return {"initialPositionInStreamExtended": str(int(settings.initial_position.timestamp()))}
    return {"initialPositionInStream": settings.initial_position}


def _millis(seconds: float) -> str:
    return str(round(seconds * 1000))


def _escape(value: str) -> str:
    """As java.util.Properties reads it."""
    if "\n" in value or "\r" in value:
        raise ValueError(f"a property cannot hold a line break: {value!r}")
    escaped = value.replace("\\", "\\\\")
    return "".join(char if " " <= char <= "~" else f"\\u{ord(char):04x}" for char in escaped)


LINE_MARK = "KCL|"
"""What each log event of the daemon starts with; a line without it belongs to the event before (a stack trace)."""

LOGBACK = f"""\
<configuration>
  <appender name="agent" class="ch.qos.logback.core.ConsoleAppender">
    <target>System.err</target>
    <encoder><pattern>{LINE_MARK}%level|%logger{{0}}|%message%n%ex{{full}}</pattern></encoder>
  </appender>
  <!-- INFO would write every property, and some hundred lines a minute. -->
  <root level="WARN"><appender-ref ref="agent"/></root>
  <!-- Looks for EC2 metadata at every start and writes a stack trace where there is none. -->
  <logger name="software.amazon.kinesis.worker.platform" level="OFF"/>
  <!-- Warns at every start of a host that is neither EC2 nor ECS: its leases are balanced a little less finely. -->
  <logger name="software.amazon.kinesis.worker.WorkerMetricsSelector" level="ERROR"/>
  <!-- Each line that a courier writes to stderr is written twice; once is enough. -->
  <logger name="software.amazon.kinesis.multilang.LineReaderTask" level="OFF"/>
</configuration>
"""
