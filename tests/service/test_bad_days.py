"""AWS on bad days, seen by the whole service: what is throttled, refused, cut off, doubled, shuffled and late."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from tests.inputs import faults
from tests.inputs.faults import Answer, Cut, Fault, FaultProxy, Request, Rule, on, sometimes
from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.service import SERVICES, Service, until

Install = Callable[..., Service]
PART = 250
EXPIRED = Answer(400, "ExpiredTokenException", "The security token included in the request is expired")


class Seen:
    """Which faults there really were."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()

    def __call__(self, name: str, rule: Rule) -> Rule:
        def counted(request: Request) -> Fault | None:
            fault = rule(request)
            if fault is not None:
                self.times[name] += 1
            return fault

        self.times[name] = 0
        return counted


def test_nothing_is_lost_and_repetitions_are_accounted_for(
    cloud: Cloud, collector: Collector, install: Install
) -> None:
    """Two accounts, S3 and CloudWatch Logs, every call through a proxy that does what AWS does."""
    seen = Seen()
    late_until = time.monotonic() + 3600
    place = {source.place: source.vpc.layout.names.index("bytes") for source in (cloud.office, cloud.edge)}

    def late(line: str) -> bool:
        words = line.split(" ")
        numbers = {words[at] for at in place.values() if at < len(words)}
        return time.monotonic() < late_until and any(each.isdigit() and int(each) % 7 == 3 for each in numbers)

    batches = ("DeleteMessageBatch", "ChangeMessageVisibilityBatch")
    with FaultProxy(cloud.url) as proxy:
        proxy.rules += [
            seen("token of S3", on("GET", faults.EXPIRED, times=2, skip=3)),
            seen("token of SQS", on("ReceiveMessage", EXPIRED, times=2, skip=2)),
            seen("token of logs", on("FilterLogEvents", EXPIRED, times=2, skip=2)),
            seen("slow down", sometimes(faults.SLOW_DOWN, 0.1, 1, "GET")),
            seen("throttled", on("FilterLogEvents", faults.THROTTLED, times=8, skip=4)),  # more than one call tries
            seen("throttled at times", sometimes(faults.THROTTLED, 0.2, 2, "FilterLogEvents", "ReceiveMessage")),
            seen("5xx", sometimes(faults.BROKEN, 0.15, 3, "GET", "FilterLogEvents", *batches)),
            seen("object cut off", sometimes(Cut(2000), 0.3, 4, "GET")),
            seen("answer cut off", sometimes(Cut(10), 0.1, 5, "ReceiveMessage", "FilterLogEvents", *batches)),
            seen("doubled and shuffled", faults.disorder(6)),
            seen("late", faults.late_events(late)),
        ]
        endpoints = dict.fromkeys(SERVICES, proxy.url)
        service = install(collector, aws={"endpoints": endpoints}, inputs={"s3": {"concurrency": 4}}).start()
        cloud.write(48 * PART, per_delivery=PART)
        until(lambda: collector.unique >= 24 * PART, service.tail)
        cloud.write(4 * PART, per_delivery=PART)  # newer than what is still hidden
        until(lambda: service.metric("edfn_cloudwatch_events_recognised_total") > 0, service.tail)
        until(lambda: all(seen.times.values()), lambda: seen.times)
        until(lambda: service.metric("edfn_aws_calls_total", 'outcome="throttled"') > 0, service.metrics)
        late_until = 0.0

        def through() -> bool:
            for source in (cloud.shop, cloud.lab):
                cloud.show_again(source)
            return collector.unique == cloud.written and cloud.queued() == 0

        until(through, lambda: (collector.unique, cloud.written, cloud.queued(), service.tail()))
        returned = service.metric("edfn_deliveries_total", 'outcome="returned"')
        assert collector.total - collector.unique <= returned * PART, (returned, collector.repeated())
        assert service.metric("edfn_deliveries_total", 'outcome="duplicate"') > 0
        assert service.metric("edfn_deliveries_total", 'outcome="quarantined"') == 0
        assert service.metric("edfn_s3_reads_resumed_total") > 0
        assert service.metric("edfn_aws_calls_total", 'outcome="expired"') > 0
        until(lambda: not cloud.in_hand(service.state), "cursors were not stored")
        until(lambda: not service.ready()["reasons"], service.ready)
        assert service.stop() == 0, service.tail()
    assert collector.missing == collector.unknown == collector.errors == 0
    assert "Traceback" not in service.log
