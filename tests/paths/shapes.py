"""Flow logs as AWS and Firehose write them: lines whose records are known, and the shapes around them.

Captured or documented shapes: S3 text and Parquet, Firehose's objects (`{"message": ...}` by lines, in runs, bare), the
envelopes of CloudWatch Logs subscriptions, export tasks. Every record has a number of its own where flow logs have
`bytes`, so a collector can say of each whether it came, how often, and whether all of it is right.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edfn_agent.formats.fields import FIELDS
from edfn_agent.formats.layout import DEFAULT, TRANSIT_GATEWAY_DEFAULT, Layout

from .cloud import HOME, REGION, Watched

REVERSED = Layout(tuple(reversed(DEFAULT.names)))
"""As many columns as the default format, in another order: who only counts them reads nonsense."""

NAMELESS = Layout.parse(
    "start end dstaddr srcaddr dstport srcport protocol bytes packets action log-status tcp-flags flow-direction"
)
"""Says neither VPC nor interface: whose a record is follows from where it came."""

ALL = Layout(tuple(f.name for f in FIELDS if f.version != 6))
CUSTOM = Layout.parse(
    "version vpc-id subnet-id interface-id account-id type dstaddr srcaddr dstport srcport protocol bytes packets "
    "start end action tcp-flags log-status flow-direction region"
)

ATTACHED = Layout.parse(
    "version resource-type account-id tgw-attachment-id srcaddr dstaddr srcport dstport protocol bytes packets "
    "start end log-status type flow-direction"
)
"""Of a transit gateway, and does not say of which: the flow log does."""

Record = tuple[str, str, str, int, int, int, int, int, int, int, int | None]
"""exporter, source, destination, ports, protocol, packets, octets, start, end (ms), forwardingStatus"""


@dataclass
class Traffic:
    """Lines with numbered records, and what must come of them."""

    expected: dict[str, dict[int, Record]] = field(default_factory=dict)  # path -> number -> record
    refused: dict[str, set[int]] = field(default_factory=dict)  # another source of the VPC has them
    number: int = 0

    @property
    def wanted(self) -> int:
        return sum(map(len, self.expected.values()))

    def lines(
        self, path: str, watched: Watched, layout: Layout, count: int = 6, refused: bool = False, exporter: str = ""
    ) -> list[str]:
        found, now = [], int(time.time())
        for _ in range(count):
            self.number += 1
            number = self.number
            six = number % 4 == 0
            near, far = (
                ("2001:db8:a::5", f"2001:db8:b::{number:x}") if six else ("10.9.9.9", f"198.51.100.{number % 250}")
            )
            start, end, out = now - 90 - number % 7, now - 40 + number % 5, number % 2 == 0
            source, destination = (near, far) if out else (far, near)
            values = {
                "version": "7",
                "account-id": watched.account,
                "interface-id": watched.interface,
                "vpc-id": watched.id,
                "subnet-id": watched.subnet or "-",
                "tgw-id": watched.id,
                "tgw-attachment-id": watched.interface,
                "resource-type": "TransitGateway",
                "region": REGION,
                "srcaddr": source,
                "dstaddr": destination,
                "srcport": str(1000 + number % 5000),
                "dstport": str(443 + number % 3),
                "protocol": "6" if number % 3 else "17",
                "packets": str(1 + number % 9),
                "bytes": str(number),
                "start": str(start),
                "end": str(end),
                "action": "REJECT" if number % 5 == 0 else "ACCEPT",
                "log-status": "OK",
                "type": "IPv6" if six else "IPv4",
                "tcp-flags": "19",
                "flow-direction": "egress" if out else "ingress",
            }
            found.append(" ".join(values.get(name, "-") for name in layout.names))
            status = (128 if values["action"] == "REJECT" else 64) if "action" in layout.names else None
            if refused:
                self.refused.setdefault(path, set()).add(number)
                continue
            self.expected.setdefault(path, {})[number] = (
                exporter or (watched.name if watched.kind == "VPC" else watched.id),
                *(source, destination, 1000 + number % 5000, 443 + number % 3, int(values["protocol"])),
                *(1 + number % 9, number, start * 1000, end * 1000, status),
            )
        idle = {**values, "log-status": "NODATA", "srcaddr": "-", "dstaddr": "-", "bytes": "-", "packets": "-"}
        idle |= dict.fromkeys(("srcport", "dstport", "protocol", "action", "tcp-flags", "type", "flow-direction"), "-")
        return [*found[:2], " ".join(idle.get(name, "-") for name in layout.names), *found[2:]]


# --- AWS writes to S3 itself --------------------------------------------------------------------------------------


def with_header(lines: Sequence[str], layout: Layout) -> bytes:
    return gzip.compress("\n".join([" ".join(layout.names), *lines, ""]).encode())


def parquet(lines: Sequence[str], layout: Layout, compression: str = "GZIP") -> bytes:
    """Columns as AWS types them: INT_32, INT_64, strings; a missing integer is null, a missing string `-`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    long = {"packets", "bytes", "start", "end", *(name for name in layout.names if name.startswith("packets-lost"))}
    short = {"version", "srcport", "dstport", "protocol", "tcp-flags", "traffic-path", "encryption-status"}
    columns, kinds = [], []
    for place, name in enumerate(layout.names):
        texts = [line.split(" ")[place] for line in lines]
        number = name in long or name in short
        kinds.append((name.replace("-", "_"), pa.int64() if name in long else pa.int32() if number else pa.string()))
        columns.append([None if text == "-" else int(text) for text in texts] if number else texts)
    schema = pa.schema(kinds)
    out = io.BytesIO()
    table = pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)
    pq.write_table(table, out, compression=compression)
    return out.getvalue()


