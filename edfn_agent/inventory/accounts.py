"""The AWS accounts of the configuration: how each is reached, whether it is alive, and clients for its services.

In: the `aws` section of the configuration and what boto3 finds around it. Out: Account rows, findings about those that
are dead, and clients by (account, region, service). Never: secrets in a message, a call that is not about identity.

Each profile of `credentials_file` is an account, each role is one, both together are allowed; with neither it is the
agent's own identity. A role's credentials are one object for all of its clients and are renewed early enough, once, by
whoever needs them first. botocore's own windows (renew 15 minutes before the end, insist from 10 on) would re-assume a
role of 15 minutes on every call, so they are scaled to the duration.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edfn_agent import __version__
from edfn_agent.inventory.fanout import fan_out
from edfn_agent.inventory.model import Account, Finding
from edfn_agent.inventory.problems import Kind, Problem, classify, iam_action, next_step

CHAINED_DURATION = 3600
"""A role assumed by a role lasts an hour at most (IAM guide, "Role chaining")."""

HOME_REGIONS = {"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}
"""Where the first calls go in another partition than that of the default region."""

Observer = Callable[[str, str, str], None]
"""Told of each call when it is over: service, action, outcome (`ok`, or the error's code)."""


class NoRegion(Exception):
    """No region is known for the first calls."""

    def __init__(self) -> None:
        super().__init__(
            "no region for the first AWS calls: write aws.region in the configuration, set AWS_REGION, or write "
            "`region = ...` under [default] in ~/.aws/config (on an EC2 instance its own region is taken)"
        )


@dataclass(frozen=True, slots=True)
class RoleSource:
    """A role to assume from the agent's own identity."""

    arn: str
    external_id: str | None = field(default=None, repr=False)

    @property
    def account_id(self) -> str:
        return self.arn.split(":")[4]

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1]


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """What this module needs of the configuration's `aws` section."""

    region: str | None = None
    regions: Sequence[str] | None = None  # None: all that an account has enabled
    credentials_file: Path | None = None
    roles: Sequence[RoleSource] = ()
    session_duration: int = 3600
    endpoints: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, aws: Any) -> AwsSettings:
        """From `config.aws`."""
        return cls(
            region=aws.region,
            regions=None if aws.regions == "all" else tuple(aws.regions),
            credentials_file=Path(aws.credentials_file) if aws.credentials_file else None,
            roles=tuple(
                RoleSource(role.arn, role.external_id.get_secret_value() if role.external_id else None)
                for role in aws.roles
            ),
            session_duration=int(aws.session_duration),
            endpoints=dict(aws.endpoints),
        )


@dataclass
class _Living:
    """An account that answered."""

    account: Account
    session: Any  # botocore session that holds its credentials
    region: str  # for its first calls


