"""Trying one action: really where that harms nothing, else by asking IAM what it would say, else not at all.

In: accounts, and which call with which parameters. Out: a `permission.ACTION` check each, and the answer. Never: a call
that changes something or takes something from somebody; an exception because AWS refused.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edfn_agent.inventory.problems import Kind, Problem, classify, iam_action, next_step
from edfn_agent.ops.doctor.checks import ERROR, OK, UNTRIED, WARNING, Check
from edfn_agent.ops.doctor.mending import Mending
from edfn_agent.ops.doctor.witness import WitnessedAccounts


@dataclass(frozen=True, slots=True)
class Target:
    """What is tried on: a resource, by whose permissions, and where."""

    account_id: str
    region: str
    resource: str  # as people see it
    arn: str = ""  # for IAM, where it differs


@dataclass(frozen=True, slots=True)
class Trial:
    check: Check
    answer: Mapping[str, Any] | None = None
    problem: Problem | None = None

    @property
    def denied(self) -> bool:
        return self.problem is not None and self.problem.kind is Kind.DENIED


@dataclass
class Trials:
    """Shared by threads."""

    accounts: WitnessedAccounts
    mending: Mending
    identities: dict[str, str] = field(default_factory=dict)  # account -> ARN of whom the agent is there
    _deaf: set[str] = field(default_factory=set)  # accounts whose IAM does not answer us
    _verdicts: dict[tuple[str, str, str], str | None] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(
        self,
        target: Target,
        service: str,
        operation: str,
        parameters: Mapping[str, Any],
        without: str = "",
        severity: str = ERROR,
        expected: Sequence[Kind] = (),
    ) -> Trial:
        """Really. Answers of an `expected` kind say that the action is allowed; `without`: what is missing if not."""
        from botocore import xform_name

        action = iam_action(service, operation)
        try:
            client = self.accounts.client(target.account_id, target.region, service)
            answer: Mapping[str, Any] = getattr(client, xform_name(operation))(**parameters)
        except Exception as error:
            problem = classify(error)
            if problem.kind in expected:
                return Trial(self._check(target, action, OK, "allowed"), None, problem)
            return Trial(self._failed(target, action, problem, without, severity), None, problem)
        return Trial(self._check(target, action, OK, "allowed"), answer)

    def ask_iam(
        self,
        target: Target,
        action: str,
        without: str,
        severity: str = ERROR,
        why: str = "",
        context: Mapping[str, str] | None = None,
    ) -> Check:
        """By simulation; what cannot be simulated is said to be untried. `why`: the reason not to try it really.

        `context`: what the conditions of a policy may look at, such as kms:ViaService.
        """
        verdict = self._verdict(target, action, context or {})
        if verdict is None:
            text = (
                f"not tried ({why or 'it would change something'}), and IAM does not tell; if it is denied, {without}"
            )
            step = (
                "allow iam:SimulatePrincipalPolicy if the doctor is to ask IAM (`edfn-agent setup policy --simulate`); "
                f"without, compare the policy in force with what `{self.mending.whole_policy}` writes"
            )
            fix = self.mending.statement(target.account_id, "iam:SimulatePrincipalPolicy")
            return Check(f"permission.{action}", UNTRIED, text, *_where(target), next_step=step, fix=fix)
        if verdict == "allowed":
            return self._check(target, action, OK, "allowed, by the simulation of IAM")
        text = f"{action} is not allowed, by the simulation of IAM ({verdict}): {without}"
        step = f"allow {action} (policies of the resource itself are not simulated: one that allows it will do as well)"
        return self._check(target, action, severity, text, step, self._statement(target, action))

    def may_simulate(self, target: Target) -> bool:
        return self._verdict(target, "sts:GetCallerIdentity", {}) is not None

    def _failed(self, target: Target, action: str, problem: Problem, without: str, severity: str) -> Check:
        by_key = "kms" in problem.code.lower() or "kms:" in problem.message.lower()
        if problem.kind is Kind.DENIED or by_key:
            denied = action
            text = f"{action} is not allowed: {without}"
            if by_key:
                denied, text = "kms:Decrypt", f"{action} is refused because of the key ({problem.message}): {without}"
            step = next_step(Problem(Kind.DENIED, problem.code, problem.message), denied)
            return self._check(target, action, severity, text, step, self._statement(target, denied))
        text = f"{action} failed ({problem.code}): {problem.message}; {without}"
        grave = WARNING if problem.kind is Kind.THROTTLED else severity
        return self._check(target, action, grave, text, next_step(problem, action))

    def _statement(self, target: Target, action: str) -> str:
        resource = target.arn or target.resource
        if action.startswith("kms:") and ":kms:" not in resource:
            resource = ""  # what is encrypted, and not the key
        return self.mending.statement(target.account_id, action, resource if resource.startswith("arn:") else "")

    def _check(self, target: Target, action: str, status: str, text: str, next_step: str = "", fix: str = "") -> Check:
        return Check(f"permission.{action}", status, text, *_where(target), next_step=next_step, fix=fix)

    def _verdict(self, target: Target, action: str, context: Mapping[str, str]) -> str | None:
        """`allowed`, or IAM's word for no; None when IAM cannot be asked, or would have to know more."""
        resource = target.arn or (target.resource if target.resource.startswith("arn:") else "*")
        key = (target.account_id, action, resource)
        principal = principal_of(self.identities.get(target.account_id, ""))
        with self._lock:
            if target.account_id in self._deaf or principal is None:
                return None
            if key in self._verdicts:
                return self._verdicts[key]
        try:
            client = self.accounts.client(target.account_id, self.accounts.home_region(target.account_id), "iam")
            known = {"aws:RequestedRegion": target.region, **context}
            answer = client.simulate_principal_policy(
                PolicySourceArn=principal,
                ActionNames=[action],
                ResourceArns=[resource],
                ContextEntries=[
                    {"ContextKeyName": name, "ContextKeyValues": [value], "ContextKeyType": "string"}
                    for name, value in known.items()
                ],
            )
            result = answer["EvaluationResults"][0]
            verdict: str | None = str(result["EvalDecision"])
            if verdict == "implicitDeny" and result.get("MissingContextValues"):
                verdict = None  # a condition may well be met in earnest
        except Exception:  # not allowed, not known to an emulator, a role with a path: all the same here
            with self._lock:
                self._deaf.add(target.account_id)
            return None
        with self._lock:
            self._verdicts[key] = verdict
        return verdict


def principal_of(arn: str) -> str | None:
    """The user or role behind an identity; a session does not say the path of its role, and root has no policies."""
    parts = arn.split(":", 5)
    if len(parts) < 6 or parts[5] == "root":
        return None
    if parts[5].startswith("assumed-role/"):
        return f"arn:{parts[1]}:iam::{parts[4]}:role/{parts[5].split('/')[1]}"
    return arn if parts[5].startswith(("user/", "role/")) else None


def _where(target: Target) -> tuple[str, str, str]:
    return target.account_id, target.region, target.resource
