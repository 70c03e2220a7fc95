"""The soak, bounded; `make soak` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


def test_thirty_thousand_records_and_five_kills() -> None:
    command = [sys.executable, str(SOAK), "--records", "30000", "--kills", "5", "--rate", "6000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "nothing lost, nothing unaccounted" in done.stdout
