"""Follows flow logs to where they can be read: log groups, Kinesis and Firehose streams, buckets, queues.

In: the network part of a snapshot, and what the configuration names by itself. Out: rows for each place, with the
problem where it cannot be asked. Never: a look into a bucket, a message taken from a queue.

Each thing is asked once, by the account that owns it where that is one of ours; a thing of a stranger is kept with the
problem, because flow logs may well reach the agent through it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, TypeVar

from edfn_agent.inventory import calls
from edfn_agent.inventory.accounts import Accounts
from edfn_agent.inventory.asking import Asker
from edfn_agent.inventory.model import (
    Bucket,
    DeliveryStream,
    LogDestination,
    LogGroup,
    Notification,
    Queue,
    Snapshot,
    Stream,
    SubscriptionFilter,
)
from edfn_agent.inventory.problems import Kind, Problem

T = TypeVar("T")


class SideBySide(Protocol):
    def __call__(self, what: str, jobs: Sequence[tuple[str, Callable[[], T]]]) -> list[T]: ...


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the configuration names, whether a flow log leads there or not."""

    log_groups: tuple[str, ...] = ()  # names or ARNs
    streams: tuple[str, ...] = ()  # ARNs
    queues: tuple[str, ...] = ()  # URLs or ARNs

    @classmethod
    def of(cls, inputs: Any) -> Wishes:
        """From `config.inputs`; `discovered` names nothing."""

        def listed(section: Any, name: str) -> tuple[Any, ...]:
            value = getattr(section, name) if section is not None else "discovered"
            return () if value == "discovered" else tuple(value)

        return cls(
            log_groups=listed(inputs.cloudwatch_logs, "log_groups"),
            streams=tuple(each.arn for each in listed(inputs.kinesis, "streams")),
            queues=listed(inputs.s3, "queues"),
        )


@dataclass(frozen=True, slots=True)
class Arn:
    """The parts of an ARN that matter here."""

    text: str

    @property
    def partition(self) -> str:
        return self.text.split(":")[1]

    @property
    def service(self) -> str:
        return self.text.split(":")[2]

    @property
    def region(self) -> str:
        return self.text.split(":")[3]

    @property
    def account_id(self) -> str:
        return self.text.split(":")[4]

    @property
    def name(self) -> str:
        """What stands after the last `:` or `/`."""
        return self.text.rpartition(":")[2].rpartition("/")[2]


def is_arn(text: str) -> bool:
    return text.startswith("arn:") and text.count(":") >= 5


