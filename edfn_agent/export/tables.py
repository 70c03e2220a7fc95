"""Options tables: what a collector needs to know beside the flows, per exporter.

In: exporters and the interfaces that their flows name. Out: options records: who the exporter is (exporterIPv4Address),
what its interfaces and its VRF are called, that nothing was sampled, and, where it is asked for, what the enterprise
elements are (RFC 5610). Fixed-length strings, one purpose a template: with anything else nfcapd reads half of them and
nfacctd 1.7.7 can spin for ever (docs/collectors.md). Never: sending.
"""

from __future__ import annotations

import numpy as np

from edfn_agent.enrich import Interface
from edfn_agent.export.mapping import ENTERPRISE
from edfn_agent.inventory.exporters import Exporter
from ipfix import IANA, Field, OptionsTemplate, Records, type_records, type_template

NAME_LENGTH = 64
"""Octets of a name. It is cut to one less, so that a zero always ends it."""


def _template(id: int, *names: str) -> OptionsTemplate:
    scope, *rest = (
        Field(IANA.by_name(name), NAME_LENGTH if name in ("interfaceDescription", "VRFname") else None)
        for name in names
    )
    return OptionsTemplate(id, [scope], rest)


EXPORTERS = _template(256, "observationDomainId", "exporterIPv4Address")
INTERFACES = _template(257, "observationDomainId", "ingressInterface", "interfaceDescription")
VRFS = _template(258, "observationDomainId", "ingressVRFID", "VRFname")
SAMPLING = OptionsTemplate(
    259,
    [IANA.by_name("observationDomainId")],
    [IANA.by_name(name) for name in ("selectorAlgorithm", "samplingPacketInterval", "samplingPacketSpace")],
)
"""One packet in one: Akvorado drops flows whose sampling rate it does not know."""

TEMPLATES = (EXPORTERS, INTERFACES, VRFS, SAMPLING)
TYPES = type_template(260)
"""Strings of variable length, the one exception: libfixbuf 2.4.1, which these are for, dies of fixed ones. nfacctd
takes the records for some of 24 octets, which only disturbs its watch over sequence numbers."""

_SYSTEMATIC_COUNT_BASED = 1  # selectorAlgorithm, RFC 5477 section 8.2.1


def types(enterprise_number: int) -> Records:
    """What every element of profile aws is called and how it is read: the same for all exporters."""
    return type_records(TYPES, {row.element(enterprise_number): row.description for row in ENTERPRISE})


class Tables:
    """The tables of all exporters, as of now, and what came to their interface tables in which order."""

    def __init__(self, types: Records | None = None) -> None:
        self.types = types  # type records, to be sent before the templates whose elements they describe
        self._names: dict[str, dict[int, str]] = {}
        self._changes: dict[str, list[int]] = {}

    def add(self, exporter: Exporter, interface: Interface) -> None:
        """An interface that flows of this exporter name from now on; a new name takes the place of an old one."""
        names = self._names.setdefault(exporter.key, {})
        if names.get(interface.index) != interface.name:
            names[interface.index] = interface.name
            self._changes.setdefault(exporter.key, []).append(interface.index)

    def changes(self, exporter: Exporter) -> int:
        """How often the interface table has grown or changed."""
        return len(self._changes.get(exporter.key, ()))

    def interfaces(self, exporter: Exporter, domain: int, since: int = 0) -> Records:
        """The interface table, or what changed in it since there were so many `changes`."""
        names = self._names.get(exporter.key, {})
        indexes = list(dict.fromkeys(self._changes.get(exporter.key, [])[since:]))
        rows = np.zeros(len(indexes), INTERFACES.dtype)
        rows["observationDomainId"] = domain
        rows["ingressInterface"] = indexes
        rows["interfaceDescription"] = [fixed(names[index]) for index in indexes]
        return Records(INTERFACES, rows)

    def all(self, exporter: Exporter, domain: int) -> list[Records]:
        """Every table of an exporter, the exporter itself first."""
        return [
            EXPORTERS.records({"observationDomainId": domain, "exporterIPv4Address": int(exporter.address)}, 1),
            VRFS.records(
                {
                    "observationDomainId": domain,
                    "ingressVRFID": exporter.domain,
                    "VRFname": fixed(exporter.name or exporter.key),
                },
                1,
            ),
            SAMPLING.records(
                {
                    "observationDomainId": domain,
                    "selectorAlgorithm": _SYSTEMATIC_COUNT_BASED,
                    "samplingPacketInterval": 1,
                    "samplingPacketSpace": 0,
                },
                1,
            ),
            self.interfaces(exporter, domain),
        ]


def fixed(name: str) -> bytes:
    """A name as the octets of a fixed-length string: whole characters, and room for the zero that ends it."""
    clean = "".join(c if c.isprintable() and c not in '"\\' else "_" for c in name)
    return clean.encode()[: NAME_LENGTH - 1].decode("utf-8", "ignore").encode()
