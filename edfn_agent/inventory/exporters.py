"""Which exporter each VPC is: an address and a domain number, given once and kept.

In: the inventory, the addresses and the pool of the configuration, what the state remembers. Out: an immutable table of
exporters, and the same table grown by VPCs that flows name and the inventory does not know. Never: calls to AWS.

An address comes from the configuration, else from what was given before, else it is the VPC's own router (the base of
its first IPv4 CIDR plus one) unless another VPC has that, else the lowest free one of the pool. `stored` says that a
person gave it (`edfn-agent exporters assign`, or an earlier configuration); `router` and `pool` stay what they were
when given. Transit gateways with flow logs are exporters, too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import TYPE_CHECKING, Any

from edfn_agent.inventory.model import Finding, Snapshot

if TYPE_CHECKING:
    from edfn_agent.state import Assignment, State

UNATTRIBUTED = "unattributed"
DUMMY_ADDRESS = IPv4Address("192.0.0.8")
"""RFC 7600, section 3.7: an address that is nobody's. Only when the pool cannot serve even `unattributed`."""

Given = tuple[IPv4Address, str]  # address, origin


@dataclass(frozen=True, slots=True)
class Exporter:
    """How one VPC appears at a collector."""

    key: str  # the VPC's id, tgw-..., or `unattributed`
    address: IPv4Address
    address_origin: str  # configured | stored | router | pool
    domain: int  # the VPC's number, 24 bits; the observation domain has the worker's number above it
    name: str = ""
    account_id: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What an exporter is made for: a VPC as the inventory knows it, or an id that a flow named."""

    key: str
    name: str = ""
    account_id: str = ""
    region: str = ""
    router: IPv4Address | None = None
    is_default_vpc: bool = False


@dataclass(frozen=True)
class ExporterTable:
    """All exporters at one time. Replaced whole, never changed."""

    by_key: Mapping[str, Exporter]
    findings: tuple[Finding, ...] = ()
    generation: int | None = None  # of the state's assignments; None without a state

    @property
    def unattributed(self) -> Exporter:
        return self.by_key[UNATTRIBUTED]

    def get(self, key: str) -> Exporter | None:
        return self.by_key.get(key)

    def __iter__(self) -> Iterator[Exporter]:
        return iter(self.by_key.values())

    def __len__(self) -> int:
        return len(self.by_key)


def candidates_of(snapshot: Snapshot | None) -> list[Candidate]:
    """Every VPC, and every transit gateway that has a flow log, in the order in which addresses are given.

    VPCs that people made come before the default VPCs, which all have 172.31.0.0/16 and would take its router address
    from a VPC that means it.
    """
    if snapshot is None:
        return []
    found = [
        Candidate(vpc.vpc_id, vpc.name, vpc.account_id, vpc.region, router_address(vpc.cidrs), vpc.is_default)
        for vpc in snapshot.vpcs
    ]
    gateways = {each.attachment_id: each.tgw_id for each in snapshot.transit_gateway_attachments}
    logged = {
        gateways.get(flow_log.resource_id, flow_log.resource_id): flow_log
        for flow_log in snapshot.flow_logs
        if flow_log.resource_id.startswith("tgw-")
    }
    found += [
        Candidate(tgw_id, account_id=flow_log.account_id, region=flow_log.region)
        for tgw_id, flow_log in logged.items()
        if not tgw_id.startswith("tgw-attach-")
    ]
    return sorted(found, key=lambda each: (each.is_default_vpc, each.account_id, each.region, each.key))


def router_address(cidrs: Sequence[str]) -> IPv4Address | None:
    """The VPC router's address: the base of the first IPv4 CIDR plus one (AWS VPC guide, "Subnet CIDR blocks")."""
    for text in cidrs:
        network = ip_network(text, strict=False)
        if isinstance(network, IPv4Network):
            return network.network_address + 1
    return None


@dataclass
class Allocation:
    """What `allocate` decided for each key; `shared` have no address of their own because the pool is used up."""

    given: dict[str, Given] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)


