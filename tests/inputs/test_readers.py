"""The readers of an input: begun, dropped, reconfigured, ended."""

from __future__ import annotations

import threading
import time

from structlog.testing import capture_logs

from edfn_agent.inputs.clock import Clock, Deadline
from edfn_agent.inputs.health import Health
from edfn_agent.inputs.readers import SAID, Readers
from edfn_agent.ops.metrics import Metrics


class Reader:
    """Has something in hand until it is let go, or its deadline is over."""

    def __init__(self, name: str, setting: str) -> None:
        self.name, self.setting = name, setting
        self.begun = self.reading = False
        self.settled = threading.Event()
        self.ended = threading.Event()

    def start(self) -> None:
        self.begun = self.reading = True

    def health(self) -> Health:
        return Health("s3", self.name, True, 0.0)

    def stop_reading(self) -> None:
        self.reading = False

    def stop(self, deadline: Deadline) -> None:
        while deadline.left() > 0 and not self.settled.wait(0.01):
            pass
        self.ended.set()


class Input(Readers[str, str]):
    def __init__(self) -> None:
        super().__init__("old", Metrics(), Clock())
        self.made: list[Reader] = []
        self.said: list[str] = []

    def _reader(self, source: str) -> Reader:
        self.made.append(Reader(source, self._settings))
        return self.made[-1]

    def _say(self, source: str) -> None:
        self.said.append(source)


def test_exactly_what_is_wanted_is_read() -> None:
    input = Input()
    input.set_sources(["a", "b"])
    a, b = input.made
    b.settled.set()
    input.set_sources(["a", "c"])
    assert [(each.name, each.reading) for each in input.made] == [("a", True), ("b", False), ("c", True)]
    assert b.ended.is_set()
    for each in input.made:
        each.settled.set()
    input.set_settings("new")
    assert [(each.name, each.setting) for each in input.made[3:]] == [("a", "new"), ("c", "new")]
    assert a.ended.is_set()


def test_many_are_named_in_part() -> None:
    input = Input()
    with capture_logs() as logs:
        input.set_sources([f"queue-{number}" for number in range(SAID + 5)])
    assert len(input.said) == SAID
    assert [(each["event"], each["more"]) for each in logs] == [("reading more, too", 5)]


def test_an_end_brings_a_change_forward_and_nobody_begins_any_more() -> None:
    """The change would wait for an hour for what `a` has in hand."""
    input = Input()
    input.set_sources(["a"])
    change = threading.Thread(target=input.set_sources, args=(["b"], 3600.0), daemon=True)
    change.start()
    end = time.monotonic() + 20
    while input.made[0].reading:
        assert time.monotonic() < end
        time.sleep(0.005)
    input.stop_reading(0.05)
    input.stop(0.05)
    change.join(20)
    assert not change.is_alive()
    assert input.made[0].ended.is_set()
    assert len(input.made) == 1
    input.set_sources(["c"])
    assert len(input.made) == 1
