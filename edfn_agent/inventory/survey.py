"""The inventory as commands see it: the last snapshot with its plan of sources, exporters and findings.

In: the configuration and the state. Out: all of that, as it was stored, or discovered anew. Never: a lost inventory: a
state that cannot be written is a finding. The service keeps its own (`current`), with what enrichment needs besides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edfn_agent.inventory.accounts import Accounts, AwsSettings
from edfn_agent.inventory.discovery import Discovery, Progress
from edfn_agent.inventory.exporters import Exporters, configured_addresses
from edfn_agent.inventory.model import Changes, Finding, Snapshot, changes
from edfn_agent.inventory.sinks import Wishes
from edfn_agent.inventory.sources import EnabledInputs, SourcePlan
from edfn_agent.inventory.stored import stored_snapshot

if TYPE_CHECKING:
    from edfn_agent.state import State


class Survey:
    """For one command; not shared between threads."""

    def __init__(self, config: Any, state: State | None, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._state = state
        self._clock = clock
        stored = stored_snapshot(state)
        self.has_snapshot = stored is not None  # False: nothing was ever discovered with this state
        self.snapshot = stored or Snapshot(at=0.0)
        self.plan = SourcePlan(self.snapshot, EnabledInputs.of(config.inputs))
        self.exporters = Exporters(configured_addresses(config.exporters), config.exporters.pool, state, stored)
        self._troubles: tuple[Finding, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Of discovery, plan, exporters and state, the gravest first."""
        found = (*self.snapshot.findings, *self.plan.findings, *self.exporters.table.findings, *self._troubles)
        return tuple(sorted(dict.fromkeys(found), key=lambda each: each.weight))

    def discover(self, progress: Progress | None = None) -> Changes:
        """Asks AWS and stores the answer. Raises NoRegion; all else is a finding."""
        last = self.snapshot if self.has_snapshot else None
        accounts = Accounts(AwsSettings.of(self._config.aws))
        self.snapshot = Discovery(accounts, Wishes.of(self._config.inputs), self._clock).run(last, progress)
        self.has_snapshot = True
        self.plan = SourcePlan(self.snapshot, EnabledInputs.of(self._config.inputs))
        self.exporters.refresh(self.snapshot)
        self._troubles = self._store()
        return changes(last, self.snapshot)

    def _store(self) -> tuple[Finding, ...]:
        from edfn_agent.state import StateError

        if self._state is None:
            problem = "the state cannot be opened, so what was found is not kept, and addresses may differ next time"
            step = "run the command as the agent's user, or mend state_directory"
            return (Finding("error", None, None, str(self._config.state_directory), problem, step, "machine.state"),)
        try:
            self._state.snapshot.save(self.snapshot.to_json(), self.snapshot.at)
        except StateError as error:
            problem = f"the inventory cannot be stored: {error}"
            step = "mend the directory; until then a start without network has an old inventory or none"
            return (Finding("error", None, None, str(self._config.state_directory), problem, step, "machine.state"),)
        return ()
