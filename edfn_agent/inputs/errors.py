"""What can go wrong between a source and the agent, in the few kinds that are treated differently.

In: an exception of botocore, urllib3 or the socket. Out: a `Fault` that says its kind, what was tried and what to do.
`ReadFailed` is what `Delivery.chunks()` raises when the octets cannot be had: it says what becomes of the delivery.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from botocore import exceptions as boto

from edfn_agent.delivery import Outcome


class ReadFailed(Exception):
    """The octets of a delivery cannot be had (any more). Raised out of `chunks()`; whoever reads does

        except ReadFailed as failed:
            delivery.fail(failed.outcome, failed.reason)

    and lets go of the delivery as always. What was read before stays read: the source hands all of it over again.
    """

    def __init__(self, outcome: Outcome, reason: str, kind: Kind | None = None) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason
        self.kind = kind


class Kind(Enum):
    """Why a call failed, as far as it matters for what is done next."""

    THROTTLED = "throttled"  # slower, then again
    DENIED = "denied"  # a person has to give a permission; the pause grows
    KEY_DENIED = "key denied"  # the same, for a KMS key
    MISSING = "missing"  # the thing is not there
    CHANGED = "changed"  # not the thing it was (If-Match)
    ELSEWHERE = "elsewhere"  # another region has it
    CREDENTIALS = "credentials"  # none, or expired and not renewed
    PASSING = "passing"  # 5xx, connection, time-out: again
    OTHER = "other"  # AWS said no for a reason of its own


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    code: str  # AWS's, or the name of the exception
    message: str
    region: str | None = None  # where it is, when AWS says so

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_BAD_CREDENTIALS = {
    *("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("AuthFailure", "InvalidToken", "MissingAuthenticationToken", "InvalidSignatureException"),
}
_THROTTLED = {
    *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException"),
    *("SlowDown", "RequestLimitExceeded", "TooManyRequestsException", "LimitExceededException"),
    *("OverLimit", "AWS.SimpleQueueService.OverLimit", "KmsThrottled", "KMS.ThrottlingException", "429"),
}
_ELSEWHERE = {
    "PermanentRedirect",
    "TemporaryRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
}
_MISSING = {
    *("NoSuchKey", "NoSuchBucket", "NoSuchVersion", "404", "NotFound", "ResourceNotFoundException"),
    *("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "MethodNotAllowed"),
}
_KMS = re.compile(r"kms:|\bKMS\b", re.IGNORECASE)
_KEY_ARN = re.compile(r"arn:aws[\w-]*:kms:[\w:/-]+")
_PASSING = (
    *(boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, boto.ResponseStreamingError),
    *(boto.FlexibleChecksumError, OSError),
)


def fault(error: BaseException) -> Fault:
    """Sort one exception. Never raises: what nobody foresaw is OTHER, with its own name."""
    if isinstance(error, boto.ClientError):
        return _answered(error.response)
    name, text = type(error).__name__, str(error)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        return Fault(Kind.CREDENTIALS, name, text)
    if isinstance(error, boto.TokenRetrievalError | boto.UnauthorizedSSOTokenError | boto.SSOTokenLoadError):
        return Fault(Kind.CREDENTIALS, name, text)
    if isinstance(error, _PASSING):
        return Fault(Kind.PASSING, name, text)
    return Fault(Kind.OTHER, name, text)


def _answered(response: Any) -> Fault:
    error = response.get("Error", {})
    code, message = str(error.get("Code", "")), str(error.get("Message", ""))
    metadata = response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    region = metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region") or error.get("Region")
    return Fault(_kind(code, message, status), code or str(status), message, region)


def _kind(code: str, message: str, status: int) -> Kind:
    if code in _EXPIRED or code in _BAD_CREDENTIALS:
        return Kind.CREDENTIALS
    if code in _THROTTLED or status == 429:
        return Kind.THROTTLED
    if code in _ELSEWHERE or status in (301, 307):
        return Kind.ELSEWHERE
    if code.startswith(("KMS.", "Kms")) or (status in (400, 403) and _KMS.search(message)):
        return Kind.KEY_DENIED
    if code in _MISSING or status == 404:
        return Kind.MISSING
    if code == "PreconditionFailed" or status == 412:
        return Kind.CHANGED
    # Emulators and proxies answer 403 with codes of their own: the status counts as much as the code.
    if status in (401, 403) or "AccessDenied" in code or "Unauthorized" in code:
        return Kind.DENIED
    if status >= 500 or code in ("RequestTimeout", "InternalError", "ServiceUnavailable", "InternalFailure"):
        return Kind.PASSING
    return Kind.OTHER


def key_named(message: str) -> str:
    """The KMS key an error speaks of, or a word for it."""
    found = _KEY_ARN.search(message)
    return found.group(0) if found else "the object's KMS key"
