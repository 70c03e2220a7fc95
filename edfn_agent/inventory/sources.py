"""The plan of sources: which flow log is read where, which is not and why, and what its layout is.

In: a snapshot, and which inputs are on. Out: for each VPC the source that is read, findings with the next step, layouts
and VPCs by origin. Never: calls to AWS, reading.

A flow log can often be read in more than one way: a log group by the API, or the stream that it is subscribed to. Of
the ways that work, Kinesis goes before Firehose's endpoint, S3, and the CloudWatch Logs API. Where flow logs of a VPC
carry the same traffic (one of the whole VPC and one of a subnet, two formats of one VPC), one of them is read: the
wider one, so that nothing is lost, then the one with the better way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from edfn_agent.delivery import Origin
from edfn_agent.formats.layout import DEFAULT, TRANSIT_GATEWAY_DEFAULT, Layout, LayoutError
from edfn_agent.inventory.model import Bucket, Finding, FlowLog, LogGroup, Notification, Queue, Snapshot
from edfn_agent.inventory.sinks import Arn, is_arn

_RESOURCE = re.compile(r"(?:eni|tgw-attach|tgw)-[0-9a-f]+")

PRECEDENCE = ("kinesis", "firehose", "s3", "cloudwatch_logs")


@dataclass(frozen=True)
class EnabledInputs:
    """Which inputs are on, and what they read: None is off, "discovered" is all that is found, else a list."""

    s3: str | Sequence[str] | None = None  # queue URLs or ARNs
    cloudwatch_logs: str | Sequence[str] | None = None  # names or ARNs
    kinesis: str | Sequence[str] | None = None  # stream ARNs
    firehose: bool = False

    @classmethod
    def of(cls, inputs: Any) -> EnabledInputs:
        """From `config.inputs`."""
        streams = inputs.kinesis.streams if inputs.kinesis is not None else None
        return cls(
            s3=inputs.s3.queues if inputs.s3 is not None else None,
            cloudwatch_logs=inputs.cloudwatch_logs.log_groups if inputs.cloudwatch_logs is not None else None,
            kinesis=streams if streams is None or streams == "discovered" else tuple(each.arn for each in streams),
            firehose=inputs.firehose is not None,
        )

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.s3, self.cloudwatch_logs, self.kinesis)) or self.firehose

    def reads_queue(self, queue: Queue) -> bool:
        if self.s3 is None or self.s3 == "discovered":
            return self.s3 is not None
        path = f"/{queue.account_id}/{Arn(queue.arn).name}"
        return any(
            each in (queue.arn, queue.url) or (each.startswith("http") and each.endswith(path)) for each in self.s3
        )

    def reads_group(self, arn: str) -> bool:
        if self.cloudwatch_logs is None or self.cloudwatch_logs == "discovered":
            return self.cloudwatch_logs is not None
        name = arn.partition(":log-group:")[2]
        return any(each.removesuffix(":*") in (arn, name) for each in self.cloudwatch_logs)

    def reads_stream(self, arn: str) -> bool:
        if self.kinesis is None or self.kinesis == "discovered":
            return self.kinesis is not None
        return arn in self.kinesis


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a way does not work, and what to do."""

    subject: str
    problem: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which the records of a flow log may reach the agent."""

    flow_log: FlowLog
    vpc_id: str | None
    input: str  # kinesis | firehose | s3 | cloudwatch_logs
    end: str  # the stream's ARN, the bucket's name, the log group's ARN
    enabled: bool
    trouble: Trouble | None = None
    home: str = ""  # whose exporter its records are of: the VPC, or the transit gateway

    @property
    def works(self) -> bool:
        return self.enabled and self.trouble is None

    @property
    def source(self) -> str:
        """As people and scripts see it: kinesis:ARN, s3:BUCKET, cloudwatch_logs:ARN."""
        return f"{self.input}:{self.end}"


@dataclass(frozen=True, slots=True)
class Writers:
    """The flow logs that write under a prefix of a bucket."""

    prefix: str
    flow_logs: tuple[FlowLog, ...]
    layouts: Sequence[Layout]


@dataclass
class SourcePlan:
    """What is read for whom. Made anew with each snapshot."""

    snapshot: Snapshot
    inputs: EnabledInputs
    ways: list[Way] = field(default_factory=list)  # all, of all flow logs
    chosen: dict[str, Way] = field(default_factory=dict)  # flow-log id -> the way it is read
    findings: list[Finding] = field(default_factory=list)
    seen: Mapping[str, str] = field(default_factory=dict)
    """What the reading of streams has shown, which discovery may not know: ARN -> why it failed for good, or "" of a
    stream that is being read."""
    fallbacks: list[Finding] = field(default_factory=list)  # those findings that tell of a stream's substitute

    def __post_init__(self) -> None:
        for flow_log in self.snapshot.flow_logs:
            self.ways += _Ways(self, flow_log).all()
        self._choose()
        self._report()

    # ---- what the agent asks

    def source_of(self, vpc_id: str) -> str | None:
        """The best source that is read for a VPC or transit gateway, or None."""
        ways = [way for way in self.chosen.values() if way.home == vpc_id]
        best = min(ways, key=lambda way: PRECEDENCE.index(way.input), default=None)
        return best.source if best else None

    def owns(self, origin: Origin, vpc_id: str) -> bool:
        """Whether records of this VPC (or transit gateway) are to be exported when they come from there.

        Only what is known to come by another way, too, is refused: a repeat is better than a loss.
        """
        chosen = self._chosen_of_vpc.get(vpc_id)
        if not chosen:
            return True
        if origin.flow_log_id in self._known_logs:
            way = self.chosen.get(origin.flow_log_id or "")
            if way is not None:
                return self._is_from(way, origin)
            log = self.snapshot.flow_log_by_id[origin.flow_log_id or ""]
            return not any(self._same_traffic(each.flow_log, log) for each in chosen)
        if any(self._is_from(way, origin) for way in chosen):
            return True
        return not any(self._is_from(way, origin) for way in self._ways_of_vpc[vpc_id])

    def streamed_instead(self, flow_log_id: str) -> Set[str]:
        """The streams that bring the traffic of a flow log which is not read itself; none if it is, or nothing does."""
        if flow_log_id in self.chosen or flow_log_id not in self._known_logs:
            return frozenset()
        log = self.snapshot.flow_log_by_id[flow_log_id]
        rivals = self._chosen_of_vpc.get(self._home(log), ())
        return {way.end for way in rivals if way.input == "kinesis" and self._same_traffic(way.flow_log, log)}

    def lost_streams(self, home: str) -> Set[str]:
        """The streams that would be read for a VPC or transit gateway, were they not in trouble."""
        ways = [way for way in self._ways_of_vpc.get(home, ()) if way.input == "kinesis" and way.enabled]
        return {way.end for way in ways if way.end and way.trouble is not None}

    def layouts_of(self, origin: Origin) -> Sequence[Layout]:
        """The layouts that records of an origin may have, the likeliest first; none when nothing is known of it."""
        return self._distinct(self._logs_of(origin))

    def layouts_of_object(self, bucket: str, key: str, flow_log_id: str | None = None) -> Sequence[Layout]:
        """The layouts of an object without a header line: of its flow log, else of those that write where it lies."""
        if flow_log_id in self._known_logs:
            return self._distinct([self.snapshot.flow_log_by_id[flow_log_id or ""]])
        return self.writers_of(bucket, key).layouts

    def writers_of(self, bucket: str, key: str) -> Writers:
        """Who writes where an object lies: under the longest prefix that it has."""
        fits = [(prefix, each) for prefix, each in self._writers_to.get(bucket, ()) if key.startswith(prefix)]
        longest = max((prefix for prefix, _ in fits), key=len, default="")
        found = [each for prefix, each in fits if prefix == longest]
        return Writers(longest, tuple(found), self._distinct(found))

    def layouts_of_log_stream(self, log_stream: str) -> Sequence[Layout]:
        """The layouts of what was exported from a log stream, which is called after the interface."""
        named = _RESOURCE.search(log_stream)
        if named is None:
            return ()
        wanted = {named[0], self._home_of(named[0])}
        interface = self.snapshot.interface_by_id.get(named[0])
        if interface is not None:
            wanted.add(interface.subnet_id)
        return self._distinct(each for each in self.snapshot.flow_logs if each.log_group and each.resource_id in wanted)

    def home_of(self, origin: Origin) -> str | None:
        """The VPC or transit gateway of an origin, if all of its flow logs are of one."""
        homes = {self._home(each) for each in self._logs_of(origin)}
        home = homes.pop() if len(homes) == 1 else ""
        return home if home.startswith("vpc-") or _is_transit_gateway(home) else None

    def _logs_of(self, origin: Origin) -> list[FlowLog]:
        if origin.flow_log_id in self._known_logs:
            return [self.snapshot.flow_log_by_id[origin.flow_log_id or ""]]
        if origin.log_group is not None:
            found = [
                each
                for each in self._logs_by_group.get(origin.log_group, ())
                if origin.account_id in (None, each.account_id)
            ]
            # An envelope does not say its region, and Firehose may carry it to a bucket in another one.
            return [each for each in found if origin.region in (None, each.region)] or found
        return [way.flow_log for way in self._ways_by_end.get(origin.source, ())]

    def _is_from(self, way: Way, origin: Origin) -> bool:
        if way.input != origin.input:
            return False
        if way.input == "s3":
            # Whatever bucket: an object names its flow log, and a queue serves many. An envelope names its log group.
            return origin.log_group in (None, way.flow_log.log_group)
        if way.input == "cloudwatch_logs":
            return origin.log_group in (None, way.flow_log.log_group)
        return origin.source in (way.end, Arn(way.end).name) or origin.source == ""

    @cached_property
    def _known_logs(self) -> frozenset[str | None]:
        return frozenset(self.snapshot.flow_log_by_id)

    @cached_property
    def _ways_of_vpc(self) -> Mapping[str, list[Way]]:
        return _grouped((way.home, way) for way in self.ways)

    @cached_property
    def _chosen_of_vpc(self) -> Mapping[str, list[Way]]:
        return _grouped((way.home, way) for way in self.chosen.values())

    @cached_property
    def _ways_by_end(self) -> Mapping[str, list[Way]]:
        return _grouped((way.end, way) for way in self.ways)

    @cached_property
    def _logs_by_group(self) -> Mapping[str, list[FlowLog]]:
        return _grouped((each.log_group, each) for each in self.snapshot.flow_logs)

    @cached_property
    def _writers_to(self) -> Mapping[str, list[tuple[str, FlowLog]]]:
        """bucket -> (what its keys begin with, flow log)"""
        found: list[tuple[str | None, tuple[str, FlowLog]]] = []
        firehoses = {each.arn: each for each in self.snapshot.delivery_streams}
        targets = {each.arn: each.target for each in self.snapshot.log_destinations}
        groups = {each.arn: each for each in self.snapshot.log_groups}
        for each in self.snapshot.flow_logs:
            found.append((each.bucket, (f"{each.prefix}/AWSLogs/".lstrip("/"), each)))
            group = groups.get(each.destination)
            ends = [targets.get(one.destination, one.destination) for one in group.filters] if group else []
            for arn in [each.destination, *ends]:
                firehose = firehoses.get(arn)
                if firehose is not None:
                    # Firehose fills in !{timestamp:...} and !{partitionKeyFromQuery:...}: what is before them is fixed.
                    found.append((firehose.bucket, (firehose.prefix.partition("!{")[0], each)))
        return _grouped(found)

    def _distinct(self, flow_logs: Iterable[FlowLog]) -> Sequence[Layout]:
        return tuple(dict.fromkeys(layout for each in flow_logs if (layout := layout_of(each)) is not None))

    # ---- choosing

    def _choose(self) -> None:
        by_log = _grouped((way.flow_log.flow_log_id, way) for way in self.ways if way.works)
        best = [min(ways, key=lambda way: PRECEDENCE.index(way.input)) for ways in by_log.values()]
        taken: dict[str, list[Way]] = {}
        for way in sorted(best, key=self._rank):
            rivals = taken.setdefault(way.home, [])
            winner = next((each for each in rivals if self._same_traffic(each.flow_log, way.flow_log)), None)
            if winner is None:
                rivals.append(way)
                self.chosen[way.flow_log.flow_log_id] = way
            else:
                self.findings.append(_shadowed(way, winner, wholly=self._covers(winner.flow_log, way.flow_log)))

    def _rank(self, way: Way) -> tuple[int, bool, int, int, str]:
        log = way.flow_log
        width = {"vpc": 0, "subnet": 1}.get(log.resource_id.split("-")[0], 2)
        width = 0 if _is_transit_gateway(log.resource_id) else width
        # Of two alike, the format with more fields.
        return width, log.traffic != "ALL", PRECEDENCE.index(way.input), -len(log.format), log.flow_log_id

    def _same_traffic(self, one: FlowLog, other: FlowLog) -> bool:
        kinds = {one.traffic, other.traffic}
        return kinds != {"ACCEPT", "REJECT"} and self._overlap(one.resource_id, other.resource_id)

    def _overlap(self, wide: str, narrow: str) -> bool:
        """Whether one resource contains the other; both are of one VPC or transit gateway, `wide` came first."""
        if wide == narrow or wide.startswith("vpc-") or _is_transit_gateway(wide):
            return True
        if wide.startswith("subnet-") and narrow.startswith("eni-"):
            interface = self.snapshot.interface_by_id.get(narrow)
            return interface is not None and interface.subnet_id == wide
        return False

    def _covers(self, wide: FlowLog, narrow: FlowLog) -> bool:
        return wide.traffic in ("ALL", narrow.traffic)

    # ---- findings

    def _report(self) -> None:
        logged = _grouped((self._home(each), each) for each in self.snapshot.flow_logs)
        if not self.inputs:
            step = "write the inputs to read under `inputs:`, for example `s3: {}`"
            problem = "no input is on, so nothing is read"
            self.findings.append(Finding("warning", None, None, "inputs", problem, step, "configuration.inputs"))
        for vpc in self.snapshot.vpcs:
            if vpc.vpc_id not in logged:
                self.findings.append(_unlogged(vpc.vpc_id, vpc.name, vpc.account_id, vpc.region, vpc.is_default))
        for home, flow_logs in logged.items():
            # Trouble weighs more where the VPC has nothing else.
            alone = not any(each.flow_log_id in self.chosen for each in flow_logs)
            for flow_log in flow_logs:
                self._report_log(flow_log, home, alone)
            wide = any(each.resource_id.startswith("vpc-") for each in flow_logs)
            if not wide and home.startswith("vpc-"):
                self.findings.append(_partly(home, flow_logs))
            elif home.startswith(("subnet-", "eni-")):
                self.findings.append(_homeless(flow_logs[0]))
        self.findings += _queue_findings(self)
        self.findings += _mixed_formats(self.snapshot.flow_logs)
        self.fallbacks = self._fallbacks()
        self.findings += self.fallbacks
        self.findings.sort(key=lambda each: each.weight)

    def _home(self, flow_log: FlowLog) -> str:
        return self._home_of(flow_log.resource_id)

    def _home_of(self, resource_id: str) -> str:
        return self._gateways.get(resource_id) or self.snapshot.vpc_of_resource(resource_id) or resource_id

    @cached_property
    def _gateways(self) -> Mapping[str, str]:
        """attachment -> its transit gateway"""
        return {each.attachment_id: each.tgw_id for each in self.snapshot.transit_gateway_attachments}

    def _fallbacks(self) -> list[Finding]:
        """One for each stream that cannot be read, where something else brings what it would."""
        broken: dict[Trouble, dict[str, str]] = {}
        for way in self.ways:
            if way.input != "kinesis" or not way.end or not way.enabled or way.trouble is None:
                continue
            if instead := self._chosen_of_vpc.get(way.home):
                best = min(instead, key=lambda each: PRECEDENCE.index(each.input))
                broken.setdefault(way.trouble, {})[way.home] = best.source
        return [_fallback(trouble, instead) for trouble, instead in broken.items()]

    def _report_log(self, flow_log: FlowLog, home: str, alone: bool) -> None:
        place = (flow_log.account_id, flow_log.region)
        if flow_log.delivery_status == "FAILED":
            self.findings.append(
                Finding(
                    "warning",
                    *place,
                    flow_log.flow_log_id,
                    f"AWS says that its delivery FAILED ({flow_log.delivery_error or 'no reason given'})",
                    f"check the role, policy and existence of {flow_log.destination}; AWS tries again by itself",
                    "flow-log.delivery",
                )
            )
        if layout_of(flow_log) is None:
            self.findings.append(
                Finding(
                    "warning",
                    *place,
                    flow_log.flow_log_id,
                    f"its format is not understood: {flow_log.format}",
                    "objects with a header line are read all the same; please report this format",
                    "flow-log.format",
                )
            )
        ways = [way for way in self.ways if way.flow_log is flow_log]
        if not self.inputs or any(way.works for way in ways):
            return
        severity = "error" if alone else "warning"
        troubles = [way.trouble for way in ways if way.enabled and way.trouble is not None]
        if troubles:
            for trouble in dict.fromkeys(troubles):
                self.findings.append(
                    Finding(
                        severity,
                        *place,
                        flow_log.flow_log_id,
                        f"the flow log of {home} does not reach the agent: {trouble.subject}: {trouble.problem}",
                        trouble.next_step,
                        "flow-log.source",
                    )
                )
        elif alone:
            inputs = " or ".join(dict.fromkeys(way.input for way in ways)) or "any input"
            self.findings.append(
                Finding(
                    "warning",
                    *place,
                    flow_log.flow_log_id,
                    f"the flow log of {home} goes to {flow_log.destination}, which no input reads",
                    f"turn on inputs.{inputs}, or add it to the list there",
                    "flow-log.source",
                )
            )


def layout_of(flow_log: FlowLog) -> Layout | None:
    """The layout of a flow log; None when its format cannot be understood."""
    if not flow_log.format:
        return TRANSIT_GATEWAY_DEFAULT if flow_log.resource_id.startswith("tgw-") else DEFAULT
    try:
        return Layout.parse(flow_log.format)
    except LayoutError:
        return None


class _Ways:
    """All the ways of one flow log."""

    def __init__(self, plan: SourcePlan, flow_log: FlowLog) -> None:
        self.snapshot = plan.snapshot
        self.inputs = plan.inputs
        self.seen = plan.seen
        self.flow_log = flow_log
        self.vpc_id = plan.snapshot.vpc_of_resource(flow_log.resource_id)
        self.home = plan._home(flow_log)

    def all(self) -> list[Way]:
        if self.flow_log.destination_type == "s3":
            return [self._s3(self.flow_log.bucket or "", self._key_start(), direct=True)]
        if self.flow_log.destination_type == "kinesis-data-firehose":
            return [self._firehose(self.flow_log.destination)]
        group = next((each for each in self.snapshot.log_groups if each.arn == self.flow_log.destination), None)
        ways = [self._group(group)]
        ways += [way for each in (group.filters if group else ()) if (way := self._subscribed(each.destination))]
        if group is not None and group.filters_known and not group.filters and self.inputs.kinesis is not None:
            trouble = Trouble(
                group.arn,
                "no subscription filter leads from this log group to a stream",
                "subscribe the log group to a Kinesis stream (`edfn-agent setup kinesis` writes it), "
                "or turn on inputs.cloudwatch_logs",
            )
            ways.append(self._way("kinesis", "", True, trouble))
        return ways

    def _way(self, input: str, end: str, enabled: bool, trouble: Trouble | None = None) -> Way:
        return Way(self.flow_log, self.vpc_id, input, end, enabled, trouble, self.home)

    def _group(self, group: LogGroup | None) -> Way:
        arn = self.flow_log.destination
        trouble = None
        if group is not None and group.missing:
            trouble = Trouble(
                arn, "the log group does not exist", "make the log group; AWS does so at the next delivery"
            )
        return self._way("cloudwatch_logs", arn, self.inputs.reads_group(arn), trouble)

    def _subscribed(self, arn: str) -> Way | None:
        """The way through a subscription filter; None for what is nobody's business here (a Lambda function)."""
        if is_arn(arn) and arn.split(":")[5] == "destination":
            target = next((each.target for each in self.snapshot.log_destinations if each.arn == arn), "")
            if not target:
                return self._way(
                    "kinesis",
                    arn,
                    self.inputs.kinesis == "discovered",
                    Trouble(
                        arn,
                        "which stream is behind this CloudWatch Logs destination is not known",
                        "add its account and allow logs:DescribeDestinations, or list the stream in "
                        "inputs.kinesis.streams",
                    ),
                )
            arn = target
        service = Arn(arn).service if is_arn(arn) else ""
        if service == "kinesis":
            return self._kinesis(arn)
        return self._firehose(arn) if service == "firehose" else None

    def _kinesis(self, arn: str) -> Way:
        stream = next((each for each in self.snapshot.streams if each.arn == arn), None)
        # Who reads it knows better: records come although it cannot be described, or it is gone since it was.
        problem = self.seen.get(arn, stream.problem if stream is not None else None)
        trouble = None
        if problem:
            step = "add the stream's account to the configuration, or check that the stream is there"
            trouble = Trouble(arn, problem, step)
        return self._way("kinesis", arn, self.inputs.reads_stream(arn), trouble)

    def _firehose(self, arn: str) -> Way:
        stream = next((each for each in self.snapshot.delivery_streams if each.arn == arn), None)
        if stream is not None and stream.bucket:
            return self._s3(stream.bucket, stream.prefix.partition("!{")[0], direct=False)
        if stream is not None and stream.endpoint:
            trouble = None
            if not self.inputs.firehose:
                trouble = Trouble(
                    arn, f"it delivers to {stream.endpoint}, and inputs.firehose is off", "turn on inputs.firehose"
                )
            return self._way("firehose", arn, True, trouble)
        problem = (stream.problem if stream else None) or "it delivers neither to S3 nor to an HTTP endpoint"
        trouble = Trouble(
            arn,
            f"where this Firehose stream delivers to is not known: {problem}",
            "allow firehose:DescribeDeliveryStream; if it delivers to the agent's endpoint or a bucket that is read, "
            "nothing is wrong",
        )
        # The agent's endpoint may well be the end of it, and then the records come.
        return self._way("firehose", arn, self.inputs.firehose or self.inputs.s3 is not None, trouble)

    # ---- S3

    def _key_start(self) -> str:
        log = self.flow_log
        account = f"aws-account-id={log.account_id}" if log.hive else log.account_id
        return "/".join(filter(None, (log.prefix, "AWSLogs", account))) + "/"

    def _s3(self, bucket_name: str, key_start: str, *, direct: bool) -> Way:
        queues = {each.arn: each for each in self.snapshot.queues}
        bucket = next((each for each in self.snapshot.buckets if each.bucket == bucket_name), None)
        explicit = self.inputs.s3 not in (None, "discovered")
        if bucket is None or (bucket.problem and not bucket.notifications):
            # With queues named in the configuration, one of them may be this bucket's: then all is well.
            trouble = None if explicit else _no_bucket(bucket_name, bucket)
            return self._way("s3", bucket_name, self.inputs.s3 is not None, trouble)
        suffix = {"plain-text": ".log.gz", "parquet": ".log.parquet"}[self.flow_log.file_format] if direct else ""
        fitting = [each for each in bucket.notifications if _announces(each, key_start, suffix)]
        reached = [queues[arn] for each in fitting for arn in each.queues if arn in queues]
        read = [each for each in reached if self.inputs.reads_queue(each)]
        troubles = [_queue_trouble(bucket, each) for each in read]
        if any(each is None for each in troubles):
            return self._way("s3", bucket_name, True)
        if troubles:
            return self._way("s3", bucket_name, True, troubles[0])
        if reached:  # other queues than those that are listed
            return self._way("s3", bucket_name, False)
        if explicit and not bucket.notifications:
            return self._way("s3", bucket_name, False)
        return self._way("s3", bucket_name, self.inputs.s3 is not None, _not_announced(bucket, fitting, key_start))


