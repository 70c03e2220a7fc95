"""Flow-log text in, IPFIX records out, through the command a person would type."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edfn_agent.cli import main
from edfn_agent.export.mapping import registry
from ipfix import CollectingProcess, FileReader, Message


@dataclass
class Exported:
    """What came out: exit status, messages, and the records in them."""

    status: int
    summary: dict[str, Any]
    stderr: str
    messages: list[Message]

    def _records(self, options: bool) -> list[dict[str, Any]]:
        return [
            {"domain": message.domain, **record}
            for message in self.messages
            for data in message.data
            if data.is_options == options
            for record in data
        ]

    @property
    def flows(self) -> list[dict[str, Any]]:
        return self._records(options=False)

    @property
    def options(self) -> list[dict[str, Any]]:
        return self._records(options=True)


Export = Callable[..., Exported]


def read_messages(path: Path, enterprise_number: int | None = None) -> list[Message]:
    process = CollectingProcess(registry(enterprise_number))
    with path.open("rb") as file:
        messages = [process.receive(octets) for octets in FileReader(file)]
    assert [message.error for message in messages if message.error] == []
    assert [message.unknown for message in messages if message.unknown] == []
    assert [message.gap for message in messages if message.gap] == []
    return messages


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """`export(text, *arguments)`: the records that `edfn-agent export` makes of a file with this text."""

    def run(text: str | bytes | list[str | bytes], *arguments: str, number: int | None = None) -> Exported:
        texts = text if isinstance(text, list) else [text]
        paths = []
        for index, one in enumerate(texts):
            path = tmp_path / f"in{index}.log"
            path.write_bytes(one.encode() if isinstance(one, str) else one)
            paths.append(str(path))
        out = tmp_path / "out.ipfix"
        number_arguments = [] if number is None else ["--profile", "aws", "--enterprise-number", str(number)]
        command = ["export", *paths, "--output", str(out), "--json", *number_arguments, *arguments]
        result = CliRunner().invoke(main, command, catch_exceptions=False)
        lines = result.stdout.splitlines()
        return Exported(
            result.exit_code,
            json.loads(lines[-1]) if result.exit_code != 2 else {},
            result.stderr,
            read_messages(out, number) if out.exists() else [],
        )

    return run
