"""What is known of AWS now: the newest snapshot, the exporters, the plan of sources, and the Enricher made of them.

In: a configuration and the state. Out: a `Known`, replaced whole by `discover` (asks AWS), `follow` (a command or
another worker has changed the state) and `reconfigure`. Never: reading flow logs, sending.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from edfn_agent.delivery import Origin
from edfn_agent.enrich import Enricher
from edfn_agent.formats.layout import Layout
from edfn_agent.inputs import keys
from edfn_agent.inventory.directory import InventoryDirectory
from edfn_agent.inventory.exporters import Exporters, configured_addresses
from edfn_agent.inventory.model import Snapshot, changes
from edfn_agent.inventory.sources import EnabledInputs, SourcePlan
from edfn_agent.inventory.stored import stored_snapshot
from edfn_agent.inventory.surroundings import InventorySurroundings
from edfn_agent.numbers import stable_number
from edfn_agent.state import State, StateError

if TYPE_CHECKING:
    from edfn_agent.config import Config
    from edfn_agent.inventory.accounts import Accounts

log = structlog.get_logger("edfn.inventory")

TEMPORARY = 1 << 31
"""Interface indexes from here on are made up from the id, while the state cannot be written."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What is known of an object in S3 before it is read."""

    flow_log_id: str | None
    layouts: Sequence[Layout] = ()  # the likeliest first


@dataclass(frozen=True)
class Known:
    """One view of AWS, consistent in itself."""

    snapshot: Snapshot
    plan: SourcePlan
    directory: InventoryDirectory
    enricher: Enricher


class Current:
    """Keeps the `Known` that is in force. `on_change` is called with each new one."""

    def __init__(self, config: Config, state: State, on_change: Callable[[Known], None]) -> None:
        self._config = config
        self._state = state
        self._on_change = on_change
        self._changing = threading.Lock()
        self._indexes = StoredIndexes(state)
        self._snapshot = self._stored() or Snapshot(at=0.0)
        self.exporters = Exporters(configured_addresses(config.exporters), config.exporters.pool, state, self._snapshot)
        self._services: Any = None
        self.seen_streams: Callable[[], Mapping[str, str]] = dict
        """What the reading of Kinesis streams has shown (`SourcePlan.seen`)."""
        self.known = self._view()

    @property
    def age(self) -> float:
        """Seconds since the snapshot was taken."""
        return time.time() - self._snapshot.at

    @property
    def empty(self) -> bool:
        """Whether nothing was ever discovered."""
        return self._snapshot.at == 0.0

    def discover(self, accounts: Accounts, progress: Callable[[str, int, int], None] | None = None) -> Snapshot:
        """Ask AWS, store what was found, and put it in force. Raises NoRegion."""
        from edfn_agent.inventory.discovery import Discovery
        from edfn_agent.inventory.sinks import Wishes

        snapshot = Discovery(accounts, Wishes.of(self._config.inputs)).run(self._snapshot, progress)
        try:
            self._state.snapshot.save(snapshot.to_json(), snapshot.at)
        except StateError as error:
            log.error("the inventory cannot be stored", error=str(error))
        self._take(snapshot)
        return snapshot

    def follow(self) -> None:
        """Take up what changed in the state: addresses that a command assigned, a snapshot of another worker."""
        try:
            newest = self._state.snapshot.time()
        except StateError:
            return
        if newest is not None and newest > self._snapshot.at:
            stored = self._stored()
            if stored is not None:
                self._take(stored)
                return
        if self.exporters.follow():
            with self._changing:
                self._announce()

    def reconsider(self) -> None:
        """Plan anew when a stream has failed for good since the last plan, or is read again."""
        troubled = {each.arn for each in self._snapshot.streams if each.problem}

        def weighty(seen: Mapping[str, str]) -> set[tuple[str, bool]]:
            return {(arn, bool(why)) for arn, why in seen.items() if why or arn in troubled}

        if weighty(self.seen_streams()) != weighty(self.known.plan.seen):
            with self._changing:
                self._announce()

    def reconfigure(self, config: Config) -> None:
        with self._changing:
            self._config = config
            self._services = None
            self.exporters.reconfigure(configured_addresses(config.exporters), config.exporters.pool)
            self._announce()

    def layouts_of(self, origin: Origin) -> Sequence[Layout]:
        """What discovery knows of an origin, then what the configuration says."""
        found = self.known.plan.layouts_of(origin)
        return found or configured_layouts(self._config, origin)

    def of_object(self, bucket: str, key: str, flow_log_id: str | None) -> ObjectFacts:
        """What is known of an S3 object that has no header line: whose it is, and the layouts it may have.

        Who writes under the longest prefix says it; the configuration where its prefix is longer, or nobody is known.
        """
        plan = self.known.plan
        if flow_log_id is not None and (found := plan.layouts_of_object(bucket, key, flow_log_id)):
            return ObjectFacts(flow_log_id, found)
        writers = plan.writers_of(bucket, key)
        s3 = self._config.inputs.s3
        fits = [each for each in s3.layouts if each.bucket == bucket and key.startswith(each.prefix)] if s3 else []
        longest = max(fits, key=lambda each: len(each.prefix), default=None)
        if longest is not None and (not writers.flow_logs or len(longest.prefix) > len(writers.prefix)):
            return ObjectFacts(flow_log_id, (Layout(longest.log_format),))
        if len(writers.flow_logs) == 1:
            flow_log_id = flow_log_id or writers.flow_logs[0].flow_log_id
        log_stream = keys.facts(key).log_stream if not writers.flow_logs else None
        # Of an export task only the layout: somebody wants these records, though the log group may be read, too.
        return ObjectFacts(flow_log_id, plan.layouts_of_log_stream(log_stream) if log_stream else writers.layouts)

    def _stored(self) -> Snapshot | None:
        return stored_snapshot(
            self._state, lambda error: log.error("the stored inventory cannot be read", error=str(error))
        )

    def _take(self, snapshot: Snapshot) -> None:
        with self._changing:
            found = changes(self._snapshot, snapshot)
            if found and not self.empty:
                log.info("inventory changed", what=str(found))
            self._snapshot = snapshot
            self.exporters.refresh(snapshot)
            self._announce()

    def _announce(self) -> None:
        self.known = self._view()
        self._on_change(self.known)

    def _view(self) -> Known:
        plan = SourcePlan(self._snapshot, EnabledInputs.of(self._config.inputs), seen=self.seen_streams())
        directory = InventoryDirectory(self._snapshot, self.exporters, self._indexes, plan)
        services, names = self._aws_services()
        surroundings = InventorySurroundings(
            self._snapshot, directory, services, names, names=self._config.ipfix.profile == "aws"
        )
        return Known(self._snapshot, plan, directory, Enricher(directory, surroundings))

    def _aws_services(self) -> Any:
        if self._services is None:
            self._services = aws_services(self._config.aws.ip_ranges_file)
        return self._services


