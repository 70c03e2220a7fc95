"""What the settings are made with: a strict section, a setting with its reason, faults at the place they belong to.

In: descriptions and limits. Out: pydantic fields and errors. Never: a setting itself; `settings` knows where
those are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from edfn_agent.config.times import format_duration

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Section(BaseModel):
    """Strict about keys, frozen, and silent about values: a rejected value may be a secret in the wrong place."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def setting(default: Any, why: str, *, unit: str = "", form: str = "", example: Any = None, **limits: Any) -> Any:
    """A setting with its reason. `form` says what to write, `example` shows it, where type and default do not."""
    words: dict[str, JsonValue] = {key: text for key, text in (("unit", unit), ("form", form)) if text}
    examples = None if example is None else [example]
    return Field(default, description=why, examples=examples, json_schema_extra=words, **limits)


def duration(default: float, least: float, most: float, why: str) -> Any:
    words: dict[str, JsonValue] = {"default": format_duration(default)}
    return Field(float(default), ge=least, le=most, description=why, json_schema_extra=words)


def section() -> Any:
    """A section that may be left out or empty, as its settings all have defaults. Its docstring describes it."""
    return Field(default_factory=dict, validate_default=True)


def reject(faults: Iterable[tuple[tuple[str | int, ...], str]]) -> None:
    """Raise all of `faults`, each at its own place below the field that is being validated."""
    details = [
        InitErrorDetails(type=PydanticCustomError("fault", "{text}", {"text": text}), loc=place, input=None)
        for place, text in faults
    ]
    if details:
        raise ValidationError.from_exception_data("settings", details)


@contextmanager
def also(faults: Iterable[tuple[tuple[str | int, ...], str]]) -> Iterator[None]:
    """What goes wrong inside is raised together with these faults: a person wants to hear of all at once."""
    try:
        yield
    except ValidationError as error:
        details = [
            InitErrorDetails(type=each["type"], loc=each["loc"], input=each["input"], ctx=each.get("ctx", {}))
            for each in error.errors(include_url=False)
        ]
        details += [
            InitErrorDetails(type=PydanticCustomError("fault", "{text}", {"text": text}), loc=place, input=None)
            for place, text in faults
        ]
        raise ValidationError.from_exception_data("settings", details) from None
    reject(faults)


def repeated(keys: Iterable[tuple[tuple[str | int, ...], K]]) -> list[tuple[tuple[str | int, ...], K]]:
    """Places that hold what an earlier place holds already."""
    seen: Counter[K] = Counter()
    again = []
    for place, key in keys:
        if seen[key]:
            again.append((place, key))
        seen[key] += 1
    return again


def no_item_twice(items: T) -> T:
    if isinstance(items, tuple):
        reject((place, "given twice") for place, _ in repeated(((n,), item) for n, item in enumerate(items)))
    return items


def nearest(word: str, known: Iterable[str], nicknames: Mapping[str, str] | None = None) -> str:
    """`did you mean 'x'?`, or the list of what there is."""
    known = sorted(known)
    plain = word.lower().replace("-", "_")
    plain = (nicknames or {}).get(plain, plain)
    close = [plain] if plain in known else get_close_matches(plain, known, 1, 0.6)
    return f"did you mean '{close[0]}'?" if close else f"known here: {', '.join(known)}"