def _announces(notification: Notification, key_start: str, suffix: str) -> bool:
    created = any("ObjectCreated" in each or each == "Object Created" for each in notification.events)
    prefix = notification.prefix
    near = prefix.startswith(key_start) or key_start.startswith(prefix)
    return created and near and (not suffix or suffix.endswith(notification.suffix))


def _no_bucket(name: str, bucket: Bucket | None) -> Trouble:
    return Trouble(
        f"bucket {name}",
        bucket.problem if bucket and bucket.problem else "it could not be asked",
        "add the bucket's account to the configuration and allow s3:GetBucketNotification, "
        "or list the queue in inputs.s3.queues",
    )


def _not_announced(bucket: Bucket, fitting: Sequence[Notification], key_start: str) -> Trouble:
    if fitting:
        through = ", ".join(each.target or "EventBridge" for each in fitting)
        return Trouble(
            f"bucket {bucket.bucket}",
            f"new objects are announced through {through}, and which queue is behind it is not known",
            "subscribe a queue to it; allow sns:ListSubscriptionsByTopic, events:ListRules and "
            "events:ListTargetsByRule, or list the queue in inputs.s3.queues",
        )
    if bucket.notifications:
        problem = (
            f"its notifications leave out new objects under {key_start} (prefix or suffix filter, or other events)"
        )
    else:
        problem = "it has no notification of new objects to a queue"
    return Trouble(
        f"bucket {bucket.bucket}",
        problem,
        "send s3:ObjectCreated:* to an SQS queue of the bucket's region (`edfn-agent setup s3` writes queue, policy "
        "and notification)",
    )


