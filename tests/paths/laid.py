"""Every way of delivery, laid in the embedded AWS: what is there before the agent starts, and what then arrives.

Each function makes its part of AWS and returns what delivers on it. One bucket, one queue, one endpoint and one agent
serve them all, as in a central account.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

from edfn_agent.formats.layout import DEFAULT, TRANSIT_GATEWAY_DEFAULT, Layout
from tests.firehose.conftest import Firehose

from .cloud import BANK, HOME, REGION, SHOP, STRANGER, Cloud, Watched
from .shapes import (
    ALL,
    ATTACHED,
    CONTROL,
    CUSTOM,
    NAMELESS,
    REVERSED,
    Traffic,
    envelope,
    error_output,
    exported,
    firehose_key,
    key,
    members,
    message_column,
    messages,
    parquet,
    with_header,
)

BUCKET, QUEUE = "central-logs", "central-logs"

Deliver = Callable[[], None]


class Site:
    """The AWS, what was written, and what the configuration has to say."""

    def __init__(self, cloud: Cloud, traffic: Traffic, endpoint: Firehose) -> None:
        self.cloud, self.traffic, self.endpoint = cloud, traffic, endpoint
        self.path = ""
        self.bucket_layouts: list[dict[str, str]] = []
        self.stream_layouts: list[dict[str, str]] = []
        self.group_layouts: list[dict[str, str]] = []
        self.groups: list[str] = []  # those that are read by API

    def lines(self, watched: Watched, layout: Layout, count: int = 6, **more: Any) -> list[str]:
        return self.traffic.lines(self.path, watched, layout, count, **more)

    def put(self, key: str, body: bytes) -> None:
        self.cloud.put(BUCKET, key, body)

    def post(self, stream: str, *records: bytes, **more: Any) -> None:
        answer = self.endpoint.post(list(records), X_Amz_Firehose_Source_Arn=stream, **more)
        assert answer.status == 200, answer

    def direct(self, watched: Watched, layout: Layout, prefix: str = "", **options: Any) -> str:
        """A flow log to the bucket; its id."""
        more = {"DestinationOptions": options} if options else {}
        return self.cloud.flow_log(watched, layout, "s3", f"arn:aws:s3:::{BUCKET}/{prefix}".rstrip("/"), **more)

    def through_firehose(self, name: str, prefix: str, *sources: tuple[Watched, Layout]) -> str:
        """Flow logs to a delivery stream with that prefix in the bucket; its name."""
        arn = self.cloud.delivery_stream(name, BUCKET, prefix)
        for watched, layout in sources:
            self.cloud.flow_log(watched, layout, "kinesis-data-firehose", arn)
        return name

    def central(self, name: str, prefix: str, *sources: tuple[Watched, Layout]) -> str:
        """Log groups of several accounts, a destination, a delivery stream, the bucket; the log group's name."""
        destination = self.cloud.destination(name, self.cloud.delivery_stream(name, BUCKET, prefix))
        group = f"/central/{name}"
        for account in dict.fromkeys(watched.account for watched, _ in sources):
            self.cloud.log_group(account, group, destination)
        for watched, layout in sources:
            self.cloud.flow_log(watched, layout, "cloud-watch-logs", group)
        return group


def layout_text(layout: Layout) -> str:
    return " ".join(f"${{{name}}}" for name in layout.names)


# --- flow log -> S3 -----------------------------------------------------------------------------------------------


def s3_text(site: Site) -> Deliver:
    vpc = site.cloud.vpc("s3-text")
    flow_log = site.direct(vpc, REVERSED)
    return lambda: site.put(key(SHOP, flow_log), with_header(site.lines(vpc, REVERSED), REVERSED))


def s3_hive_hourly_prefix(site: Site) -> Deliver:
    vpc = site.cloud.vpc("s3-hive")
    options = {"FileFormat": "plain-text", "HiveCompatiblePartitions": True, "PerHourPartition": True}
    flow_log = site.direct(vpc, CUSTOM, "network/", **options)
    name = key(SHOP, flow_log, prefix="network/", hive=True, hourly=True)
    return lambda: site.put(name, with_header(site.lines(vpc, CUSTOM), CUSTOM))


