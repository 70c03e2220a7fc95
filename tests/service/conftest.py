"""One embedded AWS for all tests of the service; each test begins with empty queues and log groups."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.service.aws`, however pytest was started

from edfn_agent.state import State
from tests.service.aws import Cloud
from tests.service.collector import Collector
from tests.service.service import Service, installed


@pytest.fixture(scope="session")
def embedded() -> Iterator[Cloud]:
    made = Cloud()
    yield made
    made.close()


@pytest.fixture(scope="session")
def discovered(embedded: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory with an inventory in it, so that not every test waits for a discovery."""
    folder = tmp_path_factory.mktemp("discovered")
    service = Service(folder, embedded, [{"url": "udp://127.0.0.1:9"}])
    done = service.run("run-now")
    assert done.returncode == 0, done.stdout + done.stderr
    return service.state


@pytest.fixture
def cloud(embedded: Cloud) -> Cloud:
    embedded.clean()
    return embedded


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


@pytest.fixture
def install(tmp_path: Path, cloud: Cloud, discovered: Path) -> Iterator[Callable[..., Service]]:
    """Makes installations; all of them have ended when the test has."""
    with ExitStack() as stack:

        def make(*collectors: Any, **changes: Any) -> Service:
            folder = tmp_path / f"agent-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            shutil.copytree(discovered, folder / "state")
            _renew(folder / "state")
            return stack.enter_context(installed(folder, cloud, *collectors, **changes))

        yield make


def _renew(directory: Path) -> None:
    """As if just discovered: an agent that starts with an old inventory asks AWS again, which only some tests want."""
    with State(directory) as state:
        stored = state.snapshot.load()
        assert stored is not None
        now = time.time()
        state.snapshot.save({**stored.data, "at": now}, now)
