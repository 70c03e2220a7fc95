"""The templates that collectors were sent, as `/templates` shows them.

In: the destinations of an exporter. Out: plain data for JSON. Never: a change to a session; reading takes whole copies,
so it may happen in any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from ipfix import ExportingProcess, Field, OptionsTemplate, Template


class _Named(Protocol):
    name: str


class Destination(Protocol):
    """What is looked at of `export.exporter.Destination`."""

    @property
    def transport(self) -> _Named: ...

    @property
    def process(self) -> ExportingProcess: ...


def templates_on_the_wire(destinations: Iterable[Destination]) -> list[dict[str, Any]]:
    """Per collector, observation domain and template: the fields in the order of the record.

    A length of 65535 says that each value carries its own (RFC 7011 section 7).
    """
    return [
        {
            "collector": destination.transport.name,
            "domains": [
                {"domain": domain, "templates": [_template(each) for each in destination.process.templates(domain)]}
                for domain in destination.process.domains
            ],
        }
        for destination in destinations
    ]


def _template(template: Template) -> dict[str, Any]:
    about: dict[str, Any] = {"id": template.id, "kind": "data"}
    if isinstance(template, OptionsTemplate):
        about |= {"kind": "options", "scope_fields": template.scope_count}
    return about | {"fields": [_field(field) for field in template.fields]}


def _field(field: Field) -> dict[str, Any]:
    element = field.element
    return {"name": element.name, "id": element.id, "pen": element.pen, "length": field.length}
