"""The product beside a tuned per-record program, in one run: ratios, not absolute figures.

    make bench                                  everything, about five minutes
    python benchmarks/run.py --rounds 3 v2      one layout, fewer rounds

Both send the same files to a sink that polls on the other core; rounds are interleaved, each a process of its own,
pinned; CPU is user and system time of the process (on loopback that includes the kernel's receiving side). The marginal
cost is that of a large file less a small one, so start-up does not blur it; start-up is measured apart.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
DATA = HERE.parent / "build" / "bench"
SMALL, LARGE = 500_000, 2_500_000
BATCHES = (1, 10, 100, 1000)


def cores() -> tuple[int, int]:
    """(the program's, the sink's)"""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


def data(layout: str, records: int) -> Path:
    path = DATA / f"{layout}-{records}.log.gz"
    if not path.exists():
        DATA.mkdir(parents=True, exist_ok=True)
        print(f"generating {records:,} records, {layout}", file=sys.stderr)
        partial = path.with_suffix(".partial")
        command = [sys.executable, HERE / "generate.py", layout, str(records), partial, "--map", DATA / "map.json"]
        subprocess.run(command, check=True)
        partial.rename(path)
    return path


class Sink:
    """benchmarks/sink.py on its core."""

    def __enter__(self) -> Sink:
        command = [sys.executable, HERE / "sink.py", "--core", str(cores()[1])]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        out, _ = self._process.communicate()
        self.counts = json.loads(out.splitlines()[-1])


def measure(command: Sequence[object]) -> tuple[float, float, int]:
    """(CPU seconds, wall seconds, peak memory in octets) of a pinned process."""
    began = time.monotonic()
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {cores()[0]}),
    )
    assert process.stdout is not None
    process.stdout.read()
    peak = 0
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with status {process.returncode}")
    peak = usage.ru_maxrss * 1024
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began, peak


def product(port: int, path: Path) -> list[object]:
    agent = Path(sys.executable).with_name("edfn-agent")
    return [agent, "export", path, "--collector", f"udp://127.0.0.1:{port}", "--exporter-map", DATA / "map.json",
            "--exporter-address", "field", "--json"]  # fmt: skip


def baseline(port: int, path: Path) -> list[object]:
    return [sys.executable, HERE / "baseline.py", "--collector", f"127.0.0.1:{port}", "--exporter-map",
            DATA / "map.json", path]  # fmt: skip


def spread(values: Sequence[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f} to {max(values):.{digits}f}]"


def throughput(layout: str, rounds: int) -> float:
    small, large = data(layout, SMALL), data(layout, LARGE)
    marginal: dict[str, list[float]] = {"product": [], "baseline": []}
    for _ in range(rounds):
        for name, command in (("product", product), ("baseline", baseline)):
            with Sink() as sink:
                cpu = [measure(command(sink.port, path))[0] for path in (small, large)]
            marginal[name].append((cpu[1] - cpu[0]) / (LARGE - SMALL) * 1e9)
    ratio = statistics.median(marginal["baseline"]) / statistics.median(marginal["product"])
    print(f"{layout}: text.gz to UDP, one core, marginal CPU per row (one row in ten is no flow)")
    for name, values in marginal.items():
        print(f"  {name:<9} {spread(values)} ns")
    pairs = [b / p for b, p in zip(marginal["baseline"], marginal["product"], strict=True)]
    print(f"  the product is {ratio:.1f} times as fast (by pair {spread(pairs, 1)})")
    return ratio


def batches(rounds: int) -> None:
    """Deliveries of few records, as CloudWatch Logs and Kinesis hand them over."""
    print("small deliveries, v2, CPU per record (parse, export, send; the product lets small ones share messages)")
    for size in BATCHES:
        figures: dict[str, list[float]] = {"product": [], "baseline": []}
        for _ in range(rounds):
            for name, values in figures.items():
                with Sink() as sink:
                    command = [sys.executable, HERE / "batches.py", name, str(size), str(sink.port)]
                    out = subprocess.run(
                        [str(part) for part in command],
                        check=True,
                        capture_output=True,
                        text=True,
                        preexec_fn=lambda: os.sched_setaffinity(0, {cores()[0]}),
                    ).stdout
                values.append(float(out))
        ratio = statistics.median(figures["baseline"]) / statistics.median(figures["product"])
        shown = ", ".join(f"{name} {spread(values)} ns" for name, values in figures.items())
        print(f"  {size:>5} records: {shown}; {ratio:.1f} times as fast")


def memory() -> None:
    with Sink() as sink:
        _, _, peak = measure(product(sink.port, data("v2", LARGE)))
    print(f"peak memory, v2, {LARGE:,} records: {peak / 1e6:.0f} MB")


def startup(rounds: int) -> None:
    agent = Path(sys.executable).with_name("edfn-agent")
    walls = [measure([agent, "--help"])[1] * 1000 for _ in range(rounds * 2)]
    print(f"start-up of edfn-agent --help: {spread(walls)} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("what", nargs="*", choices=["v2", "v5", "batches", "memory", "startup", []], default=[])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    # soft limits of the shell must not decide
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    wanted = given.what or ["v2", "v5", "batches", "memory", "startup"]
    for layout in ("v2", "v5"):
        if layout in wanted:
            throughput(layout, given.rounds)
    if "batches" in wanted:
        batches(given.rounds)
    if "memory" in wanted:
        memory()
    if "startup" in wanted:
        startup(given.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