def allocate(
    candidates: Iterable[Candidate],
    stored: Mapping[str, Given],
    configured: Mapping[str, IPv4Address],
    pool: Sequence[IPv4Network],
) -> Allocation:
    """An address for every candidate and for `unattributed`. The same arguments give the same result."""
    result = Allocation()
    wanted = [Candidate(UNATTRIBUTED), *(each for each in candidates if each.key != UNATTRIBUTED)]
    # The addresses of VPCs that are gone (for a day, or for good) stay theirs until someone releases them.
    holders = {address: key for key, (address, _) in stored.items()}
    for key, address in configured.items():
        loser = holders.get(address)
        if loser is not None and loser != key:
            result.findings.append(_moved(loser, address, key))
        holders[address] = key
        result.given[key] = (address, "configured")
    pending = []
    for each in wanted:
        if each.key in result.given:
            continue
        before = stored.get(each.key)
        if before is not None and holders[before[0]] == each.key:
            # Once configured and no longer so: kept, as an address that a person chose.
            result.given[each.key] = (before[0], "stored" if before[1] == "configured" else before[1])
        else:
            pending.append(each)
    free = _Pool(pool)
    for each in pending:
        own = each.router is not None and each.router not in holders
        chosen = each.router if own else free.next(holders)
        if chosen is None:
            result.shared.add(each.key)
            continue
        holders[chosen] = each.key
        result.given[each.key] = (chosen, "router" if own else "pool")
    if result.shared:
        result.findings.append(_exhausted(result.shared, pool))
    return result


class _Pool:
    """Walks the pool once, lowest address first, without network and broadcast addresses."""

    def __init__(self, networks: Sequence[IPv4Network]) -> None:
        self._hosts = (address for network in networks for address in network.hosts())

    def next(self, taken: Mapping[IPv4Address, str]) -> IPv4Address | None:
        return next((address for address in self._hosts if address not in taken), None)


def _moved(loser: str, address: IPv4Address, winner: str) -> Finding:
    return Finding(
        "warning",
        None,
        None,
        loser,
        f"its exporter address {address} is now {winner}'s by configuration, so it gets another one",
        f"collectors see {loser} as a new device; write its address under exporters.vpcs to choose it",
        "vpc.exporter",
    )


def _exhausted(keys: set[str], pool: Sequence[IPv4Network]) -> Finding:
    shown = ", ".join(sorted(keys)[:3]) + (", ..." if len(keys) > 3 else "")
    networks = ", ".join(map(str, pool)) or "no network"
    return Finding(
        "error",
        None,
        None,
        "exporters.pool",
        f"the pool ({networks}) has no address left for {len(keys)} VPCs ({shown}); they share one with `unattributed`",
        "add a network to exporters.pool, or free addresses of deleted VPCs with `edfn-agent exporters release VPC`",
        "vpc.exporter",
    )


def configured_addresses(exporters: Any) -> dict[str, IPv4Address]:
    """`exporters.vpcs` of the configuration, and `exporters.unattributed` under its own name."""
    addresses = dict(exporters.vpcs)
    if exporters.unattributed is not None:
        addresses[UNATTRIBUTED] = exporters.unattributed
    return addresses


