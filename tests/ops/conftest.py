from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import pytest

from edfn_agent.ops.logs import Log, configure


class Ticks:
    """Time that a test moves on by hand."""

    def __init__(self) -> None:
        self.now = 1_767_225_600.0  # 2026-01-01T00:00:00Z

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ticks() -> Ticks:
    return Ticks()


class Written:
    """A configured log, and the lines that came out of it."""

    def __init__(self, log: Log, stream: io.StringIO) -> None:
        self.log, self._stream = log, stream

    def lines(self) -> list[str]:
        """What came since the last look."""
        text = self._stream.getvalue()
        self._stream.seek(0)
        self._stream.truncate()
        return text.splitlines()


@pytest.fixture
def written(ticks: Ticks) -> Iterator[Callable[..., Written]]:
    made: list[Log] = []

    def make(level: str = "info", format: str = "text", **options: object) -> Written:
        stream = io.StringIO()
        made.append(configure(level, format, stream=stream, now=ticks, monotonic=ticks, **options))
        return Written(made[-1], stream)

    yield make
    for log in reversed(made):
        log.close()
