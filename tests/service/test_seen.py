"""What is seen from outside: health, figures, templates, quarantine."""

from __future__ import annotations

import json
from collections.abc import Callable

from edfn_agent.demo.aws import EXTERNAL_ID, LOG_GROUP, ROLE
from tests.service.aws import ACCOUNTS, Cloud
from tests.service.collector import Collector
from tests.service.service import Service, until

Install = Callable[..., Service]
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffdb0043") + bytes(range(256)) * 4


def test_quarantine(cloud: Cloud, collector: Collector, install: Install) -> None:
    """A picture among flow logs: kept in its bucket, shown, tried again, and in nobody's way."""
    service = install(collector).start()
    key = "AWSLogs/111111111111/vpcflowlogs/us-east-1/2026/01/01/holiday.log.gz"
    cloud.put_body(cloud.shop, key, JPEG)
    cloud.put(cloud.shop, 100)
    until(lambda: collector.unique == 100, service.tail)
    until(lambda: service.metric("edfn_quarantined") == 1, service.tail)
    until(lambda: cloud.queued() == 0)
    assert service.metric("edfn_deliveries_total", "s3", "quarantined") == 1
    listed = json.loads(service.run("quarantine", "list", "--json").stdout)
    assert [(each["input"], each["name"]) for each in listed] == [("s3", f"s3://{cloud.shop.place}/{key}")]
    assert "JPEG" in listed[0]["reason"], listed
    number = str(listed[0]["id"])
    assert json.loads(service.run("quarantine", "show", number).stdout)["name"] == listed[0]["name"]
    assert "holiday" in service.run("quarantine", "list").stdout
    assert service.run("quarantine", "show", "99").returncode == 1
    s3 = cloud.client(cloud.shop.vpc.account_id, cloud.shop.vpc.region, "s3")
    assert s3.get_object(Bucket=cloud.shop.place, Key=key)["Body"].read() == JPEG

    service.run("quarantine", "retry", number)
    until(lambda: service.says("quarantined delivery still cannot be read"), service.tail)
    header = " ".join(cloud.shop.vpc.layout.names)
    repaired = "\n".join([header, *cloud.lines(cloud.shop, 50), ""]).encode()
    config = {"QueueConfigurations": []}
    before = s3.get_bucket_notification_configuration(Bucket=cloud.shop.place)["QueueConfigurations"]
    s3.put_bucket_notification_configuration(Bucket=cloud.shop.place, NotificationConfiguration=config)
    try:
        s3.put_object(Bucket=cloud.shop.place, Key=key, Body=repaired)
    finally:
        config = {"QueueConfigurations": before}
        s3.put_bucket_notification_configuration(Bucket=cloud.shop.place, NotificationConfiguration=config)
    service.run("quarantine", "retry", "--all")
    until(lambda: collector.unique == 150, service.tail)
    until(lambda: service.metric("edfn_quarantined") == 0)
    assert "empty" in service.run("quarantine", "list").stdout
    assert collector.repeated() == {}


def test_what_is_dead_stops_nothing_else(cloud: Cloud, collector: Collector, install: Install) -> None:
    """An account, a queue, a log group and an optional collector: all of them named, all others read."""
    absent = f"arn:aws:sqs:us-east-1:{ACCOUNTS[0]}:nowhere"
    group = f"arn:aws:logs:us-east-1:{ACCOUNTS[0]}:log-group:/gone"
    roles = [{"arn": ROLE.format(account=each), "external_id": EXTERNAL_ID} for each in ACCOUNTS]
    stranger = "arn:aws:sqs:us-east-1:333333333333:theirs"
    known = [f"arn:aws:sqs:us-east-1:{each}:flow-log-objects" for each in ACCOUNTS]
    log_groups = [
        f"arn:aws:logs:{each.vpc.region}:{each.vpc.account_id}:log-group:{LOG_GROUP}"
        for each in (cloud.office, cloud.edge)
    ]
    service = install(
        collector,
        aws={"roles": roles},
        inputs={
            "s3": {"queues": [*known, absent, stranger]},
            "cloudwatch_logs": {"interval": "1s", "start_from": "10m", "log_groups": [*log_groups, group]},
        },
    ).start()
    cloud.write(800, per_delivery=100)
    until(lambda: collector.unique == cloud.written, service.tail)
    for name in (absent, "333333333333", group):
        until(lambda name=name: name in str(service.ready()["reasons"]), lambda: service.ready())
    assert service.ready()["ready"]
    assert service.get("/readyz")[0] == 200
    assert service.metric("edfn_source_failing", absent) == 1
    assert service.metric("edfn_source_failing", known[0]) == 0


