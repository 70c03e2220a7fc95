"""What an error of AWS means: who has to do what.

In: an exception of botocore. Out: its kind, a message for people, and the next step. Never: retries (botocore's), text
that could hold a secret.

Error codes differ by service and by emulator, so a 403 is a permission problem whatever its code, unless the code says
that the credentials themselves are at fault.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum


class Kind(Enum):
    DENIED = "denied"  # a policy does not allow it
    CREDENTIALS = "credentials"  # unknown, deleted, expired, or none at all
    CLOCK = "clock"  # this machine's clock is wrong
    REGION = "region"  # not enabled in the account, or not one of AWS's
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"  # no answer: network, proxy, endpoint, certificate
    MISSING = "missing"  # the thing asked about does not exist
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Problem:
    kind: Kind
    code: str
    message: str  # one line


_CODES = {
    Kind.DENIED: (
        "AccessDenied AccessDeniedException AccessDeniedFault UnauthorizedOperation AllAccessDisabled "
        "KMSAccessDeniedException AuthorizationError AuthorizationErrorException"
    ),
    Kind.CREDENTIALS: (
        "ExpiredToken ExpiredTokenException TokenRefreshRequired InvalidClientTokenId InvalidAccessKeyId "
        "UnrecognizedClientException SignatureDoesNotMatch InvalidSignatureException MissingAuthenticationToken "
        "IncompleteSignature InvalidToken AuthFailure InvalidSecurity"
    ),
    Kind.CLOCK: "RequestTimeTooSkewed RequestExpired RequestInTheFuture",
    Kind.REGION: "OptInRequired RegionDisabledException InvalidRegion IllegalLocationConstraintException",
    Kind.THROTTLED: (
        "Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException "
        "RequestLimitExceeded TooManyRequestsException LimitExceededException SlowDown BandwidthLimitExceeded "
        "PriorRequestNotComplete EC2ThrottledException ProvisionedThroughputExceededException"
    ),
    Kind.MISSING: (
        "ResourceNotFoundException ResourceNotFound NoSuchBucket NoSuchKey NotFound NotFoundException NotFoundFault "
        "AWS.SimpleQueueService.NonExistentQueue QueueDoesNotExist NonExistentQueue NoSuchEntity"
    ),
}
_KIND_OF = {code: kind for kind, codes in _CODES.items() for code in codes.split()}

_NO_CREDENTIALS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "CredentialRetrievalError",
        "MetadataRetrievalError",
        "ProfileNotFound",
        "TokenRetrievalError",
        "SSOTokenLoadError",
        "SSOError",
        "InvalidConfigError",
        "ConfigParseError",
        "ConfigNotFound",
        "UnknownCredentialError",
        "InfiniteLoopConfigError",
        "RefreshWithMFAUnsupportedError",
    }
)


_LOG_IN = frozenset({"SSOError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError"})
"""Of those, what a person mends by logging in."""


def classify(error: BaseException) -> Problem:
    """What kind of trouble an exception of botocore stands for."""
    from botocore.exceptions import ClientError, HTTPClientError
    from botocore.exceptions import ConnectionError as NoConnection

    if isinstance(error, ClientError):
        return _client_error(error)
    name = type(error).__name__
    message = _one_line(str(error)) or name
    if isinstance(error, (HTTPClientError, NoConnection, OSError)):
        return Problem(Kind.UNREACHABLE, name, message)
    if any(each.__name__ in _NO_CREDENTIALS for each in type(error).__mro__):
        return Problem(Kind.CREDENTIALS, name, message)
    return Problem(Kind.OTHER, name, message)


def _client_error(error: object) -> Problem:
    response = getattr(error, "response", {})
    code = str(response.get("Error", {}).get("Code", ""))
    message = _one_line(str(response.get("Error", {}).get("Message", ""))) or code
    metadata = response.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode")
    if _is_clock(code, message):
        return Problem(Kind.CLOCK, code, message + _skew(metadata.get("HTTPHeaders", {}).get("date")))
    kind = _KIND_OF.get(code)
    # Some services append to the code: NoSuchEntityException, InvalidVpcID.NotFound.
    if kind is None and (code.endswith((".NotFound", "NotFoundException")) or status == 404):
        kind = Kind.MISSING
    if kind is None and status == 403:
        kind = Kind.DENIED
    if kind is None and status in (429, 503):
        kind = Kind.THROTTLED
    return Problem(kind or Kind.OTHER, code, message)


def _is_clock(code: str, message: str) -> bool:
    if _KIND_OF.get(code) is Kind.CLOCK:
        return True
    return bool(re.search(r"signature (expired|not yet current)", message, re.IGNORECASE))


def _skew(date: str | None) -> str:
    """How far this machine's clock is off, by the Date header of the refusal."""
    if not date:
        return ""
    try:
        seconds = (datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()
    except (TypeError, ValueError):
        return ""
    direction = "ahead of" if seconds > 0 else "behind"
    return f" (this machine's clock is {abs(seconds):.0f} s {direction} AWS)"


def _one_line(text: str) -> str:
    # The encoded authorization message is hundreds of characters that only another call could read.
    text = re.sub(r"Encoded authorization failure message:\s*\S+", "", text)
    text = re.sub(r"<[^>]*>", " ", text)  # an HTML page of a proxy
    text = " ".join(text.split())
    return text if len(text) <= 400 else text[:400] + "..."


_SPECIAL_ACTIONS = {
    ("s3", "GetBucketNotificationConfiguration"): "s3:GetBucketNotification",
    ("s3", "HeadObject"): "s3:GetObject",
    ("s3", "ListObjectsV2"): "s3:ListBucket",
    ("sqs", "DeleteMessageBatch"): "sqs:DeleteMessage",
    ("sqs", "ChangeMessageVisibilityBatch"): "sqs:ChangeMessageVisibility",
}


def iam_action(service: str, operation: str) -> str:
    """The action that a policy must allow for an operation: `ec2:DescribeVpcs`."""
    return _SPECIAL_ACTIONS.get((service, operation), f"{service}:{operation}")


def next_step(problem: Problem, action: str) -> str:
    """What to do about a failed call, in one sentence."""
    if problem.kind is Kind.DENIED:
        if "service control policy" in problem.message:
            return f"a service control policy of the organization denies {action}; ask whoever keeps it to allow it"
        if "explicit deny" in problem.message:
            return f"a policy denies {action} explicitly; take that out, allowing it elsewhere does not help"
        return f"allow {action} in the policy of the role or user (docs/permissions.md)"
    if problem.code in _LOG_IN:
        return "log in as the agent's user (`aws sso login`); for a service a role that needs no login is better"
    return {
        Kind.CREDENTIALS: "renew the access key, token or role session that this account is reached with",
        Kind.CLOCK: "set the clock of this machine (chrony or systemd-timesyncd); AWS refuses more than 5 minutes",
        Kind.REGION: "enable the region in the account, or leave it out of aws.regions",
        Kind.THROTTLED: "nothing, it is asked again at the next discovery; a rarer discovery.schedule helps",
        Kind.UNREACHABLE: "check route, proxy (HTTPS_PROXY, NO_PROXY), firewall and aws.endpoints",
        Kind.MISSING: "check the name: it was deleted, or belongs to another account or region",
        Kind.OTHER: "see the message; it is asked again at the next discovery",
    }[problem.kind]
