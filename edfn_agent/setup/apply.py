"""A plan carried out: look, say what will be done, do it; and the way back.

In: a Plan and credentials. Out: resources that carry the plan's tag, or their removal. Never: a change before the
question was answered, a change to something that was there before and is not ours (beyond entries added by name), the
removal of data that nobody asked for.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edfn_agent.setup.calls import Call, Merge, Pause, Step, Tag, Wait, make
from edfn_agent.setup.look import Seen, State, look
from edfn_agent.setup.model import ACCESS_KEY, Place, Plan, Resource, SetupError, substitute

# A role, a policy or a queue policy that was made a second ago is not known everywhere yet; AWS then says one of these.
_TOO_EARLY = re.compile(
    r"assume|role|principal|permission|authorized|unable to validate|deliver test message|does not exist", re.IGNORECASE
)
_TOO_EARLY_CODES = {
    "InvalidArgument",
    "InvalidArgumentException",
    "InvalidParameterException",
    "InvalidParameterValue",
    "MalformedPolicyDocument",
    "MalformedPolicy",
    "AWS.SimpleQueueService.NonExistentQueue",
    "OperationAbortedException",
    "OperationAborted",
}
_PATIENCE = 90.0  # seconds; roles usually take under 15
_READY_WITHIN = 600.0  # streams and delivery streams take minutes


@dataclass
class Aws:
    """Clients by place. An account is reached by its profile, by a role, or by the credentials in hand."""

    profiles: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)  # what a placeholder like FirehoseAccessKey.Secret is
    sleep: Callable[[float], None] = time.sleep
    values: dict[tuple[Place, str], str] = field(default_factory=dict)
    _sessions: dict[str, Any] = field(default_factory=dict)
    _clients: dict[tuple[Place, str], Any] = field(default_factory=dict)

    def client(self, place: Place, service: str) -> Any:
        if (place, service) not in self._clients:
            self._clients[place, service] = self._session(place).client(service, region_name=place.region)
        return self._clients[place, service]

    def _session(self, place: Place) -> Any:
        if place.account in self._sessions:
            return self._sessions[place.account]
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            session = boto3.Session(profile_name=self.profiles.get(place.account), region_name=place.region)
            if role := self.roles.get(place.account):
                answer = session.client("sts").assume_role(RoleArn=role, RoleSessionName="edfn-agent-setup")
                given = answer["Credentials"]
                session = boto3.Session(
                    given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], region_name=place.region
                )
            found = session.client("sts").get_caller_identity()["Account"]
        except (BotoCoreError, ClientError) as error:
            raise SetupError(f"account {place.account}: {error}") from error
        if found != place.account:
            raise SetupError(
                f"the credentials in hand are of account {found}, this is for {place.account}: "
                f"say --profile {place.account}=NAME or --assume {place.account}=ROLE-ARN"
            )
        self._sessions[place.account] = session
        return session

    def fill(self, place: Place, parameters: Any) -> Any:
        """Parameters with every placeholder replaced by what AWS (or the secret file) said."""

        def value(logical_id: str, attribute: str) -> str:
            name = f"{logical_id}.{attribute}"
            if name in self.secrets:
                return self.secrets[name]
            if (place, name) not in self.values:
                raise SetupError(f"{name} is not known yet")
            return self.values[place, name]

        return substitute(parameters, value)

    def call(self, place: Place, step: Call) -> Any:
        """Make one call; again for a while, when AWS says what it says of things that are too new."""
        from botocore import xform_name
        from botocore.exceptions import ClientError

        method = getattr(self.client(place, step.service), xform_name(step.operation))
        parameters = self.fill(place, step.parameters)
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                answer = method(**parameters)
                break
            except ClientError as error:
                code, message = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
                early = code in _TOO_EARLY_CODES and _TOO_EARLY.search(message)
                if not early or time.monotonic() > until:
                    raise
                self.sleep(3)
        for failed in answer.get("Unsuccessful", []):  # CreateFlowLogs answers 200 and means no
            fault = failed.get("Error", {})
            raise SetupError(f"{failed.get('ResourceId')}: {fault.get('Code')}: {fault.get('Message')}")
        if step.saves:
            name, path = step.saves
            found: Any = answer
            for part in path.split("."):
                found = found[part]
            self.values[place, name] = str(found)
        return answer


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
            raise SetupError(
                f"{describe(resource)} in {resource.place}: {error}. What was made before it is there; "
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
    from edfn_agent.setup.look import read_document

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
