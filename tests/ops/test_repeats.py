"""First at once, then one line an interval with how often."""

from __future__ import annotations

import structlog

from edfn_agent.ops.repeats import MOST_FACTS, MOST_OF_AN_EVENT, Repeats

log = structlog.get_logger("edfn")


def said(lines: list[str]) -> list[str]:
    return [line.split(None, 2)[2] for line in lines]


def test_first_at_once_then_a_line_with_the_count(written, ticks):
    out = written()
    for _ in range(100):
        log.warning("send failed", collector="udp://a:1")
    assert said(out.lines()) == ["send failed collector=udp://a:1"]
    ticks.now += 59
    log.warning("send failed", collector="udp://a:1")
    assert out.lines() == []
    ticks.now += 1
    log.warning("send failed", collector="udp://a:1")  # brings the count, and begins the next interval
    assert said(out.lines()) == ["send failed collector=udp://a:1 times=100 in_s=60"]
    ticks.now += 60
    out.log.tick()
    assert said(out.lines()) == ["send failed collector=udp://a:1 times=1 in_s=60"]
    ticks.now += 60
    out.log.tick()
    assert out.lines() == []
    log.warning("send failed", collector="udp://a:1")  # news again
    assert said(out.lines()) == ["send failed collector=udp://a:1"]


def test_passing_numbers_are_the_same_fact_and_names_are_not(written):
    out = written()
    log.warning("fails", source="queue-1", error="timed out after 3 s (request id: 4442587FB7D0A2F9)", next_try_s=1)
    log.warning("fails", source="queue-1", error="timed out after 5 s (request id: 9992587FB7D0A2F9)", next_try_s=2)
    log.warning("fails", source="queue-2", error="timed out after 3 s")
    log.warning("fails", source="queue-2", error="timed out after 31 s")
    log.warning("fails", source="queue-2", error="account 111111111111 denies")
    log.warning("fails", source="queue-2", error="account 222222222222 denies")
    log.error("fails", source="queue-2", error="account 222222222222 denies")
    log.warning("udp://10.0.0.1:4739: refused")
    log.warning("udp://10.0.0.2:4739: refused")
    assert len(out.lines()) == 7


def test_debug_is_whole(written):
    out = written("debug")
    for _ in range(3):
        log.debug("delivery", object="k")
    assert len(out.lines()) == 3


def test_many_things_with_one_fault_write_a_bounded_number_of_lines(written, ticks):
    out = written()
    for number in range(10_000):
        log.warning("access denied", object=f"s3://b/key-{number}")
    lines = said(out.lines())
    assert lines[0] == "access denied object=s3://b/key-0"
    assert len(lines) == MOST_OF_AN_EVENT + 1
    ticks.now += 60
    out.log.tick()
    assert said(out.lines()) == [
        f"access denied object=s3://b/key-9999 times={9_999 - MOST_OF_AN_EVENT} in_s=60 alike=True"
    ]


def test_closing_says_what_was_held_back(written, ticks):
    out = written()
    for _ in range(3):
        log.warning("again")
    ticks.now += 1
    out.log.close()
    assert said(out.lines()) == ["again", "again times=2 in_s=1"]


def test_memory_is_bounded_and_nothing_is_lost():
    repeats = Repeats(60.0)
    written = 0
    for number in range(20_000):
        for entry in repeats.take({"level": "error", "event": f"event {chr(0x4E00 + number % 5_000)}"}, number / 1000):
            written += entry.get("times", 1)
        assert len(repeats._facts) <= MOST_FACTS
    written += sum(entry["times"] for entry in repeats.rest(20.0))
    assert written == 20_000
    assert not repeats._facts
    assert not repeats._events


def test_a_clock_that_stands_still_ends(ticks):
    repeats = Repeats(0.0)
    assert repeats.take({"level": "info", "event": "a"}, 0.0)
    assert repeats.take({"level": "info", "event": "a"}, 0.0)
