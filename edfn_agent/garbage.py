"""Python's cycle collector, told what to expect: many objects that wait together for a fraction of a second.

Deliveries of an event or two are kept by the thousand until they share messages, and none of them is part of a cycle;
with Python's own thresholds the collector goes through them again and again, a quarter of what such a delivery costs.
"""

from __future__ import annotations

import gc

YOUNG = 50_000
"""Objects more than there were before the young are looked at (Python's default is 700). Cycles come from errors with
their tracebacks and from boto3's sessions, which are made by the hundred, not by the thousand."""


def expect_many_objects() -> None:
    """For a process that is about to work: what start-up left is never looked at again, what comes is less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 10, 10)
