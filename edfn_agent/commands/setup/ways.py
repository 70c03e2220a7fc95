"""`edfn-agent setup s3 | cloudwatch | kinesis | firehose | firehose-http | central`: one command for each way that
flow logs can take. In: what was typed. Out: a plan, given as was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from edfn_agent.commands.setup.giving import give
from edfn_agent.commands.setup.options import (
    across_accounts,
    bucket,
    bucket_options,
    delivery,
    flow_log_options,
    log_group,
    output,
    place_of,
    shards,
    things,
    told,
    watched_things,
    where,
)


@click.command("s3")
@where
@watched_things
@bucket
@click.option(
    "--source-account", "sources", multiple=True, metavar="ID", help="May deliver too; its flow logs are yours."
)
@click.option("--parquet", is_flag=True, help="Parquet files instead of text.")
@click.option("--hive", is_flag=True, help="Hive-compatible prefixes.")
@click.option("--hourly", is_flag=True, help="A prefix for each hour.")
@output
@told
def s3(**given: Any) -> None:
    """Flow logs to a bucket, with a queue that announces its objects."""
    from edfn_agent.setup.model import Place
    from edfn_agent.setup.s3 import S3Options, plan

    place = place_of(given)
    options = S3Options(
        given["name"],
        place,
        bucket_options(given),
        things(given, place),
        flow_log_options(given),
        tuple(Place(account, place.region) for account in given["sources"]),
        given["parquet"],
        given["hive"],
        given["hourly"],
        given["as_documented"],
    )
    give(plan(options), given)


def _group_options(given: dict[str, Any]) -> Any:
    from edfn_agent.setup.cloudwatch import LogGroupOptions

    return LogGroupOptions(
        given["log_group"], given["role"], given["retention_days"], given["existing_log_group"], given.get("kms", "")
    )


@click.command("cloudwatch")
@where
@watched_things
@log_group
@click.option("--kms", default="", metavar="new|ARN", help="Encrypt with a new KMS key, or with this one.")
@output
@told
def cloudwatch(**given: Any) -> None:
    """Flow logs to a log group, which the agent asks."""
    from edfn_agent.setup.cloudwatch import CloudWatchOptions, plan_cloudwatch

    place = place_of(given)
    options = CloudWatchOptions(
        given["name"],
        _group_options(given),
        things(given, place),
        place,
        flow_log_options(given),
        given["as_documented"],
    )
    give(plan_cloudwatch(options), given)


@click.command("kinesis")
@where
@watched_things
@log_group
@shards
@click.option("--existing-stream", is_flag=True, help="The stream is there already.")
@click.option(
    "--filter", "filter_name", default="edfn-agent", show_default=True, metavar="NAME", help="The subscription filter."
)
@click.option("--role-to-stream", default="", metavar="NAME", help="The role that CloudWatch Logs writes with.")
@click.option("--kms", default="", metavar="new|ARN", help="Encrypt with a new KMS key, or with this one.")
@output
@told
def kinesis(**given: Any) -> None:
    """Flow logs to a log group, which sends them on to a Kinesis stream."""
    from edfn_agent.setup.cloudwatch import KinesisOptions, plan_kinesis

    place = place_of(given)
    options = KinesisOptions(
        given["name"],
        _group_options(given),
        things(given, place),
        place,
        flow_log_options(given),
        given["as_documented"],
        stream=given["stream"],
        stream_exists=given["existing_stream"],
        shards=given["shards"] or None,
        stream_hours=given["stream_hours"],
        filter_name=given["filter_name"],
        role_to_stream=given["role_to_stream"],
    )
    give(plan_kinesis(options), given)


@click.command("firehose")
@where
@watched_things
@bucket
@delivery
@across_accounts
@output
@told
def firehose(**given: Any) -> None:
    """Flow logs to Firehose, in this account or from others, and from there to a bucket with a queue."""
    _firehose(given, None)


@click.command("firehose-http")
@where
@watched_things
@bucket
@delivery
@across_accounts
@click.option("--url", required=True, metavar="URL", help="The agent's endpoint: https://, port 443.")
@click.option("--secret", metavar="ARN", help='The access key, in Secrets Manager: {"api_key": "..."}.')
@click.option(
    "--access-key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The access key (--apply)."
)
@click.option(
    "--retry-seconds",
    type=click.IntRange(0, 7200),
    default=7200,
    show_default=True,
    help="Then the backup bucket has it.",
)
@output
@told
def firehose_http(**given: Any) -> None:
    """Flow logs to Firehose, which posts them to the agent; what fails is kept in a bucket."""
    from edfn_agent.setup.model import HttpEndpoint

    _firehose(given, HttpEndpoint(given["url"], given["secret"], given["retry_seconds"]))


def _firehose(given: dict[str, Any], endpoint: Any) -> None:
    from edfn_agent.setup.firehose import FirehoseOptions, plan

    place = place_of(given)
    options = FirehoseOptions(
        given["name"],
        place,
        # What fails goes to failed/ in the same bucket; without a prefix the queue would be told of that too.
        bucket_options({**given, "prefix": given["prefix"] or "flow-logs/"}),
        things(given, place),
        flow_log_options(given),
        given["delivery_stream"],
        given["delivery_role"],
        given["source_role"],
        given["destination_role"],
        given["buffer_seconds"],
        given["buffer_mib"],
        endpoint,
        given["as_documented"],
    )
    give(plan(options), given)


@click.command("central")
@where
@watched_things
@log_group
@shards
@delivery
@click.option("--bucket", metavar="NAME", help="Through Firehose to this bucket; without it, to a Kinesis stream.")
@click.option("--existing-bucket", is_flag=True, help="It is there already: add to its policy and notifications.")
@click.option("--prefix", default="flow-logs/", show_default=True, metavar="PREFIX", help="In front of every key.")
@click.option("--suffix", default="", metavar="SUFFIX", help="Only such objects are told to the queue.")
@click.option("--queue", default="", metavar="NAME", help="The queue.  [default: the name]")
@click.option(
    "--kms", default="", metavar="new|ARN", help="Encrypt bucket or stream with a new KMS key, or with this one."
)
@click.option(
    "--log-group-kms", default="", metavar="new|ARN", help="The same for the log groups; new: a key in each account."
)
@click.option(
    "--expire-days", type=click.IntRange(0, 3650), default=30, show_default=True, help="Objects are deleted; 0: never."
)
@click.option(
    "--source-account", "sources", multiple=True, metavar="ID", help="May send too; its side is yours to make."
)
@click.option("--organization", metavar="ID", help="Every account of this organization (o-...) may send.")
@click.option(
    "--destination",
    default="VPCFlowLogsDestination",
    show_default=True,
    metavar="NAME",
    help="The destination of CloudWatch Logs.",
)
@click.option(
    "--filter", "filter_name", default="AllTraffic", show_default=True, metavar="NAME", help="The subscription filters."
)
@click.option("--role-to-target", default="", metavar="NAME", help="The role that CloudWatch Logs writes with.")
@output
@told
def central(**given: Any) -> None:
    """Flow logs of many accounts, through CloudWatch Logs, to one account."""
    from edfn_agent.setup.central import CentralOptions, plan

    place = place_of(given)
    options = CentralOptions(
        given["name"],
        place,
        replace(_group_options(given | {"kms": given["log_group_kms"]}), key_id="LogGroupKey"),
        things(given, place),
        bucket_options(given) if given["bucket"] else None,
        flow_log_options(given),
        also_from=given["sources"],
        organization=given["organization"],
        destination=given["destination"],
        filter_name=given["filter_name"],
        delivery_stream=given["delivery_stream"],
        delivery_role=given["delivery_role"],
        stream=given["stream"],
        shards=given["shards"] or None,
        stream_hours=given["stream_hours"],
        stream_kms="" if given["bucket"] else given["kms"],
        role_to_target=given["role_to_target"],
        buffer_seconds=given["buffer_seconds"],
        buffer_mib=given["buffer_mib"],
        as_documented=given["as_documented"],
    )
    give(plan(options), given)
