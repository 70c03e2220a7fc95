"""KMS keys of buckets, queues and streams: is the key enabled, and may those write who have to.

In: a key as a bucket, queue or stream names it, trials. Out: checks; the agent's own kms:Decrypt among them. Never: a
call with the key. kms:DescribeKey and kms:GetKeyPolicy are beyond the original policy: where they are not allowed, that
is said, and nothing else is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from edfn_agent.ops.doctor import mending
from edfn_agent.ops.doctor.checks import ERROR, OK, UNTRIED, WARNING, Check
from edfn_agent.ops.doctor.trials import Target, Trials
from edfn_agent.setup.model import Place

_WRITES = "kms:GenerateDataKey"


@dataclass(frozen=True, slots=True)
class Writer:
    """A service of AWS that has to encrypt with the key."""

    service: str  # its principal
    what: str  # it brings
    statement: str  # for the key's policy


def key(
    trials: Trials, target: Target, name: str, service: str, without: str, writer: Writer | None
) -> Iterator[Check]:
    """A key by its ARN, its id or an alias; `target`: what it encrypts. `service`: through which it is used."""
    arn = name if name.startswith("arn:") else ""
    place = replace(target, resource=name)
    described = trials.call(place, "kms", "DescribeKey", {"KeyId": name})
    where = (target.account_id, target.region, name)
    if described.answer is not None:
        metadata = described.answer["KeyMetadata"]
        arn = metadata["Arn"]
        yield _state(metadata, where)
    if writer is not None:
        yield _policy(trials, place, arn or name, writer, where)
    elif described.answer is None:
        yield Check("key.state", UNTRIED, "its state cannot be looked at (kms:DescribeKey)", *where)
    via = {"kms:ViaService": f"{service}.{target.region}.{Place(target.account_id, target.region).domain}"}
    yield trials.ask_iam(
        replace(target, arn=arn or "*"), "kms:Decrypt", without, why=f"no {_USES[service]}", context=via
    )


_USES = {"s3": "object shows it", "sqs": "message shows it", "kinesis": "record shows it"}


def _state(metadata: dict[str, Any], where: tuple[str, str, str]) -> Check:
    state, arn = str(metadata.get("KeyState", "Enabled")), metadata["Arn"]
    if state == "Enabled":
        return Check("key.state", OK, "it is enabled", *where)
    fix = mending.enabled_key(arn, state)
    text = f"AWS says {state}: nothing can be written or read that it encrypts"
    return Check("key.state", ERROR, text, *where, "enable it again, or encrypt with another key", fix)


def _policy(trials: Trials, place: Target, arn: str, writer: Writer, where: tuple[str, str, str]) -> Check:
    asked = trials.call(place, "kms", "GetKeyPolicy", {"KeyId": arn, "PolicyName": "default"})
    if asked.answer is None:
        text = (
            f"whether {writer.service} may encrypt with it cannot be looked at (kms:GetKeyPolicy); it has to for "
            f"{writer.what}"
        )
        return Check("key.policy", UNTRIED, text, *where)
    if _allows(str(asked.answer.get("Policy") or ""), writer.service):
        return Check("key.policy", OK, f"{writer.service} may encrypt with it", *where)
    text = f"its policy does not let {writer.service} encrypt with it, which it has to for {writer.what}"
    return Check("key.policy", WARNING, text, *where, "add this statement to the key's policy", writer.statement)


def _allows(policy: str, service: str) -> bool:
    """As far as names go: conditions are not looked at."""
    try:
        statements = json.loads(policy).get("Statement", [])
    except (ValueError, AttributeError):
        return True  # not ours to judge
    for each in statements if isinstance(statements, list) else [statements]:
        principal = each.get("Principal")
        who = _listed(principal.get("Service", ()) if isinstance(principal, dict) else principal)
        actions = _listed(each.get("Action"))
        if each.get("Effect") == "Allow" and {service, "*"} & set(who) and any(_covers(one) for one in actions):
            return True
    return False


def _covers(action: str) -> bool:
    return fnmatchcase(_WRITES.lower(), action.lower())


def _listed(value: Any) -> Sequence[str]:
    return [value] if isinstance(value, str) else list(value or ())
