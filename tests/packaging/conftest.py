from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the packages install, built once."""
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("there is no /usr/bin/python3 that a package could depend on")
    tree = tmp_path_factory.mktemp("package") / "tree"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    built = subprocess.run(
        [PACKAGING / "build-tree", tree], env=environment, capture_output=True, text=True, timeout=600
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return tree


@pytest.fixture(scope="session")
def one_at_a_time() -> Iterator[None]:
    """The machine has one dpkg database and one user edfn-agent; two test runs must take turns."""
    with open("/tmp/edfn-agent-packaging.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
