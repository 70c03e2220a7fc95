"""Discovery against moto over HTTP: everything is found once, and what fails costs only what depends on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from faultproxy import Call, FaultProxy, Reply
from organisation import DEAD, LOGGING, NETWORK, WORKLOAD, Organisation

from edfn_agent.inventory.accounts import Accounts
from edfn_agent.inventory.discovery import Discovery
from edfn_agent.inventory.model import Snapshot, changes
from edfn_agent.state import State


def place(finding: object) -> tuple[object, object, object]:
    return (getattr(finding, "account_id"), getattr(finding, "region"), getattr(finding, "subject"))  # noqa: B009


_kept: list[Snapshot] = []


@pytest.fixture
def undisturbed(discovery: Discovery) -> Snapshot:
    """What discovery finds when nothing is in its way. A run costs seconds, so there is one for all who only look."""
    if not _kept:
        _kept.append(discovery.run())
    return _kept[0]


class TestEverythingIsFound:
    @pytest.fixture
    def snapshot(self, undisturbed: Snapshot) -> Snapshot:
        return undisturbed

    def test_accounts(self, snapshot: Snapshot) -> None:
        assert [(each.account_id, each.via.split(":")[0], each.status) for each in snapshot.accounts] == [
            (NETWORK, "profile", "ok"),
            (WORKLOAD, "role", "ok"),
            (LOGGING, "role", "ok"),
            (DEAD, "role", "failed"),
        ]

    def test_vpcs_with_all_their_cidrs(self, snapshot: Snapshot, organisation: Organisation) -> None:
        assert {each.name: each.vpc_id for each in snapshot.vpcs} == organisation.vpcs
        first = snapshot.vpc_by_id[organisation.vpcs["shared-a"]]
        assert (first.account_id, first.region) == (NETWORK, "us-east-1")
        assert first.cidrs == ("10.0.0.0/16", "100.65.0.0/20")

    def test_what_lies_in_a_vpc(self, snapshot: Snapshot, organisation: Organisation) -> None:
        vpc = organisation.vpcs["shared-a"]
        inside = [each for each in snapshot.interfaces if each.vpc_id == vpc]
        served = Counter(each.serves.split("-")[0] for each in inside)
        assert served == {"i": 2, "nat": 1, "vpce": 1}
        assert sorted(snapshot.instance_by_id[each.serves].name for each in inside if each.serves[:2] == "i-") == [
            "web-1",
            "web-2",
        ]
        assert all(each.addresses for each in inside)
        assert [each.vpc_id for each in snapshot.internet_gateways] == [vpc]
        tables = [each for each in snapshot.route_tables if each.vpc_id == vpc]
        assert [(each.main, {route.destination for route in each.routes} >= {"0.0.0.0/0"}) for each in tables] == [
            (True, True)
        ]

    def test_a_peering_is_one_row_though_both_sides_see_it(
        self, snapshot: Snapshot, organisation: Organisation
    ) -> None:
        peering = snapshot.peerings[0]
        assert len(snapshot.peerings) == 1
        assert (peering.account_id, peering.vpc_id) == (NETWORK, organisation.vpcs["shared-a"])
        assert (peering.peer_account_id, peering.peer_vpc_id) == (WORKLOAD, organisation.vpcs["stream-1"])

    def test_flow_logs_of_every_destination(self, snapshot: Snapshot, organisation: Organisation) -> None:
        logs = {name: snapshot.flow_log_by_id[id] for name, id in organisation.flow_logs.items()}
        assert Counter(each.destination_type for each in logs.values()) == {
            "s3": 7,
            "cloud-watch-logs": 4,
            "kinesis-data-firehose": 1,
        }
        assert logs["shared-a"].bucket == "central-logs"
        assert logs["edge-cwl"].log_group == "edge-flow-logs"
        assert logs["edge-cwl"].destination == organisation.group_arns["edge"]
        assert logs["edge-cwl"].format.startswith("${version} ${vpc-id}")
        assert logs["edge-cwl"].aggregation == 60
        assert snapshot.vpc_of_resource(logs["parts"].resource_id) == organisation.vpcs["parts"]

    def test_where_they_can_be_read(self, snapshot: Snapshot, organisation: Organisation) -> None:
        streamed = next(each for each in snapshot.log_groups if each.arn == organisation.group_arns["stream-2"])
        assert [each.destination for each in streamed.filters] == [organisation.stream_arn]
        assert [(each.arn, each.account_id, each.shards) for each in snapshot.streams] == [
            (organisation.stream_arn, LOGGING, 2)
        ]
        assert [(each.name, each.bucket, each.prefix) for each in snapshot.delivery_streams] == [
            ("flow-logs-firehose", "central-logs", "firehose/")
        ]
        central, quiet = snapshot.buckets
        assert (central.bucket, central.account_id, central.region) == ("central-logs", LOGGING, "us-east-1")
        assert [(each.kind, each.suffix, each.queues) for each in central.notifications] == [
            ("sqs", ".log.gz", (organisation.queue_arn,))
        ]
        assert quiet.notifications == ()
        (queue,) = snapshot.queues
        assert (queue.arn, queue.via_account, queue.visibility_timeout, queue.max_receives) == (
            organisation.queue_arn,
            LOGGING,
            300,
            5,
        )
        assert (queue.dead_letter_arn or "").endswith(":flow-logs-dead")
        assert queue.url is not None

    def test_only_the_dead_account_is_a_finding(self, snapshot: Snapshot) -> None:
        assert [(each.severity, each.account_id) for each in snapshot.findings] == [("error", DEAD)]

    def test_it_survives_the_state(self, snapshot: Snapshot, tmp_path: object) -> None:
        with State(str(tmp_path)) as state:
            state.snapshot.save(snapshot.to_json(), snapshot.at)
            stored = state.snapshot.load()
        assert stored is not None
        assert Snapshot.from_json(stored.data) == snapshot


class TestCalls:
    def test_none_of_a_kind_more_than_once_per_account_and_region(
        self, discovery: Discovery, proxy: FaultProxy
    ) -> None:
        snapshot = discovery.run()
        per_resource = {"DescribeSubscriptionFilters", "SearchTransitGatewayRoutes", "AssumeRole"}
        # Who owns a bucket is asked of one account after the other, for each bucket.
        per_resource |= {"GetBucketLocation", "GetBucketNotification"}
        twice = {what: n for what, n in proxy.counted().items() if n > 1 and what[2] not in per_resource}
        assert twice == {}
        assert snapshot.api_calls == len(proxy.calls)

    def test_pages_forced_small_give_the_same(
        self, discovery: Discovery, undisturbed: Snapshot, proxy: FaultProxy
    ) -> None:
        proxy.page_size = 1
        paged = discovery.run()
        assert len(proxy.calls) > undisturbed.api_calls + 20
        assert replace(paged, at=undisturbed.at, seconds=0, api_calls=0) == replace(undisturbed, seconds=0, api_calls=0)

    def test_nothing_is_asked_in_vain_and_nothing_is_changed(self, discovery: Discovery, proxy: FaultProxy) -> None:
        seen: dict[str, list[tuple[int, int]]] = {}
        discovery.run(progress=lambda what, done, of: seen.setdefault(what, []).append((done, of)))
        assert (WORKLOAD, "us-west-2", "DescribeFlowLogs") in proxy.counted()
        assert (WORKLOAD, "us-west-2", "DescribeNetworkInterfaces") not in proxy.counted()
        # A bucket is never listed, and all of this only reads.
        assert {each.operation.partition("Describe")[0] for each in proxy.calls} <= {
            "",
            "AssumeRole",
            "GetCallerIdentity",
            "ListAccountAliases",
            "GetBucketLocation",
            "GetBucketNotification",
            "GetQueueUrl",
            "GetQueueAttributes",
        }
        # Progress ends where it said it would.
        assert {"accounts", "regions", "networks", "buckets", "queues"} <= set(seen)
        assert all(steps[-1][0] == steps[-1][1] for steps in seen.values())

    def test_regions_are_asked_for_unless_they_are_listed(
        self, all_accounts: Accounts, proxy: FaultProxy, organisation: Organisation
    ) -> None:
        item = "<item><regionName>{}</regionName></item>"
        answer = f"<R><regionInfo>{item.format('us-east-1')}{item.format('eu-west-1')}</regionInfo></R>"
        proxy.rules.append(lambda call: Reply(200, answer.encode()) if call.operation == "DescribeRegions" else None)
        accounts = Accounts(replace(all_accounts.settings, regions=None, roles=()))
        snapshot = Discovery(accounts).run()
        assert proxy.times("DescribeRegions") == 1
        assert snapshot.accounts[0].regions == ("eu-west-1", "us-east-1")
        assert len(snapshot.vpcs) == 4


class TestTrouble:
    def test_one_call_denied_in_one_region(self, discovery: Discovery, proxy: FaultProxy) -> None:
        proxy.deny("DescribeInstances", account=NETWORK, region="us-east-1")
        snapshot = discovery.run()
        (finding,) = [each for each in snapshot.findings if each.account_id == NETWORK]
        assert place(finding) == (NETWORK, "us-east-1", "ec2:DescribeInstances")
        assert finding.problem == "ec2:DescribeInstances is not allowed: interfaces are not named after their instances"
        assert "allow ec2:DescribeInstances" in finding.next_step
        assert not snapshot.instances
        assert len(snapshot.vpcs) == 12
        assert any(each.serves.startswith("i-") for each in snapshot.interfaces)

    def test_denied_everywhere_is_one_finding_per_account(self, discovery: Discovery, proxy: FaultProxy) -> None:
        proxy.deny("DescribeFlowLogs")
        findings = [each for each in discovery.run().findings if each.subject == "ec2:DescribeFlowLogs"]
        assert [(each.account_id, each.region, each.severity) for each in findings] == [
            (NETWORK, None, "error"),
            (WORKLOAD, None, "error"),
            (LOGGING, None, "error"),
        ]

    def test_without_describe_vpcs_the_interfaces_name_them(
        self, discovery: Discovery, proxy: FaultProxy, organisation: Organisation
    ) -> None:
        proxy.deny("DescribeVpcs", account=NETWORK)
        snapshot = discovery.run()
        vpc = snapshot.vpc_by_id[organisation.vpcs["shared-a"]]
        assert (vpc.name, vpc.cidrs, vpc.account_id) == ("", (), NETWORK)

    def test_an_unreachable_region_is_one_finding_and_keeps_what_was_known(
        self, discovery: Discovery, undisturbed: Snapshot, proxy: FaultProxy
    ) -> None:
        before = undisturbed
        proxy.refuse(
            "AuthFailure", "not able to validate the credentials", status=401, account=WORKLOAD, region="eu-west-1"
        )
        after = discovery.run(before)
        (finding,) = [each for each in after.findings if each.account_id == WORKLOAD and each.region == "eu-west-1"]
        assert "not enabled in this account" in finding.problem
        assert "aws.regions" in finding.next_step
        assert {each.vpc_id for each in after.vpcs} == {each.vpc_id for each in before.vpcs}
        assert (WORKLOAD, "eu-west-1", "vpcs") in after.incomplete
        assert not changes(before, after)

    def test_an_account_that_dies_later_keeps_its_exporters(self, discovery: Discovery, proxy: FaultProxy) -> None:
        before = discovery.run()
        proxy.refuse("ExpiredToken", "the token is expired", status=403, account=LOGGING)
        proxy.refuse("AccessDenied", "no more", status=403, operation="AssumeRole")
        after = discovery.run(before)
        assert {each.account_id for each in after.vpcs} == {NETWORK, WORKLOAD, LOGGING}
        assert any("is still used" in each.problem and each.account_id == LOGGING for each in after.findings)

    def test_throttling_and_dropped_connections_are_waited_out(
        self, discovery: Discovery, undisturbed: Snapshot, proxy: FaultProxy
    ) -> None:
        proxy.refuse("RequestLimitExceeded", "Request limit exceeded.", times=2, status=503, operation="DescribeVpcs")
        proxy.refuse("ThrottlingException", "Rate exceeded", times=1, operation="DescribeSubscriptionFilters")
        proxy.drop(times=2, operation="DescribeNetworkInterfaces")
        ghost = replace(undisturbed.vpcs[0], vpc_id="vpc-ghost")
        before = replace(undisturbed, vpcs=(*undisturbed.vpcs, ghost))
        snapshot = discovery.run(before)
        assert [each.account_id for each in snapshot.findings if each.subject != "inventory"] == [DEAD]
        # What was there is there, and what is really gone is gone.
        assert changes(undisturbed, snapshot).lines() == []
        assert changes(before, snapshot).vpcs_gone == ("vpc-ghost",)

    def test_throttling_without_end_is_a_finding(
        self, discovery: Discovery, undisturbed: Snapshot, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The pauses are botocore's, and so are its tests of them.
        monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
        monkeypatch.setattr("botocore.retries.bucket.TokenBucket.acquire", lambda *_, **__: True)
        before = undisturbed
        proxy.refuse(
            "RequestLimitExceeded", "Request limit exceeded.", operation="DescribeRouteTables", region="us-west-2"
        )
        after = discovery.run(before)
        (finding,) = [each for each in after.findings if each.region == "us-west-2"]
        assert "DescribeRouteTables failed (RequestLimitExceeded)" in finding.problem
        assert after.route_tables == before.route_tables

    def test_a_token_that_expires_in_mid_run(self, discovery: Discovery, proxy: FaultProxy) -> None:
        proxy.refuse(
            "ExpiredToken", "The security token is expired", times=1, operation="DescribeInstances", account=LOGGING
        )
        findings = [each for each in discovery.run().findings if each.account_id == LOGGING]
        assert len(findings) == 1
        assert "DescribeInstances" in findings[0].subject or "region" in findings[0].problem

    def test_credentials_that_run_out_in_mid_run_are_renewed(
        self, all_accounts: Accounts, undisturbed: Snapshot, proxy: FaultProxy
    ) -> None:
        def last_of_the_old(call: Call) -> None:
            # From the first Describe call of a role on, new credentials live longer.
            if call.operation == "DescribeVpcs":
                proxy.assumed_for = None

        proxy.assumed_for = 120  # less than the four minutes before the end in which all wait for new ones
        proxy.rules.append(last_of_the_old)
        before = proxy.times("AssumeRole")
        snapshot = Discovery(Accounts(all_accounts.settings)).run()
        assert proxy.times("AssumeRole") - before >= 5  # three roles, two of them alive and renewed
        assert replace(snapshot, at=undisturbed.at, seconds=0, api_calls=0) == replace(
            undisturbed, seconds=0, api_calls=0
        )

    def test_a_bucket_that_nobody_may_ask(self, discovery: Discovery, proxy: FaultProxy) -> None:
        proxy.deny("GetBucketNotification")
        buckets = {each.bucket: each for each in discovery.run().buckets}
        assert buckets["central-logs"].account_id == LOGGING
        assert "s3:GetBucketNotification is not allowed" in (buckets["central-logs"].problem or "")

    def test_a_stream_of_a_stranger(self, all_accounts: Accounts, organisation: Organisation) -> None:
        accounts = Accounts(replace(all_accounts.settings, roles=all_accounts.settings.roles[:1]))
        snapshot = Discovery(accounts).run()
        assert [(each.arn, "not in the configuration" in (each.problem or "")) for each in snapshot.streams] == [
            (organisation.stream_arn, True)
        ]
        assert all("no account of the configuration" in (each.problem or "") for each in snapshot.buckets)


def test_without_regions_and_bucket_locations(all_accounts: Accounts, proxy: FaultProxy) -> None:
    proxy.deny("DescribeRegions")
    proxy.deny("GetBucketLocation")
    roles = all_accounts.settings.roles[1:2]
    settings = replace(all_accounts.settings, regions=None, credentials_file=None, roles=roles)
    snapshot = Discovery(Accounts(settings)).run()
    assert [(each.account_id, each.region, each.subject) for each in snapshot.findings] == [
        (LOGGING, "us-east-1", "ec2:DescribeRegions"),
        (LOGGING, "us-east-1", "central-logs"),
    ]
    assert snapshot.accounts[0].regions == ("us-east-1",)
    # The bucket is found all the same, and its region from its queue's.
    assert [(each.bucket, each.account_id, each.region) for each in snapshot.buckets] == [
        ("central-logs", LOGGING, "us-east-1")
    ]
