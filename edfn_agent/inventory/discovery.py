"""Asks every account and region once, side by side, and makes one snapshot of the answers.

In: the accounts, what the configuration names by itself (queues, streams, log groups), the last snapshot. Out: a new
snapshot with findings. Never: a listing of a bucket, anything that changes something in AWS, an exception because AWS
refused something.

Three rounds. First who and where: identities and regions. Then, in every region, each Describe call once (pages aside);
a region that cannot be asked at all is asked no second question. Then along the flow logs: log groups, streams,
buckets, queues (see `sinks`). What fails for a time keeps its rows of the last snapshot; what a policy denies is left
out, and what depends on it is said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from edfn_agent.inventory import calls, rows
from edfn_agent.inventory.accounts import Accounts
from edfn_agent.inventory.asking import WHOLE_REGION, Answer, Asker, findings_of
from edfn_agent.inventory.calls import Call
from edfn_agent.inventory.fanout import PER_GROUP, fan_out
from edfn_agent.inventory.model import (
    Account,
    Finding,
    Interface,
    PrefixList,
    Snapshot,
    TransitGatewayAttachment,
    Vpc,
    carried_over,
    dropped_duplicates,
)
from edfn_agent.inventory.problems import Kind
from edfn_agent.inventory.sinks import Sinks, Wishes

T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Told what is being asked, how much of it is done, and of how much."""

Place = tuple[str, str]  # account, region


@dataclass
class Discovery:
    """May run many times, one at a time; clients and credentials are kept in between."""

    accounts: Accounts
    wishes: Wishes = field(default_factory=Wishes)
    clock: Callable[[], float] = time.time
    page_size: int | None = None
    _running: threading.Lock = field(default_factory=threading.Lock)

    def run(self, last: Snapshot | None = None, progress: Progress | None = None) -> Snapshot:
        """Raises NoRegion when the first call cannot be made anywhere; all else is a finding."""
        with self._running:
            return _Run(self, last, progress or (lambda _what, _done, _all: None)).snapshot()


