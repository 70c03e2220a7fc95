"""Profile aws as a collector is taught it: the elements, and what each has to say for a row of flow log.

The elements are read from `edfn-agent elements`, the values from the row; no product code in between.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import cache
from urllib.parse import unquote

from collectors import Record
from command import run
from oracle import ip_address

NUMBER = 4242
AWS = ["--profile", "aws", "--enterprise-number", str(NUMBER)]
FOR_NOTHING = {"awsEncryptionStatus": 255}  # other numbers are 0, addresses are 0.0.0.0 or ::, strings are empty
ZERO = {"unsigned8": 0, "unsigned64": 0, "ipv4Address": "0.0.0.0", "ipv6Address": "::", "string": ""}


@cache
def elements() -> list[Record]:
    listed: list[Record] = json.loads(
        run("elements", "--format", "json", "--enterprise-number", str(NUMBER)).stdout,
    )
    return listed


def primitives(wanted: Iterable[Record]) -> dict[str, tuple[str, int | str, str]]:
    """The lines of `elements --format nfacctd` for these elements."""
    names = {one["name"] for one in wanted}
    found: dict[str, tuple[str, int | str, str]] = {}
    for line in run("elements", "--format", "nfacctd", "--enterprise-number", str(NUMBER)).stdout.splitlines():
        word = dict(pair.split("=") for pair in line.split())
        if word["name"] in names:
            found[word["name"]] = (word["field_type"], word["len"], word["semantics"])
    return found


def enterprise(flow: Record, layout: set[str]) -> Record:
    """What each element has to say for a row; elements of fields that the layout lacks are not there."""
    family = "ipv6Address" if ":" in flow["src"] else "ipv4Address"
    values: Record = {}
    for one in elements():
        name, kind, field = one["name"], one["type"], one["field"]
        if field not in layout or (kind.startswith("ipv") and kind != family):
            continue
        word = flow["words"].get(field)
        if field == "log-status":
            values[name] = 1
        elif word is None:
            values[name] = FOR_NOTHING.get(name, ZERO[kind])
        elif kind.startswith("unsigned"):
            values[name] = int(word)
        else:
            values[name] = unquote(word) if "-tag" in field else word
    return values


def shown_octets(shown: list[tuple[str, bytes]]) -> list[bytes]:
    """The enterprise part of a record as tshark has it: no names, empty strings left out."""
    return [octets for name, octets in shown if name == "cflow.enterprise_private_entry" and octets]


def sent_octets(flow: Record) -> Iterator[bytes]:
    """The same from what `enterprise` found: fixed lengths first."""
    for one in sorted(elements(), key=lambda one: bool(one["type"] == "string")):
        value = flow.get(one["name"])
        if isinstance(value, int):
            yield value.to_bytes(one["length"], "big")
        elif one["type"].startswith("ipv") and value is not None:
            yield ip_address(value).packed
        elif value:
            yield value.encode()
