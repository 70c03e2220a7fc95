"""One S3 object of a gigabyte through the whole service: bounded memory, resumed by range, every record once.

    make soak
    python benchmarks/large_object.py --megabytes 1000 --broken-after 64

The object is made up while it is read (tests/service/large_object.py), and its connection breaks now and then.
Exit status 1 when a record is lost or repeated, or the agent's memory grew with the object.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.inputs.faults import FaultProxy
from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.large_object import LargeObject, peak
from tests.service.service import SERVICES, installed, until

GROWTH = 64 << 20
LINE = 116
"""Octets of a line, about."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--broken-after", type=int, default=64, help="megabytes")
    given = parser.parse_args(arguments)
    records = given.megabytes * 1_000_000 // LINE
    collector, cloud = Collector("tcp"), Cloud()
    cloud.clean()
    with tempfile.TemporaryDirectory() as folder, FaultProxy(cloud.url) as proxy:
        settings = {"aws": {"endpoints": dict.fromkeys(SERVICES, proxy.url)}, "ipfix": {"records_per_second": 0}}
        with installed(Path(folder), cloud, collector, **settings) as service:
            service.start()
            cloud.put(cloud.shop, 40_000)
            until(lambda: collector.unique == cloud.written, service.tail)
            before, began = peak(service.pid), time.monotonic()
            large = LargeObject(
                cloud.shop, records, cloud.written + 1, int(time.time()), broken_after=given.broken_after * 1_000_000
            )
            cloud.written += records
            proxy.rules.append(large.rule)
            large.announce(cloud)
            until(lambda: collector.total >= cloud.written, service.tail, 3600)
            until(lambda: cloud.queued() == 0, service.tail)
            seconds, growth = time.monotonic() - began, peak(service.pid) - before
            service.stop()
    lost, repeated = collector.lost(cloud.written), sum(collector.repeated().values())
    collector.close()
    cloud.close()
    print(f"{large.size:,} octets, {records:,} records, read in {len(large.ranges)} pieces, {seconds:.0f} s")
    print(f"  lost {lost}, repeated {repeated}; memory {before >> 20} MB before, {growth >> 20} MB more at its most")
    good = not lost and not repeated and growth < GROWTH
    print("once each, in bounded memory" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
