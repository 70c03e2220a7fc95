"""What is wrong with a configuration, each fault with its place in the file.

In: plain facts. Out: `Fault`, one line of text that an editor can jump to, and `ConfigError`, all of them together.
Never: a value that may be a secret; whoever makes a fault leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing to mend (or, among warnings, to know). Lines and columns count from 1, as editors do."""

    file: str
    line: int | None
    column: int | None
    key: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class ConfigError(Exception):
    """The configuration cannot be used. `faults` is never empty and is in the order of the file."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = sorted(faults, key=lambda fault: (fault.line or 0, fault.column or 0))
        super().__init__("\n".join(map(str, self.faults)))


def key_path(path: Iterable[str | int]) -> str:
    """`("aws", "roles", 0, "arn")` as people write it: `aws.roles[0].arn`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
