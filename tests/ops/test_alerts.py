"""The alerts and the table of metrics speak of metrics that exist, with labels they have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from edfn_agent.ops.metrics_table import metric_names, metrics_markdown

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "conf/prometheus-alerts.yaml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
LABELS = {
    match[1]: {label.strip("`") for label in match[2].split(", ") if label}
    for match in re.finditer(r"^\| `(\w+)` \| \w+ \| (.*?) \|", metrics_markdown(), re.M)
}
OF_PROMETHEUS = {"instance", "job"}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_is_whole_and_names_what_there_is(alert):
    assert re.fullmatch(r"Edfn[A-Z]\w+", alert["alert"])
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert {"summary", "action"} == set(alert["annotations"])
    names = set(re.findall(r"\bedfn_\w+", alert["expr"]))
    assert names <= metric_names()
    assert names or "up{" in alert["expr"]
    known = set().union(OF_PROMETHEUS, *(LABELS[name] for name in names))
    for name, matchers in re.findall(r"\b(edfn_\w+)\{(.*?)\}", alert["expr"]):
        assert set(re.findall(r"(\w+)=", matchers)) <= LABELS[name]
    grouped = re.findall(r"by \((.*?)\)", alert["expr"])
    for labels in grouped:
        assert set(labels.split(", ")) <= known
    shown = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    assert shown <= (set(grouped[0].split(", ")) if grouped else known), "a sum drops every other label"
    assert alert["expr"].count("(") == alert["expr"].count(")")


def test_what_must_not_go_unseen_has_an_alert():
    told = " ".join(alert["expr"] for alert in ALERTS)
    for needed in (
        "edfn_input_lag_seconds",
        'outcome="returned"',
        "edfn_quarantined",
        "edfn_send_errors_total",
        'vpc_id="unattributed"',
        "edfn_discovery_last_success_timestamp_seconds",
        'up{job="edfn-agent"} == 0',
    ):
        assert needed in told


def test_each_alert_is_explained():
    text = (ROOT / "docs/troubleshooting.md").read_text()
    assert [alert["alert"] for alert in ALERTS if alert["alert"] not in text] == []


def test_the_table_in_the_documentation_is_the_one_of_the_metrics():
    text = (ROOT / "docs/operations.md").read_text()
    table = re.search(r"<!-- metrics: .*? -->\n\n(.*?)\n<!-- end of metrics -->", text, re.S)
    assert table is not None
    assert table[1] == metrics_markdown(), (
        "put the output of edfn_agent.ops.metrics_table.metrics_markdown() into docs/operations.md"
    )
