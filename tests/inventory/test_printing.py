"""What commands print for people fits their terminal, and what they copy from it is whole."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from edfn_agent.commands.exporters import print_exporters
from edfn_agent.commands.terminal import indented, stacked

ROW: dict[str, Any] = {
    "vpc_id": "vpc-0123456789abcdef0",
    "name": "a name",
    "account_id": "111111111111",
    "region": "ap-southeast-2",
    "cidrs": ["100.100.100.0/24", "2001:db8:1234:5600::/56", "10.0.0.0/16"],
    "exporter": "100.100.100.100",
    "exporter_origin": "configured",
    "observation_domain": 16777215,
    "source": "cloudwatch_logs:arn:aws:logs:ap-southeast-2:111111111111:log-group:/a/rather/long/name/of/a/group",
    "flow_logs": [],
}


def printed(rows: list[dict[str, Any]], width: int) -> str:
    out = io.StringIO()
    print_exporters(rows, Console(file=out, width=width, color_system=None, highlight=False))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 119, 120, 160])
@pytest.mark.parametrize(
    "counted", [{}, {"flows": 987654321, "last_flow": "2026-01-01T00:00:00+00:00"}], ids=["", "flows"]
)
def test_exporters_fit_and_are_whole(width: int, counted: dict[str, Any]) -> None:
    text = printed([ROW | counted], width)
    assert max(map(len, text.splitlines())) <= width
    for whole in ("vpc-0123456789abcdef0", "111111111111", "ap-southeast-2", "100.100.100.100", "100.100.100.0/24"):
        assert whole in text
    assert ("987654321" in text) == bool(counted)


@pytest.mark.parametrize("name", ["[prod]", "[/]", "[bold red]x[/bold red]", "a\\", "[[x]]"])
def test_a_name_is_printed_as_it_is(name: str) -> None:
    """Whoever may tag a VPC writes it."""
    assert name in printed([ROW | {"name": name}], 80)


def test_what_may_be_copied_is_not_broken_in_two() -> None:
    text = "see arn:aws:logs:eu-central-1:111111111111:log-group:/vpc/flow-logs and `edfn-agent setup s3`"
    words = indented(text, 40).split()
    assert "arn:aws:logs:eu-central-1:111111111111:log-group:/vpc/flow-logs" in words
    assert stacked("", "") == ""
    assert stacked("one", "", "two") == "one\n[dim]two[/]"