def s3_hourly(site: Site) -> Deliver:
    vpc = site.cloud.vpc("s3-hourly")
    flow_log = site.direct(vpc, DEFAULT, FileFormat="plain-text", HiveCompatiblePartitions=False, PerHourPartition=True)
    return lambda: site.put(key(SHOP, flow_log, hourly=True), with_header(site.lines(vpc, DEFAULT), DEFAULT))


def s3_parquet(site: Site) -> Deliver:
    vpc = site.cloud.vpc("s3-parquet", BANK)
    options = {"FileFormat": "parquet", "HiveCompatiblePartitions": True, "PerHourPartition": False}
    flow_log = site.direct(vpc, ALL, "columns/", **options)
    name = key(BANK, flow_log, prefix="columns/", hive=True, end="parquet")
    return lambda: site.put(name, parquet(site.lines(vpc, ALL), ALL))


def s3_transit_gateway(site: Site) -> Deliver:
    gateway, layout = site.cloud.gateway("tgw-s3"), TRANSIT_GATEWAY_DEFAULT
    flow_log = site.direct(gateway, layout)
    return lambda: site.put(key(SHOP, flow_log), with_header(site.lines(gateway, layout), layout))


def s3_transit_gateway_parquet(site: Site) -> Deliver:
    gateway, layout = site.cloud.gateway("tgw-parquet"), TRANSIT_GATEWAY_DEFAULT
    options = {"FileFormat": "parquet", "HiveCompatiblePartitions": False, "PerHourPartition": False}
    flow_log = site.direct(gateway, layout, **options)
    return lambda: site.put(key(SHOP, flow_log, end="parquet"), parquet(site.lines(gateway, layout), layout))


# --- flow log -> Firehose -> S3 -----------------------------------------------------------------------------------


def firehose_of_the_same_account(site: Site) -> Deliver:
    """VPC, flow log and delivery stream are of one account; its other deliveries here come from another one."""
    vpc = site.cloud.vpc("firehose-same", HOME)
    stream = site.through_firehose("same", "fh/same/", (vpc, DEFAULT))
    return lambda: site.put(firehose_key("fh/same/", stream, ".gz"), gzip.compress(messages(site.lines(vpc, DEFAULT))))


def firehose_lines_of_json(site: Site) -> Deliver:
    vpc = site.cloud.vpc("firehose-ndjson")
    stream = site.through_firehose("ndjson", "fh/ndjson/", (vpc, REVERSED))
    return lambda: site.put(firehose_key("fh/ndjson/", stream), messages(site.lines(vpc, REVERSED)))


def firehose_run_of_objects(site: Site) -> Deliver:
    """`}{`, compressed; and the layout says neither VPC nor interface: the delivery stream has one flow log."""
    vpc = site.cloud.vpc("firehose-run")
    stream = site.through_firehose("run", "fh/run/!{timestamp:yyyy/MM/dd/HH}/", (vpc, NAMELESS))

    def deliver() -> None:
        body = gzip.compress(messages(site.lines(vpc, NAMELESS), ended=False))
        site.put(firehose_key("fh/run/", stream, ".gz"), body)

    return deliver


def firehose_bare_lines(site: Site) -> Deliver:
    vpc = site.cloud.vpc("firehose-bare")
    stream = site.through_firehose("bare", "fh/bare/", (vpc, REVERSED))

    def deliver() -> None:
        site.put(firehose_key("fh/bare/", stream, ".gz"), gzip.compress("\n".join(site.lines(vpc, REVERSED)).encode()))
        site.put(firehose_key("fh/bare/", stream), ("\n".join(site.lines(vpc, REVERSED)) + "\n").encode())

    return deliver


