"""The agent's log: one line per fact on standard error, for people or as JSON.

In: what structlog's and the standard library's loggers are told, and exceptions that nobody caught. Out: lines, by way
of `repeats` (said once an interval), `redact` (no secrets) and `log_lines` (how it looks). Under systemd the lines
carry their priority and leave the time to the journal. Never: an exception out of a log call, a secret, a line that
botocore writes below `info` (it holds request headers and answers whole).
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

from edfn_agent.ops.log_lines import Format, exception_facts, render
from edfn_agent.ops.redact import Redaction
from edfn_agent.ops.repeats import INTERVAL, Repeats

Level = Literal["debug", "info", "warning", "error"]

_CHATTY = ("botocore", "boto3", "s3transfer", "urllib3", "apscheduler", "asyncio", "werkzeug")
"""Libraries that say at `info` what the agent says itself."""

_RECORD = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"}


class Log:
    """The one log of a process. Made by `configure`."""

    def __init__(
        self,
        level: Level,
        format: Format,
        *,
        stream: TextIO,
        journal: bool,
        interval: float,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.level = level
        self.format: Format = format
        self._stream, self._journal = stream, journal
        self._now, self._monotonic = now, monotonic
        self._repeats = Repeats(interval)
        self._redaction = Redaction()
        self._lock = threading.Lock()
        self._undo = contextlib.ExitStack()

    def hide(self, *secrets: str | None) -> None:
        """Words that must not be seen: external ids, the access key of Firehose, a token."""
        with self._lock:
            self._redaction.hide(*secrets)

    def write(self, entry: dict[str, Any]) -> None:
        try:
            self._write(entry)
        except Exception as error:  # a fact whose str() fails is no reason to stop
            facts = {"logger": "edfn", "event": "a log message is faulty", "text": repr(entry.get("event"))}
            with self._lock:
                self._put([{"level": "warning", **facts, "error": type(error).__name__}])

    def _write(self, entry: dict[str, Any]) -> None:
        error = _exception_of(entry.pop("exc_info", None))
        stack = entry.pop("stack_info", None)
        if stack and self.format == "json":
            entry["stack"] = str(stack)
        if error is not None:
            entry |= exception_facts(error, whole=self.format == "json")
        with self._lock:
            self._put(self._repeats.take(self._redaction(entry), self._monotonic()))

    def tick(self) -> None:
        """Write the counts of repeated lines that are due; to be called now and then, as nobody else may be writing."""
        with self._lock:
            self._put(self._repeats.due(self._monotonic()))

    def close(self) -> None:
        """Write what was held back, and give structlog, logging and the hooks back as they were."""
        self._undo.close()
        with self._lock:
            self._put(self._repeats.rest(self._monotonic()))

    def _put(self, entries: Iterable[dict[str, Any]]) -> None:
        lines = "".join(render(each, self.format, self._now(), journal=self._journal) + "\n" for each in entries)
        if lines:
            with contextlib.suppress(OSError, ValueError):  # a full disk or a closed pipe must not stop the agent
                self._stream.write(lines)
                self._stream.flush()

    def _install(self) -> None:
        number = getattr(logging, self.level.upper())
        before = structlog.get_config() if structlog.is_configured() else None
        self._undo.callback(lambda: structlog.configure(**before) if before else structlog.reset_defaults())
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.PositionalArgumentsFormatter(),
                self._from_structlog,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=_Named,
            cache_logger_on_first_use=False,  # a reload may change the level
        )
        root = logging.getLogger()
        self._undo.callback(_put_back, root, root.handlers[:], root.level)
        root.handlers[:] = [_Handler(self)]
        root.setLevel(number)
        for name in _CHATTY:
            library = logging.getLogger(name)
            self._undo.callback(library.setLevel, library.level)
            library.setLevel(logging.INFO if self.level == "debug" else max(number, logging.WARNING))
        logging.captureWarnings(True)
        self._undo.callback(logging.captureWarnings, False)
        self._undo.callback(_set_hooks, sys.excepthook, threading.excepthook)
        _set_hooks(self._uncaught, self._uncaught_in_thread)

    def _from_structlog(self, logger: WrappedLogger, method: str, entry: EventDict) -> EventDict:
        level = {"warn": "warning", "exception": "error", "fatal": "critical"}.get(method, method)
        self.write({"level": level, "logger": getattr(logger, "name", ""), **entry})
        raise structlog.DropEvent

    def _uncaught(self, kind: type[BaseException], error: BaseException, where: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        self.write({"level": "critical", "logger": "edfn", "event": "the agent ends by a fault", "exc_info": error})

    def _uncaught_in_thread(self, what: threading.ExceptHookArgs) -> None:
        if what.exc_type is SystemExit:
            return
        name = what.thread.name if what.thread is not None else "?"
        event = "a thread ended by a fault"
        entry = {"level": "critical", "logger": "edfn", "event": event, "thread": name, "exc_info": what.exc_value}
        self.write(entry)


_current: Log | None = None


def configure(
    level: Level = "info",
    format: Format = "text",
    *,
    secrets: Iterable[str | None] = (),
    stream: TextIO | None = None,
    interval: float = INTERVAL,
    now: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Log:
    """Make this the log of the process, in place of an earlier one. Call it again after a reload.

    `secrets` are never shown, wherever they stand; `interval` is that of repeated lines, in seconds.
    """
    global _current
    if _current is not None:
        _current.close()
    stream = sys.stderr if stream is None else stream
    log = Log(level, format, stream=stream, journal=to_journal(stream), interval=interval, now=now, monotonic=monotonic)
    log.hide(*secrets)
    log._install()
    _current = log
    return log


def to_journal(stream: TextIO) -> bool:
    """Whether this stream is the journal's. The variable alone does not say so: a shell under a unit inherits it."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class _Named:
    """What structlog wraps: it has a name, and everything is done before it is reached."""

    def __init__(self, name: object = "edfn", *_: object) -> None:
        self.name = str(name)

    def msg(self, *_: object, **__: object) -> None:
        return None

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _Handler(logging.Handler):
    """The standard library's way in: its message is the event, what was given as `extra` are facts."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            entry: dict[str, Any] = {
                "level": record.levelname.lower() if record.levelno % 10 == 0 else "info",
                "logger": record.name,
                "event": record.getMessage().removeprefix(f"{record.name}: "),
            }
            entry |= {name: value for name, value in record.__dict__.items() if name not in _RECORD}
            if record.exc_info:
                entry["exc_info"] = record.exc_info
            self._log.write(entry)
        except Exception:  # a message with the wrong arguments is no reason to stop
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        entry = {"level": "warning", "logger": record.name, "event": "a log message is faulty", "text": str(record.msg)}
        self._log.write(entry)


def _exception_of(exc_info: object) -> BaseException | None:
    """structlog and logging take True, an exception, or the three of sys.exc_info()."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return cast("BaseException | None", exc_info[1])
    return sys.exc_info()[1] if exc_info else None


def _put_back(root: logging.Logger, handlers: list[logging.Handler], level: int) -> None:
    root.handlers[:] = handlers
    root.setLevel(level)


def _set_hooks(uncaught: Any, in_thread: Any) -> None:
    sys.excepthook = uncaught
    threading.excepthook = in_thread