def _queue_trouble(bucket: Bucket, queue: Queue) -> Trouble | None:
    if queue.problem:
        step = "add the queue's account to the configuration, or send notifications to a queue that is there"
        return Trouble(queue.arn, queue.problem, step)
    if bucket.region and queue.region != bucket.region:
        return Trouble(
            queue.arn,
            f"the queue is in {queue.region}, the bucket {bucket.bucket} in {bucket.region}; S3 does not send there",
            f"make a queue in {bucket.region} and send the notifications there",
        )
    return None


def _queue_findings(plan: SourcePlan) -> list[Finding]:
    found = []
    for queue in plan.snapshot.queues:
        if not plan.inputs.reads_queue(queue) or queue.problem or queue.visibility_timeout is None:
            continue
        place = (queue.account_id, queue.region, queue.arn)
        if queue.dead_letter_arn is None:
            problem = "it has no dead-letter queue: what cannot be read is put into the agent's quarantine instead"
            found.append(
                Finding(
                    "info",
                    *place,
                    problem,
                    "give it a redrive policy (`edfn-agent setup s3` does)",
                    "queue.dead-letters",
                )
            )
        if queue.policy and not _lets_send(queue.policy):
            problem = "its policy allows nobody sqs:SendMessage, so S3 cannot announce objects"
            found.append(
                Finding(
                    "warning", *place, problem, "allow s3.amazonaws.com to send (`edfn-agent setup s3`)", "queue.policy"
                )
            )
    return found