def firehose_several_lines_in_one_record(site: Site) -> Deliver:
    """Under dynamic partitioning: what stands between the fixed beginning and the name is anybody's."""
    vpc = site.cloud.vpc("firehose-several")
    prefix = "fh/dynamic/!{partitionKeyFromQuery:vpc}/!{timestamp:yyyy}/"
    stream = site.through_firehose("several", prefix, (vpc, REVERSED))

    def deliver() -> None:
        body = messages(["\n".join(site.lines(vpc, REVERSED)) + "\n", "\n".join(site.lines(vpc, REVERSED))])
        site.put(firehose_key(f"fh/dynamic/{vpc.id}/2026/", stream, stamped=False), body)

    return deliver


def firehose_two_formats(site: Site) -> Deliver:
    """Two flow logs on one delivery stream, told apart by the number of columns."""
    one, other = site.cloud.vpc("firehose-two-a"), site.cloud.vpc("firehose-two-b", BANK)
    stream = site.through_firehose("two", "fh/two/", (one, CUSTOM), (other, REVERSED))

    def deliver() -> None:
        mixed = [
            line for pair in zip(site.lines(one, CUSTOM), site.lines(other, REVERSED), strict=True) for line in pair
        ]
        site.put(firehose_key("fh/two/", stream), messages(mixed))

    return deliver


def firehose_parquet(site: Site) -> Deliver:
    """Format conversion: of the lines as they came, and of fields that a function has made of them."""
    vpc = site.cloud.vpc("firehose-parquet")
    stream = site.through_firehose("converted", "fh/parquet/", (vpc, REVERSED))

    def deliver() -> None:
        site.put(firehose_key("fh/parquet/", stream, ".parquet"), message_column(site.lines(vpc, REVERSED)))
        body = parquet(site.lines(vpc, REVERSED), REVERSED, "SNAPPY")
        site.put(firehose_key("fh/parquet/", stream, ".parquet"), body)

    return deliver


def firehose_transit_gateway(site: Site) -> Deliver:
    gateway, layout = site.cloud.gateway("tgw-firehose"), TRANSIT_GATEWAY_DEFAULT
    stream = site.through_firehose("transit", "fh/transit/", (gateway, layout))
    return lambda: site.put(firehose_key("fh/transit/", stream), messages(site.lines(gateway, layout)))


def firehose_transit_gateway_parquet(site: Site) -> Deliver:
    gateway, layout = site.cloud.gateway("tgw-converted"), TRANSIT_GATEWAY_DEFAULT
    stream = site.through_firehose("transit-converted", "fh/transit-parquet/", (gateway, layout))

    def deliver() -> None:
        lines = site.lines(gateway, layout)
        site.put(firehose_key("fh/transit-parquet/", stream, ".parquet"), message_column(lines))

    return deliver


def firehose_error_output(site: Site) -> Deliver:
    """What could not be converted, and what the agent's endpoint was not there to take: under the stream's prefix,
    where Firehose puts it by itself, and under a prefix of the configuration."""
    vpc = site.cloud.vpc("firehose-failed")
    stream = site.through_firehose("failing", "fh/failing/", (vpc, REVERSED))
    site.bucket_layouts.append({"bucket": BUCKET, "prefix": "failed/", "log_format": layout_text(REVERSED)})

    def deliver() -> None:
        at = firehose_key("fh/failing/format-conversion-failed/", stream)
        site.put(at, error_output(messages([line]) for line in site.lines(vpc, REVERSED)))
        at = firehose_key("failed/http-endpoint-failed/", stream, ".gz")
        group = members(envelope(SHOP, "/nobody-knows", "eni-all", site.lines(vpc, REVERSED)))
        posted = [messages(site.lines(vpc, REVERSED)), *(line.encode() for line in site.lines(vpc, REVERSED))]
        site.put(at, gzip.compress(error_output([*posted, group])))

    return deliver


