"""AWS's own address ranges by service, from a copy of https://ip-ranges.amazonaws.com/ip-ranges.json.

In: a file that the user may refresh. Out: ranges. Never: a download, and no failure for a single range that is odd.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path


class IpRangesError(ValueError):
    """The file cannot be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class IpRange:
    prefix: str  # IPv4 or IPv6
    service: str  # S3, EC2, CLOUDFRONT, ...; AMAZON covers all of them
    region: str  # us-east-1, GLOBAL, ...


def read_ip_ranges(path: Path) -> tuple[IpRange, ...]:
    """All ranges of both families, in the file's order."""
    step = "fetch https://ip-ranges.amazonaws.com/ip-ranges.json again, or take aws.ip_ranges_file out"
    try:
        data = json.loads(path.read_bytes())
        entries = [(each, "ip_prefix") for each in data["prefixes"]]
        entries += [(each, "ipv6_prefix") for each in data.get("ipv6_prefixes", ())]
    except OSError as error:
        raise IpRangesError(f"{path}: {error.strerror}: {step}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise IpRangesError(f"{path} is no list of AWS address ranges ({error}): {step}") from None
    found = []
    for entry, key in entries:
        try:
            prefix = str(ip_network(entry[key]))
            found.append(IpRange(prefix, entry["service"], entry.get("region", "")))
        except (ValueError, KeyError, TypeError):
            continue
    return tuple(found)