def _mixed_formats(flow_logs: Iterable[FlowLog]) -> list[Finding]:
    """Where lines come without a header, formats are told apart by their columns, and these have as many."""
    places = _grouped((each.destination, each) for each in flow_logs if each.destination_type != "s3")
    found = []
    for place, writers in places.items():
        first: dict[int, tuple[Layout, FlowLog]] = {}
        for each in writers:
            layout = layout_of(each)
            if layout is None:
                continue
            known, other = first.setdefault(len(layout.names), (layout, each))
            if known != layout:
                problem = (
                    f"{other.flow_log_id} and {each.flow_log_id} write to {place} in different formats with as many "
                    "fields each; without a header their records cannot be told apart, and some are read wrongly"
                )
                step = "make one of them anew: in the same format, with another number of fields, or to another place"
                found.append(
                    Finding("warning", each.account_id, each.region, each.flow_log_id, problem, step, "flow-log.format")
                )
    return found


def _lets_send(policy: str) -> bool:
    try:
        statements = json.loads(policy).get("Statement", [])
    except (ValueError, AttributeError):
        return True  # not ours to judge
    for statement in statements if isinstance(statements, list) else [statements]:
        actions = statement.get("Action", [])
        names = {each.lower() for each in ([actions] if isinstance(actions, str) else actions)}
        if statement.get("Effect") == "Allow" and names & {"sqs:sendmessage", "sqs:*", "*", "sqs:send*"}:
            return True
    return False


