"""What a queue is called, and what it says of itself.

In: an ARN or a URL from the configuration or discovery. Out: `Queue`, and `Facts` from GetQueueAttributes.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

DEFAULT_TIMEOUT = 300
"""Seconds of visibility asked for where the queue's own is not known or nought."""

_ARN = re.compile(r"arn:(?P<partition>aws[\w-]*):sqs:(?P<region>[\w-]+):(?P<account>\d{12}):(?P<name>[\w.-]+)")
_HOST = re.compile(
    r"(?:^|\.)(?:sqs|sqs-fips)\.(?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d+)\."
    r"|^(?P<old>[a-z]+(?:-[a-z]+)+-\d+)\.queue\."
)


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue, and whose credentials read it."""

    account_id: str
    region: str
    name: str  # the ARN: log lines, metrics, health
    url: str | None = None  # asked for by name when absent

    @classmethod
    def parse(cls, text: str, account_id: str | None = None, region: str | None = None) -> Queue:
        """Read an ARN or URL. `account_id` says whose credentials are used; else the owner's. Raises ValueError."""
        arn = _ARN.fullmatch(text)
        if arn:
            return cls(account_id or arn["account"], arn["region"], text)
        url = urlsplit(text)
        parts = url.path.strip("/").split("/")
        if url.scheme not in ("http", "https") or len(parts) < 2 or not re.fullmatch(r"\d{12}", parts[-2]):
            raise ValueError(f"{text!r} is neither the ARN nor the URL of a queue")
        host = _HOST.search(url.hostname or "")
        found = (host["region"] or host["old"]) if host else None
        if found is None and url.hostname == "queue.amazonaws.com":
            found = "us-east-1"
        where = found or region
        if where is None:
            raise ValueError(f"{text!r} does not say its region: give the ARN")
        partition = "aws-cn" if where.startswith("cn-") else "aws-us-gov" if where.startswith("us-gov-") else "aws"
        owner, name = parts[-2:]
        return cls(account_id or owner, where, f"arn:{partition}:sqs:{where}:{owner}:{name}", text)

    @property
    def owner(self) -> str:
        return self.name.split(":")[4]

    @property
    def short_name(self) -> str:
        return self.name.split(":")[5]

    def find(self, client: Any) -> str:
        """Its URL, from AWS where it is not known."""
        if self.url is not None:
            return self.url
        owner = {"QueueOwnerAWSAccountId": self.owner} if self.owner != self.account_id else {}
        return str(client.get_queue_url(QueueName=self.short_name, **owner)["QueueUrl"])


@dataclass(frozen=True, slots=True)
class Facts:
    """What matters of a queue's attributes. `known` is False where GetQueueAttributes is not allowed."""

    known: bool = False
    timeout: int = DEFAULT_TIMEOUT
    redrive: bool = False

    @property
    def asked_timeout(self) -> int | None:
        """VisibilityTimeout to receive with. None: the queue's own stands, which is the rule."""
        return None if self.known and self.timeout > 0 else DEFAULT_TIMEOUT

    @property
    def visibility(self) -> int:
        return self.asked_timeout or self.timeout


def facts(client: Any, url: str) -> Facts:
    """Ask the queue."""
    names = ["VisibilityTimeout", "RedrivePolicy"]
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=names).get("Attributes", {})
    return Facts(True, int(found.get("VisibilityTimeout", DEFAULT_TIMEOUT)), _has_target(found.get("RedrivePolicy")))


def _has_target(policy: Any) -> bool:
    try:
        return bool(policy) and "deadLetterTargetArn" in json.loads(policy)
    except ValueError:
        return False
