"""Who gets which address: the rules of issue 4, section 4, one by one."""

from __future__ import annotations

from ipaddress import IPv4Address as IP
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from edfn_agent.inventory.exporters import DUMMY_ADDRESS, UNATTRIBUTED, Exporters, candidates_of
from edfn_agent.inventory.model import FlowLog, Snapshot, TransitGatewayAttachment, Vpc
from edfn_agent.state import State, StateError

POOL = (IPv4Network("100.64.0.0/24"),)


def vpc(key: str, *cidrs: str, account: str = "111111111111", default: bool = False) -> Vpc:
    return Vpc(f"vpc-{key}", account, "us-east-1", name=key, cidrs=cidrs, is_default=default)


def inventory(*vpcs: Vpc) -> Snapshot:
    return Snapshot(at=0.0, vpcs=vpcs)


def addresses(exporters: Exporters) -> dict[str, tuple[str, str]]:
    return {each.key: (str(each.address), each.address_origin) for each in exporters.table if each.key != UNATTRIBUTED}


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def test_a_vpc_is_its_own_router(state: State) -> None:
    exporters = Exporters({}, POOL, state, inventory(vpc("a", "10.1.0.0/16", "10.9.0.0/16")))
    assert addresses(exporters) == {"vpc-a": ("10.1.0.1", "router")}
    assert exporters.table.unattributed.address == IP("100.64.0.1")


def test_overlapping_cidrs_get_different_addresses(state: State) -> None:
    exporters = Exporters(
        {},
        POOL,
        state,
        inventory(
            vpc("a", "10.0.0.0/16", account="222222222222"),
            vpc("b", "10.0.0.0/16", account="111111111111"),
            vpc("c", "10.0.0.0/20", account="333333333333"),
        ),
    )
    assert addresses(exporters) == {
        "vpc-a": ("100.64.0.2", "pool"),
        "vpc-b": ("10.0.0.1", "router"),
        "vpc-c": ("100.64.0.3", "pool"),
    }
    assert len({each.domain for each in exporters.table}) == 4


def test_a_default_vpc_leaves_the_router_address_to_one_that_was_made(state: State) -> None:
    exporters = Exporters(
        {}, POOL, state, inventory(vpc("a", "172.31.0.0/16", default=True), vpc("b", "172.31.0.0/16"))
    )
    assert addresses(exporters) == {"vpc-a": ("100.64.0.2", "pool"), "vpc-b": ("172.31.0.1", "router")}


def test_the_configuration_comes_first_even_for_an_address_that_another_vpc_had(state: State) -> None:
    both = inventory(vpc("a", "10.1.0.0/16"), vpc("b", "10.2.0.0/16"))
    Exporters({}, POOL, state, both)
    exporters = Exporters({"vpc-b": IP("10.1.0.1")}, POOL, state, both)
    assert addresses(exporters) == {"vpc-a": ("100.64.0.2", "pool"), "vpc-b": ("10.1.0.1", "configured")}
    assert [(each.subject, each.severity) for each in exporters.table.findings] == [("vpc-a", "warning")]
    # Taken out of the configuration again, it stays: a collector must not see a new device for that.
    exporters = Exporters({}, POOL, state, both)
    assert addresses(exporters) == {"vpc-a": ("100.64.0.2", "pool"), "vpc-b": ("10.1.0.1", "stored")}


def test_the_configuration_takes_an_address_even_from_a_vpc_that_is_gone(state: State) -> None:
    Exporters({}, POOL, state, inventory(vpc("gone", "10.1.0.0/16")))
    exporters = Exporters({"vpc-b": IP("10.1.0.1")}, POOL, state, inventory(vpc("b", "10.2.0.0/16")))
    assert addresses(exporters) == {"vpc-b": ("10.1.0.1", "configured")}


def test_a_configured_vpc_that_nobody_has_seen_is_there(state: State) -> None:
    assert addresses(Exporters({"vpc-x": IP("10.7.0.1")}, POOL, state)) == {"vpc-x": ("10.7.0.1", "configured")}


def test_stable_over_restarts_and_over_vpcs_that_come_and_go(tmp_path: Path) -> None:
    a, b, c = vpc("a", "10.0.0.0/16"), vpc("b", "10.0.0.0/16"), vpc("c", "10.0.0.0/16")
    with State(tmp_path) as state:
        first = {each.key: each for each in Exporters({}, POOL, state, inventory(b, c)).table}
    with State(tmp_path) as state:
        exporters = Exporters({}, POOL, state, inventory(a))
        assert addresses(exporters) == {"vpc-a": ("100.64.0.3", "pool")}
        exporters.refresh(inventory(a, b, c))
        assert {each.key: each for each in exporters.table if each.key != "vpc-a"} == first


