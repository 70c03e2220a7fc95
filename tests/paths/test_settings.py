"""What the configuration says of S3 reaches the readers."""

from __future__ import annotations

from typing import Any

import pytest

from edfn_agent.config import Config
from edfn_agent.sources import Sources

POINT = "arn:aws:s3:us-east-1:999999999999:accesspoint/edfn-agent"


def config(**s3: object) -> Config:
    return Config.model_validate({"collectors": ["udp://192.0.2.10:4739"], "inputs": {"s3": s3}})


def settings(**s3: object) -> Any:
    sources = Sources.__new__(Sources)
    sources._config = config(**s3)
    return sources._s3_settings()


def test_requester_pays_and_access_points() -> None:
    read = settings(requester_pays=True, access_points={"flow-logs": POINT})
    assert (read.requester_pays, read.read_through) == (True, {"flow-logs": POINT})
    plain = settings()
    assert (plain.requester_pays, plain.read_through) == (False, {})
    assert (plain.max_receives, plain.duplicate_window) == (5, 12 * 3600)


@pytest.mark.parametrize("wrong", [{"Flow_Logs!": POINT}, {"flow-logs": "arn:aws:s3:::flow-logs"}, ["flow-logs"]])
def test_what_is_no_access_point_is_a_fault(wrong: object) -> None:
    with pytest.raises(ValueError, match="access"):
        config(access_points=wrong)
