"""The command `edfn-agent`: names the commands, parses nothing else. Each command is imported when it is called."""

from __future__ import annotations

import importlib
import sys

import click

from edfn_agent import __version__

_COMMANDS: dict[str, tuple[str, str]] = {
    # name: (where it is, what --help says of it)
    "export": ("export:export", "Send flow-log files to collectors or into a file."),
    "collect": ("look:collect", "Receive IPFIX and show it: a small collector."),
    "decode": ("look:decode", "Show what is in an IPFIX file or a packet capture."),
    "elements": ("elements:elements", "List the enterprise elements of profile aws, to teach a collector."),
    "demo": ("demo:demo", "Show all of it on this machine, with nothing configured."),
    "run": ("run:run", "Run the service: read every source, export, acknowledge."),
    "run-now": ("inventory:run_now", "Discover accounts, VPCs, exporters and sources now; print and store them."),
    "exporters": ("inventory:exporters", "List the exporter of every VPC; set or release an address."),
    "validate": ("config:validate", "Check a configuration file: every fault, with the nearest right key."),
    "config": ("config:config", "Print an example configuration or its JSON Schema."),
    "doctor": ("doctor:doctor", "Check that all the configuration needs is reachable and allowed."),
    "setup": ("setup:setup", "Write what AWS needs: policies, roles, flow logs, queues, streams."),
    "flow-logs": ("flow_logs:flow_logs", "List the flow logs of every account, and the VPCs that have none."),
    "quarantine": ("quarantine:quarantine", "List, show and retry what could not be read."),
    "kinesis": ("kinesis:kinesis", "Look after Kinesis streams: deregister a fan-out consumer."),
    "report": ("report:report", "Top talkers and rejected traffic in flow-log files."),
    "version": ("version:version", "Print versions."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[name][0].partition(":")
        command = getattr(importlib.import_module(f"edfn_agent.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            raise click.UsageError(error.message + (f" Did you mean {near[0]!r}?" if near else ""), ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="edfn-agent")
def main() -> None:
    """AWS VPC and Transit Gateway flow logs as standard IPFIX: every VPC one more router to a collector.

    Begin with `edfn-agent demo`, or with a file: edfn-agent export FILE --collector udp://HOST:4739
    """


if __name__ == "__main__":
    sys.exit(main())