class Accounts:
    """Who is alive, and clients for them. Made once; `open()` is called again before each discovery."""

    def __init__(self, settings: AwsSettings, observer: Observer | None = None, pool: int = 16) -> None:
        self.settings = settings
        self.rows: tuple[Account, ...] = ()
        self.findings: tuple[Finding, ...] = ()
        self._observer = observer
        self._pool = pool  # connections kept per client: at least as many as threads that share it
        self._lock = threading.RLock()
        self._living: dict[str, _Living] = {}
        self._by_via: dict[str, _Living] = {}
        self._clients: dict[tuple[str, str, str, str], Any] = {}
        self._loader: Any = None
        self._own: Any = None
        self._own_arn: str | None = None
        self._own_account: _Living | None = None  # where it assumes roles: not one of the accounts, but within reach
        self._own_problem: Problem | None = None
        self._region: str | None = None
        self.calls = 0

    # ---- who is there

    def open(self) -> tuple[Account, ...]:
        """Asks every account who it is, side by side; the dead are tried anew, the living keep their credentials.

        Raises NoRegion. Everything else that goes wrong is a row with status `failed` and a finding.
        """
        found: list[_Result] = []
        settings = self.settings
        if not settings.credentials_file and not settings.roles:
            found = [self._open_default()]
        if settings.credentials_file:
            names = self._profiles(settings.credentials_file, found)
            found += fan_out(("", partial(self._open_profile, name)) for name in names)
        if settings.roles:
            self._know_myself()
            found += fan_out(("", partial(self._open_role, role)) for role in settings.roles)
        with self._lock:
            self._take(found)
        return self.rows

    def _take(self, found: Iterable[_Result]) -> None:
        rows: list[Account] = []
        findings: list[Finding] = []
        self._living = {}
        for each in found:
            findings += each.findings
            account = each.account
            first = self._living.get(account.account_id or "") if each.living else None
            if first is not None:
                findings.append(_twice(first.account, account))
                continue
            rows.append(account)
            if each.living is not None and account.account_id is not None:
                self._living[account.account_id] = each.living
                self._by_via[account.via] = each.living
        self.rows, self.findings = tuple(rows), tuple(findings)

    def alive(self, account_id: str) -> bool:
        """Whether there are clients for it: of the accounts that answered, and of the agent's own, where the queue or
        stream of all of them may be. That one is discovered only if it is one of them."""
        return self._reached(account_id) is not None

    def _reached(self, account_id: str) -> _Living | None:
        own = self._own_account
        if account_id not in self._living and own is not None and own.account.account_id == account_id:
            return own
        return self._living.get(account_id)

    @property
    def living(self) -> Sequence[Account]:
        return [each.account for each in self._living.values()]

    @property
    def own_arn(self) -> str | None:
        """The agent's own identity; known where roles are assumed or it is the only account."""
        return self._own_arn

    def home_region(self, account_id: str) -> str:
        """Where an account's first calls go."""
        return self._of(account_id).region

    def _of(self, account_id: str) -> _Living:
        found = self._reached(account_id)
        if found is None:
            raise KeyError(account_id)
        return found

    # ---- clients

    def client(self, account_id: str, region: str, service: str, *, patient: bool = False) -> Any:
        """The client of a service, made once and shared by threads. Raises KeyError for an account that is not alive.

        `patient` is for Describe calls: it slows itself down when AWS throttles (botocore's adaptive mode, which holds
        back every call of that client) and tries longer. Reading queues and objects must not wait for one another.
        """
        mode = "adaptive" if patient else "standard"
        key = (account_id, region, service, mode)
        with self._lock:  # a session must not make two clients at a time
            client = self._clients.get(key)
            if client is None:
                living = self._of(account_id)
                client = self._clients[key] = self._make_client(living.session, region, service, mode)
            return client

    def credentials(self, account_id: str) -> Any:
        """botocore's credentials of an account, for what signs by itself. `get_frozen_credentials()` renews them."""
        return self._of(account_id).session.get_credentials()

    def forget_clients(self, place: tuple[str, str] | None = None) -> None:
        """Lets go of the clients of discovery, of one account and region or all: two megabytes each."""
        with self._lock:
            for key in [key for key in self._clients if key[3] == "adaptive" and place in (None, key[:2])]:
                self._clients.pop(key).close()

    def partition_of(self, region: str) -> str:
        try:
            return str(self._own_session().get_partition_for_region(region))
        except Exception:  # a region that this botocore does not know
            return "aws"

    def _make_client(self, session: Any, region: str, service: str, mode: str) -> Any:
        from botocore.config import Config

        endpoint = self.settings.endpoints.get(service)
        retries: Any = {"mode": mode, "total_max_attempts": 6 if mode == "adaptive" else 4}
        client = session.create_client(
            service,
            region_name=region,
            endpoint_url=endpoint.replace("{region}", region) if endpoint else None,
            config=Config(
                user_agent_extra=f"edfn-agent/{__version__}",
                connect_timeout=10,
                # Above the 20 s of an SQS long poll. A connection that died in silence is given up after it, not
                # after botocore's 60 s.
                read_timeout=30,
                retries=retries,
                max_pool_connections=self._pool,
                tcp_keepalive=True,
                # A bucket's name in front of the host of an emulator or VPC endpoint would not resolve.
                s3={"addressing_style": "path"} if service == "s3" and endpoint else None,
            ),
        )
        client.meta.events.register("after-call", self._after_call)
        client.meta.events.register("after-call-error", self._after_call_error)
        return client

    def _after_call(self, parsed: Mapping[str, Any], model: Any, **_: Any) -> None:
        self._count(model, str(parsed.get("Error", {}).get("Code") or "error") if "Error" in parsed else "ok")

    def _after_call_error(self, exception: BaseException, event_name: str, **_: Any) -> None:
        service, _dot, operation = event_name.removeprefix("after-call-error.").partition(".")
        self._tell(service, operation, type(exception).__name__)

    def _count(self, model: Any, outcome: str) -> None:
        self._tell(model.service_model.service_name, model.name, outcome)

    def _tell(self, service: str, action: str, outcome: str) -> None:
        with self._lock:
            self.calls += 1
        if self._observer is not None:
            self._observer(service, action, outcome)

    # ---- sessions

    def _session(self, profile: str | None = None, credentials: Any = None) -> Any:
        """A botocore session. All share one loader: service descriptions cost 25 MB and 200 ms each time."""
        import botocore.session

        session = botocore.session.Session(profile=profile)
        if profile is not None:
            session.set_config_variable("credentials_file", str(self.settings.credentials_file))
        # Tokens of the global STS endpoint are not valid in opt-in regions.
        session.set_config_variable("sts_regional_endpoints", "regional")
        with self._lock:
            if self._loader is None:
                self._loader = session.get_component("data_loader")
        session.register_component("data_loader", self._loader)
        if credentials is not None:
            setattr(session, "_credentials", credentials)  # noqa: B010  # boto3 does so, too: there is no public way
        return session

    def _own_session(self) -> Any:
        with self._lock:
            if self._own is None:
                self._own = self._session()
            return self._own

    def _first_region(self) -> str:
        with self._lock:
            if self._region is None:
                self._region = self.settings.region or default_region(self._own_session())
            if self._region is None:
                raise NoRegion
            return self._region

    def _region_in(self, partition: str) -> str:
        """A region for first calls in a partition."""
        listed = [each for each in self.settings.regions or () if self.partition_of(each) == partition]
        try:
            region = self._first_region()
            if self.partition_of(region) == partition:
                return region
        except NoRegion:
            if not listed:
                raise
        if listed:
            return listed[0]
        return HOME_REGIONS.get(partition) or self._own_session().get_available_regions("ec2", partition)[0]

    # ---- one account each

    def _known(self, via: str) -> _Result | None:
        """An account that answered before, if it still does. If not, all that was kept of it is forgotten."""
        living = self._by_via.get(via)
        if living is None:
            return None
        account_id = living.account.account_id or ""
        try:
            self._make_client(living.session, living.region, "sts", "standard").get_caller_identity()
        except Exception:  # whatever it is: opening the account anew says it, or mends it (a new key in the file)
            with self._lock:
                del self._by_via[via]
                for key in [key for key in self._clients if key[0] == account_id]:
                    self._clients.pop(key).close()
            return None
        return _Result(living.account, living)

    def _open_default(self) -> _Result:
        region = self._first_region()
        known = self._known("default")
        if known is not None:
            return known
        with self._lock:
            self._own = None  # so that new credentials are looked for
        return self._identify(self._own_session(), "default", "", region)

    def _profiles(self, path: Path, found: list[_Result]) -> list[str]:
        try:
            profiles = profiles_of(path)
        except (OSError, ValueError) as error:
            problem = f"the credentials file cannot be read: {error}"
            step = "check aws.credentials_file, and that the agent's user may read it"
            found.append(_dead(None, "", f"profile:{path}", problem, str(path), step))
            return []
        if not profiles:
            problem, step = "the credentials file holds no profile", "write one [name] with an access key per account"
            found.append(_dead(None, "", f"profile:{path}", problem, str(path), step))
        return profiles

    def _open_profile(self, name: str) -> _Result:
        via = f"profile:{name}"
        known = self._known(via)
        if known is not None:
            return known
        try:
            session = self._session(profile=name)
            region = session.get_scoped_config().get("region") or self._first_region()
            return self._identify(session, via, name, region)
        except NoRegion:
            raise
        except Exception as error:
            return _from_error(None, name, via, error, f"profile {name} of {self.settings.credentials_file}")

    def _identify(self, session: Any, via: str, name: str, region: str) -> _Result:
        """GetCallerIdentity needs no permission, so whatever it answers is about the credentials."""
        subject = f"profile {name}" if name else "the agent's own identity"
        try:
            if session.get_credentials() is None:
                from botocore.exceptions import NoCredentialsError

                raise NoCredentialsError
            identity = self._make_client(session, region, "sts", "standard").get_caller_identity()
        except Exception as error:
            return _from_error(None, name or "default", via, error, subject)
        if via == "default":
            self._own_arn = identity["Arn"]
        partition = identity["Arn"].split(":")[1]
        account = Account(identity["Account"], name or identity["Account"], via, "ok", partition=partition)
        return _Result(account, _Living(account, session, region))

    def _know_myself(self) -> None:
        """Who assumes the roles. Not knowing is no failure yet: AssumeRole says it better."""
        if self._own_arn is not None:
            return
        try:
            session, region = self._own_session(), self._first_region()
            if session.get_credentials() is not None:
                identity = self._make_client(session, region, "sts", "standard").get_caller_identity()
                self._own_arn, self._own_problem = identity["Arn"], None
                partition = identity["Arn"].split(":")[1]
                account = Account(identity["Account"], identity["Account"], "default", "ok", partition=partition)
                self._own_account = _Living(account, session, region)
        except NoRegion:
            raise
        except Exception as error:
            self._own_problem = classify(error)

    def _open_role(self, role: RoleSource) -> _Result:
        via = f"role:{role.arn}"
        known = self._known(via)
        if known is not None:
            return known
        name = role.account_id
        region = self._region_in(role.partition)
        account = Account(role.account_id, name, via, "ok", partition=role.partition)
        if self._own_arn is not None and is_own_role(self._own_arn, role.arn):
            living = _Living(account, self._own_session(), region)
            return _Result(account, living, [_own_role(role)])
        findings: list[Finding] = []
        try:
            session = self._session(credentials=self._assumed(role, region, findings))
        except Exception as error:
            return self._refused(role, name, via, error)
        return _Result(account, _Living(account, session, region), findings)

    def _assumed(self, role: RoleSource, region: str, findings: list[Finding]) -> Any:
        """Credentials that renew themselves by assuming the role again."""
        from botocore.credentials import RefreshableCredentials
        from botocore.exceptions import ClientError

        client = self._make_client(self._own_session(), region, "sts", "standard")
        duration = self.settings.session_duration
        if duration > CHAINED_DURATION and ":assumed-role/" in (self._own_arn or ""):
            findings.append(_chained(role, duration))
            duration = CHAINED_DURATION

        def assume() -> dict[str, str]:
            nonlocal duration
            arguments = {"RoleArn": role.arn, "RoleSessionName": "edfn-agent", "DurationSeconds": duration}
            if role.external_id is not None:
                arguments["ExternalId"] = role.external_id
            try:
                answer = client.assume_role(**arguments)
            except ClientError as error:
                if duration <= CHAINED_DURATION or not _is_about_duration(error):
                    raise
                findings.append(_too_long(role, duration))
                duration = CHAINED_DURATION
                return assume()
            credentials = answer["Credentials"]
            return {
                "access_key": credentials["AccessKeyId"],
                "secret_key": credentials["SecretAccessKey"],
                "token": credentials["SessionToken"],
                "expiry_time": credentials["Expiration"].isoformat(),
            }

        metadata = assume()
        advisory, mandatory = refresh_windows(duration)
        return RefreshableCredentials.create_from_metadata(
            metadata, assume, "sts-assume-role", advisory_timeout=advisory, mandatory_timeout=mandatory
        )

    def _refused(self, role: RoleSource, name: str, via: str, error: Exception) -> _Result:
        if self._own_problem is not None:
            problem = self._own_problem
            message = f"the agent's own identity, from which the role is assumed, is refused: {problem.message}"
            return _dead(role.account_id, name, via, message, role.arn, next_step(problem, "sts:AssumeRole"), role)
        problem = classify(error)
        if problem.code in ("NoCredentialsError", "CredentialRetrievalError"):
            message = "the agent has no identity of its own from which it could assume the role"
            step = "give it an instance role, container role, keys or an SSO profile, or use aws.credentials_file"
            return _dead(role.account_id, name, via, message, role.arn, step, role)
        if problem.kind is Kind.DENIED:
            me = self._own_arn or "the agent's identity"
            if role.external_id is not None:
                message = f"the role refuses {me}: most likely the external id is not the one in its trust policy"
                step = "compare external_id with sts:ExternalId in the role's trust policy; then check that it"
            else:
                message = f"the role refuses {me}: {problem.message}"
                step = "if the role's trust policy asks for sts:ExternalId, write external_id; check that it"
            step += f" trusts {me}, and that {me} may call {iam_action('sts', 'AssumeRole')} on this role"
            return _dead(role.account_id, name, via, message, role.arn, step, role)
        return _from_error(role.account_id, name, via, error, role.arn)


