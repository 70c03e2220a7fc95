"""moto over HTTP on loopback behind the fault proxy, the small world in it, and a collector that listens."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader

from tests.doctor.world import ACCOUNT, Cloud, World, build

from faultproxy import FaultProxy  # isort: skip  # on the path by `world`


@pytest.fixture(autouse=True)
def _no_real_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever AWS settings this machine has stay out of it; a Kinesis installation is pretended."""
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "MOTO_ACCOUNT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hub")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hub")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))


@pytest.fixture(autouse=True)
def java(monkeypatch: pytest.MonkeyPatch) -> None:
    from edfn_agent.inputs.kinesis import java
    from edfn_agent.inputs.kinesis.java import Installation

    monkeypatch.setattr(java, "find", lambda: Installation(Path("/usr/bin/java"), "17.0.1", Path("/jars")))


@pytest.fixture(scope="session", autouse=True)
def models_are_read_once() -> Iterator[None]:
    """Every run has sessions of its own, and each would read the models of ten services anew."""
    known: dict[Any, Any] = {}

    def once(method: Any) -> Any:
        def load(self: Loader, *given: Any, **more: Any) -> Any:
            key = (method.__name__, given, tuple(more.items()))
            if key not in known:
                known[key] = method(self, *given, **more)
            return known[key]

        return load

    with pytest.MonkeyPatch.context() as patch:
        for name in ("load_service_model", "load_data_with_path"):
            patch.setattr(Loader, name, once(getattr(Loader, name)))
        yield


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield build(Cloud(f"http://{host}:{port}"))
    server.stop()


@pytest.fixture(scope="module")
def proxy_server(world: World) -> Iterator[FaultProxy]:
    with FaultProxy(world.cloud.url) as proxy:
        proxy.accounts[world.key[0]] = ACCOUNT
        yield proxy


@pytest.fixture
def proxy(proxy_server: FaultProxy) -> FaultProxy:
    proxy_server.calm()
    # moto knows no simulation and answers with a page of traceback.
    proxy_server.deny("SimulatePrincipalPolicy")
    return proxy_server


@pytest.fixture
def collector() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        yield f"udp://127.0.0.1:{listening.getsockname()[1]}"
