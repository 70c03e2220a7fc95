"""Objects in S3, read as a stream in bounded memory, and gone on with by range when the connection breaks.

In: an `ObjectRef`. Out: an `OpenObject` whose `chunks()` are its octets as stored (compressed or not), or `Gone`, or
`ReadFailed` with the reason. One chunk is in memory at a time, whatever the size. Never: a listing, a write, a whole
object in memory.

Which request. A version in the notification is honoured, but asking for it by `versionId` takes another permission
(s3:GetObjectVersion) than s3:GetObject, which is what people grant. So when the notification has the ETag too, the
current object is asked for under the condition of that ETag, and `versionId` comes in only where it has changed since.
AWS S3 API, "GetObject"; AWS S3 User Guide, "Actions, resources, and condition keys".
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog

from edfn_agent.delivery import Outcome
from edfn_agent.inputs.clock import Clock, Pauses
from edfn_agent.inputs.errors import Fault, Kind, ReadFailed, fault, key_named
from edfn_agent.inputs.notifications import ObjectRef, is_access_point
from edfn_agent.ops.metrics import Metrics

CHUNK = 256 * 1024
"""Octets read at a time: what a connection's window holds; larger only moves memory about."""

TRIES = 4
"""Tries of one request, and of going on from one place without a single new octet, beyond the client's own three."""

log = structlog.get_logger("edfn.inputs.s3")


class Gone(Exception):
    """The object (or that version of it) does not exist."""


class Objects:
    """Reads the objects that one queue announces, with the credentials of its account.

    `client(region)` gives an S3 client. `read_through` maps a bucket's name to the access point it may be read through.
    `abort` is set when the agent stops and its patience is over: reads end as returned.
    """

    def __init__(
        self,
        client: Callable[[str], Any],
        account_id: str,
        region: str,
        metrics: Metrics,
        *,
        clock: Clock,
        abort: threading.Event,
        requester_pays: bool = False,
        read_through: Mapping[str, str] | None = None,
    ) -> None:
        self._client, self.account_id, self._home = client, account_id, region
        self._metrics, self.clock, self.abort = metrics, clock, abort
        self._requester_pays = requester_pays
        self._read_through = dict(read_through or {})
        self._regions: dict[str, str] = {}  # learned from answers, by bucket

    def open(self, ref: ObjectRef) -> OpenObject:
        """Ask for the object. Raises Gone, or ReadFailed (returned, with the reason)."""
        keys = [ref.key] if ref.spare_key is None else [ref.key, ref.spare_key]
        for key in keys:
            for condition in _conditions(ref):
                request = self._request(ref, key) | condition
                try:
                    return OpenObject(self, ref, request, self.get(ref, request))
                except _Refused as refused:
                    # Without the bucket nothing is known of the object: a wrong endpoint or partition looks like that.
                    if refused.fault.kind not in (Kind.CHANGED, Kind.MISSING) or refused.fault.code == "NoSuchBucket":
                        raise self._failed(ref, request, refused.fault) from None
        raise Gone(ref.name)

    def get(self, ref: ObjectRef, request: Mapping[str, Any]) -> Any:
        """One GetObject, in the right region, with patience. Raises _Refused, or ReadFailed when patience is over."""
        pauses = Pauses(first=0.5, most=8.0)
        for tried in range(1, TRIES + 1):
            region = self._region(ref)
            found = None
            try:
                return self._client(region).get_object(**request)
            except Exception as error:  # the client is botocore's and whatever is under it
                found = fault(error)
            if found.kind is Kind.ELSEWHERE and self._learn(ref, region, found):
                continue
            if found.kind not in (Kind.PASSING, Kind.THROTTLED, Kind.CREDENTIALS):
                raise _Refused(found)
            if tried < TRIES and self.clock.wait(self.abort, pauses.next()):
                raise ReadFailed(Outcome.RETURNED, f"{ref.name}: not read, the agent stops")
        assert found is not None
        raise self._failed(ref, request, found)

    def read(self, octets: int) -> None:
        self._metrics.bytes_read.labels("s3").inc(octets)

    def resumed(self, ref: ObjectRef, at: int, why: str) -> None:
        self._metrics.reads_resumed.inc()
        log.info("connection broke in mid-object, going on", object=ref.name, at=at, error=why)

    def _request(self, ref: ObjectRef, key: str) -> dict[str, Any]:
        request: dict[str, Any] = {"Bucket": self._read_through.get(ref.bucket, ref.bucket), "Key": key}
        if self._requester_pays:
            request["RequestPayer"] = "requester"
        return request

    def _region(self, ref: ObjectRef) -> str:
        bucket = self._read_through.get(ref.bucket, ref.bucket)
        if is_access_point(bucket):
            return bucket.split(":")[3] or self._home
        # The notification's region is the bucket's; by way of SNS or EventBridge it may be another than the queue's.
        return self._regions.get(ref.bucket) or ref.region or self._home

    def _learn(self, ref: ObjectRef, asked: str, found: Fault) -> bool:
        """Whether the bucket's region is known now and is another than the one asked."""
        region = found.region or self._head(ref, asked)
        if not region or region == asked:
            return False
        log.info("bucket is in another region", bucket=ref.bucket, asked=asked, region=region)
        self._regions[ref.bucket] = region
        return True

    def _head(self, ref: ObjectRef, region: str) -> str | None:
        """HeadBucket says the region in a header, even with a refusal."""
        try:
            answer = self._client(region).head_bucket(Bucket=ref.bucket)
        except Exception as error:
            return fault(error).region
        value = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
        return value if isinstance(value, str) else None

    def _failed(self, ref: ObjectRef, request: Mapping[str, Any], found: Fault) -> ReadFailed:
        return ReadFailed(Outcome.RETURNED, self.explain(ref, request, found), found.kind)

    def explain(self, ref: ObjectRef, request: Mapping[str, Any], found: Fault) -> str:
        """The reason for people: account, region, resource, what was tried, what is missing, what to do."""
        where = f"{ref.name} (account {self.account_id}, region {self._region(ref)})"
        if found.kind is Kind.KEY_DENIED:
            return (
                f"{where}: kms:Decrypt on {key_named(found.message)} is not allowed or the key is not usable: {found}"
            )
        if found.kind is Kind.DENIED:
            action = "s3:GetObjectVersion" if "VersionId" in request else "s3:GetObject"
            return (
                f"{where}: access denied, {action} is missing for that key in the role's policy or the bucket's "
                f"(without s3:ListBucket, S3 says the same of an object that is gone): {found}"
            )
        if found.kind is Kind.ELSEWHERE:
            return f"{where}: the bucket is in another region and AWS does not say which: {found}"
        if found.code == "NoSuchBucket":
            return f"{where}: no such bucket in this partition or at this endpoint: {found}"
        return f"{where}: GetObject failed: {found}"


