"""AWS as setup reaches it: a client for each place, and one way to make a call.

In: profiles, roles and secrets by account. Out: answers; values of placeholders as AWS says them. Never: a call with
credentials of another account than the one the plan names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edfn_agent.setup.calls import Call
from edfn_agent.setup.model import Place, SetupError, substitute

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