def firehose_of_an_unknown_flow_log(site: Site) -> Deliver:
    """Discovery sees neither stream nor flow log: the layout is in the configuration, for bucket and prefix."""
    vpc = site.cloud.vpc("firehose-unknown")
    site.bucket_layouts.append({"bucket": BUCKET, "prefix": "foreign/", "log_format": layout_text(DEFAULT)})
    site.bucket_layouts.append({"bucket": BUCKET, "prefix": "foreign/deep/", "log_format": layout_text(REVERSED)})

    def deliver() -> None:
        site.put(firehose_key("foreign/deep/", "theirs"), messages(site.lines(vpc, REVERSED)))
        site.put(firehose_key("foreign/", "theirs"), messages(site.lines(vpc, DEFAULT)))

    return deliver


# --- CloudWatch Logs -> destination -> Firehose -> S3 -------------------------------------------------------------


def central_members(site: Site) -> Deliver:
    """Two accounts, one log group name, two formats of as many columns, one object; the envelope says whose it is."""
    shop, bank = site.cloud.vpc("central-shop"), site.cloud.vpc("central-bank", BANK)
    group = site.central("members", "central/members/", (shop, REVERSED), (bank, DEFAULT))

    def deliver() -> None:
        parts = [CONTROL]
        for _ in range(3):
            parts.append(envelope(SHOP, group, f"{shop.interface}-all", site.lines(shop, REVERSED)))
            parts.append(envelope(BANK, group, f"{bank.interface}-all", site.lines(bank, DEFAULT)))
        site.put(firehose_key("central/members/", "members"), members(*parts))

    return deliver


def central_twice_compressed(site: Site) -> Deliver:
    """Firehose's GZIP around the members; the format names neither VPC nor interface."""
    shop, bank = site.cloud.vpc("twice-shop"), site.cloud.vpc("twice-bank", BANK)
    group = site.central("twice", "central/twice/", (shop, NAMELESS), (bank, NAMELESS))

    def deliver() -> None:
        parts = [
            envelope(SHOP, group, "eni-all", site.lines(shop, NAMELESS)),
            envelope(BANK, group, "eni-all", site.lines(bank, NAMELESS)),
        ]
        site.put(firehose_key("central/twice/", "twice", ".gz"), gzip.compress(members(*parts)))

    return deliver


def central_decompressed(site: Site) -> Deliver:
    """Firehose's decompression on: plain envelopes back to back; with message extraction: the lines alone."""
    shop = site.cloud.vpc("plain-shop")
    group = site.central("plain", "central/plain/", (shop, REVERSED))

    def deliver() -> None:
        both = [envelope(SHOP, group, "eni-all", site.lines(shop, REVERSED)) for _ in range(2)]
        site.put(firehose_key("central/plain/", "plain"), b"".join(both))
        site.put(firehose_key("central/plain/", "plain"), "\n".join(site.lines(shop, REVERSED)).encode())

    return deliver


def central_of_an_unknown_account(site: Site) -> Deliver:
    """No role in the source account: the layout is configured for bucket and prefix, the records say their VPC."""
    vpc = Watched(STRANGER, "vpc-0abcdef0123456789", "vpc-0abcdef0123456789", "eni-0abcdef0123456789")
    site.bucket_layouts.append({"bucket": BUCKET, "prefix": "central/stranger/", "log_format": layout_text(CUSTOM)})

    def deliver() -> None:
        lines = site.lines(vpc, CUSTOM)
        site.put(firehose_key("central/stranger/", "x"), members(envelope(STRANGER, "/theirs", "eni-all", lines)))

    return deliver


def central_transit_gateway(site: Site) -> Deliver:
    gateway, layout = site.cloud.gateway("tgw-central", BANK), TRANSIT_GATEWAY_DEFAULT
    group = site.central("transit-central", "central/transit/", (gateway, layout))

    def deliver() -> None:
        lines = site.lines(gateway, layout)
        site.put(firehose_key("central/transit/", "x"), members(envelope(BANK, group, "tgw-all", lines)))

    return deliver


