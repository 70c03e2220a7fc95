"""An inventory from a file, without a state and without AWS: for `export --inventory`.

In: the JSON of a snapshot. Out: an Enricher whose numbers follow from the ids alone, so that two runs agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

from edfn_agent.enrich import Enricher
from edfn_agent.inventory.directory import Indexes, InventoryDirectory
from edfn_agent.inventory.exporters import UNATTRIBUTED, Exporters
from edfn_agent.inventory.mapped import DEFAULT_POOL, MOST_INDEX
from edfn_agent.inventory.model import Snapshot
from edfn_agent.inventory.surroundings import InventorySurroundings
from edfn_agent.numbers import free_number


class InventoryError(ValueError):
    """An inventory file that cannot be used."""


def from_file(
    path: Path, addresses: Mapping[str, IPv4Address], default: IPv4Address | None, *, names: bool
) -> Enricher:
    """An Enricher from a stored snapshot, without a state: for `export --inventory`. Raises InventoryError."""
    try:
        snapshot = Snapshot.from_json(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise InventoryError(f"{path}: {error}") from None
    configured = {key: address for key, address in addresses.items() if key.startswith(("vpc-", "tgw-"))}
    if default is not None:
        configured.setdefault(UNATTRIBUTED, default)
    exporters = Exporters(configured, [DEFAULT_POOL], None, snapshot)
    directory = InventoryDirectory(snapshot, exporters, stateless_indexes())
    return Enricher(directory, InventorySurroundings(snapshot, directory, names=names))


def stateless_indexes() -> Indexes:
    """Interface indexes that follow from the ids alone, so that two runs agree with nothing stored."""
    taken: dict[int, str] = {}
    known: dict[str, int] = {}

    def indexes(names: Mapping[str, str]) -> Mapping[str, int]:
        for key in names:
            if key not in known:
                known[key] = free_number(key, MOST_INDEX, taken)
                taken[known[key]] = key
        return {key: known[key] for key in names}

    return indexes