@dataclass
class _Result:
    account: Account
    living: _Living | None = None
    findings: list[Finding] = field(default_factory=list)


def _from_error(account_id: str | None, name: str, via: str, error: Exception, subject: str) -> _Result:
    problem = classify(error)
    text = {
        Kind.CREDENTIALS: "its credentials are refused or incomplete",
        Kind.CLOCK: "AWS refuses the time of this machine",
        Kind.UNREACHABLE: "AWS cannot be reached",
        Kind.REGION: "the region for the first calls is not enabled",
    }.get(problem.kind, "it cannot be asked who it is")
    if problem.code in ("ExpiredToken", "ExpiredTokenException"):
        text = "its token has expired"
    message = f"{text}: {problem.message}"
    return _dead(account_id, name, via, message, subject, next_step(problem, "sts:GetCallerIdentity"))


def _dead(
    account_id: str | None, name: str, via: str, problem: str, subject: str, step: str, role: RoleSource | None = None
) -> _Result:
    partition = role.partition if role else "aws"
    account = Account(account_id, name, via, "failed", problem, partition)
    return _Result(account, None, [Finding("error", account_id, None, subject, problem, step, "account.identity")])


def _twice(first: Account, second: Account) -> Finding:
    return Finding(
        "warning",
        first.account_id,
        None,
        second.via,
        f"this account is already reached by {first.via}, which is used",
        f"take {second.via} or {first.via} out of the configuration",
        "account.once",
    )