def central_transit_gateway_twice_compressed(site: Site) -> Deliver:
    gateway, layout = site.cloud.gateway("tgw-central-twice"), TRANSIT_GATEWAY_DEFAULT
    group = site.central("transit-twice", "central/transit-twice/", (gateway, layout))

    def deliver() -> None:
        parts = [envelope(SHOP, group, "tgw-all", site.lines(gateway, layout)) for _ in range(2)]
        site.put(firehose_key("central/transit-twice/", "x", ".gz"), gzip.compress(members(CONTROL, *parts)))

    return deliver


def transit_gateways_that_records_do_not_name(site: Site) -> Deliver:
    names = ("s3", "firehose", "central", "api")
    gateways = {name: site.cloud.gateway(f"tgw-nameless-{name}") for name in names}
    flow_log = site.direct(gateways["s3"], ATTACHED)
    stream = site.through_firehose("nameless", "fh/nameless/", (gateways["firehose"], ATTACHED))
    group = site.central("nameless-central", "central/nameless/", (gateways["central"], ATTACHED))
    site.groups.append(site.cloud.log_group(SHOP, "/api-nameless"))
    site.cloud.flow_log(gateways["api"], ATTACHED, "cloud-watch-logs", "/api-nameless")

    def deliver() -> None:
        lines = {name: site.lines(gateway, ATTACHED) for name, gateway in gateways.items()}
        site.put(key(SHOP, flow_log), with_header(lines["s3"], ATTACHED))
        site.put(firehose_key("fh/nameless/", stream), messages(lines["firehose"]))
        site.put(firehose_key("central/nameless/", "x"), members(envelope(SHOP, group, "tgw-all", lines["central"])))
        site.cloud.log(SHOP, "/api-nameless", "tgw-all", lines["api"])

    return deliver


# --- export tasks -------------------------------------------------------------------------------------------------


def export_task(site: Site) -> Deliver:
    """The folder is called after the log stream, and that after the interface: so the flow log is known."""
    vpc = site.cloud.vpc("export-task")
    site.groups.append(site.cloud.log_group(SHOP, "/exported"))
    site.cloud.flow_log(vpc, REVERSED, "cloud-watch-logs", "/exported")
    task = "exports/6c2a0c4e-1f5b-4f0e-9b57-7d0b6f0c1a11"

    def deliver() -> None:
        site.put("exports/aws-logs-write-test", b"Permission Check Successful")
        site.put(f"{task}/{vpc.interface}-all/000000.gz", exported(site.lines(vpc, REVERSED)))

    return deliver


def export_task_by_configuration(site: Site) -> Deliver:
    vpc = site.cloud.vpc("export-configured")
    site.bucket_layouts.append({"bucket": BUCKET, "prefix": "old-exports/", "log_format": layout_text(REVERSED)})
    task = "old-exports/0d5e0c4e-1f5b-4f0e-9b57-7d0b6f0c1a11"
    return lambda: site.put(f"{task}/any-stream/000003.gz", exported(site.lines(vpc, REVERSED)))


def export_task_of_a_transit_gateway(site: Site) -> Deliver:
    gateway, layout = site.cloud.gateway("tgw-export"), TRANSIT_GATEWAY_DEFAULT
    task = "exports/7c2a0c4e-1f5b-4f0e-9b57-7d0b6f0c1a11"
    return lambda: site.put(f"{task}/{gateway.id}-all/000000.gz", exported(site.lines(gateway, layout)))


# --- CloudWatch Logs by API ---------------------------------------------------------------------------------------


def cloudwatch_api(site: Site) -> Deliver:
    vpc, gateway = site.cloud.vpc("api", BANK), site.cloud.gateway("tgw-api", BANK)
    site.groups += [site.cloud.log_group(BANK, "/api"), site.cloud.log_group(BANK, "/api-transit")]
    site.cloud.flow_log(vpc, REVERSED, "cloud-watch-logs", "/api")
    site.cloud.flow_log(gateway, TRANSIT_GATEWAY_DEFAULT, "cloud-watch-logs", "/api-transit")

    def deliver() -> None:
        site.cloud.log(BANK, "/api", f"{vpc.interface}-all", site.lines(vpc, REVERSED))
        site.cloud.log(BANK, "/api-transit", "tgw-all", site.lines(gateway, TRANSIT_GATEWAY_DEFAULT))

    return deliver


