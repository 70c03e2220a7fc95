"""Accounts that remember what became of every call, and what time AWS said it was.

In: calls, whoever makes them. Out: by account and action, the regions that answered and those that refused; how far
this machine's clock is off. Never: a call of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import partial
from statistics import median
from typing import Any

from edfn_agent.inventory.accounts import Accounts, AwsSettings
from edfn_agent.inventory.problems import iam_action


@dataclass
class Outcomes:
    """What became of one action in one account."""

    answered: set[str] = field(default_factory=set)  # regions; a region may be in both
    refused: set[str] = field(default_factory=set)


class WitnessedAccounts(Accounts):
    """As `Accounts`; discovery and the doctor's own trials use it alike."""

    def __init__(self, settings: AwsSettings, clock: Callable[[], float] = time.time) -> None:
        super().__init__(settings)
        self.outcomes: dict[tuple[str, str], Outcomes] = {}  # (account, action)
        self._skews: list[float] = []
        self._clock = clock
        self._noting = threading.Lock()

    def client(self, account_id: str, region: str, service: str, *, patient: bool = False) -> Any:
        client = super().client(account_id, region, service, patient=patient)
        note = partial(self._note, account_id, region)
        # The same client is handed out again and again; one id keeps it from being noted twice.
        client.meta.events.register("after-call", note, unique_id="doctor")
        return client

    @property
    def skew(self) -> float | None:
        """Seconds that this machine is ahead of AWS; None when nothing answered."""
        with self._noting:
            return median(self._skews) if self._skews else None

    def _note(
        self, account: str, region: str, http_response: Any, parsed: Mapping[str, Any], model: Any, **_: Any
    ) -> None:
        action = iam_action(model.service_model.service_name, model.name)
        with self._noting:
            outcome = self.outcomes.setdefault((account, action), Outcomes())
            (outcome.refused if "Error" in parsed else outcome.answered).add(region)
            date = http_response.headers.get("Date")
            with suppress(TypeError, ValueError):  # an emulator or proxy without a date
                # The header has whole seconds: half of one is its mean age.
                self._skews.append(self._clock() - parsedate_to_datetime(str(date)).timestamp() - 0.5)
