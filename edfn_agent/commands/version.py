"""`edfn-agent version`: of the agent, and with --all of everything it stands on."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from edfn_agent import __version__

_LIBRARIES = (
    *("numpy", "isal", "boto3", "botocore", "pydantic", "APScheduler", "structlog", "prometheus-client"),
    *("pyarrow", "scapy", "moto"),
)


@click.command()
@click.option("--all", "everything", is_flag=True, help="Python, the compiled scanner, libraries, Java, KCL.")
def version(everything: bool) -> None:
    """Print the version, and with --all the versions of what it stands on."""
    click.echo(f"edfn-agent {__version__}")
    if not everything:
        return
    from edfn_agent.formats import COMPILED

    click.echo(f"Python {platform.python_version()} on {platform.platform()}")
    click.echo(f"scanner {'compiled' if COMPILED else 'plain Python (the compiled one could not be built here)'}")
    for name in _LIBRARIES:
        try:
            click.echo(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            click.echo(f"{name} not installed")
    from edfn_agent.inputs.kinesis.java import versions

    for name, text in versions().items():
        click.echo(f"{name} {text}")
