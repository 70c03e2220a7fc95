"""The table of metrics in docs/operations.md, made from the metrics themselves.

In: `Metrics`. Out: Markdown. Never: a description that is not the one Prometheus shows.
"""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase

from edfn_agent.ops.metrics import Labelled, Metrics


def metrics_markdown() -> str:
    """One row for each metric, in the order of `metrics.py`."""
    rows = ["| metric | kind | labels | what it says |", "| --- | --- | --- | --- |"]
    for metric in _metrics():
        family = next(iter(metric.describe()))
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def metric_names() -> set[str]:
    """As Prometheus knows them."""
    families = [next(iter(metric.describe())) for metric in _metrics()]
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in families}


def _metrics() -> list[MetricWrapperBase]:
    found = (each._metric if isinstance(each, Labelled) else each for each in vars(Metrics()).values())
    return [each for each in found if isinstance(each, MetricWrapperBase)]
