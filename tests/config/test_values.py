"""Durations, times and cron lines: what is written is what is meant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edfn_agent.config import ListenAddress, format_duration, parse_duration
from edfn_agent.config.times import parse_cron


@pytest.mark.parametrize(
    ("text", "seconds", "printed"),
    [
        ("500ms", 0.5, "500ms"),
        ("30s", 30, "30s"),
        ("5m", 300, "5m"),
        ("1h", 3600, "1h"),
        ("1d", 86400, "1d"),
        ("90", 90, "90s"),
        ("1.5h", 5400, "90m"),
        ("0", 0, "0s"),
        ("24 h", 86400, "1d"),
        ("0.0001", 0.0001, "0.0001s"),
    ],
)
def test_durations(text, seconds, printed):
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == printed


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1h30m", "1e3", "inf", "nan", "٣s", "9" * 40, None, True, [1]])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="is no duration: write 500ms, 30s, 5m, 1h, 1d, or plain seconds"):
        parse_duration(text)


@given(st.integers(0, 10**12).map(lambda ms: ms / 1000) | st.floats(0, 10**9).map(lambda s: round(s, 6)))
def test_a_printed_duration_is_read_back(seconds):
    assert parse_duration(format_duration(seconds)) == seconds
    assert parse_duration(str(format_duration(seconds))) == parse_duration(seconds)


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("*/15 * * * *", "*/15 * * * *"),
        ("0 6 * * 0", "0 6 * * sun"),
        ("0 6 * * 7", "0 6 * * sun"),
        ("0 6 * * 1-5", "0 6 * * mon,tue,wed,thu,fri"),
        ("0 6 * * 5-7", "0 6 * * fri,sat,sun"),
        ("0 6 * * */2", "0 6 * * sun,tue,thu,sat"),
        ("0 6 * * mon-fri", "0 6 * * mon-fri"),
        ("0 6 1 jan 0,3", "0 6 1 jan sun,wed"),
    ],
)
def test_cron_counts_weekdays_from_sunday_and_apscheduler_from_monday(written, kept):
    assert parse_cron(written) == kept


def test_the_kept_cron_line_means_the_same_day_to_apscheduler():
    from apscheduler.triggers.cron import CronTrigger

    trigger = CronTrigger.from_crontab(parse_cron("0 6 * * 0"), "UTC")
    monday = datetime(2026, 11, 2, tzinfo=UTC)
    assert trigger.get_next_fire_time(None, monday).strftime("%a %H:%M") == "Sun 06:00"


@pytest.mark.parametrize(
    "line", ["60 * * * *", "* * 32 * *", "* * * 13 *", "* * * * 8", "* * * * */0", "@daily * * * *"]
)
def test_what_is_no_cron_line(line):
    with pytest.raises(ValueError, match=r"is no cron line: the (minute|day of month|month|day of week) is none"):
        parse_cron(line)


def test_where_to_begin(loaded):
    text = "collectors: [udp://h]\ninputs: {cloudwatch_logs: {start_from: %s}}"
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    for written, first in [
        ("now", now),
        ("1h", now - timedelta(hours=1)),
        ("2026-01-01T00:00:00+01:00", datetime(2025, 12, 31, 23, tzinfo=UTC)),
        ("2026-01-01", datetime(2026, 1, 1, tzinfo=UTC)),
    ]:
        assert loaded(text % written).inputs.cloudwatch_logs.first_time(now) == first


def test_a_kinesis_stream_is_an_arn_or_more(loaded):
    a, b = loaded(
        """\
        collectors: [udp://h]
        inputs:
          kinesis:
            streams:
              - arn:aws:kinesis:us-east-1:999999999999:stream/a
              - {arn: "arn:aws-us-gov:kinesis:us-gov-west-1:111111111111:stream/b", initial_position: 2026-01-31T12:00Z}
        """
    ).inputs.kinesis.streams
    assert (a.name, a.region, a.account_id, a.initial_position) == ("a", "us-east-1", "999999999999", "TRIM_HORIZON")
    assert (b.name, b.region, b.initial_position) == ("b", "us-gov-west-1", datetime(2026, 1, 31, 12, tzinfo=UTC))


def test_java_options_are_words(loaded):
    config = loaded("collectors: [udp://h]\ninputs: {kinesis: {java_options: -Xmx1g '-Da=b c'}}")
    assert config.inputs.kinesis.java_options == ("-Xmx1g", "-Da=b c")


def test_http_may_be_off(loaded):
    assert loaded("collectors: [udp://h]").http.listen == ListenAddress("127.0.0.1", 9465)
    assert loaded("collectors: [udp://h]\nhttp: {listen: off}").http.listen is None
    assert loaded("collectors: [udp://h]\nhttp: {listen: '[::1]:0'}").http.listen == ListenAddress("::1", 0)
