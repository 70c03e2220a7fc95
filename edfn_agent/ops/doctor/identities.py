"""Accounts, regions and permissions: what discovery met, one check each.

In: accounts after a discovery, its snapshot. Out: checks. Never: a second discovery; the only call made here is
GetCallerIdentity, which needs no permission.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from edfn_agent.inventory.calls import ALL, VPCS, Call
from edfn_agent.inventory.model import Account, Finding, Snapshot
from edfn_agent.ops.doctor.checks import ERROR, OK, PERMISSION, Check
from edfn_agent.ops.doctor.mending import Mending, assume_role
from edfn_agent.ops.doctor.trials import Target, Trials
from edfn_agent.ops.doctor.witness import WitnessedAccounts

_BY_ACTION = {call.action: call for call in ALL}


def account(accounts: WitnessedAccounts, trials: Trials, row: Account) -> list[Check]:
    """Who the agent is in an account that is alive, and for how long."""
    id = row.account_id or ""
    home = accounts.home_region(id)
    identity = accounts.client(id, home, "sts").get_caller_identity()["Arn"]
    trials.identities[id] = row.via.removeprefix("role:") if row.via.startswith("role:") else identity
    trials.may_simulate(Target(id, home, ""))  # here and once: the trials side by side then know whether IAM answers
    kind, _, name = row.via.partition(":")
    how = {"role": "by a role of the configuration", "profile": f"by the profile {name}"}.get(kind, "as itself")
    given = {role.arn: role.external_id is not None for role in accounts.settings.roles}.get(name)
    if given is not None:
        how += ", with an external id" if given else ", without an external id"
    checks = [Check("account.identity", OK, f"reached {how}", id, None, identity)]
    # botocore has no public way to ask how long keys live
    until = getattr(accounts.credentials(id), "_expiry_time", None)
    if until is not None:
        minutes = max(0, round((until.timestamp() - time.time()) / 60))
        text = f"its session lasts {minutes} min more and is renewed in time"
        checks.append(Check("account.session", OK, text, id, None, identity))
    return checks


def dead(mending: Mending, row: Account, findings: tuple[Finding, ...]) -> Check:
    """An account that does not answer."""
    finding = next((each for each in findings if each.problem == row.error), None)
    arn = row.via.removeprefix("role:") if row.via.startswith("role:") else ""
    return Check(
        "account.identity",
        ERROR,
        row.error or "it cannot be reached",
        row.account_id,
        None,
        arn or row.via,
        finding.next_step if finding else "",
        # The other half, the role's trust, is in the next step: only that account can mend it.
        assume_role(arn) if arn and "the role refuses" in (row.error or "") else "",
    )


def noted(findings: tuple[Finding, ...]) -> Iterator[Check]:
    """What was found odd about accounts that are alive."""
    for each in findings:
        if each.code in ("account.once", "account.session"):
            yield Check(
                each.code, each.severity, each.problem, each.account_id, each.region, each.subject, each.next_step
            )


def regions(accounts: WitnessedAccounts, snapshot: Snapshot) -> Iterator[Check]:
    """Regions that answered. Those that did not are findings of discovery."""
    for row in snapshot.accounts:
        outcome = accounts.outcomes.get((row.account_id or "", VPCS.action))
        for region in row.regions if outcome else ():
            if outcome and region in outcome.answered:
                vpcs = sum(each.region == region and each.account_id == row.account_id for each in snapshot.vpcs)
                logs = sum(each.region == region and each.account_id == row.account_id for each in snapshot.flow_logs)
                text = f"{vpcs} VPCs, {logs} flow logs"
                yield Check("region.reachable", OK, text, row.account_id, region)


def permissions(accounts: WitnessedAccounts, snapshot: Snapshot) -> Iterator[Check]:
    """Actions of discovery that were allowed. Those that were not are its findings."""
    denied = {(each.account_id, call.action) for each in snapshot.findings if (call := _denied(each)) is not None}
    for (account_id, action), outcome in sorted(accounts.outcomes.items()):
        if action not in _BY_ACTION or not outcome.answered or (account_id, action) in denied:
            continue
        count = len(outcome.answered)
        regions = f"{count} regions" if count > 1 else next(iter(outcome.answered))
        yield Check(f"permission.{action}", OK, f"allowed, in {regions}", account_id)


def of_discovery(mending: Mending, snapshot: Snapshot, finding: Finding) -> Check | None:
    """A finding of discovery as a check; None for those about accounts, which have checks of their own."""
    place = (finding.account_id, finding.region)
    if finding.code.startswith("account.") or finding.code == "inventory.old":
        return None
    if finding.code == "region.reachable":
        return Check(finding.code, finding.severity, finding.problem, *place, "", finding.next_step)
    call = _denied(finding)
    if call is None:
        return Check(finding.code, finding.severity, finding.problem, *place, finding.subject, finding.next_step)
    partition = next((each.partition for each in snapshot.accounts if each.account_id == finding.account_id), "aws")
    resource = "" if finding.subject == call.action else finding.subject
    arn = resource if resource.startswith("arn:") else ""
    fix = mending.statement(finding.account_id or "", call.action, arn, partition)
    step = f"{finding.next_step}; `{mending.whole_policy}` writes the whole"
    return Check(finding.code, finding.severity, finding.problem, *place, resource, step, fix)


def _denied(finding: Finding) -> Call | None:
    """The call that a finding says is not allowed."""
    kind, _, action = finding.code.partition(PERMISSION)
    return _BY_ACTION.get(action) if not kind else None
