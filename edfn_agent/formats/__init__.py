"""From octets to columns: every shape that AWS delivers flow logs in, read on one path.

`Reader` (in `reader`) is the face of this package: deliveries go in, `FlowBatch`es come out. `COMPILED` says whether
the compiled scanner is in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edfn_agent.formats.engine import COMPILED as COMPILED
    from edfn_agent.formats.reader import Reader as Reader

__all__ = ["COMPILED", "Reader"]


def __getattr__(name: str) -> Any:
    # Late, because `delivery` imports `formats.layout`, and the reader imports `delivery`.
    if name == "COMPILED":
        from edfn_agent.formats.engine import COMPILED

        return COMPILED
    if name == "Reader":
        from edfn_agent.formats.reader import Reader

        return Reader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