def _own_role(role: RoleSource) -> Finding:
    return Finding(
        "warning",
        role.account_id,
        None,
        role.arn,
        "this is the role that the agent runs with; it is used as it is, without assuming it",
        "leave it if this account is to be read, too; take it out of aws.roles if not",
        "account.once",
    )


def _chained(role: RoleSource, duration: int) -> Finding:
    return Finding(
        "info",
        role.account_id,
        None,
        role.arn,
        f"the agent's identity is itself a role, so sessions last 1 h instead of {duration} s (role chaining)",
        "set aws.session_duration to 1h; sessions are renewed in time either way",
        "account.session",
    )


def _too_long(role: RoleSource, duration: int) -> Finding:
    return Finding(
        "warning",
        role.account_id,
        None,
        role.arn,
        f"the role does not allow sessions of {duration} s; 1 h is used",
        "raise the role's maximum session duration, or lower aws.session_duration",
        "account.session",
    )


def _is_about_duration(error: Any) -> bool:
    return "DurationSeconds" in str(error.response.get("Error", {}).get("Message", ""))


def refresh_windows(duration: int) -> tuple[int, int]:
    """When to renew credentials: seconds before the end from which one caller tries, and from which all must wait.

    A fifth and a fifteenth of the duration, at most what botocore uses: 180 and 60 s of 15 minutes, 720 and 240 s of
    an hour.
    """
    return min(900, duration // 5), min(600, duration // 15)


def is_own_role(own_arn: str, role_arn: str) -> bool:
    """arn:aws:sts::1:assumed-role/NAME/SESSION is a session of arn:aws:iam::1:role/any/path/NAME."""
    own, role = own_arn.split(":"), role_arn.split(":")
    if own[4] != role[4] or not own[5].startswith("assumed-role/"):
        return False
    return own[5].split("/")[1] == role[5].rpartition("/")[2]


def profiles_of(path: Path) -> list[str]:
    """The profiles of a credentials file, and of no other file. Raises OSError or ValueError."""
    from botocore.configloader import raw_config_parse
    from botocore.exceptions import ConfigNotFound, ConfigParseError

    try:
        with path.open("rb"):
            pass  # botocore takes an unreadable file for a missing one
        return list(raw_config_parse(str(path)))
    except (ConfigNotFound, ConfigParseError) as error:
        raise ValueError(str(error)) from error


def default_region(session: Any) -> str | None:
    """AWS_REGION, AWS_DEFAULT_REGION, the profile in force or [default] of the config file, the instance's metadata."""
    from botocore.utils import IMDSRegionProvider

    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if os.environ.get(name):
            return os.environ[name]
    profiles = session.full_config.get("profiles", {})
    for name in (session.profile, "default"):
        region = profiles.get(name, {}).get("region") if name else None
        if region:
            return str(region)
    try:
        region = IMDSRegionProvider(session).provide()
    except Exception:  # not on an instance, or the metadata service is off
        return None
    return str(region) if region else None
