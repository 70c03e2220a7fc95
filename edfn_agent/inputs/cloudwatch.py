"""The CloudWatch Logs input: every log group read by API, each with a reader of its own (group_reader.py).

In: groups, from the configuration or from discovery, as often as they change. Out: deliveries, to `submit`. Never: one
group waiting for another, except for the account's quota, which they share; a dead one is tried again with growing
pauses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from edfn_agent.delivery import Delivery
from edfn_agent.formats.layout import Layout
from edfn_agent.inputs.clock import Clock
from edfn_agent.inputs.group_reader import INPUT, GroupReader, Settings
from edfn_agent.inputs.health import Health
from edfn_agent.inputs.log_groups import LogGroup
from edfn_agent.inputs.quota import Quotas
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State

log = structlog.get_logger("edfn.inputs.cloudwatch")


class CloudWatchInput:
    """All groups. `set_groups` starts and stops their readers; `stop_reading`, `stop` end it."""

    def __init__(
        self,
        clients: Callable[[str, str, str], Any],
        submit: Callable[[Delivery], object],
        state: State,
        metrics: Metrics,
        settings: Settings | None = None,
        clock: Clock | None = None,
        layout_for: Callable[[str], Layout | None] = lambda arn: None,
        quotas: Quotas | None = None,
    ) -> None:
        self._clients, self._submit, self._state, self._metrics = clients, submit, state, metrics
        self._settings = settings or Settings()
        self._clock = clock or Clock()
        self._layout_for = layout_for
        self._quotas = quotas or Quotas(self._clock)
        self._readers: dict[LogGroup, GroupReader] = {}
        self._lock = threading.Lock()

    def set_groups(self, wanted: Sequence[LogGroup], timeout: float = 30.0) -> None:
        """Read exactly these from now on. A group that is dropped settles what is on its way, within `timeout`."""
        self._change(wanted, self._settings, timeout)

    def set_settings(self, settings: Settings, timeout: float = 30.0) -> None:
        """Other settings: every group settles what is on its way and goes on with them."""
        self._change(list(self._readers), settings, timeout)

    def _change(self, wanted: Sequence[LogGroup], settings: Settings, timeout: float) -> None:
        with self._lock:
            keep = set(wanted) if settings == self._settings else set()
            self._settings = settings
            gone = [self._readers.pop(group) for group in list(self._readers) if group not in keep]
            _stop_all(gone, self._clock.monotonic() + timeout)
            for reader in gone:
                if reader.group not in wanted:
                    self._metrics.source_failing.remove(INPUT, reader.group.arn)
                    self._metrics.input_lag.remove(INPUT, reader.group.arn)
            for group in wanted:
                if group not in self._readers:
                    self._readers[group] = self._reader(group)
                    self._readers[group].start()
                    log.info("reading log group", source=group.arn, interval_s=settings.interval)

    def _reader(self, group: LogGroup) -> GroupReader:
        return GroupReader(
            group,
            self._clients,
            self._submit,
            self._state,
            self._metrics,
            self._settings,
            self._quotas,
            self._clock,
            self._layout_for,
        )

    def health(self) -> list[Health]:
        return [reader.health() for reader in list(self._readers.values())]

    def stop_reading(self) -> None:
        """At once, without waiting: no new call."""
        for reader in list(self._readers.values()):
            reader.stop_reading()

    def stop(self, timeout: float) -> None:
        """Stop reading, wait `timeout` seconds for what is on its way, store cursors. The pipeline still runs."""
        with self._lock:
            readers = list(self._readers.values())
            self._readers.clear()
            _stop_all(readers, self._clock.monotonic() + timeout)


def _stop_all(readers: Sequence[GroupReader], deadline: float) -> None:
    for reader in readers:
        reader.stop_reading()
    for reader in readers:
        reader.stop(deadline)


__all__ = ["CloudWatchInput", "LogGroup", "Settings"]
