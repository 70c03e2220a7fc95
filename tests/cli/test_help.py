"""What a person meets first: help in an ordinary terminal, typing errors, a configuration that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from edfn_agent.cli import main


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())
WITH_CONFIGURATION = {
    path: [value for value in ("vpc-0a1b2c3d", "10.0.0.1") if path == ("exporters", "assign")]
    for path, command in COMMANDS.items()
    if any(parameter.name == "file" and "-c" in parameter.opts for parameter in command.params)
    and path not in (("exporters", "release"), ("exporters", "import"), ("kinesis", "deregister"))
    and path[:1] != ("quarantine",)
} | {("quarantine", "list"): [], ("quarantine", "show"): ["1"]}


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, arguments, terminal_width=80, env={"EDFN_AGENT_CONFIG": None, **environment})


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_a_terminal_and_is_not_cut_short(path):
    done = call(*path, "--help")
    assert done.exit_code == 0
    assert [line for line in done.output.splitlines() if len(line) > 80] == []
    assert [line for line in done.output.splitlines()[1:] if line.endswith(("...", "…"))] == []


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_says_what_it_does(path):
    assert [each.name for each in COMMANDS[path].params if isinstance(each, click.Option) and not each.help] == []


def test_no_command_is_help():
    done = call()
    assert done.exit_code == 2
    assert "edfn-agent demo" in done.output


@pytest.mark.parametrize(
    ("typed", "meant"), [(["expot", "f"], "export"), (["runnow"], "run-now"), (["quarantine", "lst"], "list")]
)
def test_a_slip_of_the_finger_is_answered_with_the_command_that_was_meant(typed, meant):
    done = call(*typed)
    assert done.exit_code == 2
    assert f"Did you mean '{meant}'?" in done.output


def test_what_is_like_nothing_is_said_plainly():
    done = call("xyzzy")
    assert (done.exit_code, done.output.splitlines()[-1]) == (2, "Error: No such command 'xyzzy'.")


@pytest.mark.parametrize("path", WITH_CONFIGURATION, ids=" ".join)
def test_a_configuration_that_is_not_there_is_status_2_and_named(path, tmp_path):
    more = WITH_CONFIGURATION[path]
    for file, why in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        done = call(*path, "-c", str(file), *more)
        assert (done.exit_code, done.output) == (2, f"{file}: cannot be read: {why}\n")
        assert call(*path, *more, EDFN_AGENT_CONFIG=str(file)).output == done.output
    done = call(*path, *more)
    assert done.exit_code == 2
    assert "EDFN_AGENT_CONFIG" in done.output


def test_version_all_names_what_a_report_of_a_fault_needs():
    lines = call("version", "--all").output.splitlines()
    assert lines[0].startswith("edfn-agent ")
    for what in (
        "Python ",
        "scanner ",
        "numpy ",
        "boto3 ",
        "pyarrow ",
        "amazon-kclpy ",
        "Kinesis Client Library ",
        "Java ",
    ):
        assert [line for line in lines if line.startswith(what)], what


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes(shell):
    environment = {**os.environ, "COMP_WORDS": "edfn-agent run", "COMP_CWORD": "run" if shell == "fish" else "1"}
    environment["_EDFN_AGENT_COMPLETE"] = f"{shell}_complete"
    command = [sys.executable, "-c", "import sys; sys.argv[0] = 'edfn-agent'; from edfn_agent.cli import main; main()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert "run-now" in done.stdout, done.stderr
    assert "export" not in done.stdout
