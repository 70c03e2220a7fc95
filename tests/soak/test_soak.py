"""The soak as long as a test may take; `make soak` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"


def test_two_hundred_thousand_records_and_twenty_kills() -> None:
    command = [sys.executable, str(SOAK), "--records", "200000", "--kills", "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert "200,000 records, 20 kills" in done.stdout
    assert "nothing lost, nothing unaccounted" in done.stdout
