"""Runs the tests in several processes, each folder by itself: `python tests/side_by_side.py [-j N] [pytest options]`.

The emulated AWS keeps one state for a whole process, so folders that use it must not share one. The longest come first.
Shows what each folder said when it is done; at the end the seconds of each, the names of the tests that failed, and one
line of counts. Exit status 1 when a folder failed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LONGEST_FIRST = ("service", "kinesis", "soak", "packaging", "interop", "inventory", "demo", "setup", "inputs", "paths")


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    output: str
    seconds: float
    processor: float  # seconds of it and of every process that it waited for


def main(arguments: list[str]) -> int:
    jobs = 3
    if arguments[:1] == ["-j"]:
        jobs, arguments = int(arguments[1]), arguments[2:]
    folders = [path.name for path in HERE.iterdir() if any(path.glob("test_*.py"))]
    folders.sort(key=lambda name: (LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST), name))
    finished: dict[str, Done] = {}
    begun = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, name, arguments): name for name in folders}
        for future in as_completed(running):
            name = running[future]
            done = finished[name] = future.result()
            sys.stdout.write(f"=== tests/{name}, {done.seconds:.0f} s\n{done.output}\n")
            sys.stdout.flush()
    sys.stdout.write(verdict(finished, time.monotonic() - begun))
    return 1 if any(done.status for done in finished.values()) or not finished else 0


def run(folder: str, arguments: list[str]) -> Done:
    """One folder. Its output goes through a file: what a test leaves running must not hold back the verdict."""
    command = [sys.executable, "-m", "pytest", "-q", f"tests/{folder}", *arguments]
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(command, cwd=HERE.parent, stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    return Done(process.returncode, text, time.monotonic() - begun, used.ru_utime + used.ru_stime)


def verdict(finished: dict[str, Done], seconds: float) -> str:
    """The last lines, for who reads the end only."""
    lines = ["=== seconds, and of processor time"]
    for name, done in sorted(finished.items(), key=lambda item: -item[1].seconds):
        lines.append(f"{done.seconds:5.0f} {done.processor:5.0f}  tests/{name}")
    lines.append(f"{seconds:5.0f} {sum(done.processor for done in finished.values()):5.0f}  in all")
    counts: Counter[str] = Counter()
    failed = []
    for name, done in sorted(finished.items()):
        last = done.output.rstrip().rpartition("\n")[2]
        for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", last):
            counts["failed" if what == "error" else what] += int(number)
        if done.status:
            named = re.findall(r"^(?:FAILED|ERROR) .*", done.output, re.M)
            if not named:  # it crashed, or had no tests
                named = [f"FAILED tests/{name}: pytest ended with status {done.status}"]
                counts["failed"] += 1
            failed += named
    if failed:
        lines += ["=== failed", *failed]
    lines.append(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
