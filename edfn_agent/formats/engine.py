"""Which scanner is in use: the compiled one, or its plain-Python twin where the extension could not be built.

Setting EDFN_AGENT_NO_COMPILED=1 forces the twin.
"""

from __future__ import annotations

import os

from edfn_agent.formats import text

Scanner: type[text.Scanner] = text.Scanner
COMPILED = False

if os.environ.get("EDFN_AGENT_NO_COMPILED", "") in ("", "0"):
    try:
        from edfn_agent.formats import _scan
    except ImportError:
        pass
    else:
        Scanner = _scan.Scanner
        COMPILED = True
