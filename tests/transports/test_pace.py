"""Pace: never too many records in any stretch of time, all of them, in order, and the rate is reached."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfn_agent.export.pace import BURST_MESSAGES, CREDIT, Pace
from ipfix import Messages


class Clock:
    """Sleeps oversleep by what the test says, sending takes what the test says."""

    def __init__(self, late: list[float] | None = None) -> None:
        self.now = 100.0
        self.late = itertools.cycle(late or [0.0])

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + next(self.late)


def messages(counts: list[int]) -> Messages:
    """Each message holds its own number."""
    octets = np.frombuffer(b"".join(number.to_bytes(4, "big") for number in range(len(counts))), np.uint8)
    return Messages(octets, np.full(len(counts), 4, np.int64), np.array(counts, np.int64))


@given(
    rate=st.sampled_from([1, 7, 100, 10_000, 100_000, 1_000_000, 50_000_000]),
    counts=st.lists(st.integers(0, 60), max_size=400),
    batches=st.integers(1, 5),
    late=st.lists(st.floats(0, 0.05), min_size=1, max_size=5),
    sending=st.lists(st.floats(0, 0.02), min_size=1, max_size=5),
)
def test_in_any_stretch_of_time_at_most_the_rate_its_credit_and_a_burst(
    rate: int, counts: list[int], batches: int, late: list[float], sending: list[float]
) -> None:
    clock = Clock(late)
    pace = Pace(rate, clock=clock, sleep=clock.sleep)
    takes = itertools.cycle(sending)
    sent: list[tuple[float, int]] = []
    numbers: list[int] = []
    size = len(counts) // batches + 1
    for begin in range(0, len(counts), size):
        part = messages(counts)[begin : begin + size]
        for burst in pace.bursts(part):
            assert 1 <= len(burst) <= BURST_MESSAGES
            assert len(burst) == 1 or burst.records <= rate / 1000
            sent.append((clock.now, burst.records))
            numbers += [int.from_bytes(one, "big") for one in burst]
            clock.now += next(takes)
    assert numbers == list(range(len(counts)))
    most = max((records for _, records in sent), default=0)
    for first in range(len(sent)):
        total = 0
        for at, records in sent[first:]:
            total += records
            assert total <= rate * (at - sent[first][0] + CREDIT) * (1 + 1e-9) + most + 1e-3


@given(st.lists(st.floats(0, CREDIT / 2), min_size=1, max_size=5))
def test_the_rate_is_reached_though_sleeps_are_late(late: list[float]) -> None:
    clock = Clock(late)
    pace = Pace(100_000, clock=clock, sleep=clock.sleep)
    began = clock.now
    for burst in pace.bursts(messages([25] * 8000)):
        assert burst.records == 100  # a millisecond's worth
    assert 2.0 - 0.001 - CREDIT <= clock.now - began <= 2.0 + CREDIT


def test_an_idle_hour_buys_nothing() -> None:
    clock = Clock()
    pace = Pace(10_000, clock=clock, sleep=clock.sleep)
    list(pace.bursts(messages([10] * 100)))
    clock.now += 3600
    began = clock.now
    at = [(clock.now - began, burst.records) for burst in pace.bursts(messages([10] * 100))]
    assert sum(records for when, records in at if when < 0.0005) in (100, 110)  # CREDIT, and the burst in hand
    assert at[-1][0] == pytest.approx(0.1 - CREDIT - 0.001)


def test_zero_is_no_limit() -> None:
    def never(seconds: float) -> None:
        raise AssertionError("slept")

    batch = messages([10] * 1000)
    assert list(Pace(0, sleep=never).bursts(batch)) == [batch]
    assert list(Pace(0, sleep=never).bursts(batch[:0])) == []


def test_templates_alone_cost_nothing_but_come_in_small_bursts_too() -> None:
    clock = Clock()
    bursts = list(Pace(1, clock=clock, sleep=clock.sleep).bursts(messages([0] * 100)))
    assert [len(burst) for burst in bursts] == [46, 46, 8]
    assert clock.now == 100.0


def test_a_rate_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="-1 is below 0"):
        Pace(-1)