def test_a_dead_account_is_named(cloud: Cloud, collector: Collector, install: Install) -> None:
    """A role that may not be assumed."""
    service = install(collector)
    roles = [*service.configuration["aws"]["roles"], {"arn": "arn:aws:iam::444444444444:role/Gone"}]
    service.configure(aws={"roles": roles})
    cloud.refused = "444444444444"
    try:
        service.start()
        cloud.write(400, per_delivery=100)
        until(lambda: collector.unique == cloud.written, service.tail)
        until(lambda: "444444444444" in str(service.ready()["reasons"]), lambda: service.ready())
        assert service.ready()["ready"]
    finally:
        cloud.refused = ""


def test_figures_and_templates(cloud: Cloud, collector: Collector, install: Install) -> None:
    service = install(collector).start()
    cloud.write(2000, per_delivery=100)
    bad = f"2 {cloud.shop.vpc.account_id} eni-1 no-address 10.0.0.1 1 2 6 1 1 1 2 ACCEPT OK\n"
    text = " ".join(cloud.shop.vpc.layout.names) + "\n" + bad * 3
    cloud.put_body(
        cloud.shop, "AWSLogs/bad.log", (text + "\n".join(cloud.lines(cloud.shop, 10, idle=False)) + "\n").encode()
    )
    until(lambda: collector.unique == cloud.written and cloud.queued() == 0, service.tail)
    until(lambda: service.metric("edfn_messages_sent_total", collector.url) == len(collector.sizes), service.metrics)
    for source in cloud.sources:
        name, address = source.vpc.vpc_id, f'exporter="{source.vpc.router}"'
        written = 500 + (10 if source is cloud.shop else 0)
        assert service.metric("edfn_records_exported_total", f'vpc_id="{name}"', address) == written
    assert service.metric("edfn_records_skipped_total", 'status="nodata"') == cloud.idle > 0
    assert service.metric("edfn_lines_malformed_total", 'input="s3"') == 3
    assert service.metric("edfn_deliveries_total", 'input="s3"', 'outcome="acknowledged"') == 11
    assert service.metric("edfn_deliveries_total", 'input="cloudwatch_logs"', 'outcome="acknowledged"') >= 2
    assert service.metric("edfn_deliveries_in_flight") == 0
    assert service.metric("edfn_bytes_in_flight") == 0
    assert service.metric("edfn_send_errors_total") == 0
    assert service.metric("edfn_quarantined") == 0
    assert service.metric("edfn_aws_calls_total", 'service="s3"', 'action="GetObject"', 'outcome="ok"') == 11
    until(lambda: service.metric("edfn_discovery_last_success_timestamp_seconds") > 1e9, service.tail)
    lags = {name: value for name, value in service.metrics().items() if name.startswith("edfn_input_lag_seconds{")}
    assert len(lags) == 4
    assert all(0 < value < 600 for value in lags.values()), lags
    first = lags[min(lags)]
    until(lambda: service.metrics()[min(lags)] > first, "the lag of a silent source does not grow")
    shown = json.loads(service.get("/templates")[1])
    shown = shown if isinstance(shown, list) else next(iter(shown.values()))
    assert [each["collector"] for each in shown] == [collector.url]
    assert {each["domain"] for each in shown[0]["domains"]} == set(collector.domains)
    names = {field["name"] for each in shown[0]["domains"] for one in each["templates"] for field in one["fields"]}
    assert {"octetDeltaCount", "sourceIPv4Address", "VRFname", "interfaceDescription"} <= names
    assert service.get("/healthz") == (200, "alive\n")
    assert service.get("/nothing")[0] == 404
