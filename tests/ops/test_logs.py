"""What is logged, literally: structlog and logging in, lines out."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading

import pytest
import structlog

log = structlog.get_logger("edfn.inputs.s3")
NOON = "2026-01-01T00:00:00.000Z"


def test_one_line_says_time_level_event_and_facts(written):
    out = written()
    log.warning("source fails", source="https://sqs/q", next_try_s=1.5, error="access denied")
    assert out.lines() == [f'{NOON} warning source fails source=https://sqs/q next_try_s=1.5 error="access denied"']


def test_json_is_one_object_a_line(written):
    out = written(format="json")
    log.info("reading queue", source="q", count=3, names=["a", "b"], none=None)
    assert [json.loads(line) for line in out.lines()] == [
        {"time": NOON, "level": "info", "logger": "edfn.inputs.s3", "event": "reading queue"}
        | {"source": "q", "count": 3, "names": ["a", "b"], "none": None}
    ]


def test_the_standard_library_goes_the_same_way(written):
    out = written()
    logging.getLogger("edfn_agent.export").warning("udp://192.0.2.10:4739: %s", "refused", extra={"collector": "c"})
    logging.getLogger("botocore.hooks").warning("odd")
    assert out.lines() == [
        f"{NOON} warning udp://192.0.2.10:4739: refused collector=c",
        f"{NOON} warning odd logger=botocore.hooks",
    ]


def test_the_level_holds_for_both_and_libraries_are_kept_down(written):
    out = written("info")
    log.debug("no")
    logging.getLogger("edfn_agent.x").debug("no")
    logging.getLogger("apscheduler.executors").info("Running job")
    assert out.lines() == []
    out = written("debug")
    log.debug("yes")
    logging.getLogger("botocore.endpoint").debug("Making request with headers Authorization: AWS4-HMAC-SHA256 ...")
    assert [line.split()[2] for line in out.lines()] == ["yes"]


def test_a_fact_cannot_write_a_line_of_its_own(written):
    out = written()
    log.warning("malformed line", text='2 1234\n<3>forged "x" \x1b[31m\u2028\udc80\\')
    assert out.lines() == [
        f'{NOON} warning malformed line text="2 1234\\n<3>forged \\"x\\" \\x1b[31m\\u2028\\udc80\\\\"'
    ]
    out = written(format="json")
    log.warning("malformed\nline", text="a\nb\u2028")
    (line,) = out.lines()
    assert json.loads(line)["text"] == "a\nb\u2028"


def test_a_fact_of_a_megabyte_is_cut(written):
    out = written()
    log.warning("malformed line", text="x" * 1_000_000)
    (line,) = out.lines()
    assert len(line) < 2_200
    assert "characters)" in line


def test_an_exception_is_one_line_in_text_and_whole_in_json(written):
    def fail() -> None:
        try:
            raise ValueError("bad\nline")
        except ValueError:
            log.exception("reading failed", object="k")

    out = written()
    fail()
    (line,) = out.lines()
    assert 'error   reading failed object=k exception="ValueError: bad\\nline" at=test_logs.py:' in line
    out = written(format="json")
    fail()
    entry = json.loads(out.lines()[0])
    assert entry["level"] == "error"
    assert entry["traceback"].startswith("Traceback (most recent call last):\n")


def test_a_thread_that_dies_is_said(written):
    out = written()

    def die() -> None:
        raise RuntimeError("no more")

    thread = threading.Thread(target=die, name="reader-1")
    thread.start()
    thread.join()
    (line,) = out.lines()
    assert "critical a thread ended by a fault logger=edfn" not in line
    assert 'thread=reader-1 exception="RuntimeError: no more"' in line


def test_a_faulty_log_call_is_no_fault_of_the_agent(written):
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError

    out = written()
    log.info("odd", thing=Odd())
    logging.getLogger("edfn_agent.x").warning("%d things", "many")
    first, second = out.lines()
    assert "a log message is faulty text='odd' error=RuntimeError" in first.replace('"', "")
    assert "a log message is faulty" in second


def test_a_stream_that_is_closed_stops_nobody(written):
    out = written()
    out._stream.close()
    log.info("unheard")
    out._stream = type(out._stream)()


def test_configure_again_replaces_and_close_restores(written):
    before = logging.getLogger().handlers[:]
    first = written("debug")
    second = written("error")
    log.warning("no")
    log.error("yes")
    assert first.lines() == []
    assert [line.split()[1:3] for line in second.lines()] == [["error", "yes"]]
    second.log.close()
    assert [h for h in logging.getLogger().handlers if type(h).__module__ == "edfn_agent.ops.logs"] == []
    assert len(logging.getLogger().handlers) == len(before)


@pytest.mark.parametrize("format", ["text", "json"])
def test_the_journal_gets_priorities_and_keeps_the_time_itself(tmp_path, format):
    """As systemd starts it: standard error is what JOURNAL_STREAM names."""
    program = (
        "import structlog, sys; from edfn_agent.ops.logs import configure; "
        f"configure('debug', {format!r}); log = structlog.get_logger('edfn'); "
        "log.debug('d'); log.info('i'); log.warning('w'); log.error('e')"
    )
    with open(tmp_path / "journal", "w+") as journal:
        status = os.fstat(journal.fileno())
        for stream, prefixes in ((f"{status.st_dev}:{status.st_ino}", "7643"), ("1:2", "")):
            journal.seek(0)
            journal.truncate()
            environment = {**os.environ, "JOURNAL_STREAM": stream}
            subprocess.run([sys.executable, "-c", program], stderr=journal, env=environment, check=True)
            journal.seek(0)
            lines = journal.read().splitlines()
            if prefixes:
                assert [line[:3] for line in lines] == [f"<{n}>" for n in prefixes]
                assert format == "json" or lines[2] == "<4>warning w"
            else:
                assert len(lines) == 4
                assert not lines[0].startswith("<")
