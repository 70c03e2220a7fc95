"""What a setting expects, in words: the same words in faults, in the example and in the reference.

In: the fields of the models in `settings`. Out: text. Never: a value from a file.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from edfn_agent.config.section import Section
from edfn_agent.config.settings import Config
from edfn_agent.config.times import format_duration


def parts(annotation: Any) -> Iterator[Any]:
    """Every plain type inside `tuple[Annotated[X, ...] | None, ...]` and the like; Literals whole."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from parts(get_args(annotation)[0])
    elif origin is Literal or origin is None:
        yield annotation
    else:
        for part in get_args(annotation):
            yield from parts(part)


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, one or a list of them."""
    for part in parts(field.annotation):
        if isinstance(part, type) and issubclass(part, Section):
            return part
    return None


def is_list(field: FieldInfo) -> bool:
    return any(get_origin(part) is tuple for part in _branches(field.annotation))


def is_secret(field: FieldInfo) -> bool:
    return SecretStr in parts(field.annotation)


def field_at(path: tuple[str | int, ...]) -> FieldInfo | None:
    """The field that `path` leads to or into (the keys of `exporters.vpcs` are no fields); None where there is none."""
    section: type[Section] | None = Config
    field: FieldInfo | None = None
    for step in path:
        if isinstance(step, int):
            continue
        if section is None:
            break
        field = section.model_fields.get(step)
        if field is None:
            return None
        section = section_of(field)
    return field


def section_at(path: tuple[str | int, ...]) -> type[Section] | None:
    if not path:
        return Config
    field = field_at(path)
    return None if field is None else section_of(field)


def extra(field: FieldInfo, name: str) -> str:
    found = field.json_schema_extra.get(name, "") if isinstance(field.json_schema_extra, dict) else ""
    return str(found)


def is_duration(field: FieldInfo) -> bool:
    return field.annotation is float


def choices(field: FieldInfo) -> list[str]:
    return [word for part in parts(field.annotation) if get_origin(part) is Literal for word in get_args(part)]


def limits(field: FieldInfo) -> str:
    """`512 to 8900 octets`, `15m to 12h`, `0 or more records per second`; empty where a setting is no number."""
    least = next((limit.ge for limit in field.metadata if isinstance(limit, Ge)), None)
    most = next((limit.le for limit in field.metadata if isinstance(limit, Le)), None)
    if least is None:
        return ""
    show = format_duration if is_duration(field) else str
    text = f"{show(least)} or more" if most is None else f"{show(least)} to {show(most)}"  # type: ignore[arg-type]
    return " ".join(filter(None, (text, extra(field, "unit"))))


def expected(field: FieldInfo) -> str:
    """What may be written: a range with its unit, a choice, or the form of a text."""
    kinds = set(parts(field.annotation))
    range_ = limits(field)
    form = extra(field, "form")
    if range_ or form:
        return "; ".join(filter(None, (range_, form)))
    if bool in kinds:
        return "true or false"
    if words := choices(field):
        return " | ".join(words)
    if Path in kinds:
        return "path of a file"
    if section := section_of(field):
        keys = ", ".join(section.model_fields)
        return f"list of {{{keys}}}" if is_list(field) else f"{{{keys}}}"
    return "IPv4 address" if IPv4Address in kinds else "text"


def _branches(annotation: Any) -> Iterator[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _branches(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _branches(part)
    else:
        yield annotation
