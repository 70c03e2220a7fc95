"""Which scanner is in use: the compiled one, or its plain-Python twin where the extension could not be built, or was
built of other sources (`git pull` under an editable install).

Setting EDFN_AGENT_NO_COMPILED=1 forces the twin.
"""

from __future__ import annotations

import os

from edfn_agent.formats import columns, text

Scanner: type[text.Scanner] = text.Scanner
COMPILED = False

if os.environ.get("EDFN_AGENT_NO_COMPILED", "") in ("", "0"):
    try:
        from edfn_agent.formats import _scan
    except ImportError:
        pass
    else:
        if getattr(_scan, "BUILT_FOR", None) == columns.SCANNER:
            Scanner = _scan.Scanner
            COMPILED = True
