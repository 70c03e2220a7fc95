"""Settings of how AWS is reached and when it is asked: roles, credentials, regions, endpoints, discovery.

In and out: see `settings`. Never: a call to AWS; what is right here may still be refused there, and `doctor` says so.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from edfn_agent.config.section import HOUR, MINUTE, Section, duration, nearest, no_item_twice, reject, repeated, setting
from edfn_agent.config.times import Cron, Duration, TimeZone
from edfn_agent.config.values import BY_SHAPE, LIST, WORD, EndpointUrl, ExternalId, FilePath, OrText, Region, RoleArn

T = TypeVar("T")

SERVICES = (
    "cloudformation",
    "cloudwatch",
    "dynamodb",
    "ec2",
    "events",
    "firehose",
    "iam",
    "kinesis",
    "kms",
    "logs",
    "s3",
    "sns",
    "sqs",
    "sts",
)
_SERVICE_NICKNAMES = {
    "monitoring": "cloudwatch",
    "cloudwatch_logs": "logs",
    "cloudwatchlogs": "logs",
    "eventbridge": "events",
}


def _known_service(name: str) -> str:
    if name not in SERVICES:
        raise ValueError(f"is no service that the agent calls; {nearest(name, SERVICES, _SERVICE_NICKNAMES)}")
    return name


Service = Annotated[str, AfterValidator(_known_service)]


class Role(Section):
    """One role, assumed from the agent's own identity. May be written as `arn[,external-id]`."""

    arn: RoleArn = setting(
        ..., "One role for each account; never the agent's own.", example="arn:aws:iam::999999999999:role/EdfnAgent"
    )
    external_id: ExternalId | None = setting(
        None,
        "What the role's trust policy asks for. Kept out of every log, table and message.",
        form="text, best from ${NAME}",
        example="${EDFN_EXTERNAL_ID}",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return role_from_text(value) if isinstance(value, str) else value

    @property
    def account_id(self) -> str:
        return self.arn.split(":")[4]

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1]


def role_from_text(text: str) -> dict[str, str]:
    """`arn[,external-id]`, the form of the original product. An external id may itself hold commas."""
    arn, comma, external_id = text.partition(",")
    return {"arn": arn.strip()} | ({"external_id": external_id.strip()} if comma else {})


class Aws(Section):
    """Which accounts are read, and how they are reached. Proxies are taken from HTTPS_PROXY and NO_PROXY."""

    region: Region | None = setting(
        None,
        "For the first calls. Without it AWS_REGION, then the AWS config file, then the instance's own.",
        form="name of a region",
        example="us-east-1",
    )
    regions: Annotated[
        Annotated[Literal["all"], WORD] | Annotated[tuple[Region, ...], LIST, Field(min_length=1)], BY_SHAPE
    ] = setting(
        "all", "Where to look for VPCs; all is every region that an account has enabled.", form="all, or a list"
    )
    credentials_file: FilePath | None = setting(
        None, "An AWS credentials file. Every profile in it is one account.", example="/etc/edfn-agent/credentials"
    )
    roles: tuple[Annotated[Role, OrText("arn[,external-id]")], ...] = setting(
        (), "Accounts that are reached by assuming a role. With neither roles nor profiles, the agent's own account."
    )
    roles_file: FilePath | None = setting(
        None,
        "More roles: a text file with one `arn[,external-id]` in a line, `#` for comments.",
        example="/etc/edfn-agent/roles",
    )
    session_duration: Duration = duration(
        HOUR, 15 * MINUTE, 12 * HOUR, "How long an assumed role lasts. More than 1h must be allowed by each role."
    )
    endpoints: dict[Service, EndpointUrl] = setting(
        {},
        "For VPC endpoints, FIPS and emulators, in place of the public ones. "
        "`{region}` in a URL is the region of the call.",
        form="service: URL",
        example={"sqs": "https://vpce-0a1b-sqs.us-east-1.vpce.amazonaws.com"},
    )
    ip_ranges_file: FilePath | None = setting(
        None,
        "A copy of AWS's ip-ranges.json, to name the AWS service of an address.",
        example="/etc/edfn-agent/ip-ranges.json",
    )

    @field_validator("regions")
    @classmethod
    def _regions_once(cls, regions: T) -> T:
        return no_item_twice(regions)

    @field_validator("roles")
    @classmethod
    def _roles_once(cls, roles: tuple[Role, ...]) -> tuple[Role, ...]:
        again = repeated(((n,), role.arn) for n, role in enumerate(roles))
        reject((place, f"the role {arn} is in the list already") for place, arn in again)
        return roles


class Discovery(Section):
    """When accounts are asked again what they have."""

    schedule: Cron = setting(
        "*/15 * * * *",
        "When VPCs, interfaces and sources are looked up again. Day of month and day of week must both match.",
        form="cron, five fields; days by name (mon-fri), or 0 to 7 from Sunday",
    )
    timezone: TimeZone = setting("UTC", "The clock of `schedule`.", form="name of a time zone, like Europe/Berlin")
    jitter: Duration = duration(
        30, 0, HOUR, "Each run is shifted by up to this much, so that many agents do not call AWS in the same second."
    )