def _shadowed(way: Way, winner: Way, *, wholly: bool) -> Finding:
    log = way.flow_log
    rest = (
        ""
        if wholly
        else f"; it is of {winner.flow_log.traffic} traffic only, the rest of {log.resource_id} is not read"
    )
    return Finding(
        "info" if wholly else "warning",
        log.account_id,
        log.region,
        log.flow_log_id,
        f"{way.source} is not read for {log.resource_id}: {winner.flow_log.flow_log_id} brings the same traffic by "
        f"{winner.source}{rest}",
        "delete one of the two flow logs if nobody else needs it" if wholly else "make one flow log of ALL traffic",
        "flow-log.once",
    )


def _fallback(trouble: Trouble, instead: Mapping[str, str]) -> Finding:
    arn = Arn(trouble.subject)
    shown = [f"{home} from {source}" for home, source in sorted(instead.items())]
    text = ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
    return Finding(
        "warning",
        arn.account_id,
        arn.region,
        trouble.subject,
        f"the stream cannot be read ({trouble.problem}); read instead: {text}",
        f"{trouble.next_step}; it is read again as soon as it can be",
        "flow-log.source",
    )


def _unlogged(vpc_id: str, name: str, account_id: str, region: str, is_default: bool) -> Finding:
    return Finding(
        "info" if is_default else "warning",
        account_id,
        region,
        vpc_id,
        f"VPC {name or vpc_id} has no flow log" + (" (it is the region's default VPC)" if is_default else ""),
        f"make one if it carries traffic: `edfn-agent setup s3` with VPC {vpc_id} writes what is needed",
        "vpc.flow-log",
    )