class Exporters:
    """The table that is in force, kept in step with inventory, configuration and state. Safe from several threads.

    Nobody waits for the state: where it cannot be read or written, addresses and numbers are worked out in memory, a
    finding says so, and the next refresh stores them.
    """

    def __init__(
        self,
        configured: Mapping[str, IPv4Address],
        pool: Sequence[IPv4Network],
        state: State | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self._configured = dict(configured)
        self._pool = tuple(pool)
        self._state = state
        self._lock = threading.Lock()
        self._known: dict[str, Candidate] = {}
        self._on_demand: dict[str, Candidate] = {}
        self.table = ExporterTable({})
        self.refresh(snapshot)

    def refresh(self, snapshot: Snapshot | None) -> ExporterTable:
        """A new table for a new inventory. VPCs that only flows named stay in it."""
        with self._lock:
            self._known = {each.key: each for each in candidates_of(snapshot)}
            return self._rebuild()

    def reconfigure(self, configured: Mapping[str, IPv4Address], pool: Sequence[IPv4Network]) -> ExporterTable:
        with self._lock:
            self._configured, self._pool = dict(configured), tuple(pool)
            return self._rebuild()

    def exporter(self, key: str, account_id: str = "", region: str = "") -> Exporter:
        """The exporter of a VPC or transit gateway; one that nobody knew yet gets its address and number now."""
        found = self.table.get(key)
        if found is not None:
            return found
        with self._lock:
            if key not in self.table.by_key:
                self._on_demand[key] = Candidate(key, account_id=account_id, region=region)
                self._rebuild()
            return self.table.by_key[key]

    def follow(self) -> bool:
        """Takes up what a command (`exporters assign`) changed in the state. True when there was something."""
        from edfn_agent.state import StateError

        if self._state is None:
            return False
        try:
            if self._state.assignments.generation == self.table.generation:
                return False
        except StateError:
            return False
        with self._lock:
            before = self.table.by_key
            return self._rebuild().by_key != before

    def _rebuild(self) -> ExporterTable:
        candidates = {**self._on_demand, **self._known}
        self.table = build(candidates.values(), self._configured, self._pool, self._state, self.table)
        return self.table


def build(
    candidates: Iterable[Candidate],
    configured: Mapping[str, IPv4Address],
    pool: Sequence[IPv4Network],
    state: State | None,
    before: ExporterTable | None = None,
) -> ExporterTable:
    """The table. What is new is stored in one transaction, so that two processes never give one address twice."""
    from edfn_agent.state import StateError

    candidates = list(candidates)
    allocation = Allocation()
    remembered: dict[str, Given] = {}
    if before:
        # Those that share an address with `unattributed` have none of their own.
        shared = {each.key for each in before if each.address == before.unattributed.address} - {UNATTRIBUTED}
        remembered = {each.key: (each.address, each.address_origin) for each in before if each.key not in shared}

    def decide(assignments: Mapping[str, Assignment]) -> Mapping[str, tuple[IPv4Address | None, str]]:
        nonlocal allocation
        stored = {key: (each.address, each.origin) for key, each in assignments.items() if each.address is not None}
        held = {address for address, _ in stored.values()}
        for key, given in remembered.items():  # given while the state could not be written
            if key not in assignments and given[0] not in held:
                stored[key] = given
                held.add(given[0])
        allocation = allocate(candidates, stored, configured, pool)
        # An address that went to someone else by configuration must leave its old holder, even one that is gone now.
        taken = {address: key for key, (address, _) in allocation.given.items()}
        robbed = {key for key, (address, _) in stored.items() if taken.get(address, key) != key}
        nothing: tuple[IPv4Address | None, str] = (None, "")
        return {**dict.fromkeys((*allocation.shared, *robbed), nothing), **allocation.given}

    findings: list[Finding] = []
    generation = None
    numbers: dict[str, int] = {}
    if state is not None:
        try:
            generation = state.assignments.generation  # before, so that a change in between is seen as one
            assignments = state.assignments.change(decide)
            numbers = {key: each.domain for key, each in assignments.items()}
        except StateError as error:
            findings.append(_forgetful(error))
    if not numbers:
        allocation = allocate(candidates, remembered, configured, pool)
        numbers = _numbers([*allocation.given, *sorted(allocation.shared)], before)
    shared_address = allocation.given.get(UNATTRIBUTED, (DUMMY_ADDRESS, "pool"))[0]
    described = {each.key: each for each in candidates}
    by_key = {}
    for key in sorted({UNATTRIBUTED, *allocation.given, *allocation.shared}):
        if key not in described and key != UNATTRIBUTED and key not in configured:
            continue
        address, origin = allocation.given.get(key, (shared_address, "pool"))
        about = described.get(key, Candidate(key, name=key if key == UNATTRIBUTED else ""))
        by_key[key] = Exporter(
            key, address, origin, numbers[key], about.name or about.key, about.account_id, about.region
        )
    return ExporterTable(by_key, (*allocation.findings, *findings), generation)


def _numbers(keys: Iterable[str], before: ExporterTable | None) -> dict[str, int]:
    """Domain numbers without a state: those of the table before, else as the state would give the first one."""
    from edfn_agent.state import free_number

    numbers = {each.key: each.domain for each in before or ()}
    used = set(numbers.values())
    for key in keys:
        if key not in numbers:
            numbers[key] = free_number(key, used)
            used.add(numbers[key])
    return numbers


def _forgetful(error: Exception) -> Finding:
    return Finding(
        "error",
        None,
        None,
        "state_directory",
        f"exporter addresses and numbers cannot be kept: {error}",
        "mend the directory; until then a restart may give new VPCs other addresses",
        "machine.state",
    )