@dataclass
class Sinks:
    asker: Asker
    wishes: Wishes
    network: Snapshot
    last: Snapshot | None
    accounts: Accounts
    log_groups: list[LogGroup] = field(default_factory=list)
    log_destinations: list[LogDestination] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    delivery_streams: list[DeliveryStream] = field(default_factory=list)
    buckets: list[Bucket] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)

    def follow(self, side_by_side: SideBySide) -> Sinks:
        self.log_groups = self._find_log_groups(side_by_side)
        self.log_destinations = self._find_destinations(side_by_side)
        ends = self._stream_ends()
        streams = sorted({*(each for each in ends if Arn(each).service == "kinesis"), *self.wishes.streams})
        self.streams = side_by_side("streams", [(Arn(arn).account_id, partial(self._stream, arn)) for arn in streams])
        firehoses = sorted(
            {each for each in ends if Arn(each).service == "firehose"}
            | {log.destination for log in self.network.flow_logs if log.destination_type == "kinesis-data-firehose"}
        )
        self.delivery_streams = side_by_side(
            "delivery streams", [(Arn(arn).account_id, partial(self._delivery_stream, arn)) for arn in firehoses]
        )
        names = sorted(
            {log.bucket for log in self.network.flow_logs if log.bucket}
            | {each.bucket for each in self.delivery_streams if each.bucket}
        )
        self.buckets = side_by_side("buckets", [("", partial(self._bucket, name)) for name in names])
        self.queues = self._find_queues(side_by_side)
        return self

    # ---- CloudWatch Logs

    def _find_log_groups(self, side_by_side: SideBySide) -> list[LogGroup]:
        wanted = {
            (log.account_id, log.region, log.log_group)
            for log in self.network.flow_logs
            if log.log_group and self.accounts.alive(log.account_id)
        }
        for text in self.wishes.log_groups:
            if is_arn(text) and self.accounts.alive(Arn(text).account_id):
                name = text.partition(":log-group:")[2].removesuffix(":*")
                wanted.add((Arn(text).account_id, Arn(text).region, name))
        by_place: dict[tuple[str, str], list[str]] = {}
        for account, region, name in sorted(wanted):
            by_place.setdefault((account, region), []).append(name)
        known: dict[str, Mapping[str, Any]] = {}
        complete: set[tuple[str, str]] = set()
        jobs = [(place[0], partial(self._describe_groups, place, names)) for place, names in by_place.items()]
        for place, answer in zip(by_place, side_by_side("log groups", jobs), strict=True):
            if answer is not None:
                complete.add(place)
                known.update(answer)
        return side_by_side(
            "subscriptions",
            [
                (account, partial(self._log_group, account, region, name, known, (account, region) in complete))
                for account, region, name in sorted(wanted)
            ],
        )

    def _group_arn(self, account: str, region: str, name: str) -> str:
        return f"arn:{self.accounts.partition_of(region)}:logs:{region}:{account}:log-group:{name}"

    def _describe_groups(self, place: tuple[str, str], names: list[str]) -> dict[str, Mapping[str, Any]] | None:
        """The log groups by ARN, or None when it is not known which there are."""
        found: dict[str, Mapping[str, Any]] = {}
        client = self.accounts.client(*place, "logs", patient=True)
        members = client.meta.service_model.operation_model("DescribeLogGroups").input_shape.members
        questions: list[dict[str, Any]] = [{}]
        if "logGroupIdentifiers" in members:
            # Only those that matter, 50 at a time: an account may have ten thousand others.
            arns = [self._group_arn(*place, name) for name in names]
            questions = [{"logGroupIdentifiers": arns[n : n + 50]} for n in range(0, len(arns), 50)]
        for question in questions:
            answer = self.asker.ask(calls.LOG_GROUPS, *place, expected=(Kind.MISSING,), **question)
            if answer.problem is not None:
                return None
            for item in answer.items("logGroups"):
                found[self._group_arn(*place, item["logGroupName"])] = item
        return found

    def _log_group(
        self, account: str, region: str, name: str, known: Mapping[str, Mapping[str, Any]], complete: bool
    ) -> LogGroup:
        arn = self._group_arn(account, region, name)
        retention = known.get(arn, {}).get("retentionInDays")
        if complete and arn not in known:
            return LogGroup(arn, name, account, region, missing=True)
        answer = self.asker.ask(calls.SUBSCRIPTIONS, account, region, name, expected=(Kind.MISSING,), logGroupName=name)
        if answer.problem is not None and answer.problem.kind is Kind.MISSING:
            return LogGroup(arn, name, account, region, missing=True)
        if answer.problem is not None:
            old = self._old("log_groups", arn) if answer.problem.kind is not Kind.DENIED else None
            return old or LogGroup(arn, name, account, region, filters_known=False, retention_days=retention)
        filters = tuple(
            SubscriptionFilter(each.get("filterName", ""), each["destinationArn"], each.get("filterPattern", ""))
            for each in answer.items("subscriptionFilters")
        )
        return LogGroup(arn, name, account, region, filters, retention_days=retention)

    def _find_destinations(self, side_by_side: SideBySide) -> list[LogDestination]:
        """CloudWatch Logs destinations that filters send to: one question per account and region that has any."""
        wanted = {
            each.destination for group in self.log_groups for each in group.filters if is_destination(each.destination)
        }
        places = sorted({(Arn(each).account_id, Arn(each).region) for each in wanted})
        jobs = [
            (account, partial(self.asker.ask, calls.DESTINATIONS, account, region))
            for account, region in places
            if self.accounts.alive(account)
        ]
        targets = {
            item["arn"]: item.get("targetArn", "")
            for answer in side_by_side("destinations", jobs)
            for item in answer.items("destinations")
        }
        return [
            LogDestination(arn, Arn(arn).account_id, Arn(arn).region, targets.get(arn, "")) for arn in sorted(wanted)
        ]

    def _stream_ends(self) -> set[str]:
        """ARNs that subscription filters lead to, destinations looked through."""
        behind = {each.arn: each.target for each in self.log_destinations}
        ends = {behind.get(each.destination, each.destination) for group in self.log_groups for each in group.filters}
        return {each for each in ends if is_arn(each)}

    # ---- Kinesis and Firehose

    def _stream(self, arn: str) -> Stream:
        where = Arn(arn)
        if not self.accounts.alive(where.account_id):
            return Stream(arn, where.name, where.account_id, where.region, problem=self._stranger(where.account_id))
        answer = self.asker.ask(
            calls.STREAM,
            where.account_id,
            where.region,
            arn,
            expected=(Kind.MISSING,),
            # By name: the account is the caller's own, and not every emulator knows StreamARN.
            StreamName=where.name,
        )
        if answer.problem is not None:
            old = self._old("streams", arn) if _passing(answer.problem) else None
            problem = "the stream does not exist" if answer.problem.kind is Kind.MISSING else answer.problem.message
            return old or Stream(arn, where.name, where.account_id, where.region, problem=problem)
        about = answer.page["StreamDescriptionSummary"]
        return Stream(
            arn,
            where.name,
            where.account_id,
            where.region,
            about.get("StreamStatus", ""),
            about.get("OpenShardCount"),
            about.get("RetentionPeriodHours"),
            about.get("EncryptionType") == "KMS",
        )

    def _delivery_stream(self, arn: str) -> DeliveryStream:
        where = Arn(arn)
        blank = partial(DeliveryStream, arn, where.name, where.account_id, where.region)
        if not self.accounts.alive(where.account_id):
            return blank(problem=self._stranger(where.account_id))
        answer = self.asker.ask(
            calls.DELIVERY_STREAM,
            where.account_id,
            where.region,
            arn,
            expected=(Kind.MISSING,),
            DeliveryStreamName=where.name,
        )
        if answer.problem is not None:
            old = self._old("delivery_streams", arn) if _passing(answer.problem) else None
            missing = answer.problem.kind is Kind.MISSING
            return old or blank(problem="the delivery stream does not exist" if missing else answer.problem.message)
        about = answer.page["DeliveryStreamDescription"]
        end: Mapping[str, Any] = next(iter(about.get("Destinations") or ()), {})
        s3 = end.get("ExtendedS3DestinationDescription") or end.get("S3DestinationDescription") or {}
        http = (end.get("HttpEndpointDestinationDescription") or {}).get("EndpointConfiguration") or {}
        return blank(
            about.get("DeliveryStreamStatus", ""),
            # Behind an HTTP endpoint S3 holds only what could not be delivered.
            s3.get("BucketARN", "").rpartition(":")[2] or None if not http else None,
            s3.get("Prefix", "") if not http else "",
            http.get("Url"),
        )

    def _stranger(self, account_id: str) -> str:
        return f"it belongs to account {account_id}, which is not in the configuration or not reachable"

    # ---- S3

    def _bucket(self, name: str) -> Bucket:
        owner, region, refused = self._owner(name)
        notifications = None
        asked: list[str] = [owner] if owner else self._likely_accounts(name)
        problem: Problem | None = None
        for account in asked:
            place = region or self.accounts.home_region(account)
            answer = self.asker.ask(
                calls.BUCKET_NOTIFICATION,
                account,
                place,
                name,
                expected=(Kind.DENIED, Kind.MISSING),
                Bucket=name,
            )
            problem = answer.problem
            if problem is None:
                if (
                    owner is None and account in refused
                ):  # who may read its notifications may ask where it is, if allowed
                    self.asker.note(calls.BUCKET_LOCATION, account, place, name, refused[account])
                owner = account
                notifications = self._notifications(answer.page, account, place, name)
                break
            if _passing(problem):
                old: Bucket | None = self._old("buckets", name)
                if old is not None:
                    return old
        if notifications is None:
            return Bucket(name, owner, region, problem=self._bucket_problem(owner, problem))
        # S3 sends only to queues and topics of its own region.
        region = region or next((Arn(each.target).region for each in notifications if each.target), None)
        return Bucket(name, owner, region, tuple(notifications))

    def _owner(self, name: str) -> tuple[str | None, str | None, Mapping[str, Problem]]:
        """(account, region, who was denied). Each account asks for the bucket as its own."""
        refused: dict[str, Problem] = {}
        for account in self._likely_accounts(name):
            answer = self.asker.ask(
                calls.BUCKET_LOCATION,
                account,
                self.accounts.home_region(account),
                name,
                expected=(Kind.DENIED, Kind.MISSING),
                Bucket=name,
                ExpectedBucketOwner=account,
            )
            if answer.problem is None:
                # Null is us-east-1, EU an old name of eu-west-1 (S3 API, GetBucketLocation).
                location = answer.page.get("LocationConstraint") or "us-east-1"
                return account, {"EU": "eu-west-1"}.get(location, location), refused
            if answer.problem.kind is Kind.DENIED:
                refused[account] = answer.problem
            if answer.problem.kind is Kind.MISSING:
                break
        return None, None, refused

    def _likely_accounts(self, name: str) -> list[str]:
        """Who may own a bucket: who did last time, who writes to it, everybody else."""
        old: Bucket | None = self._old("buckets", name)
        writers = sorted(log.account_id for log in self.network.flow_logs if log.bucket == name)
        firehoses = sorted(each.account_id for each in self.delivery_streams if each.bucket == name)
        others = sorted(each.account_id or "" for each in self.accounts.living)
        order = dict.fromkeys([*([old.account_id] if old and old.account_id else []), *writers, *firehoses, *others])
        return [each for each in order if self.accounts.alive(each)]

    def _bucket_problem(self, owner: str | None, problem: Problem | None) -> str:
        if problem is not None and problem.kind is Kind.MISSING:
            return "the bucket does not exist"
        if owner is None:
            return "no account of the configuration owns it or may ask for its notifications (s3:GetBucketNotification)"
        if problem is not None and problem.kind is Kind.DENIED:
            return "s3:GetBucketNotification is not allowed, so the queue that announces its objects is not found"
        return problem.message if problem is not None else "it could not be asked"

    def _notifications(self, page: Mapping[str, Any], account: str, region: str, bucket: str) -> list[Notification]:
        found = [
            _notification("sqs", item["QueueArn"], item, (item["QueueArn"],))
            for item in page.get("QueueConfigurations") or ()
        ]
        found += [
            _notification("sns", item["TopicArn"], item, self._behind_topic(item["TopicArn"]))
            for item in page.get("TopicConfigurations") or ()
        ]
        if page.get("EventBridgeConfiguration") is not None:
            queues = self._behind_event_bridge(account, region, bucket)
            found.append(Notification("eventbridge", "", ("Object Created",), queues=queues))
        return found

    def _behind_topic(self, arn: str) -> tuple[str, ...]:
        where = Arn(arn)
        if not self.accounts.alive(where.account_id):
            return ()
        answer = self.asker.ask(calls.TOPIC, where.account_id, where.region, arn, TopicArn=arn)
        return tuple(each["Endpoint"] for each in answer.items("Subscriptions") if each.get("Protocol") == "sqs")

    def _behind_event_bridge(self, account: str, region: str, bucket: str) -> tuple[str, ...]:
        """Queues of rules on the default bus that let this bucket's events through."""
        answer = self.asker.ask(calls.RULES, account, region, f"EventBridge rules for {bucket}")
        queues: list[str] = []
        for rule in answer.items("Rules"):
            if rule.get("State", "ENABLED") == "ENABLED" and _matches(rule.get("EventPattern"), bucket):
                targets = self.asker.ask(calls.RULE_TARGETS, account, region, rule["Name"], Rule=rule["Name"])
                queues += [each["Arn"] for each in targets.items("Targets") if Arn(each["Arn"]).service == "sqs"]
        return tuple(dict.fromkeys(queues))

    # ---- SQS

    def _find_queues(self, side_by_side: SideBySide) -> list[Queue]:
        wanted = {
            arn: bucket.account_id
            for bucket in self.buckets
            for notification in bucket.notifications
            for arn in notification.queues
        }
        urls: dict[str, str] = {}
        for text in self.wishes.queues:
            arn = text if is_arn(text) else self._arn_of_url(text)
            if arn:
                wanted.setdefault(arn, None)
                if arn != text:
                    urls[arn] = text
        jobs = [
            (Arn(arn).account_id, partial(self._queue, arn, bucket_account, urls.get(arn)))
            for arn, bucket_account in sorted(wanted.items())
        ]
        return side_by_side("queues", jobs)

    def _arn_of_url(self, url: str) -> str | None:
        """https://sqs.us-east-1.amazonaws.com/999999999999/NAME. An emulator's URL says no region: the first one."""
        host, _, path = url.partition("://")[2].partition("/")
        parts = path.split("/")
        if len(parts) != 2:
            return None
        account, name = parts
        labels = host.split(":")[0].split(".")
        region = next((each for each in labels if each.count("-") >= 2 and each[-1:].isdigit()), None)
        if region is None:
            region = self.accounts.home_region(account) if self.accounts.alive(account) else None
        return f"arn:{self.accounts.partition_of(region)}:sqs:{region}:{account}:{name}" if region else None

    def _queue(self, arn: str, bucket_account: str | None, url: str | None) -> Queue:
        where = Arn(arn)
        reader = where.account_id if self.accounts.alive(where.account_id) else bucket_account
        if reader is None or not self.accounts.alive(reader):
            return Queue(arn, url, where.account_id, where.region, problem=self._stranger(where.account_id))
        place = (reader, where.region)
        if url is None:
            owner = {} if reader == where.account_id else {"QueueOwnerAWSAccountId": where.account_id}
            answer = self.asker.ask(
                calls.QUEUE_URL, *place, arn, expected=(Kind.MISSING,), QueueName=where.name, **owner
            )
            if answer.problem is not None and answer.problem.kind is Kind.MISSING and reader == where.account_id:
                return Queue(arn, None, where.account_id, where.region, problem="the queue does not exist")
            url = answer.page.get("QueueUrl") or self._made_url(where, reader)
        answer = self.asker.ask(
            calls.QUEUE, *place, arn, expected=(Kind.MISSING,), QueueUrl=url, AttributeNames=["All"]
        )
        blank = partial(Queue, arn, url, where.account_id, where.region, reader)
        if answer.problem is not None:
            old = self._old("queues", arn) if _passing(answer.problem) else None
            missing = answer.problem.kind is Kind.MISSING
            # Reading may be allowed where asking is not.
            denied = answer.problem.kind is Kind.DENIED
            problem = "the queue does not exist" if missing else None if denied else answer.problem.message
            return old or blank(problem=problem)
        about = answer.page.get("Attributes") or {}
        redrive = json.loads(about.get("RedrivePolicy") or "{}")
        return blank(
            int(about.get("VisibilityTimeout") or 30),
            int(about.get("ReceiveMessageWaitTimeSeconds") or 0),
            int(about.get("MessageRetentionPeriod") or 345600),
            redrive.get("deadLetterTargetArn"),
            int(redrive["maxReceiveCount"]) if "maxReceiveCount" in redrive else None,
            about.get("KmsMasterKeyId"),
            about.get("Policy"),
        )

    def _made_url(self, where: Arn, reader: str) -> str:
        endpoint = self.accounts.client(reader, where.region, "sqs", patient=True).meta.endpoint_url
        return f"{endpoint.rstrip('/')}/{where.account_id}/{where.name}"

    def _old(self, kind: str, id: str) -> Any:
        """The row of the last snapshot, for what cannot be asked for a while."""
        rows = getattr(self.last, kind) if self.last is not None else ()
        return next((row for row in rows if getattr(row, row.id) == id), None)