def cloudwatch_configured(site: Site) -> Deliver:
    """Nobody sees the flow log that writes there."""
    vpc = site.cloud.vpc("api-configured")
    arn = site.cloud.log_group(SHOP, "/unseen")
    site.groups.append(arn)
    site.group_layouts.append({"log_group": arn, "log_format": layout_text(REVERSED)})
    return lambda: site.cloud.log(SHOP, "/unseen", f"{vpc.interface}-all", site.lines(vpc, REVERSED))


# --- one source for each VPC --------------------------------------------------------------------------------------


def s3_before_cloudwatch(site: Site) -> Deliver:
    """A VPC and a transit gateway have flow logs in S3, and in a log group that is read for another VPC's sake."""
    twice, gateway, only = site.cloud.vpc("twice"), site.cloud.gateway("tgw-twice"), site.cloud.vpc("only")
    site.groups.append(site.cloud.log_group(SHOP, "/shared"))
    logged = [site.direct(twice, CUSTOM), site.direct(gateway, TRANSIT_GATEWAY_DEFAULT)]
    for watched, layout in ((twice, CUSTOM), (gateway, TRANSIT_GATEWAY_DEFAULT), (only, DEFAULT)):
        site.cloud.flow_log(watched, layout, "cloud-watch-logs", "/shared")

    def deliver() -> None:
        site.put(key(SHOP, logged[0]), with_header(site.lines(twice, CUSTOM), CUSTOM))
        transit = with_header(site.lines(gateway, TRANSIT_GATEWAY_DEFAULT), TRANSIT_GATEWAY_DEFAULT)
        site.put(key(SHOP, logged[1]), transit)
        site.cloud.log(SHOP, "/shared", f"{twice.interface}-all", site.lines(twice, CUSTOM, refused=True))
        again = site.lines(gateway, TRANSIT_GATEWAY_DEFAULT, refused=True)
        site.cloud.log(SHOP, "/shared", f"{gateway.interface}-all", again)
        site.cloud.log(SHOP, "/shared", f"{only.interface}-all", site.lines(only, DEFAULT))

    return deliver


def one_of_two_ways_to_s3(site: Site) -> Deliver:
    """Both end in one bucket and one queue: one writes there itself, the others through Firehose and a log group."""
    vpc = site.cloud.vpc("both-in-s3")
    flow_log = site.direct(vpc, ALL)
    stream = site.through_firehose("again", "fh/again/", (vpc, REVERSED))
    group = site.central("again-central", "central/again/", (vpc, DEFAULT))

    def deliver() -> None:
        site.put(key(SHOP, flow_log), with_header(site.lines(vpc, ALL), ALL))
        site.put(firehose_key("fh/again/", stream), messages(site.lines(vpc, REVERSED, refused=True)))
        again = envelope(SHOP, group, "eni-all", site.lines(vpc, DEFAULT, refused=True))
        site.put(firehose_key("central/again/", "again-central"), members(again))

    return deliver


# --- Firehose -> the agent's endpoint -----------------------------------------------------------------------------


def endpoint_of_a_flow_log(site: Site) -> Deliver:
    vpc, gateway = site.cloud.vpc("endpoint"), site.cloud.gateway("tgw-endpoint")
    url = "https://flows.example.com/"
    stream = site.cloud.delivery_stream("posted", BUCKET, "failed/posted/", url)
    transit = site.cloud.delivery_stream("posted-transit", BUCKET, "failed/transit/", url)
    site.cloud.flow_log(vpc, NAMELESS, "kinesis-data-firehose", stream)
    site.cloud.flow_log(gateway, TRANSIT_GATEWAY_DEFAULT, "kinesis-data-firehose", transit)

    def deliver() -> None:
        site.post(stream, *(messages([line]) for line in site.lines(vpc, NAMELESS)))
        site.post(stream, *(line.encode() for line in site.lines(vpc, NAMELESS)), compress=True)
        site.post(transit, *(messages([line]) for line in site.lines(gateway, TRANSIT_GATEWAY_DEFAULT)))

    return deliver


