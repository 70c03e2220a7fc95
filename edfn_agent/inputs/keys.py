"""What an object's key says about what is in it: account, region, flow log, time; or that it is no flow log.

In: a key, decoded. Out: `KeyFacts`. Never: a refusal because of folders. Users choose prefixes, AWS has two
partitionings (plain and Hive, each with or without hours), organisations put their id in front, and landing zones whole
paths. So the file name is asked first (AWS VPC User Guide, "Flow log files"), then the last `AWSLogs/`, and what
neither says stays unknown: the octets themselves tell what they are.

    [prefix/][o-xxxx/]AWSLogs/ACCOUNT/vpcflowlogs/REGION/YYYY/MM/DD/[HH/]
        ACCOUNT_vpcflowlogs_REGION_fl-ID_YYYYMMDDTHHmmZ_HASH.log.gz
    [prefix/]AWSLogs/aws-account-id=A/aws-service=vpcflowlogs/aws-region=R/year=Y/month=M/day=D/[hour=H/]...
    [prefix]YYYY/MM/DD/HH/STREAM-VERSION-YYYY-MM-DD-HH-MM-SS-UUID[.ext]      Firehose, and its error output
    [prefix/]TASK-ID/STREAM/000000.gz                                        CloudWatch Logs export task
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum


class Kind(Enum):
    FLOW_LOG = "flow_log"  # says so itself
    UNKNOWN = "unknown"  # may well be one: read it and see
    FOREIGN = "foreign"  # another AWS service's log
    WRITE_TEST = "write_test"  # what an export task leaves to see whether it may write


@dataclass(frozen=True, slots=True)
class KeyFacts:
    kind: Kind
    account_id: str | None = None
    region: str | None = None
    flow_log_id: str | None = None
    time: datetime | None = None  # start of the 5 minutes (AWS), or of the buffering (Firehose)
    log_stream: str | None = None  # of an export task
    detail: str = ""  # which service


_FILE = re.compile(
    r"(?P<account>\d{12})_(?P<service>[A-Za-z0-9-]+)_(?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d+)"
    r"_(?P<flow_log>fl-[0-9a-z]+)_(?P<time>\d{8}T\d{4}Z)_[0-9a-zA-Z]+\.log(?:\.gz|\.parquet)?"
)
_PLAIN = re.compile(
    r"(?:^|/)AWSLogs/(?:o-[a-z0-9]+/)?(?P<account>\d{12})/(?P<service>[A-Za-z0-9_-]+)/(?:(?P<region>[a-z0-9-]+)/)?"
)
_HIVE_ACCOUNT = re.compile(r"(?:^|/)aws-account-id=(\d{12})/")
_HIVE_SERVICE = re.compile(r"(?:^|/)(?:aws-)?service=([A-Za-z0-9_-]+)/")
_HIVE_REGION = re.compile(r"(?:^|/)(?:aws-)?region=([a-z0-9-]+)/")
_FIREHOSE = re.compile(
    r"[A-Za-z0-9._-]+-\d+-(?P<time>\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d)"
    r"-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?:\.[A-Za-z0-9.]+)?"
)
_EXPORT = re.compile(r"(?:^|/)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/(?P<stream>[^/]+)/\d{6}\.gz$")
_WRITE_TEST = re.compile(r"(?:^|/)aws-logs-write-test$")


def facts(key: str) -> KeyFacts:
    """Read one key."""
    name = key.rpartition("/")[2]
    if _WRITE_TEST.search(key):
        return KeyFacts(Kind.WRITE_TEST)
    account, service, region = _folders(key)
    file = _FILE.fullmatch(name)
    if file:
        account, service, region = file["account"], file["service"], file["region"]
        return _named(account, service, region, file["flow_log"], _time(file["time"], "%Y%m%dT%H%MZ"))
    if service is not None:
        return _named(account, service, region, None, None)
    firehose = _FIREHOSE.fullmatch(name)
    if firehose:
        return KeyFacts(Kind.UNKNOWN, account, region, None, _time(firehose["time"], "%Y-%m-%d-%H-%M-%S"))
    export = _EXPORT.search(key)
    if export:
        return KeyFacts(Kind.UNKNOWN, account, region, log_stream=export["stream"])
    return KeyFacts(Kind.UNKNOWN, account, region)


def _named(
    account: str | None, service: str, region: str | None, flow_log: str | None, time: datetime | None
) -> KeyFacts:
    # VPC and Transit Gateway flow logs are both written as `vpcflowlogs`; a third will hardly be called otherwise.
    kind = Kind.FLOW_LOG if "flowlogs" in service.lower() else Kind.FOREIGN
    return KeyFacts(kind, account, region, flow_log, time, detail=service)


def _folders(key: str) -> tuple[str | None, str | None, str | None]:
    """Account, service and region by the folders, each where it is said."""
    found = None
    for found in _PLAIN.finditer(key):  # noqa: B007  the last one counts: prefixes may contain an `AWSLogs/` too
        pass
    if found:
        return found["account"], found["service"], found["region"]
    hive = [pattern.search(key) for pattern in (_HIVE_ACCOUNT, _HIVE_SERVICE, _HIVE_REGION)]
    account, service, region = (match.group(1) if match else None for match in hive)
    return account, service, region


def _time(text: str, form: str) -> datetime | None:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC)
    except ValueError:  # looks like a time and is none, such as the 31st of February
        return None


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which keys of a shared bucket are the agent's, when the user says so. Empty: all."""

    prefixes: Sequence[str] = ()
    suffixes: Sequence[str] = ()

    def allows(self, key: str) -> bool:
        return (not self.prefixes or key.startswith(tuple(self.prefixes))) and (
            not self.suffixes or key.endswith(tuple(self.suffixes))
        )
