"""Writes the documentation that is made from the code: `python docs/generate.py`. Tests hold it equal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parent


def mapping() -> str:
    """docs/mapping.md: what becomes of each flow-log field."""
    from edfn_agent.export.mapping import ENTERPRISE, STANDARD_COLUMNS
    from edfn_agent.formats.fields import FIELDS
    from ipfix import IANA

    enterprise: dict[str, list[str]] = {}
    for row in ENTERPRISE:
        enterprise.setdefault(row.field, []).append(f"{row.name} ({row.id})")
    rows = []
    for field in FIELDS:
        names = STANDARD_COLUMNS.get(field.name, ()) if field.name != "vpc-id" else ()
        iana = ", ".join(f"{name} ({IANA.by_name(name).id})" for name in names) or "-"
        rows.append(f"| `{field.name}` | {field.version} | {iana} | {', '.join(enterprise.get(field.name, ['-']))} |")
    return _MAPPING.format(
        fields="\n".join(rows),
        others=", ".join(enterprise["(unknown fields)"]),
        inventory=", ".join(enterprise["(inventory)"]),
    )


_MAPPING = """\
# Mapping: flow-log fields to information elements

Made from the code by `make docs`; do not edit.

Profile `standard` has IANA's elements and nothing else. Profile `aws` has those and, for every other field, an enterprise
element under your own enterprise number; its ids never change. What a layout lacks is left out of the template, not sent
as zero; so is what a single record has as `-` (ports, protocol, counters, times, action, direction: such records use a
template without it).

| flow-log field | since | IANA elements (both profiles) | enterprise element (profile `aws`) |
| --- | --- | --- | --- |
{fields}
| whose flow it is | | ingressVRFID (234), exporterIPv4Address (130) | - |
| fields not in this table | | - | {others} |
| what the inventory adds | | ingressInterface (10), egressInterface (14), flowDirection (61) | {inventory} |

## How values are written

| element | value |
| --- | --- |
| octetDeltaCount (1), packetDeltaCount (2) | 8 octets; counters up to 2^63-1 arrive whole |
| flowStartMilliseconds (152), flowEndMilliseconds (153) | `start` and `end` in milliseconds |
| tcpControlBits (6) | one octet: flags OR-ed over the interval, 0 for `-` |
| forwardingStatus (89) | ACCEPT 64, REJECT 128, REJECT with a `reject-reason` 129 |
| firewallEvent (233) | ACCEPT 1 (flow created), REJECT 3 (flow denied) |
| flowDirection (61) | ingress 0, egress 1, towards the interface of the record; left out where unknown |
| ingressInterface (10), egressInterface (14) | the interface of the record is the ingress one for ingress, the egress one for egress; the other side is what the inventory knows of the far address, else 0. Without a direction the interface of the record is the ingress one |
| ingressVRFID (234) | the number of the VPC, which is also its observation domain (without the worker's bits) |
| exporterIPv4Address (130) | the exporter's address; a switch leaves it out |
| ports (7, 11) | 0 for protocols without ports, as in the flow log |
| strings of profile `aws` | variable length, empty for `-`; tags without their percent encoding, but for control characters, quotes and backslashes. Of a record longer than a message (`max_message_size`) the longest are cut until it fits, and the log says so |
| awsTrafficPath, awsVersion | 0 for `-` |
| awsEncryptionStatus | 255 for `-` |

Not exported: rows with log-status NODATA or SKIPDATA, and rows without addresses; they are counted.

## Options records

Sent before the flows they describe and with every template refresh, one purpose each, strings of fixed length:

| template | scope | fields | says |
| --- | --- | --- | --- |
| 256 | observationDomainId (149) | exporterIPv4Address (130) | which exporter the domain is |
| 257 | observationDomainId (149) | ingressInterface (10), interfaceDescription (83) | what an interface is called |
| 258 | observationDomainId (149) | ingressVRFID (234), VRFname (236) | what the VPC is called |
| 259 | observationDomainId (149) | selectorAlgorithm (304), samplingPacketInterval (305), samplingPacketSpace (306) | that nothing was sampled |
| 260 | privateEnterpriseNumber (346), informationElementId (303) | informationElementDataType (339), informationElementSemantics (344), informationElementUnits (345), informationElementRangeBegin (342), informationElementRangeEnd (343), informationElementName (341), informationElementDescription (340) | what an enterprise element is (RFC 5610): profile `aws` with `type_records` only, strings of variable length |
"""


def configuration() -> str:
    from edfn_agent.config import reference_markdown

    return reference_markdown()


PAGES: dict[str, Callable[[], str]] = {"mapping.md": mapping, "configuration.md": configuration}


def main() -> None:
    for name, make in PAGES.items():
        (DOCS / name).write_text(make())
        sys.stdout.write(f"docs/{name}\n")


if __name__ == "__main__":
    main()
