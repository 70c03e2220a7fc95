"""Every metric of the agent, in one place, as prometheus_client objects in a registry of their own.

In: what the rest of the agent counts. Out: the text of `/metrics`, by `Metrics.exposition()`. Never: a number that is
kept twice, a label whose values nobody bounds.

Cardinality. Labels are one of: a closed set of words (input, outcome, status, reason), something the configuration or
the inventory lists (collector, queue, log group), or a VPC with its exporter. The last two kinds go through `Labelled`,
which lets a metric have `LABEL_LIMIT` combinations and counts the rest under `other`, so that a thousand forged
vpc-ids in an object cannot fill a Prometheus server.
"""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from edfn_agent.ops.stream_metrics import StreamMetrics

LABEL_LIMIT = 5_000
"""Most label combinations of one metric: 5,000 VPCs or sources, about 5 MB of exposition text at the very most."""

OTHER = "other"

M = TypeVar("M", Counter, Gauge, Histogram)


class Labelled(Generic[M]):
    """A metric whose label values come from outside. Beyond the limit everything new is counted as `other`."""

    def __init__(self, metric: M, limit: int = LABEL_LIMIT) -> None:
        self._metric: M = metric
        self._limit = limit
        self._known: dict[tuple[str, ...], M] = {}
        self._lock = threading.Lock()

    def labels(self, *values: str) -> M:
        child = self._known.get(values)
        if child is not None:
            return child
        with self._lock:
            other = (OTHER,) * len(values)
            if len(self._known) - (other in self._known) >= self._limit and values not in self._known:
                values = other
            if values not in self._known:
                self._known[values] = self._metric.labels(*values)
            return self._known[values]

    def remove(self, *values: str) -> None:
        """The VPC, queue or collector is gone: its series ends, and its place is free."""
        with self._lock:
            if self._known.pop(values, None) is not None:
                self._metric.remove(*values)


