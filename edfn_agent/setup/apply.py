"""A plan carried out: look, say what will be done, do it; and the way back.

In: a Plan and credentials. Out: resources that carry the plan's tag, or their removal. Never: a change before the
question was answered, a change to something that was there before and is not ours (beyond entries added by name), the
removal of data that nobody asked for.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edfn_agent.setup.access import Aws
from edfn_agent.setup.calls import Call, Merge, Pause, Step, Tag, Wait, make
from edfn_agent.setup.look import Seen, State, look, read_document
from edfn_agent.setup.model import ACCESS_KEY, Place, Plan, Resource, SetupError

_READY_WITHIN = 600.0  # seconds; streams and delivery streams take minutes


@dataclass(frozen=True)
class Item:
    """One resource as it was found."""

    resource: Resource
    seen: Seen

    @property
    def to_make(self) -> bool:
        return self.seen.state in (State.MISSING, State.DIFFERS)


def survey(plan: Plan, aws: Aws) -> list[Item]:
    """What is there of the plan, in the order of making. Reads only."""
    from botocore.exceptions import BotoCoreError, ClientError

    tag = Tag(plan.tag)
    found = []
    for resources in plan.stacks().values():
        for resource in resources:
            try:
                found.append(Item(resource, look(resource, aws, tag)))
            except (BotoCoreError, ClientError) as error:
                raise SetupError(f"{describe(resource)} in {resource.place}: {error}") from error
    return found


def conflicts(items: list[Item]) -> list[str]:
    return [
        f"{describe(item.resource)} in {item.resource.place}: {item.seen.detail}"
        for item in items
        if item.seen.state is State.CONFLICT
    ]


def carry_out(plan: Plan, aws: Aws, items: list[Item], say: Callable[[str], None]) -> None:
    """Make what is missing and mend what differs."""
    from botocore.exceptions import BotoCoreError, ClientError

    asked = any(ACCESS_KEY in repr(make(item.resource, Tag(plan.tag))) for item in items if item.to_make)
    if asked and ACCESS_KEY[2:-1] not in aws.secrets:
        raise SetupError("the delivery stream needs the access key: say --access-key-file FILE, or --secret ARN")
    for item in items:
        if not item.to_make:
            continue
        resource = item.resource
        try:
            steps = make(resource, Tag(plan.tag)) if item.seen.state is State.MISSING else item.seen.mend
            for step in steps:
                take(step, resource.place, aws)
        except (BotoCoreError, ClientError, SetupError) as error:
            said = str(error).rstrip(".")
            raise SetupError(
                f"{describe(resource)} in {resource.place}: {said}. What was made before it is there; "
                "run the same command again when this is mended, or with --undo to remove it"
            ) from error
        say(f"{'made' if item.seen.state is State.MISSING else 'changed'}  {describe(resource)}")


def take(step: Step, place: Place, aws: Aws) -> None:
    """One step."""
    if isinstance(step, Call):
        aws.call(place, step)
    elif isinstance(step, Merge):
        merge(step, place, aws, remove=False)
    elif isinstance(step, Wait):
        _wait(step, place, aws)
    elif isinstance(step, Pause):
        pass  # `Aws.call` tries again instead


def _wait(step: Wait, place: Place, aws: Aws) -> None:
    until = time.monotonic() + _READY_WITHIN
    while True:
        found: Any = aws.call(place, step.call)
        for part in step.path:
            found = found[part]
        if found == step.value:
            return
        if time.monotonic() > until or "FAILED" in str(found):
            raise SetupError(f"{step.call.operation} says {found}, not {step.value}")
        aws.sleep(3)


def merge(step: Merge, place: Place, aws: Aws, remove: bool) -> None:
    """Put entries into a document (or take them out) and leave everyone else's as they are."""
    document = read_document(step, place, aws)
    entries = aws.fill(place, list(step.entries))
    names = {entry[step.named_by] for entry in entries}
    others = [entry for entry in document.get(step.entries_in, []) if entry.get(step.named_by) not in names]
    document[step.entries_in] = others if remove else [*others, *entries]
    if step.as_text:
        if not document[step.entries_in] and step.write.operation == "PutBucketPolicy":
            aws.call(place, Call("s3", "DeleteBucketPolicy", step.write.parameters))
            return
        document.setdefault("Version", "2012-10-17")
    content: Any = json.dumps(document, separators=(",", ":")) if step.as_text else document
    aws.call(place, Call(step.write.service, step.write.operation, {**step.write.parameters, step.document: content}))


def describe(resource: Resource) -> str:
    """What a person calls it: its kind and its name."""
    kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(resource).__name__).lower()
    for attribute in ("name", "bucket", "alias", "key_arn", "resource_id"):
        if value := getattr(resource, attribute, None):
            return f"{kind} {value}"
    return kind
