"""Runs the tests in several processes, each folder by itself: `python tests/side_by_side.py [-j N] [pytest options]`.

The emulated AWS keeps one state for a whole process, so folders that use it must not share one. The longest come first.
Ends with one line of counts; exit status 1 when a folder failed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

HERE = Path(__file__).parent
LONGEST_FIRST = ("service", "kinesis", "packaging", "interop", "inventory", "demo", "setup", "inputs", "paths")


def main(arguments: list[str]) -> int:
    jobs = 3
    if arguments[:1] == ["-j"]:
        jobs, arguments = int(arguments[1]), arguments[2:]
    folders = [path.name for path in HERE.iterdir() if any(path.glob("test_*.py"))]
    folders.sort(key=lambda name: (LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST), name))
    counts: Counter[str] = Counter()
    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(run, name, arguments): name for name in folders}
        for done in as_completed(running):
            status, output = done.result()
            sys.stdout.write(f"=== tests/{running[done]}\n{output}\n")
            sys.stdout.flush()
            for number, what in re.findall(r"(\d+) (passed|failed|skipped|error)", output.rstrip().rpartition("\n")[2]):
                counts["failed" if what == "error" else what] += int(number)
            if status:
                failed.append(running[done])
    if failed:
        sys.stdout.write(f"failed in: {', '.join(sorted(failed))}\n")
    sys.stdout.write(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped\n")
    return 1 if failed or not counts["passed"] else 0


def run(folder: str, arguments: list[str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", f"tests/{folder}", *arguments]
    done = subprocess.run(
        command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
