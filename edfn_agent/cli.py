"""The command `edfn-agent`: names the commands, parses nothing else. Each command is imported when it is called."""

from __future__ import annotations

import importlib
import sys

import click

from edfn_agent import __version__

_SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    # section: name: (where it is, what --help says of it)
    "On this machine, without AWS": {
        "demo": ("demo:demo", "Show all of it, with nothing configured."),
        "export": ("export:export", "Send flow-log files to collectors or into a file."),
        "report": ("report:report", "Top talkers and rejected traffic in flow-log files."),
        "collect": ("look:collect", "Receive IPFIX and show it: a small collector."),
        "decode": ("look:decode", "Show what is in an IPFIX file or a packet capture."),
        "elements": ("elements:elements", "List the elements of profile aws, to teach a collector."),
    },
    "The service": {
        "config": ("config:config", "Print an example configuration or its JSON Schema."),
        "validate": ("config:validate", "Every fault in a configuration, with the right key."),
        "run-now": ("run_now:run_now", "Discover accounts, VPCs, exporters and sources now."),
        "doctor": ("doctor:doctor", "Is all that it needs reachable and allowed?"),
        "run": ("run:run", "Read every source, export, acknowledge: the service."),
        "exporters": ("exporters:exporters", "The exporter of every VPC; set or release an address."),
        "quarantine": ("quarantine:quarantine", "List, show and retry what could not be read."),
    },
    "AWS": {
        "setup": ("setup:setup", "Write what AWS needs: policies, roles, queues, streams."),
        "flow-logs": ("flow_logs:flow_logs", "The flow logs of every account; VPCs that have none."),
        "kinesis": ("kinesis:kinesis", "Look after streams: deregister a fan-out consumer."),
    },
    "This program": {
        "version": ("version:version", "Print versions."),
    },
}
_COMMANDS = {name: place for section in _SECTIONS.values() for name, (place, _) in section.items()}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[name].partition(":")
        command = getattr(importlib.import_module(f"edfn_agent.commands.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, _COMMANDS))
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), text) for name, (_, text) in commands.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="edfn-agent")
def main() -> None:
    """AWS VPC and Transit Gateway flow logs as standard IPFIX: every VPC one more router to a collector.

    Begin with a look at all of it, with a file, or with a configuration:

    \b
    edfn-agent demo
    edfn-agent export FILE --collector udp://HOST:4739
    edfn-agent config example > edfn-agent.yaml
    """


if __name__ == "__main__":
    sys.exit(main())
