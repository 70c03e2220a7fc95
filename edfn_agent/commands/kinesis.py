"""`edfn-agent kinesis`: what has to be done for a stream besides reading it.

Status 0: done, or nothing was to be done. 1: AWS refused. 2: the configuration or the command is wrong.
boto3 and pydantic are imported inside the commands: `edfn-agent --help` must not wait for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import click

from edfn_agent.commands.options import Group, configuration

if TYPE_CHECKING:
    from edfn_agent.config import Config
    from edfn_agent.inputs.kinesis.stream import StreamSettings


@click.group(cls=Group)
def kinesis() -> None:
    """Look after Kinesis streams."""


@kinesis.command()
@click.argument("stream")
@configuration(required=False)
@click.option("--application", metavar="NAME", help="The application name, when it is not the stream's own.")
@click.option("--region", help="Of the stream, when STREAM is a name and not in the configuration.")
def deregister(stream: str, file: str | None, application: str | None, region: str | None) -> None:
    """Remove the enhanced fan-out consumer that the agent registered with STREAM (a name or an ARN).

    The consumer has the application's name, edfn-agent-STREAM unless configured otherwise. It stays when the agent
    stops, because a restart needs it; AWS bills it for as long as it is there. Stop the agents of this application
    first, or switch enhanced_fan_out off: an agent that still reads through it registers it again at its next start.
    """
    from edfn_agent.inputs.kinesis import stream as streams

    config = _loaded(file) if file else None
    settings = _settings(stream, config, application, region)
    client = _client(settings, config)
    try:
        removed = streams.deregister(settings, client)
    except Exception as error:
        _stop(f"{settings.arn}: the consumer was not removed: {error}", 1)
    for name in removed:
        click.echo(f"removed consumer {name} from {settings.arn}")
    if not removed:
        click.echo(f"{settings.arn} has no consumer {settings.application}: nothing to remove")


def _settings(stream: str, config: Config | None, application: str | None, region: str | None) -> StreamSettings:
    from edfn_agent.inputs.kinesis.stream import StreamError, StreamSettings

    kinesis = config.inputs.kinesis if config is not None else None
    listed = kinesis.streams if kinesis is not None and kinesis.streams != "discovered" else ()
    named = [each for each in listed if stream in (each.arn, each.name) and region in (None, each.region)]
    if len(named) > 1:
        _stop(f"{stream!r} is the name of {len(named)} streams in the configuration: give the ARN", 2)
    try:
        if named:
            return StreamSettings(named[0].arn, application_name=application or named[0].application_name)
        arn = stream if stream.startswith("arn:") else _arn(stream, region)
        return StreamSettings(arn, application_name=application)
    except StreamError as error:
        _stop(str(error), 2)


def _arn(name: str, region: str | None) -> str:
    """Of a stream in the account and region that the usual AWS sources lead to."""
    import boto3

    try:
        client = boto3.Session(region_name=region).client("kinesis")
        return str(client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]["StreamARN"])
    except Exception as error:
        _stop(f"stream {name!r} is not in the configuration, and was not found with the usual AWS settings: {error}", 1)


def _client(settings: StreamSettings, config: Config | None) -> Any:
    """Of the stream's account: as the configuration reaches it, else by the usual AWS settings."""
    if config is None:
        import boto3

        return boto3.Session(region_name=settings.region).client("kinesis")
    from edfn_agent.inventory.accounts import Accounts, AwsSettings, NoRegion

    accounts = Accounts(AwsSettings.of(config.aws))
    try:
        rows = accounts.open()
    except NoRegion as error:
        _stop(str(error), 2)
    if not accounts.alive(settings.account_id):
        why = next(
            (row.error for row in rows if row.account_id == settings.account_id), "no role or profile leads to it"
        )
        _stop(f"account {settings.account_id} of {settings.arn} cannot be reached: {why}", 1)
    return accounts.client(settings.account_id, settings.region, "kinesis")


def _loaded(file: str) -> Config:
    from edfn_agent.config import ConfigError, load

    try:
        return load(file)
    except ConfigError as error:
        _stop(str(error), 2)


def _stop(text: str, status: int) -> NoReturn:
    click.echo(text, err=True)
    raise SystemExit(status)