class _Run:
    def __init__(self, discovery: Discovery, last: Snapshot | None, progress: Progress) -> None:
        self.discovery = discovery
        self.accounts = discovery.accounts
        self.last = last
        self.progress = progress
        self.asker = Asker(discovery.accounts, discovery.page_size)
        self.found: dict[str, list[Any]] = {}  # as their owners see them
        self.shared: dict[str, list[Any]] = {}  # as others see them, who are told less
        self.vpcs_in: dict[Place, int] = {}
        self._lock = threading.Lock()

    def snapshot(self) -> Snapshot:
        started, calls_before = time.monotonic(), self.accounts.calls
        at = self.discovery.clock()
        self.progress("accounts", 0, 1)
        listed = self.accounts.open()
        living = list(self.accounts.living)
        self.progress("accounts", 1, 1)
        regions = self._regions(living)
        named = {each.account_id: each for each in living}
        places = [(account, region) for account in regions for region in regions[account]]
        self._side_by_side("networks", [(place[0], partial(self._network, place)) for place in places])
        self._routes_beyond()
        network = self._collected(at)
        sinks = Sinks(self.asker, self.discovery.wishes, network, self.last, self.accounts).follow(self._along)
        failed = self._failed(listed, regions)
        result = replace(
            network,
            accounts=tuple(
                replace(named[each.account_id], regions=tuple(regions.get(each.account_id or "", ())))
                if each.status == "ok"
                else each
                for each in listed
            ),
            log_groups=dropped_duplicates(sinks.log_groups),
            log_destinations=dropped_duplicates(sinks.log_destinations),
            streams=dropped_duplicates(sinks.streams),
            delivery_streams=dropped_duplicates(sinks.delivery_streams),
            buckets=dropped_duplicates(sinks.buckets),
            queues=dropped_duplicates(sinks.queues),
        )
        result = carried_over(result, self.last, failed)
        findings = [*self.accounts.findings, *findings_of(self.asker), *self._silent(failed)]
        self.accounts.forget_clients()
        return replace(
            result,
            findings=tuple(sorted(findings, key=lambda each: each.weight)),
            seconds=round(time.monotonic() - started, 3),
            api_calls=self.accounts.calls - calls_before,
        )

    # ---- who and where

    def _regions(self, living: list[Account]) -> dict[str, list[str]]:
        """The regions of each account; also the account's alias, since that is one more question to the same."""
        jobs: list[tuple[str, Callable[[], list[str] | None]]] = []
        for account in living:
            jobs.append((account.account_id or "", partial(self._regions_of, account)))
            jobs.append((account.account_id or "", partial(self._alias_of, living, account)))
        answers = self._side_by_side("regions", jobs)
        return {account.account_id or "": answers[2 * n] or [] for n, account in enumerate(living)}

    def _regions_of(self, account: Account) -> list[str]:
        wanted = self.accounts.settings.regions
        id = account.account_id or ""
        home = self.accounts.home_region(id)
        if wanted is not None:
            return [each for each in wanted if self.accounts.partition_of(each) == account.partition]
        answer = self.asker.ask(
            calls.REGIONS,
            id,
            home,
            Filters=[{"Name": "opt-in-status", "Values": ["opt-in-not-required", "opted-in"]}],
        )
        return sorted(each["RegionName"] for each in answer.items("Regions")) or [home]

    def _alias_of(self, living: list[Account], account: Account) -> None:
        """A profile has a name that a person chose; an account known by number only is better shown by its alias."""
        if account.name != account.account_id:
            return
        home = self.accounts.home_region(account.account_id or "")
        answer = self.asker.ask(calls.ALIASES, account.account_id or "", home)
        alias = next(answer.items("AccountAliases"), None)
        if alias:
            with self._lock:
                living[living.index(account)] = replace(account, name=alias)

    # ---- the network

    def _network(self, place: Place) -> None:
        """Everything in one region of one account, one call after the other, with one client.

        That makes a small organisation wait a second longer, and keeps a large one (fifty accounts, seventeen regions)
        from having a thousand clients of two megabytes.
        """
        answer = self._describe(calls.VPCS, place)
        if answer.problem is None or answer.problem.kind not in WHOLE_REGION:
            # Where DescribeVpcs is denied, interfaces and subnets still name their VPCs.
            empty = answer.problem is None and not self.vpcs_in[place]
            for call in (*(() if empty else calls.NETWORK), calls.FLOW_LOGS, calls.TRANSIT_GATEWAYS):
                self._describe(call, place)
        self.accounts.forget_clients(place)

    def _describe(self, call: Call, place: Place) -> Answer:
        answer = self.asker.ask(call, *place)
        member, read = rows.READERS[call.operation]
        found = read(answer.items(member), *place)
        self._keep(call.kind, found, place[0])
        if call is calls.VPCS:
            self.vpcs_in[place] = len(found)
        # Pages are large and read by now.
        return Answer(problem=answer.problem)

    def _keep(self, kind: str, found: Iterable[Any], asked: str) -> None:
        """Rows that an account was answered with."""
        with self._lock:
            for row in found:
                owner = row.tgw_owner if isinstance(row, TransitGatewayAttachment) else row.account_id
                kept = self.found if owner == asked else self.shared
                kept.setdefault(kind, []).append(row)

    def _rows(self, kind: str) -> list[Any]:
        return [*self.found.get(kind, ()), *self.shared.get(kind, ())]

    def _routes_beyond(self) -> None:
        """Routes of transit gateways, by the accounts that own them, and the prefix lists that routes name."""
        tables = {
            (each.account_id, each.region, each.route_table_id)
            for each in self._rows("transit_gateway_attachments")
            if each.route_table_id and each.tgw_owner == each.account_id
        }
        named: dict[Place, set[str]] = {}
        for table in self._rows("route_tables"):
            lists = {route.destination for route in table.routes if route.destination.startswith("pl-")}
            if lists and self.accounts.alive(table.account_id):
                named.setdefault((table.account_id, table.region), set()).update(lists)
        jobs: list[tuple[str, Callable[[], Any]]] = [
            (account, partial(self._transit_routes, account, region, table))
            for account, region, table in sorted(tables)
        ]
        jobs += [(place[0], partial(self._prefix_lists, place, lists)) for place, lists in sorted(named.items())]
        self._side_by_side("routes", jobs)

    def _prefix_lists(self, place: Place, named: set[str]) -> None:
        """AWS's own lists, all of a region in one call; those of customers one by one."""
        self._describe(calls.PREFIX_LISTS, place)
        known = {each.prefix_list_id for each in self._rows("prefix_lists") if (each.account_id, each.region) == place}
        for id in sorted(named - known):
            answer = self.asker.ask(calls.PREFIX_LIST_ENTRIES, *place, id, PrefixListId=id)
            if answer.problem is None:
                cidrs = tuple(each["Cidr"] for each in answer.items("Entries"))
                self._keep("prefix_lists", [PrefixList(id, *place, cidrs=cidrs)], place[0])

    def _transit_routes(self, account: str, region: str, table: str) -> None:
        answer = self.asker.ask(
            calls.TRANSIT_GATEWAY_ROUTES,
            account,
            region,
            table,
            TransitGatewayRouteTableId=table,
            Filters=[{"Name": "state", "Values": ["active", "blackhole"]}],
        )
        found = rows.transit_gateway_routes(answer.items("Routes"), account, region, table)
        self._keep("transit_gateway_routes", found, account)

    # ---- together

    def _collected(self, at: float) -> Snapshot:
        found = {kind: self._rows(kind) for kind in {**self.found, **self.shared}}
        found["interfaces"] = rows.with_services(
            found.get("interfaces", ()), found.get("nat_gateways", ()), found.get("endpoints", ())
        )
        found["transit_gateway_attachments"] = rows.with_names_of_all(found.get("transit_gateway_attachments", ()))
        vpcs = found.get("vpcs", [])
        found["vpcs"] = [*vpcs, *_vpcs_by_hearsay(vpcs, found["interfaces"])]
        kinds: dict[str, Any] = {kind: dropped_duplicates(found[kind]) for kind in found}
        return Snapshot(at=at, **kinds)

    def _failed(self, listed: Iterable[Account], regions: dict[str, list[str]]) -> set[tuple[str, str, str]]:
        """Whose rows of the last snapshot are kept: what failed, but not what a policy denies."""
        failed = {
            (each.account_id, each.region, "*" if each.call is calls.VPCS and whole else each.call.kind)
            for each in self.asker.failures
            if not each.subject and each.problem.kind is not Kind.DENIED
            for whole in (each.problem.kind in WHOLE_REGION,)
        }
        failed |= {(each.account_id, "*", "*") for each in listed if each.status == "failed" and each.account_id}
        failed |= {(account, "*", "*") for account, region, kind in failed if kind == "regions"}
        # A profile that died says no number: the last snapshot knows it.
        vias = {each.via for each in listed if each.status == "failed" and not each.account_id}
        failed |= {
            (each.account_id, "*", "*")
            for each in (self.last.accounts if self.last else ())
            if each.via in vias and each.account_id
        }
        return failed

    def _silent(self, failed: set[tuple[str, str, str]]) -> list[Finding]:
        """Says that old rows stand in, once per dead account."""
        if self.last is None:
            return []
        age = max(0.0, self.discovery.clock() - self.last.at)
        return [
            Finding(
                "info",
                account,
                None,
                "inventory",
                f"what was known of this account {age / 60:.0f} min ago is still used",
                "mend the account; nothing is lost meanwhile but news",
                "inventory.old",
            )
            for account, region, kind in sorted(failed)
            if (region, kind) == ("*", "*") and any(each.account_id == account for each in self.last.vpcs)
        ]

    def _side_by_side(self, what: str, jobs: Sequence[tuple[str, Callable[[], T]]]) -> list[T]:
        self.progress(what, 0, len(jobs))
        return fan_out(jobs, per_group=PER_GROUP, progress=lambda done, of: self.progress(what, done, of))

    def _along(self, what: str, jobs: Sequence[tuple[str, Callable[[], T]]]) -> list[T]:
        return self._side_by_side(what, jobs)


def _vpcs_by_hearsay(known: Iterable[Vpc], interfaces: Iterable[Interface]) -> Iterable[Vpc]:
    """VPCs that only their interfaces name, because DescribeVpcs is not allowed or AWS is a moment behind."""
    ids = {each.vpc_id for each in known}
    named: dict[str, Interface] = {}
    for each in interfaces:
        if each.vpc_id and each.vpc_id not in ids:
            named.setdefault(each.vpc_id, each)
    return [Vpc(id, each.account_id, each.region) for id, each in named.items()]