def test_an_address_that_a_person_gave_is_stored_and_a_running_agent_takes_it_up(state: State, tmp_path: Path) -> None:
    exporters = Exporters({}, POOL, state, inventory(vpc("a", "10.1.0.0/16")))
    number = exporters.table.by_key["vpc-a"].domain
    exporters.follow()
    assert not exporters.follow()
    with State(tmp_path) as command:
        command.assignments.set("vpc-a", IP("192.168.7.1"), "stored")
    assert exporters.follow()
    assert addresses(exporters) == {"vpc-a": ("192.168.7.1", "stored")}
    assert exporters.table.by_key["vpc-a"].domain == number
    with State(tmp_path) as command:
        command.assignments.release("vpc-a")
    assert exporters.follow()
    assert addresses(exporters) == {"vpc-a": ("10.1.0.1", "router")}


def test_a_vpc_that_only_flows_name_gets_an_address_at_once_and_keeps_it(state: State) -> None:
    exporters = Exporters({}, POOL, state, inventory(vpc("a", "10.1.0.0/16")))
    found = exporters.exporter("vpc-new", account_id="222222222222", region="eu-west-1")
    assert (str(found.address), found.address_origin, found.account_id) == ("100.64.0.2", "pool", "222222222222")
    assert exporters.exporter("vpc-new") is found
    exporters.refresh(inventory(vpc("a", "10.1.0.0/16"), vpc("new", "10.5.0.0/16")))
    assert (str(exporters.exporter("vpc-new").address), exporters.exporter("vpc-new").name) == ("100.64.0.2", "new")


def test_a_transit_gateway_with_a_flow_log_is_an_exporter(state: State) -> None:
    def log(id: str, resource: str) -> FlowLog:
        return FlowLog(id, "111111111111", "us-east-1", resource, "s3", "arn:aws:s3:::b")

    snapshot = Snapshot(
        at=0.0,
        flow_logs=(log("fl-1", "tgw-1"), log("fl-2", "tgw-attach-2")),
        transit_gateway_attachments=(
            TransitGatewayAttachment("tgw-attach-2", "tgw-2", "111111111111", "us-east-1"),
            TransitGatewayAttachment("tgw-attach-3", "tgw-3", "111111111111", "us-east-1"),
        ),
    )
    assert {each.key for each in candidates_of(snapshot)} == {"tgw-1", "tgw-2"}


def test_a_pool_that_is_used_up_is_said_and_the_rest_share_one_address(state: State) -> None:
    exporters = Exporters(
        {}, (IPv4Network("100.64.0.0/31"),), state, inventory(*(vpc(n, "10.0.0.0/16") for n in "abcd"))
    )
    assert addresses(exporters) == {
        "vpc-a": ("10.0.0.1", "router"),
        "vpc-b": ("100.64.0.1", "pool"),
        "vpc-c": ("100.64.0.0", "pool"),
        "vpc-d": ("100.64.0.0", "pool"),
    }
    assert exporters.table.unattributed.address == IP("100.64.0.0")
    assert len({each.domain for each in exporters.table}) == 5
    assert "2 VPCs (vpc-c, vpc-d)" in exporters.table.findings[0].problem
    exporters.reconfigure({}, POOL)
    assert addresses(exporters)["vpc-d"] == ("100.64.0.3", "pool")
    assert not exporters.table.findings


def test_without_any_pool_there_is_still_an_address() -> None:
    table = Exporters({}, ()).table
    assert table.unattributed.address == DUMMY_ADDRESS
    assert [each.subject for each in table.findings] == ["exporters.pool"]


def test_a_state_that_cannot_be_written_stops_nothing_and_is_caught_up(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = inventory(vpc("a", "10.0.0.0/16"), vpc("b", "10.0.0.0/16"))
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise StateError("disk full")

        patch.setattr(state.assignments, "change", refuse)
        exporters = Exporters({}, POOL, state, both)
        before = {each.key: each for each in exporters.table}
        assert "disk full" in exporters.table.findings[0].problem
        assert exporters.exporter("vpc-x").address == IP("100.64.0.3")
    exporters.refresh(both)
    assert not exporters.table.findings
    assert {each.key: each for each in exporters.table if each.key != "vpc-x"} == before
    assert {each.key for each in state.assignments.list()} == {"vpc-a", "vpc-b", "vpc-x", UNATTRIBUTED}


def test_two_agents_beside_each_other_never_give_one_address_twice(tmp_path: Path) -> None:
    with State(tmp_path) as one, State(tmp_path) as other:
        left, right = Exporters({}, POOL, one), Exporters({}, POOL, other)
        for n in range(20):
            left.exporter(f"vpc-l{n}")
            right.exporter(f"vpc-r{n}")
        given = [each.address for each in one.assignments.list()]
        assert len(given) == len(set(given)) == 41