class Metrics:
    """All of them, one object per process, passed to whoever counts. Names are an interface: docs/operations.md."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._exported(self.registry)
        self._delivered(self.registry)
        self._aws(self.registry)
        self._agent(self.registry)

    def _exported(self, registry: CollectorRegistry) -> None:
        self.records_exported = Labelled(
            Counter(
                "edfn_records_exported_total",
                "Flow records handed to a collector's transport, by VPC and exporter address.",
                ["vpc_id", "exporter"],
                registry=registry,
            )
        )
        self.records_skipped = Counter(
            "edfn_records_skipped_total",
            "Rows read and not exported, by status: nodata, skipdata (AWS lost records), without_addresses, "
            "other_source (the VPC is read from another source), "
            "other_log_group (events of a log group that holds no flow logs).",
            ["status"],
            registry=registry,
        )
        self.messages_sent = Labelled(
            Counter(
                "edfn_messages_sent_total",
                "IPFIX messages handed to the transport, by collector.",
                ["collector"],
                registry=registry,
            )
        )
        self.send_errors = Labelled(
            Counter(
                "edfn_send_errors_total",
                "Sends that failed (and were tried again or held back the acknowledgement), by collector.",
                ["collector"],
                registry=registry,
            )
        )

        self.records_dropped = Labelled(
            Counter(
                "edfn_records_dropped_total",
                "Flow records not sent to a collector that is not required and did not keep up, by collector.",
                ["collector"],
                registry=registry,
            )
        )

    def _delivered(self, registry: CollectorRegistry) -> None:
        self.deliveries = Counter(
            "edfn_deliveries_total",
            "Deliveries settled, by input and outcome: acknowledged, returned, quarantined, duplicate.",
            ["input", "outcome"],
            registry=registry,
        )
        self.deliveries_in_flight = Gauge(
            "edfn_deliveries_in_flight",
            "Deliveries read, or being read, and not yet settled, by input.",
            ["input"],
            registry=registry,
        )
        self.lines_malformed = Counter(
            "edfn_lines_malformed_total", "Lines that could not be read, by input.", ["input"], registry=registry
        )
        self.input_lag = Labelled(
            Gauge(
                "edfn_input_lag_seconds",
                "Age of the newest record exported, by input and source (queue, log group, stream).",
                ["input", "source"],
                registry=registry,
            )
        )
        self.bytes_in_flight = Gauge(
            "edfn_bytes_in_flight", "Octets read and not yet handed to every collector.", registry=registry
        )
        self.bytes_read = Counter(
            "edfn_bytes_read_total",
            "Octets read from a source, as delivered (compressed).",
            ["input"],
            registry=registry,
        )
        self.quarantined = Gauge(
            "edfn_quarantined", "Deliveries in the quarantine now (`edfn-agent quarantine list`).", registry=registry
        )
        self.source_failing = Labelled(
            Gauge(
                "edfn_source_failing",
                "1 while a source (queue, log group, stream) cannot be read, by input and source.",
                ["input", "source"],
                registry=registry,
            )
        )
        self.streams = StreamMetrics()
        self.register(self.streams)

    def _aws(self, registry: CollectorRegistry) -> None:
        self.aws_calls = Counter(
            "edfn_aws_calls_total",
            "Calls of AWS, after the client's own retries, by service, action and outcome: "
            "ok, throttled, denied, expired, missing, error, unreachable.",
            ["service", "action", "outcome"],
            registry=registry,
        )
        self.throttled = Counter(
            "edfn_throttled_total",
            "Calls that the agent itself held back to stay within the account's quota, by API.",
            ["action"],
            registry=registry,
        )
        self.sqs_received = Counter(
            "edfn_sqs_messages_received_total", "Messages received from queues.", registry=registry
        )
        self.sqs_deleted = Counter(
            "edfn_sqs_messages_deleted_total", "Messages deleted from queues.", registry=registry
        )
        self.sqs_returned = Counter(
            "edfn_sqs_messages_returned_total", "Messages given back to their queue for another try.", registry=registry
        )
        self.sqs_extended = Counter(
            "edfn_sqs_visibility_extensions_total", "Times a message's visibility was extended.", registry=registry
        )
        self.sqs_lost = Counter(
            "edfn_sqs_receipts_lost_total",
            "Messages whose receipt died while in hand (they come again and cost a duplicate).",
            registry=registry,
        )
        self.notifications_left = Counter(
            "edfn_notifications_ignored_total",
            "Notifications that are not the agent's work, by reason: test, foreign, filtered, write_test.",
            ["reason"],
            registry=registry,
        )
        self.firehose_requests = Counter(
            "edfn_firehose_requests_total",
            "Requests to the endpoint of Firehose, by outcome: acknowledged, replay (exported before), returned (to be "
            "tried again), malformed (or never to be read), refused (no key or a wrong one, no TLS), over_limit (of "
            "connections).",
            ["outcome"],
            registry=registry,
        )
        self.objects_gone = Counter(
            "edfn_objects_gone_total", "Objects announced that were not there any more (404).", registry=registry
        )
        self.reads_resumed = Counter(
            "edfn_s3_reads_resumed_total",
            "Reads of an object gone on by range after the connection broke.",
            registry=registry,
        )
        self.events_late = Counter(
            "edfn_cloudwatch_late_events_total",
            "Log events that appeared behind the newest ones already read (found by the overlap).",
            registry=registry,
        )
        self.events_again = Counter(
            "edfn_cloudwatch_events_recognised_total",
            "Log events read again in the overlap and recognised by id.",
            registry=registry,
        )
        self.log_incidents = Counter(
            "edfn_cloudwatch_incidents_total",
            "What happened to log groups, by kind: group_gone, group_made_again, stream_gone, retention_overtook.",
            ["kind"],
            registry=registry,
        )

    def _agent(self, registry: CollectorRegistry) -> None:
        self.discovery_last_success = Gauge(
            "edfn_discovery_last_success_timestamp_seconds",
            "Unix time of the last discovery that reached every account.",
            registry=registry,
        )
        self.state_errors = Counter(
            "edfn_state_errors_total", "Times the state directory could not be read or written.", registry=registry
        )

    def exposition(self) -> bytes:
        return generate_latest(self.registry)

    def register(self, collector: Collector) -> None:
        """For what is cheaper asked for than kept: a collector of prometheus_client's own kind."""
        self.registry.register(collector)

    def aws_call(self, service: str, action: str, code: str) -> None:
        """`code`: "ok", AWS's error code, or the name of the exception that came instead of an answer."""
        self.aws_calls.labels(service, action, call_outcome(code)).inc()


_WORDS = {
    "throttled": r"throttl|SlowDown|RequestLimitExceeded|TooManyRequests|LimitExceeded|OverLimit|^429$",
    "expired": r"Expired|TokenRefresh",
    "denied": r"Denied|Unauthorized|NotAuthorized|Forbidden|UnrecognizedClient|InvalidClientToken|InvalidAccessKey|"
    r"Signature|AuthFailure|Credential|OptInRequired|^40[13]$",
    "missing": r"NoSuch|NotFound|NonExistent|DoesNotExist|^404$",
    "unreachable": r"Connect|Timeout|Proxy|SSLError|HTTPClientError|IncompleteRead|ResponseStreaming",
}


@lru_cache(256)
def call_outcome(code: str) -> str:
    """One word for an answer of AWS: a label has to be one of a few, and codes are hundreds."""
    if code == "ok":
        return "ok"
    return next((word for word, codes in _WORDS.items() if re.search(codes, code, re.IGNORECASE)), "error")
