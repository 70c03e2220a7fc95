"""A layout: which field stands in which column of a flow log.

It comes from the header line of an S3 object, the schema of a Parquet file, `LogFormat` of DescribeFlowLogs, or the
configuration; the default format comes last. It never comes from `version` or from the number of columns alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from edfn_agent.formats.fields import BY_NAME, DEFAULT_NAMES, TRANSIT_GATEWAY_DEFAULT_NAMES, FlowLogField, field

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


class LayoutError(ValueError):
    """A text that should name the columns of a flow log does not."""


@dataclass(frozen=True)
class Layout:
    """The fields of a flow log in the order of its columns. Hashable, so that it can be the key of a cache."""

    names: tuple[str, ...]
    timestamped: bool = False
    """Each line has an ISO 8601 time in front, as CloudWatch Logs export tasks write it."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # a layout is part of the key that a delivery of a single record is looked up by
        return hash((self.names, self.timestamped))

    @cached_property
    def fields(self) -> tuple[FlowLogField, ...]:
        return tuple(field(name) for name in self.names)

    @cached_property
    def unknown(self) -> tuple[str, ...]:
        """Names that are not in the catalogue; their values are carried as strings."""
        return tuple(name for name in self.names if name not in BY_NAME)

    @classmethod
    def parse(cls, text: str) -> Layout:
        """Read a header line, AWS's `${version} ${account-id}` spelling, or bare names with spaces or commas.

        Raises LayoutError when a word cannot be a field name, one is there twice, or none is a field that AWS knows.
        """
        words = [word[2:-1] if word.startswith("${") and word.endswith("}") else word for word in _split(text)]
        names = tuple(word.replace("_", "-") for word in words)
        bad = [word for word in words if not _NAME.fullmatch(word)]
        if bad:
            raise LayoutError(f"{bad[0]!r} is not a flow-log field name")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise LayoutError(f"field {twice[0]!r} is there twice")
        if not any(name in BY_NAME for name in names):
            raise LayoutError("no word is the name of a flow-log field")
        return cls(names)


def _split(text: str) -> list[str]:
    return re.sub(r"\}\s*\$\{", "} ${", text.replace(",", " ")).split()


DEFAULT = Layout(DEFAULT_NAMES)
TRANSIT_GATEWAY_DEFAULT = Layout(TRANSIT_GATEWAY_DEFAULT_NAMES)