def endpoint_of_an_unknown_stream(site: Site) -> Deliver:
    """In an account that the agent has no role in: its layout is in the configuration, by name."""
    vpc = site.cloud.vpc("endpoint-unknown")
    stream = f"arn:aws:firehose:{REGION}:{STRANGER}:deliverystream/theirs"
    site.stream_layouts.append({"delivery_stream": "theirs", "log_format": layout_text(REVERSED)})

    def deliver() -> None:
        site.post(stream, *(messages([line]) for line in site.lines(vpc, REVERSED)))
        site.post(stream, *members_of(STRANGER, site.lines(vpc, REVERSED)))

    def members_of(owner: str, lines: list[str]) -> list[bytes]:
        return [members(envelope(owner, "/theirs", "eni-all", [line])) for line in lines]

    return deliver


def endpoint_of_a_transit_gateways_destination(site: Site) -> Deliver:
    gateway, layout = site.cloud.gateway("tgw-posted", BANK), TRANSIT_GATEWAY_DEFAULT
    url = "https://flows.example.com/"
    arn = site.cloud.delivery_stream("posted-transit-central", BUCKET, "failed/transit-central/", url)
    site.cloud.log_group(BANK, "/posted-transit", site.cloud.destination("posted-transit-central", arn))
    site.cloud.flow_log(gateway, layout, "cloud-watch-logs", "/posted-transit")

    def deliver() -> None:
        site.post(arn, members(envelope(BANK, "/posted-transit", "tgw-all", site.lines(gateway, layout))))

    return deliver


def endpoint_of_a_destination(site: Site) -> Deliver:
    """Log groups of two accounts behind a destination, posted: an envelope is a record."""
    shop, bank = site.cloud.vpc("posted-shop"), site.cloud.vpc("posted-bank", BANK)
    arn = site.cloud.delivery_stream("posted-central", BUCKET, "failed/central/", "https://flows.example.com/")
    destination = site.cloud.destination("posted-central", arn)
    for vpc, layout in ((shop, REVERSED), (bank, DEFAULT)):
        site.cloud.log_group(vpc.account, "/posted", destination)
        site.cloud.flow_log(vpc, layout, "cloud-watch-logs", "/posted")

    def deliver() -> None:
        parts = [
            CONTROL,
            envelope(SHOP, "/posted", "eni-all", site.lines(shop, REVERSED)),
            envelope(BANK, "/posted", "eni-all", site.lines(bank, DEFAULT)),
        ]
        site.post(arn, *(members(part) for part in parts))

    return deliver


PATHS: tuple[Callable[[Site], Deliver], ...] = (
    s3_text,
    s3_hive_hourly_prefix,
    s3_hourly,
    s3_parquet,
    s3_transit_gateway,
    s3_transit_gateway_parquet,
    firehose_of_the_same_account,
    firehose_lines_of_json,
    firehose_run_of_objects,
    firehose_bare_lines,
    firehose_several_lines_in_one_record,
    firehose_two_formats,
    firehose_parquet,
    firehose_transit_gateway,
    firehose_transit_gateway_parquet,
    firehose_error_output,
    firehose_of_an_unknown_flow_log,
    central_members,
    central_twice_compressed,
    central_decompressed,
    central_of_an_unknown_account,
    central_transit_gateway,
    central_transit_gateway_twice_compressed,
    transit_gateways_that_records_do_not_name,
    export_task,
    export_task_by_configuration,
    export_task_of_a_transit_gateway,
    cloudwatch_api,
    cloudwatch_configured,
    s3_before_cloudwatch,
    one_of_two_ways_to_s3,
    endpoint_of_a_flow_log,
    endpoint_of_an_unknown_stream,
    endpoint_of_a_destination,
    endpoint_of_a_transit_gateways_destination,
)

__all__ = ["BUCKET", "HOME", "PATHS", "QUEUE", "Site"]
