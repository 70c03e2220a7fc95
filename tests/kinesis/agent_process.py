"""`edfn-agent`, with clocks set short that tests would only wait for: KCL's own, and those of a stream that fails.

FAILOVER in the environment is KCL's failover time in seconds.
"""

from __future__ import annotations

import os
from functools import partial

from edfn_agent import agent, cli, sources
from edfn_agent.inputs.kinesis import input as kinesis
from edfn_agent.inputs.kinesis.properties import Timing

TIMING = Timing(shard_sync=1, lease_assignment=2, parent_poll=1, failover=float(os.environ.get("FAILOVER", "10")))

if __name__ == "__main__":
    kinesis.KinesisInput = partial(kinesis.KinesisInput, timing=TIMING, look_every=2)  # type: ignore[assignment,misc]
    sources.FOR_GOOD = 3.0
    agent.TRAFFIC_EVERY = 2.0
    cli.main()
