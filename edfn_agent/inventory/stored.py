"""The inventory of the last discovery, as the state keeps it.

In: the state. Out: the snapshot, or nothing where there is none that can be read. Never: an exception; one of another
version, or damaged, is told of and is as good as none: the next discovery writes a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edfn_agent.inventory.model import Snapshot

if TYPE_CHECKING:
    from edfn_agent.state import State


def stored_snapshot(state: State | None, tell: Callable[[Exception], None] | None = None) -> Snapshot | None:
    """None without a state, too. `tell` hears why what is there cannot be read."""
    from edfn_agent.state import StateError

    if state is None:
        return None
    try:
        stored = state.snapshot.load()
        return Snapshot.from_json(stored.data) if stored is not None else None
    except (StateError, ValueError) as error:
        if tell is not None:
            tell(error)
        return None
