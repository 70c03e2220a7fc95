"""The CloudWatch Logs input: every log group read by API, each with a reader of its own (group_reader.py).

In: log groups, clients, settings. Out: deliveries, to `submit`. Groups share their accounts' quotas, and the octets
that may be on their way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from edfn_agent.delivery import Delivery
from edfn_agent.formats.layout import Layout
from edfn_agent.inputs.allowance import Allowance
from edfn_agent.inputs.clock import Clock
from edfn_agent.inputs.group_reader import PENDING, GroupReader, Settings
from edfn_agent.inputs.log_groups import LogGroup
from edfn_agent.inputs.quota import Quotas
from edfn_agent.inputs.readers import Readers
from edfn_agent.ops.metrics import Metrics
from edfn_agent.state import State

log = structlog.get_logger("edfn.inputs.cloudwatch")


class CloudWatchInput(Readers[LogGroup, Settings]):
    def __init__(
        self,
        clients: Callable[[str, str, str], Any],
        submit: Callable[[Delivery], object],
        state: State,
        metrics: Metrics,
        settings: Settings | None = None,
        clock: Clock | None = None,
        layout_for: Callable[[str], Layout | None] = lambda arn: None,
        done_elsewhere: Callable[[str], float | None] = lambda arn: None,
    ) -> None:
        super().__init__(settings or Settings(), metrics, clock or Clock())
        self._clients, self._submit, self._state = clients, submit, state
        self._layout_for, self._done_elsewhere = layout_for, done_elsewhere
        self.quotas = Quotas(self._clock)
        self._allowance = Allowance(PENDING)

    def _reader(self, source: LogGroup) -> GroupReader:
        return GroupReader(
            source,
            self._clients,
            self._submit,
            self._state,
            self._metrics,
            self._settings,
            self.quotas,
            self._allowance,
            self._clock,
            self._layout_for,
            self._done_elsewhere,
        )

    def _say(self, source: LogGroup) -> None:
        log.info("reading log group", source=source.arn, interval_s=self._settings.interval)


__all__ = ["CloudWatchInput", "LogGroup", "Settings"]