class _Refused(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _conditions(ref: ObjectRef) -> list[dict[str, str]]:
    if ref.version_id and ref.etag:
        return [{"IfMatch": f'"{_bare(ref.etag)}"'}, {"VersionId": ref.version_id}]
    if ref.version_id:
        return [{"VersionId": ref.version_id}]
    return [{}]


class OpenObject:
    """An object whose first octets are on their way."""

    def __init__(self, objects: Objects, ref: ObjectRef, request: Mapping[str, Any], answer: Any) -> None:
        self._objects, self.ref = objects, ref
        self._request = {name: value for name, value in request.items() if name != "IfMatch"}
        self._body = answer["Body"]
        self.etag: str | None = answer.get("ETag")
        self.size = int(answer["ContentLength"])

    def close(self) -> None:
        self._body.close()

    def chunks(self) -> Iterator[bytes]:
        """Its octets, once. Raises ReadFailed."""
        got = stuck = 0
        pauses = Pauses(first=0.2, most=8.0)
        try:
            while True:
                found = None
                try:
                    for chunk in self._body.iter_chunks(CHUNK):
                        got += len(chunk)
                        stuck = 0
                        self._objects.read(len(chunk))
                        yield chunk
                        self._go_on(got)
                except ReadFailed:
                    raise
                except Exception as error:
                    found = fault(error)
                    if found.kind is not Kind.PASSING or found.code == "FlexibleChecksumError":
                        raise self._failed(got, str(found)) from error
                if found is None and got == self.size:
                    return
                stuck += 1
                why = str(found) if found is not None else "the answer ended early"
                if stuck > TRIES:
                    raise self._failed(got, why)
                if stuck > 1:
                    self._objects.clock.wait(self._objects.abort, pauses.next())
                self._go_on(got)
                self._objects.resumed(self.ref, got, why)
                if got == self.size:  # all of it came; only the end of the connection was untidy
                    return
                self._body.close()
                self._body = self._rest(got)
        finally:
            self._body.close()

    def _go_on(self, got: int) -> None:
        if self._objects.abort.is_set():
            raise self._failed(got, "the agent stops")

    def _rest(self, got: int) -> Any:
        """The octets from `got` on, of the same writing of the object."""
        request = self._request | {"Range": f"bytes={got}-"}
        if self.etag:
            request["IfMatch"] = self.etag
        try:
            answer = self._objects.get(self.ref, request)
        except _Refused as refused:
            if refused.fault.kind is Kind.CHANGED:
                raise self._failed(got, "it was written anew meanwhile") from None
            raise self._failed(got, self._objects.explain(self.ref, request, refused.fault)) from None
        start = re.match(r"bytes (\d+)-", answer.get("ContentRange") or "")
        if start is None or int(start.group(1)) != got:
            answer["Body"].close()
            raise self._failed(got, "the range asked for was not honoured")
        return answer["Body"]

    def _failed(self, got: int, why: str) -> ReadFailed:
        return ReadFailed(Outcome.RETURNED, f"{self.ref.name}: read {got} of {self.size} octets: {why}")


def _bare(etag: str) -> str:
    return etag.strip('"')
