"""Snapshots as JSON, what changed, errors in words, jobs side by side, the schedule, AWS's address ranges."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ProfileNotFound

from edfn_agent.inventory.fanout import fan_out
from edfn_agent.inventory.ip_ranges import IpRange, IpRangesError, read_ip_ranges
from edfn_agent.inventory.model import (
    Finding,
    Interface,
    Route,
    RouteTable,
    Snapshot,
    Vpc,
    carried_over,
    changes,
    dropped_duplicates,
)
from edfn_agent.inventory.problems import Kind, classify, iam_action, next_step
from edfn_agent.inventory.schedule import Schedule, trigger

A, R = "111111111111", "us-east-1"


class TestSnapshot:
    def test_json_and_back(self) -> None:
        snapshot = Snapshot(
            at=1.5,
            vpcs=(Vpc("vpc-1", A, R, cidrs=("10.0.0.0/16",), tags={"Name": "x"}),),
            route_tables=(RouteTable("rtb-1", "vpc-1", A, R, routes=(Route("0.0.0.0/0", "igw-1", False),)),),
            findings=(Finding("info", None, None, "s", "p", "n"),),
            incomplete=((A, R, "vpcs"),),
        )
        assert Snapshot.from_json(json.loads(json.dumps(snapshot.to_json()))) == snapshot

    def test_what_a_newer_version_added_is_passed_over(self) -> None:
        data = Snapshot(at=1.0, vpcs=(Vpc("vpc-1", A, R),)).to_json()
        data["moons"] = []
        data["vpcs"][0]["colour"] = "blue"
        assert Snapshot.from_json(data).vpcs == (Vpc("vpc-1", A, R),)

    @pytest.mark.parametrize("data", [{}, {"at": 1, "vpcs": [{}]}, [], {"at": 1, "vpcs": 7}])
    def test_what_is_no_snapshot(self, data: object) -> None:
        with pytest.raises(ValueError, match="not an inventory snapshot"):
            Snapshot.from_json(data)  # type: ignore[arg-type]

    def test_what_came_and_went(self) -> None:
        before = Snapshot(at=1, vpcs=(Vpc("vpc-1", A, R),), interfaces=(Interface("eni-1", "vpc-1", "s", A, R),))
        after = Snapshot(at=2, vpcs=(Vpc("vpc-2", A, R), Vpc("vpc-3", A, R)), interfaces=before.interfaces)
        assert changes(before, after).lines() == ["2 VPCs came (vpc-2, vpc-3)", "1 VPC gone (vpc-1)"]
        assert not changes(after, after)
        assert str(changes(after, after)) == "nothing changed"

    def test_the_first_of_two_views_is_kept(self) -> None:
        owner, other = Vpc("vpc-1", A, R, "name"), Vpc("vpc-1", A, R)
        assert dropped_duplicates([owner, other]) == (owner,)

    def test_rows_of_what_failed_are_kept_and_no_others(self) -> None:
        old = Snapshot(
            at=1, vpcs=tuple(Vpc(f"vpc-{n}", A, region) for n, region in enumerate((R, "eu-west-1", "eu-west-2")))
        )
        new = carried_over(Snapshot(at=2), old, [(A, R, "vpcs"), (A, "eu-west-1", "subnets")])
        assert [each.vpc_id for each in new.vpcs] == ["vpc-0"]
        assert new.incomplete == ((A, R, "vpcs"),)
        assert carried_over(Snapshot(at=2), old, [(A, "*", "*")]).vpcs == old.vpcs

    def test_findings_in_order_of_weight(self) -> None:
        found = [Finding(severity, A, None, "s", "p", "n") for severity in ("info", "error", "warning")]
        assert [each.severity for each in sorted(found, key=lambda each: each.weight)] == ["error", "warning", "info"]


def refused(code: str, message: str = "no", status: int = 400) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "DescribeVpcs",
    )


class TestProblems:
    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (refused("UnauthorizedOperation"), Kind.DENIED),
            (refused("403", status=403), Kind.DENIED),
            (refused("ExpiredToken", status=403), Kind.CREDENTIALS),
            (refused("SignatureDoesNotMatch", "Signature not yet current", 403), Kind.CLOCK),
            (refused("RequestTimeTooSkewed", status=403), Kind.CLOCK),
            (refused("OptInRequired", status=403), Kind.REGION),
            (refused("SlowDown", status=503), Kind.THROTTLED),
            (refused("InvalidVpcID.NotFound"), Kind.MISSING),
            (refused("404", status=404), Kind.MISSING),
            (refused("InternalError", status=500), Kind.OTHER),
            (EndpointConnectionError(endpoint_url="https://x"), Kind.UNREACHABLE),
            (NoCredentialsError(), Kind.CREDENTIALS),
            (ProfileNotFound(profile="p"), Kind.CREDENTIALS),
            (ValueError("?"), Kind.OTHER),
        ],
    )
    def test_kinds(self, error: Exception, kind: Kind) -> None:
        assert classify(error).kind is kind

    def test_messages_are_one_short_line(self) -> None:
        text = "denied.\n Encoded authorization failure message: " + "x" * 900 + " <html>" + "y" * 900
        message = classify(refused("UnauthorizedOperation", text)).message
        assert "\n" not in message
        assert "xxx" not in message
        assert len(message) < 450

    def test_the_clock_says_by_how_much(self) -> None:
        error = refused("RequestTimeTooSkewed")
        error.response["ResponseMetadata"]["HTTPHeaders"] = {"date": "Thu, 01 Jan 2026 00:00:00 GMT"}
        assert "s ahead of AWS" in classify(error).message

    def test_actions_and_steps(self) -> None:
        assert iam_action("s3", "GetBucketNotificationConfiguration") == "s3:GetBucketNotification"
        assert iam_action("ec2", "DescribeVpcs") == "ec2:DescribeVpcs"
        scp = classify(refused("UnauthorizedOperation", "with an explicit deny in a service control policy"))
        assert "service control policy of the organization" in next_step(scp, "ec2:DescribeVpcs")


class TestFanOut:
    def test_results_are_in_order_and_limits_are_kept(self) -> None:
        lock, now, most = threading.Lock(), {"a": 0, "b": 0}, {"a": 0, "b": 0}
        both = threading.Barrier(4)  # two of each group are running at once, or this waits for ever

        def job(group: str, n: int) -> int:
            with lock:
                now[group] += 1
                most[group] = max(most[group], now[group])
            if n < 2:
                both.wait(20)
            with lock:
                now[group] -= 1
            return n

        jobs: list[tuple[str, Callable[[], int]]] = [
            (group, partial(job, group, n)) for group in "ab" for n in range(20)
        ]
        assert fan_out(jobs, in_all=8, per_group=2) == [*range(20), *range(20)]
        assert most == {"a": 2, "b": 2}

    def test_a_slow_group_is_not_in_the_way_of_others(self) -> None:
        others_done = threading.Event()
        slow: list[tuple[str, Callable[[], object]]] = [("slow", partial(others_done.wait, 20)) for _ in range(10)]
        quick: list[tuple[str, Callable[[], object]]] = [("quick", int) for _ in range(9)]
        results = fan_out([*slow, *quick, ("quick", others_done.set)], in_all=4, per_group=3)
        assert results[:10] == [True] * 10

    def test_an_exception_ends_it(self) -> None:
        with pytest.raises(ZeroDivisionError):
            fan_out([("", lambda: 1 // 0), *[("", lambda: 1)] * 50])
        assert fan_out([]) == []


class TestSchedule:
    """By hand: clock and timer are arguments, and the jobs are called as APScheduler would call them."""

    class Later:
        """A timer that only notes what it is asked for."""

        asked: list[float] = []

        def __init__(self, wait: float, work: Callable[[], None]) -> None:
            self.asked.append(wait)

        def start(self) -> None: ...

        def cancel(self) -> None: ...

    def made(self, work: Callable[[], None], now: list[float]) -> Schedule:
        self.Later.asked.clear()
        return Schedule(work, "*/15 * * * *", clock=lambda: now[0], later=self.Later)

    def test_cron_fields_time_zone_and_jitter(self) -> None:
        made = trigger("30 6 * * mon", "Europe/Berlin", 0)
        first = made.get_next_fire_time(None, datetime(2026, 1, 1, tzinfo=UTC))
        assert first.isoformat() == "2026-01-05T06:30:00+01:00"
        assert trigger("* * * * *", "UTC", 30.0).jitter == 30
        assert trigger("* * * * *", "UTC", 0.0).jitter is None

    def test_late_runs_are_one_run(self) -> None:
        schedule = self.made(lambda: None, [0.0])
        defaults = schedule._scheduler._job_defaults
        assert (defaults["coalesce"], defaults["max_instances"], defaults["misfire_grace_time"]) == (True, 1, None)

    def test_on_demand_at_most_once_in_five_minutes(self) -> None:
        now, runs = [1000.0], []
        schedule = self.made(lambda: runs.append(now[0]), now)
        assert schedule.request()
        assert not schedule.request()  # one is waiting
        schedule._run()
        now[0] += 10
        assert schedule.request()
        assert self.Later.asked == [0.0, 290.0]
        now[0] += 400
        schedule._run()
        assert runs == [1000.0, 1410.0]

    def test_sighup_does_not_wait(self) -> None:
        schedule = self.made(lambda: None, [1000.0])
        schedule._run()
        schedule.run_now()
        assert self.Later.asked == [0.0]

    def test_two_runs_never_overlap(self) -> None:
        running, overlaps, gate = [0], [], threading.Event()

        def work() -> None:
            running[0] += 1
            overlaps.append(running[0])
            gate.wait(0.05)
            running[0] -= 1

        schedule = self.made(work, [0.0])
        threads = [threading.Thread(target=schedule._run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert overlaps == [1, 1, 1, 1]

    def test_it_really_runs(self) -> None:
        ran = threading.Event()
        schedule = Schedule(ran.set, "0 0 1 1 *")
        schedule.start()
        try:
            assert schedule.next_run is not None
            schedule.run_now()
            assert ran.wait(20)
        finally:
            schedule.stop()

    def test_a_run_that_fails_ends_nothing(self) -> None:
        again = threading.Event()
        runs: list[int] = []

        def work() -> None:
            runs.append(1)
            if len(runs) == 1:
                raise RuntimeError("no network")
            again.set()

        schedule = Schedule(work, "0 0 1 1 *", pause=0.0)
        schedule.start()
        try:
            schedule.run_now()
            while not runs:
                again.wait(0.01)
            schedule.run_now()
            assert again.wait(20)
        finally:
            schedule.stop()


class TestIpRanges:
    def test_both_families(self, tmp_path: Path) -> None:
        file = tmp_path / "ip-ranges.json"
        file.write_text(
            json.dumps(
                {
                    "syncToken": "1",
                    "prefixes": [
                        {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "S3"},
                        {"ip_prefix": "nonsense", "region": "x", "service": "S3"},
                    ],
                    "ipv6_prefixes": [{"ipv6_prefix": "2600:1f00::/24", "region": "GLOBAL", "service": "AMAZON"}],
                }
            )
        )
        assert read_ip_ranges(file) == (
            IpRange("3.5.140.0/22", "S3", "ap-northeast-2"),
            IpRange("2600:1f00::/24", "AMAZON", "GLOBAL"),
        )

    @pytest.mark.parametrize("text", [None, "{", "[]", "{}"])
    def test_a_file_that_is_none(self, tmp_path: Path, text: str | None) -> None:
        if text is not None:
            (tmp_path / "f").write_text(text)
        with pytest.raises(IpRangesError, match=r"fetch https://ip-ranges\.amazonaws\.com"):
            read_ip_ranges(tmp_path / "f")


def test_replace_keeps_caches_apart() -> None:
    one = Snapshot(at=1, vpcs=(Vpc("vpc-1", A, R),))
    assert set(one.vpc_by_id) == {"vpc-1"}
    assert set(replace(one, vpcs=()).vpc_by_id) == set()