def key(
    account: str, flow_log: str, *, prefix: str = "", hive: bool = False, hourly: bool = False, end: str = "gz"
) -> str:
    """As AWS names an object."""
    now = time.gmtime()
    if hive:
        folder = f"aws-account-id={account}/aws-service=vpcflowlogs/aws-region={REGION}/"
        folder += time.strftime("year=%Y/month=%m/day=%d/" + ("hour=%H/" if hourly else ""), now)
    else:
        folder = f"{account}/vpcflowlogs/{REGION}/" + time.strftime("%Y/%m/%d/" + ("%H/" if hourly else ""), now)
    name = f"{account}_vpcflowlogs_{REGION}_{flow_log}_{time.strftime('%Y%m%dT%H%MZ', now)}_{uuid.uuid4().hex[:8]}"
    return f"{prefix}AWSLogs/{folder}{name}.log.{end}"


# --- Firehose writes to S3 ----------------------------------------------------------------------------------------


def firehose_key(prefix: str, stream: str, end: str = "", stamped: bool = True) -> str:
    """PREFIX YYYY/MM/DD/HH/ STREAM-VERSION-TIME-UUID[.gz]; a prefix with expressions has its own folders."""
    now = time.gmtime()
    folder = time.strftime("%Y/%m/%d/%H/", now) if stamped else ""
    return f"{prefix}{folder}{stream}-1-{time.strftime('%Y-%m-%d-%H-%M-%S', now)}-{uuid.uuid4()}{end}"


def messages(lines: Sequence[str], between: str = "\n", ended: bool = True) -> bytes:
    """What a flow log hands to Firehose: one JSON object for each record, with a line end of its own or without."""
    return "".join(json.dumps({"message": line}) + (between if ended else "") for line in lines).encode()


def message_column(lines: Sequence[str]) -> bytes:
    """What Firehose's format conversion makes of those."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({"message": list(lines)}), out, compression="SNAPPY")
    return out.getvalue()


def error_output(records: Iterable[bytes]) -> bytes:
    """What Firehose could not deliver: an object a line, the record in base64."""
    return b"".join(
        json.dumps(
            {
                "attemptsMade": 4,
                "arrivalTimestamp": 1700000000000,
                "errorCode": "HttpEndpoint.InvalidStatusCode",
                "errorMessage": "the endpoint answered 503",
                "attemptEndingTimestamp": 1700000007200,
                "rawData": base64.b64encode(record).decode(),
            }
        ).encode()
        + b"\n"
        for record in records
    )


# --- CloudWatch Logs ----------------------------------------------------------------------------------------------


def envelope(owner: str, group: str, stream: str, lines: Sequence[str]) -> bytes:
    now = int(time.time() * 1000)
    events = [{"id": f"{number:056d}", "timestamp": now, "message": line} for number, line in enumerate(lines)]
    return json.dumps(
        {
            "messageType": "DATA_MESSAGE",
            "owner": owner,
            "logGroup": group,
            "logStream": stream,
            "subscriptionFilters": ["AllTraffic"],
            "logEvents": events,
        }
    ).encode()


CONTROL = json.dumps(
    {
        "messageType": "CONTROL_MESSAGE",
        "owner": "CloudwatchLogs",
        "logGroup": "",
        "logStream": "",
        "subscriptionFilters": [],
        "logEvents": [
            {"id": "", "timestamp": 1, "message": "CWL CONTROL MESSAGE: Checking health of destination Firehose."}
        ],
    }
).encode()


def members(*envelopes: bytes) -> bytes:
    """gzip members one behind the other, as a subscription hands them to Firehose."""
    return b"".join(map(gzip.compress, envelopes))


def exported(lines: Sequence[str]) -> bytes:
    """An export task's object: a time in front of each line."""
    return gzip.compress("".join(f"2026-10-01T00:00:00.000Z {line}\n" for line in lines).encode())


__all__ = ["ALL", "ATTACHED", "CUSTOM", "HOME", "NAMELESS", "REVERSED", "TRANSIT_GATEWAY_DEFAULT", "Traffic"]