def configured_layouts(config: Config, origin: Origin) -> Sequence[Layout]:
    """Layouts that the configuration names for a log group, or for a delivery stream."""
    inputs = config.inputs
    found: list[Any] = []
    if origin.log_group is not None:
        named = [*(inputs.cloudwatch_logs.layouts if inputs.cloudwatch_logs else ())]
        named += inputs.kinesis.layouts if inputs.kinesis else ()
        arn = f"arn:aws:logs:{origin.region}:{origin.account_id}:log-group:{origin.log_group}"
        found = [each for each in named if each.log_group.removesuffix(":*") in (origin.log_group, arn)]
    if not found and origin.input == "firehose" and inputs.firehose:
        found = [
            each
            for each in inputs.firehose.layouts
            if each.delivery_stream in (origin.source, origin.source.rpartition("/")[2])
        ]
    return [Layout(each.log_format) for each in found]


def aws_services(path: Path | None) -> Any:
    """AWS's address ranges by service, as (prefixes, [(service, region), ...]); nothing where there is no file."""
    from edfn_agent.inventory.prefixes import PrefixTable

    names: list[tuple[str, str]] = [("", "")]
    if path is None:
        return None, names
    from edfn_agent.inventory.ip_ranges import IpRangesError, read_ip_ranges

    try:
        ranges = read_ip_ranges(path)
    except IpRangesError as error:
        log.warning("no names of AWS services", error=str(error))
        return None, names
    numbers: dict[tuple[str, str], int] = {}
    prefixes = []
    # of ranges that are alike the more telling name: everything is AMAZON, too
    for each in sorted(ranges, key=lambda each: each.service == "AMAZON"):
        label = (each.service, each.region)
        number = numbers.setdefault(label, len(names))
        if number == len(names):
            names.append(label)
        prefixes.append((each.prefix, number))
    return PrefixTable(prefixes), names


class StoredIndexes:
    """Interface indexes from the state; made up from the id while it cannot be written."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[str, tuple[int, str]] = {}

    def __call__(self, names: Mapping[str, str]) -> Mapping[str, int]:
        lacking = {key: name for key, name in names.items() if self._known.get(key, (0, ""))[1] != name}
        if lacking:
            try:
                found = self._state.interfaces.allocate(lacking)
                self._known.update((key, (number, names[key])) for key, number in found.items())
            except StateError as error:
                log.error("interface indexes cannot be stored", error=str(error), interfaces=len(lacking))
        return {
            key: self._known[key][0] if key in self._known else TEMPORARY | stable_number(key, TEMPORARY - 1)
            for key in names
        }