def is_destination(arn: str) -> bool:
    """arn:aws:logs:us-east-1:999999999999:destination:NAME"""
    return is_arn(arn) and Arn(arn).service == "logs" and arn.split(":")[5] == "destination"


def _passing(problem: Problem) -> bool:
    """Trouble that may be over at the next discovery."""
    return problem.kind not in (Kind.DENIED, Kind.MISSING)


def _notification(kind: str, target: str, item: Mapping[str, Any], queues: Iterable[str]) -> Notification:
    rules = (item.get("Filter") or {}).get("Key", {}).get("FilterRules") or ()
    texts = {each["Name"].lower(): each.get("Value", "") for each in rules}
    return Notification(
        kind,
        target,
        tuple(item.get("Events") or ()),
        texts.get("prefix", ""),
        texts.get("suffix", ""),
        tuple(queues),
    )


def _matches(pattern: str | None, bucket: str) -> bool:
    """Whether an EventBridge pattern lets S3 events of a bucket through, as far as names go."""
    try:
        wanted = json.loads(pattern or "{}")
    except ValueError:
        return False
    if "aws.s3" not in wanted.get("source", ["aws.s3"]) or not wanted:
        return False
    names = ((wanted.get("detail") or {}).get("bucket") or {}).get("name")
    if not names:
        return True
    return any(
        each == bucket or (isinstance(each, dict) and bucket.startswith(str(each.get("prefix", "\0"))))
        for each in names
    )