def _partly(vpc_id: str, flow_logs: Sequence[FlowLog]) -> Finding:
    parts = ", ".join(sorted(each.resource_id for each in flow_logs)[:3]) + (", ..." if len(flow_logs) > 3 else "")
    return Finding(
        "info",
        flow_logs[0].account_id,
        flow_logs[0].region,
        vpc_id,
        f"only parts of this VPC have flow logs: {parts}",
        "make a flow log of the whole VPC if all of its traffic is wanted",
        "vpc.flow-log",
    )


def _homeless(flow_log: FlowLog) -> Finding:
    return Finding(
        "warning",
        flow_log.account_id,
        flow_log.region,
        flow_log.flow_log_id,
        f"the VPC of {flow_log.resource_id} is not known; records without vpc-id go to `unattributed`",
        "allow ec2:DescribeSubnets and ec2:DescribeNetworkInterfaces, or delete the flow log if the resource is gone",
        "flow-log.vpc",
    )


def _is_transit_gateway(resource_id: str) -> bool:
    return resource_id.startswith("tgw-") and not resource_id.startswith("tgw-attach-")


def _grouped(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, list[Any]]:
    """Values by key, in order; without a key they are left out."""
    found: dict[Any, list[Any]] = {}
    for key, value in pairs:
        if key is not None:
            found.setdefault(key, []).append(value)
    return found
