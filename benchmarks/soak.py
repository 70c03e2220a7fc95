"""The service under kills: a known set of records in, and at the end every one of them at the collector.

    make soak                                               1,000,000 records, 60 kills
    python benchmarks/soak.py --records 200000 --kills 20   as in `make test`

An embedded AWS (moto) with two accounts writes numbered records as S3 objects and as log events, while `edfn-agent run`
is killed with -9 at random moments, its collector (TCP) is restarted in mid-stream, and the file system of its state is
full, read-only, and broken for a while. After each kill what the dead agent had in hand is read from the queues and its
state; the end: 0 lost, and each record that came twice was in hand at a kill, or in the batch that a broken connection
took along. The last quarter comes without kills, and over it memory and descriptors stay flat. Exit status 1 otherwise.
The troubles of the state need root; without it they are left out, and said so.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.disk import Disk, NoDisk
from tests.service.service import Service, installed, until

BATCH = 32768
"""Records handed over at a time, all of which a broken connection may take along."""

AHEAD = 40_000
"""Records written and not received yet, at the most: kills find the agent at work, and it gets on all the same."""

VISIBILITY = 3
"""Seconds until what a killed agent had in hand is seen again."""

SWAY = 16 << 20
"""Octets by which the memory of an agent may differ that has been at the same work for a while."""


class Soak:
    def __init__(self, cloud: Cloud, service: Service, collector: Collector, disk: Disk | None, seed: int) -> None:
        self.cloud, self.service, self.collector, self.disk = cloud, service, collector, disk
        self.chance = random.Random(seed)
        self.in_hand: Counter[int] = Counter()  # record -> kills at which it was in hand
        self.kills = self.restarts = self.troubles = self.failed_starts = 0
        self.memory: list[tuple[int, int]] = []
        self.writing = threading.Event()
        self.most = 0  # records that may be written so far: something is left for every kill

    def write(self, records: int) -> None:
        """Deliveries of all sizes, from one record on; not far ahead of the agent."""
        left = records
        sources = self.cloud.sources
        number = 0
        while left and not self.writing.is_set():
            part = min(left, self.chance.choice((1, 20, 200, 500, 1500, 3000)))
            source = sources[number % 4]
            if number % 4 < 2:
                self.cloud.put(source, part)
            else:  # moto looks through all events of a group for each call, which is most of what this takes
                part = min(part, 500)
                self.cloud.log(source, part)
            left, number = left - part, number + 1
            while not self.writing.is_set() and (
                self.cloud.written >= self.most or self.cloud.written - self.collector.unique > AHEAD
            ):
                time.sleep(0.02)

    def run(self, records: int, kills: int) -> None:
        killing = records * 3 // 4
        share = killing // kills
        self.most = 3 * share
        self.begin(killing)
        troubles = ["full", "read_only", "broken"] if self.disk is not None else []
        for number in range(kills):
            self.most = max(self.most, (number + 3) * share)
            self.wait_for(number * share + self.chance.randrange(share // 4, share))
            if number and number % max(2, kills // 5) == 0:
                self.restart_collector()
            if troubles and number >= kills // 3:
                self.trouble(troubles.pop(), self.collector.unique + share // 3)
            time.sleep(self.chance.random() / 4)
            self.kill()
            self.service.start()
        self.wait_for(killing, 300)
        self.most = records
        self.begin(records - killing)  # for the last agent alone, which is at work before it is looked at
        for part in range(1, 7):
            self.wait_for(killing + part * (records - killing) // 6, 300)
            self.memory.append(self.service.memory())

    def begin(self, records: int) -> None:
        threading.Thread(target=self.write, args=(records,), daemon=True).start()

    def wait_for(self, goal: int, seconds: float = 120.0) -> None:
        until(lambda: self.collector.unique >= goal or self.service.ended, self.service.tail, seconds)
        assert not self.service.ended, self.service.tail()

    def kill(self) -> None:
        self.service.kill()
        self.kills += 1
        self.in_hand.update(self.cloud.in_hand(self.service.state))

    def restart_collector(self) -> None:
        self.collector.close(self.service.pid)
        time.sleep(self.chance.random())
        self.collector.open()
        self.restarts += 1

    def trouble(self, which: str, goal: int) -> None:
        assert self.disk is not None
        self.most = max(self.most, goal + 20_000)  # there is something left to do in the meantime
        with getattr(self.disk, which)():
            self.wait_for(goal)
        self.troubles += 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--rate", type=int, default=30_000, help="records_per_second: kills find the agent at work")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="edfn-agent-soak-"))
    disk = None
    try:
        disk = Disk(folder)
    except NoDisk as error:
        print(f"the state directory is not made full or read-only: {error}")
    collector, cloud = Collector("tcp"), Cloud()
    cloud.clean()
    for source in (cloud.shop, cloud.lab):
        cloud.set_queue(source, VisibilityTimeout=str(VISIBILITY))
    settings = {
        "ipfix": {"records_per_second": given.rate},
        "inputs": {
            "s3": {"max_receives": 1000, "concurrency": 4},
            "cloudwatch_logs": {"interval": "1s", "start_from": "10m", "overlap": "1m"},
        },
    }
    if disk is not None:
        settings["state_directory"] = str(disk.path)
    try:
        with installed(folder, cloud, collector, **settings) as service:
            soak = Soak(cloud, service.start(), collector, disk, given.seed)
            try:
                soak.run(given.records, given.kills)
                until(lambda: cloud.queued() == 0, lambda: f"{cloud.queued()} messages left {service.tail()}", 120)
                status = service.stop()
            except AssertionError as error:
                print(f"{error}\nstopped early")
                status = -1
            finally:
                soak.writing.set()
            good = report(soak, given.records, status, time.monotonic() - began)
    finally:
        if disk is not None:
            disk.close()
        collector.close()
        cloud.close()
    shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


def report(soak: Soak, records: int, status: int, seconds: float) -> bool:
    collector = soak.collector
    lost = collector.lost(records)
    repeated = collector.repeated()
    at_kills = sum(min(times, soak.in_hand[number]) for number, times in repeated.items())
    rest = sum(repeated.values()) - at_kills
    unaccounted = max(0, rest - soak.restarts * BATCH)
    flat, sizes, descriptors = is_flat(soak.memory)
    print(
        f"{records:,} records, {soak.kills} kills, {soak.restarts} collector restarts, {soak.troubles} state troubles"
    )
    print(f"  {seconds:.0f} s; {collector.total:,} received, {collector.unique:,} of them different")
    print(
        f"  lost {lost}; repeated {sum(repeated.values()):,}: {at_kills:,} in hand at a kill, {rest:,} in a batch whose"
    )
    print(f"  connection was broken (at most {soak.restarts * BATCH:,}); unaccounted {unaccounted}")
    print(f"  in sequence: {collector.missing} missing, {collector.unknown} sets without a template")
    print(f"  over the last quarter: {sizes} MB, {descriptors} descriptors: {'flat' if flat else 'NOT flat'}")
    good = flat and not (lost or unaccounted or status or collector.missing or collector.unknown)
    print("nothing lost, nothing unaccounted" if good else f"FAILED (the agent ended with status {status})")
    return good


def is_flat(figures: list[tuple[int, int]]) -> tuple[bool, str, str]:
    """Whether (octets, descriptors) grow no more once the agent is at work; and both, to be read."""
    octets, descriptors = [each[0] for each in figures], [each[1] for each in figures]
    flat = len(figures) > 2 and octets[-1] <= max(octets[1:3]) + SWAY and descriptors[-1] <= max(descriptors[1:3]) + 8
    return flat, " ".join(str(each >> 20) for each in octets), " ".join(map(str, descriptors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
