"""One call to AWS after the other, and a note of each that failed.

In: which call, of which account and region. Out: all pages of the answer, or the problem; findings about the failures.
Never: an exception for something that AWS refused, a retry (botocore has made them by then).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edfn_agent.inventory.accounts import Accounts
from edfn_agent.inventory.calls import Call
from edfn_agent.inventory.model import Finding
from edfn_agent.inventory.problems import Kind, Problem, classify, next_step

Page = Mapping[str, Any]

WHOLE_REGION = (Kind.CREDENTIALS, Kind.REGION, Kind.UNREACHABLE, Kind.CLOCK)
"""What one call of a region fails with, all of them will."""


@dataclass(frozen=True, slots=True)
class Answer:
    pages: Sequence[Page] = ()
    problem: Problem | None = None

    def items(self, member: str) -> Iterator[Any]:
        for page in self.pages:
            yield from page.get(member) or ()

    @property
    def page(self) -> Page:
        """The answer of a call that has no pages; empty when it failed."""
        return self.pages[0] if self.pages else {}


@dataclass(frozen=True, slots=True)
class Failure:
    call: Call
    account_id: str
    region: str
    subject: str  # the resource asked about; "" for a call about the whole region
    problem: Problem
    action: str


@dataclass
class Asker:
    """Makes the calls. Shared by threads."""

    accounts: Accounts
    page_size: int | None = None  # smaller pages than AWS's most, for tests
    failures: list[Failure] = field(default_factory=list)
    asked: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """(account, action) -> the regions where it was asked"""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(
        self,
        call: Call,
        account_id: str,
        region: str,
        subject: str = "",
        expected: Iterable[Kind] = (),
        **parameters: Any,
    ) -> Answer:
        """All pages. A failure is noted unless its kind is `expected`: then the caller says what it means."""
        with self._lock:
            self.asked.setdefault((account_id, call.action), set()).add(region)
        try:
            client = self.accounts.client(account_id, region, call.service, patient=True)
            return Answer(self._pages(client, call, parameters))
        except Exception as error:
            problem = classify(error)
            renewing = getattr(error, "operation_name", "") == "AssumeRole"
            if problem.kind not in expected or renewing:
                self.note(call, account_id, region, subject, problem, "sts:AssumeRole" if renewing else call.action)
            return Answer(problem=problem)

    def note(
        self, call: Call, account_id: str, region: str, subject: str, problem: Problem, action: str | None = None
    ) -> None:
        """A failure, for the findings: also one that was expected and turned out to matter."""
        with self._lock:
            self.failures.append(Failure(call, account_id, region, subject, problem, action or call.action))

    def _pages(self, client: Any, call: Call, parameters: Mapping[str, Any]) -> Sequence[Page]:
        from botocore import xform_name

        name = xform_name(call.operation)
        if not client.can_paginate(name):
            return [getattr(client, name)(**parameters)]
        size = self.page_size if self.page_size and call.page_size else call.page_size
        paging = {"PaginationConfig": {"PageSize": size}} if size else {}
        return list(client.get_paginator(name).paginate(**parameters, **paging))


def findings_of(asker: Asker) -> list[Finding]:
    """A finding for each failure; one for all regions of an account where all that were asked fail alike."""
    alike: dict[tuple[str, str, str, Kind, str], list[Failure]] = {}
    for each in asker.failures:
        key = (each.account_id, each.action, each.subject, each.problem.kind, each.problem.code)
        alike.setdefault(key, []).append(each)
    found = []
    for group in alike.values():
        first = group[0]
        asked = asker.asked.get((first.account_id, first.call.action), set())
        everywhere = len(asked) > 1 and not first.subject and {each.region for each in group} >= asked
        if everywhere or first.call.service == "iam":  # which has no regions
            found.append(_finding(first, None))
        else:
            found += [_finding(each, each.region) for each in group]
    return found


def _finding(failure: Failure, region: str | None) -> Finding:
    call, problem = failure.call, failure.problem
    step = next_step(problem, failure.action)
    if problem.kind is Kind.DENIED:
        text, severity = f"{failure.action} is not allowed: {call.without}", call.severity
        code = f"permission.{failure.action}"
    elif not failure.subject and problem.kind in WHOLE_REGION:
        # Its identity was confirmed a moment ago, so refused credentials mean that this region does not know them.
        text, severity = f"the region cannot be asked, {_reason(problem)}: {problem.message}", "error"
        code = "region.reachable"
        if problem.kind is Kind.CREDENTIALS:
            step = next_step(Problem(Kind.REGION, "", ""), failure.action)
    else:
        text = f"{call.operation} failed ({problem.code}): {problem.message}; {call.without}"
        severity, code = "warning" if call.optional else "error", "region.call"
    return Finding(severity, failure.account_id, region, failure.subject or failure.action, text, step, code)


def _reason(problem: Problem) -> str:
    return {
        Kind.UNREACHABLE: "it does not answer",
        Kind.CLOCK: "this machine's clock is wrong",
    }.get(problem.kind, "it is not enabled in this account")
