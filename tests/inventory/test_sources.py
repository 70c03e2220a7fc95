"""Which source each VPC is read from, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edfn_agent.delivery import Origin
from edfn_agent.formats.layout import DEFAULT, TRANSIT_GATEWAY_DEFAULT, Layout
from edfn_agent.inventory.model import (
    Bucket,
    DeliveryStream,
    FlowLog,
    Interface,
    LogDestination,
    LogGroup,
    Notification,
    Queue,
    Snapshot,
    Stream,
    Subnet,
    SubscriptionFilter,
    TransitGatewayAttachment,
    Vpc,
)
from edfn_agent.inventory.sources import EnabledInputs, SourcePlan

A, R = "111111111111", "us-east-1"
GROUP = f"arn:aws:logs:{R}:{A}:log-group:flows"
STREAM = f"arn:aws:kinesis:{R}:{A}:stream/flows"
QUEUE = f"arn:aws:sqs:{R}:{A}:flows"
FIREHOSE = f"arn:aws:firehose:{R}:{A}:deliverystream/flows"
ALL = EnabledInputs(s3="discovered", cloudwatch_logs="discovered", kinesis="discovered", firehose=True)
FORMAT = "${version} ${srcaddr} ${dstaddr} ${bytes}"


def to_s3(id: str = "fl-s3", resource: str = "vpc-1", **more: Any) -> FlowLog:
    return FlowLog(id, A, R, resource, "s3", "arn:aws:s3:::logs", FORMAT, **more)


def to_group(id: str = "fl-cwl", resource: str = "vpc-1", **more: Any) -> FlowLog:
    return FlowLog(id, A, R, resource, "cloud-watch-logs", GROUP, FORMAT, **more)


def to_firehose(id: str = "fl-fh", resource: str = "vpc-1", **more: Any) -> FlowLog:
    return FlowLog(id, A, R, resource, "kinesis-data-firehose", FIREHOSE, FORMAT, **more)


def group(*destinations: str, **more: Any) -> LogGroup:
    return LogGroup(GROUP, "flows", A, R, tuple(SubscriptionFilter("f", each) for each in destinations), **more)


NOTIFIED = Notification("sqs", QUEUE, ("s3:ObjectCreated:*",), queues=(QUEUE,))
HEALTHY_QUEUE = Queue(QUEUE, "https://sqs/q", A, R, A, 300, dead_letter_arn="arn:aws:sqs:us-east-1:1:dead")
WORLD = Snapshot(
    at=0.0,
    vpcs=(Vpc("vpc-1", A, R, "one"),),
    subnets=(Subnet("subnet-1", "vpc-1", A, R), Subnet("subnet-2", "vpc-1", A, R)),
    interfaces=(Interface("eni-1", "vpc-1", "subnet-1", A, R),),
    log_groups=(group(STREAM),),
    streams=(Stream(STREAM, "flows", A, R, "ACTIVE"),),
    buckets=(Bucket("logs", A, R, (NOTIFIED,)),),
    queues=(HEALTHY_QUEUE,),
)


def plan(*flow_logs: FlowLog, inputs: EnabledInputs = ALL, **world: Any) -> SourcePlan:
    return SourcePlan(replace(WORLD, flow_logs=flow_logs, **world), inputs)


def said(made: SourcePlan) -> list[tuple[str, str, str]]:
    return [(each.severity, each.subject, each.problem) for each in made.findings]


class TestPrecedence:
    @pytest.mark.parametrize(
        ("inputs", "source"),
        [
            (ALL, f"kinesis:{STREAM}"),
            (replace(ALL, kinesis=None), "s3:logs"),
            (replace(ALL, kinesis=None, s3=None), f"cloudwatch_logs:{GROUP}"),
            (EnabledInputs(cloudwatch_logs="discovered"), f"cloudwatch_logs:{GROUP}"),
        ],
    )
    def test_kinesis_over_s3_over_cloudwatch_logs_among_those_that_are_on(
        self, inputs: EnabledInputs, source: str
    ) -> None:
        made = plan(to_s3(), to_group(), inputs=inputs)
        assert made.source_of("vpc-1") == source
        assert len(made.chosen) == 1

    def test_what_is_shadowed_is_said(self) -> None:
        made = plan(to_s3(), to_group())
        assert said(made) == [
            ("info", "fl-s3", f"s3:logs is not read for vpc-1: fl-cwl brings the same traffic by kinesis:{STREAM}")
        ]

    def test_a_flow_log_of_the_whole_vpc_goes_before_a_better_way_for_a_part(self) -> None:
        made = plan(to_s3(), to_group(resource="subnet-1"))
        assert set(made.chosen) == {"fl-s3"}
        assert made.findings[0].subject == "fl-cwl"

    def test_parts_that_do_not_overlap_are_all_read(self) -> None:
        made = plan(to_s3("a", "subnet-1"), to_s3("b", "subnet-2"), to_s3("c", "eni-1"))
        assert set(made.chosen) == {"a", "b"}
        assert ("info", "vpc-1", "only parts of this VPC have flow logs: eni-1, subnet-1, subnet-2") in said(made)

    def test_accepted_here_and_rejected_there_are_both_read(self) -> None:
        made = plan(to_s3("a", traffic="ACCEPT"), to_group("r", traffic="REJECT"))
        assert set(made.chosen) == {"a", "r"}

    def test_a_stream_that_is_gone_falls_back(self) -> None:
        made = plan(to_group(), to_s3(), streams=(Stream(STREAM, "flows", A, R, problem="the stream does not exist"),))
        assert made.source_of("vpc-1") == "s3:logs"

    def test_lists_name_what_is_read(self) -> None:
        other = replace(ALL, kinesis=["arn:aws:kinesis:us-east-1:1:stream/other"], cloudwatch_logs=["flows"])
        assert plan(to_group(), inputs=other).source_of("vpc-1") == f"cloudwatch_logs:{GROUP}"
        by_url = EnabledInputs(s3=[f"https://sqs.us-east-1.amazonaws.com/{A}/flows"])
        assert plan(to_s3(), inputs=by_url).source_of("vpc-1") == "s3:logs"
        assert plan(to_s3(), inputs=EnabledInputs(s3=[QUEUE + "-2"])).source_of("vpc-1") is None

    def test_through_a_destination_and_through_firehose(self) -> None:
        central = f"arn:aws:logs:{R}:222222222222:destination:central"
        made = plan(
            to_group(),
            log_groups=(group(central),),
            log_destinations=(LogDestination(central, "222222222222", R, STREAM),),
        )
        assert made.source_of("vpc-1") == f"kinesis:{STREAM}"
        delivery = DeliveryStream(FIREHOSE, "flows", A, R, "ACTIVE", bucket="logs", prefix="fh/!{timestamp:yyyy}/")
        assert plan(to_firehose(), delivery_streams=(delivery,)).source_of("vpc-1") == "s3:logs"
        endpoint = DeliveryStream(FIREHOSE, "flows", A, R, "ACTIVE", endpoint="https://agent.example")
        assert plan(to_firehose(), delivery_streams=(endpoint,)).source_of("vpc-1") == f"firehose:{FIREHOSE}"


class TestWhatDoesNotReachTheAgent:
    def only(self, made: SourcePlan) -> tuple[str, str, str]:
        (finding,) = made.findings
        return finding.severity, finding.problem, finding.next_step

    def test_no_flow_log(self) -> None:
        assert self.only(plan())[:2] == ("warning", "VPC one has no flow log")
        default = plan(vpcs=(Vpc("vpc-1", A, R, is_default=True),))
        assert self.only(default)[0] == "info"

    def test_no_notification(self) -> None:
        severity, problem, step = self.only(plan(to_s3(), buckets=(Bucket("logs", A, R),)))
        assert severity == "error"
        assert problem.endswith("bucket logs: it has no notification of new objects to a queue")
        assert "s3:ObjectCreated:*" in step

    @pytest.mark.parametrize(
        "filter", [{"prefix": "other/"}, {"suffix": ".parquet"}, {"events": ("s3:ObjectRemoved:*",)}]
    )
    def test_a_notification_that_leaves_them_out(self, filter: dict[str, Any]) -> None:
        made = plan(to_s3(), buckets=(Bucket("logs", A, R, (replace(NOTIFIED, **filter),)),))
        assert f"leave out new objects under AWSLogs/{A}/" in self.only(made)[1]

    @pytest.mark.parametrize("prefix", ["AWSLogs/", f"AWSLogs/{A}/vpcflowlogs/us-east-1/"])
    def test_a_notification_that_fits(self, prefix: str) -> None:
        bucket = Bucket("logs", A, R, (replace(NOTIFIED, prefix=prefix, suffix=".log.gz"),))
        assert plan(to_s3(), buckets=(bucket,)).source_of("vpc-1") == "s3:logs"

    def test_a_queue_in_another_region(self) -> None:
        made = plan(to_s3(), buckets=(Bucket("logs", A, "eu-west-1", (NOTIFIED,)),))
        assert "the queue is in us-east-1, the bucket logs in eu-west-1" in self.only(made)[1]

    def test_a_queue_that_is_gone(self) -> None:
        queue = Queue(QUEUE, None, A, R, problem="the queue does not exist")
        assert self.only(plan(to_s3(), queues=(queue,)))[1].endswith(f"{QUEUE}: the queue does not exist")

    def test_a_topic_with_unknown_queues(self) -> None:
        topic = Notification("sns", f"arn:aws:sns:{R}:{A}:t", ("s3:ObjectCreated:*",))
        _, problem, step = self.only(plan(to_s3(), buckets=(Bucket("logs", A, R, (topic,)),)))
        assert "which queue is behind it is not known" in problem
        assert "sns:ListSubscriptionsByTopic" in step

    def test_a_bucket_nobody_may_ask_is_no_trouble_where_the_queue_is_listed(self) -> None:
        bucket = Bucket("logs", None, None, problem="no account may ask")
        assert "no account may ask" in self.only(plan(to_s3(), buckets=(bucket,)))[1]
        listed = plan(to_s3(), buckets=(bucket,), inputs=EnabledInputs(s3=[QUEUE]))
        assert (listed.source_of("vpc-1"), listed.findings) == ("s3:logs", [])

    def test_no_subscription(self) -> None:
        made = plan(to_group(), log_groups=(group(),), inputs=EnabledInputs(kinesis="discovered"))
        severity, problem, _ = self.only(made)
        assert (severity, made.source_of("vpc-1")) == ("error", None)
        assert "no subscription filter leads from this log group to a stream" in problem

    def test_an_input_that_is_off(self) -> None:
        severity, problem, step = self.only(
            plan(to_group(), log_groups=(group(),), inputs=EnabledInputs(s3="discovered"))
        )
        assert severity == "warning"
        assert "which no input reads" in problem
        assert step.startswith("turn on inputs.cloudwatch_logs")

    def test_no_input_at_all_is_said_once(self) -> None:
        assert self.only(plan(to_s3(), to_group(), inputs=EnabledInputs()))[1] == "no input is on, so nothing is read"

    def test_a_failed_delivery_is_said_and_read_all_the_same(self) -> None:
        made = plan(to_s3(delivery_status="FAILED", delivery_error="Access error"))
        assert self.only(made)[1] == "AWS says that its delivery FAILED (Access error)"
        assert made.source_of("vpc-1") == "s3:logs"

    @pytest.mark.parametrize("problem", ["denied", None])
    def test_firehose_without_a_reachable_end(self, problem: str | None) -> None:
        made = plan(to_firehose(), delivery_streams=(DeliveryStream(FIREHOSE, "flows", A, R, problem=problem),))
        severity, text, step = self.only(made)
        assert (severity, made.source_of("vpc-1")) == ("error", None)
        assert "where this Firehose stream delivers to is not known" in text
        assert "firehose:DescribeDeliveryStream" in step

    def test_a_queue_without_a_dead_letter_queue_and_with_a_closed_policy(self) -> None:
        queue = replace(HEALTHY_QUEUE, dead_letter_arn=None, policy='{"Statement": []}')
        assert [each[0] for each in said(plan(to_s3(), queues=(queue,)))] == ["warning", "info"]
        fine = replace(HEALTHY_QUEUE, policy='{"Statement": {"Effect": "Allow", "Action": "SQS:SendMessage"}}')
        assert plan(to_s3(), queues=(fine,)).findings == []

    def test_trouble_weighs_less_where_the_vpc_is_read_otherwise(self) -> None:
        made = plan(to_s3(), to_group(), buckets=(Bucket("logs", A, R),))
        assert [each.severity for each in made.findings] == ["warning"]


class TestLayouts:
    def test_by_flow_log(self) -> None:
        made = plan(to_s3(), replace(to_s3("fl-2"), format=""))
        assert made.layouts_of(Origin("s3", "q", flow_log_id="fl-s3")) == (Layout.parse(FORMAT),)
        assert made.layouts_of(Origin("s3", "q", flow_log_id="fl-2")) == (DEFAULT,)
        assert made.layouts_of(Origin("s3", "q", flow_log_id="fl-9")) == ()

    def test_by_log_group_of_the_right_account(self) -> None:
        other = replace(to_group("fl-2"), account_id="222222222222", format="${version} ${vpc-id}")
        made = plan(to_group(), other)
        origin = Origin("kinesis", STREAM, account_id="222222222222", region=R, log_group="flows")
        assert made.layouts_of(origin) == (Layout.parse("version vpc-id"),)

    def test_an_envelope_in_a_bucket_of_another_region(self) -> None:
        """Nothing in it says its region, and Firehose writes to any."""
        made = plan(to_group(), replace(to_group("fl-2"), account_id="222222222222", format="${version} ${vpc-id}"))
        origin = Origin("s3", "q", account_id=A, region="eu-west-1", log_group="flows")
        assert made.layouts_of(origin) == (Layout.parse(FORMAT),)

    def test_formats_that_cannot_be_told_apart_are_said(self) -> None:
        other = replace(to_group("fl-2", "subnet-1"), format="${version} ${dstaddr} ${srcaddr} ${bytes}")
        longer = replace(to_group("fl-3", "eni-1"), format=f"{FORMAT} ${{packets}}")
        [finding] = [each for each in plan(to_group(), longer, other).findings if "told apart" in each.problem]
        assert (finding.severity, finding.subject) == ("warning", "fl-2")
        assert "fl-cwl and fl-2 write to" in finding.problem

    def test_by_stream_and_by_delivery_stream(self) -> None:
        made = plan(
            to_group(), to_firehose(), delivery_streams=(DeliveryStream(FIREHOSE, "flows", A, R, endpoint="https://x"),)
        )
        assert made.layouts_of(Origin("kinesis", STREAM)) == (Layout.parse(FORMAT),)
        assert made.layouts_of(Origin("firehose", FIREHOSE)) == (Layout.parse(FORMAT),)

    def test_by_place_in_a_bucket(self) -> None:
        delivery = DeliveryStream(FIREHOSE, "flows", A, R, "ACTIVE", bucket="logs", prefix="fh/!{timestamp:yyyy}/")
        made = plan(to_s3(), replace(to_firehose(), format="${vpc-id} ${srcaddr}"), delivery_streams=(delivery,))
        assert made.layouts_of_object("logs", "fh/2026/x") == (Layout.parse("vpc-id srcaddr"),)
        assert made.layouts_of_object("logs", "AWSLogs/1/x") == (Layout.parse(FORMAT),)
        assert made.layouts_of_object("logs", "fh/2026/x", "fl-s3") == (Layout.parse(FORMAT),)
        assert made.layouts_of_object("elsewhere", "x") == ()

    def test_a_transit_gateways_default(self) -> None:
        made = plan(replace(to_s3(resource="tgw-1"), format=""))
        assert made.layouts_of(Origin("s3", "q", flow_log_id="fl-s3")) == (TRANSIT_GATEWAY_DEFAULT,)

    def test_a_format_that_cannot_be_read_is_said(self) -> None:
        made = plan(replace(to_s3(), format="${version} ${version}"))
        assert made.layouts_of(Origin("s3", "q", flow_log_id="fl-s3")) == ()
        assert "its format is not understood" in made.findings[0].problem


class TestOwnership:
    def test_a_vpc_by_its_origin(self) -> None:
        made = plan(to_s3(resource="subnet-1"), to_group())
        assert made.home_of(Origin("s3", "q", flow_log_id="fl-s3")) == "vpc-1"
        assert made.home_of(Origin("cloudwatch_logs", GROUP, log_group="flows")) == "vpc-1"
        assert made.home_of(Origin("cloudwatch_logs", "x", log_group="other")) is None

    def test_a_transit_gateway_by_its_origin(self) -> None:
        attachment = TransitGatewayAttachment("tgw-attach-1", "tgw-2", A, R)
        made = plan(
            to_s3(resource="tgw-1"), to_group(resource="tgw-attach-1"), transit_gateway_attachments=(attachment,)
        )
        assert made.home_of(Origin("s3", "q", flow_log_id="fl-s3")) == "tgw-1"
        assert made.home_of(Origin("cloudwatch_logs", GROUP, log_group="flows")) == "tgw-2"
        unknown = plan(to_s3(resource="tgw-attach-9"), to_group(resource="eni-9"))
        assert unknown.home_of(Origin("s3", "q", flow_log_id="fl-s3")) is None
        assert unknown.home_of(Origin("cloudwatch_logs", GROUP, log_group="flows")) is None

    def test_only_the_chosen_source_is_exported(self) -> None:
        made = plan(to_s3(), to_group())
        kinesis = Origin("kinesis", STREAM, log_group="flows")
        api = Origin("cloudwatch_logs", GROUP, log_group="flows")
        assert made.owns(kinesis, "vpc-1")
        assert not made.owns(api, "vpc-1")
        assert not made.owns(Origin("s3", "q", flow_log_id="fl-s3"), "vpc-1")
        assert not made.owns(Origin("s3", "q"), "vpc-1")

    def test_a_transit_gateway_too(self) -> None:
        """Records are the gateway's, whether a flow log is of it or of an attachment."""
        attachments = tuple(TransitGatewayAttachment(f"tgw-attach-{n}", "tgw-1", A, R) for n in (1, 2))
        world = {"transit_gateway_attachments": attachments}
        whole = plan(to_s3(resource="tgw-1"), to_group(resource="tgw-attach-1"), **world)
        assert whole.source_of("tgw-1") == "s3:logs"
        assert whole.owns(Origin("s3", "q", flow_log_id="fl-s3"), "tgw-1")
        assert not whole.owns(Origin("kinesis", STREAM, log_group="flows"), "tgw-1")
        parts = plan(to_s3(resource="tgw-attach-1"), to_group(resource="tgw-attach-2"), **world)
        assert parts.owns(Origin("s3", "q", flow_log_id="fl-s3"), "tgw-1")
        assert parts.owns(Origin("kinesis", STREAM, log_group="flows"), "tgw-1")

    def test_what_nobody_else_brings_is_exported(self) -> None:
        made = plan(to_group())
        assert made.owns(Origin("s3", "q", flow_log_id="fl-unknown"), "vpc-1")
        assert made.owns(Origin("s3", "q"), "vpc-unknown")
        broken = plan(to_s3(), buckets=(Bucket("logs", A, R),))
        assert broken.owns(Origin("s3", "q", flow_log_id="fl-s3"), "vpc-1")

    def test_accepted_and_rejected_from_two_sources(self) -> None:
        made = plan(to_s3("a", traffic="ACCEPT"), to_group("r", traffic="REJECT"))
        assert made.owns(Origin("s3", "q", flow_log_id="a"), "vpc-1")
        assert made.owns(Origin("kinesis", STREAM, log_group="flows"), "vpc-1")
