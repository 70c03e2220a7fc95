"""The agent's memory: one SQLite file in one directory, shared by the running agent, its workers and the commands.

In: exporter assignments, interface numbers, the last inventory, cursors, what was seen already, what is quarantined,
how much each exporter carried. Out: the same, after a restart. Never: flow records (except quarantined payloads),
secrets, anything whose loss would lose data. Losing the directory costs duplicates and new numbers.
"""

from __future__ import annotations

import os
from pathlib import Path

from edfn_agent.state.assignments import Assignment, AssignmentConflict, Assignments, Interfaces, free_number
from edfn_agent.state.database import Database, StateError
from edfn_agent.state.progress import Cursors, Seen
from edfn_agent.state.quarantine import Quarantine, Quarantined
from edfn_agent.state.stored import StoredSnapshots, Traffic

FILE_NAME = "state.sqlite3"


class State:
    """Everything kept in `directory` (made when absent, for its owner only). Safe to use from several threads."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.path = Path(directory) / FILE_NAME
        self._database = database = Database(self.path)
        with database.read():  # so that a directory that cannot be used is told at once, to the one who can say so
            pass
        self.assignments = Assignments(database)
        self.interfaces = Interfaces(database)
        self.quarantine = Quarantine(database)
        self.snapshot = StoredSnapshots(database)
        self.cursors = Cursors(database)
        self.seen = Seen(database)
        self.traffic = Traffic(database)

    @property
    def problem(self) -> str:
        """What is wrong with it now, for health; "" when it works."""
        return self._database.problem

    def try_again(self) -> None:
        """Whether it works again, when it did not. Raises StateError while it does not."""
        if self._database.problem:
            self._database.try_again()

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> State:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["Assignment", "AssignmentConflict", "Quarantined", "State", "StateError", "free_number"]
