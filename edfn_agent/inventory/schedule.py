"""When discovery runs: by cron, on demand, never twice at a time.

In: a cron line, a time zone, jitter, and what to run. Out: runs on a thread of their own. Never: a queue of late runs
(what was missed is made up for by one), an exception that ends the schedule.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

DEMAND_PAUSE = 300.0
"""Seconds between runs that flows ask for: a VPC that AWS does not show must not make the agent ask for ever."""


log = logging.getLogger("edfn.schedule")


class Waiting(Protocol):
    """A run that is to come."""

    def start(self) -> None: ...
    def cancel(self) -> None: ...


class Schedule:
    """Runs `work` on `cron` (five fields) and on request. APScheduler keeps the time, this class the pauses."""

    def __init__(
        self,
        work: Callable[[], None],
        cron: str,
        timezone: str = "UTC",
        jitter: float = 0.0,
        *,
        pause: float = DEMAND_PAUSE,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], Waiting] = threading.Timer,
    ) -> None:
        self._work = work
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._running = threading.Lock()
        self._last: float | None = None  # when the last run began
        self._waiting: Waiting | None = None  # the run on demand that is to come; there is never more than one
        self._stopped = False
        self._later = later
        self._scheduler = _scheduler(timezone)
        self._job = self._scheduler.add_job(self._run, trigger(cron, timezone, jitter), id="discovery")

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """No run begins after this; one that is under way is not waited for."""
        with self._lock:
            self._stopped = True
            if self._waiting is not None:
                self._waiting.cancel()
        self._scheduler.shutdown(wait=False)

    def reschedule(self, cron: str, timezone: str = "UTC", jitter: float = 0.0) -> None:
        self._job.reschedule(trigger(cron, timezone, jitter))

    @property
    def next_run(self) -> datetime | None:
        found = getattr(self._job, "next_run_time", None)
        return found if isinstance(found, datetime) else None

    def run_now(self) -> None:
        """For SIGHUP and the start: a run at once, or right after the one that is under way."""
        self._ask(0.0)

    def request(self) -> bool:
        """For flows that name what is not known: a run, at most one in five minutes. True when this asked for one."""
        with self._lock:
            if self._waiting is not None:
                return False
            # A first run is not waited for: it may be minutes away by cron.
            wait = 0.0 if self._last is None else max(0.0, self._last + self._pause - self._clock())
        self._ask(wait)
        return True

    def _ask(self, wait: float) -> None:
        with self._lock:
            if self._stopped:
                return
            if self._waiting is not None:
                self._waiting.cancel()
            # No job of APScheduler's: one that removes itself while the scheduler stops ends in a traceback.
            self._waiting = self._later(wait, self._run)
            if isinstance(self._waiting, threading.Thread):
                self._waiting.daemon = True
            self._waiting.start()

    def _run(self) -> None:
        with self._running:  # a run by cron and one on demand wait for each other
            with self._lock:
                if self._stopped:
                    return
                self._last = self._clock()
                if self._waiting is not None:  # this run is what it asked for
                    self._waiting.cancel()
                    self._waiting = None
            try:
                self._work()
            except Exception:
                log.exception("discovery failed; it is tried again at the next time of the schedule")


def trigger(cron: str, timezone: str, jitter: float) -> Any:
    """A cron trigger. The configuration has checked the line, with weekdays as names."""
    from apscheduler.triggers.cron import CronTrigger

    made = CronTrigger.from_crontab(cron, timezone)
    made.jitter = int(jitter) or None
    return made


def _scheduler(timezone: str) -> Any:
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    return BackgroundScheduler(
        timezone=timezone,
        executors={"default": ThreadPoolExecutor(1)},
        # Late or missed runs are one run, however late: a laptop that slept for a day must not ask AWS a hundred times.
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )
