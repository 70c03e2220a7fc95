"""The table of metrics in docs/operations.md, made from the metrics themselves.

In: `Metrics`. Out: Markdown. Never: a description that is not the one Prometheus shows.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase

from edfn_agent.ops.metrics import Labelled, Metrics
from edfn_agent.ops.stream_metrics import StreamMetrics


def metrics_markdown() -> str:
    """One row for each metric, in the order of `metrics.py`."""
    rows = ["| metric | kind | labels | what it says |", "| --- | --- | --- | --- |"]
    for family, labelled in _families():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in labelled)
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def metric_names() -> set[str]:
    """As Prometheus knows them."""
    return {f"{family.name}_total" if family.type == "counter" else family.name for family, _ in _families()}


def _families() -> list[tuple[Metric, Sequence[str]]]:
    """Each with the names of its labels."""
    found: list[tuple[Metric, Sequence[str]]] = []
    for each in vars(Metrics()).values():
        metric = each._metric if isinstance(each, Labelled) else each
        if isinstance(metric, MetricWrapperBase):
            found.append((next(iter(metric.describe())), metric._labelnames))
        elif isinstance(metric, StreamMetrics):
            found += [(family, getattr(family, "_labelnames", ())) for family in metric.describe()]
    return found
