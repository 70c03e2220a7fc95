from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging.machine import Here, Machine, Unable, booted

PACKAGING = Path(__file__).parents[2] / "packaging"
PLACES = ("etc/edfn-agent", "var/lib/edfn-agent", "usr/lib/edfn-agent", "usr/bin/edfn-agent")


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
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages are built to."""
    return tmp_path_factory.mktemp("dist")


@pytest.fixture(scope="session")
def machine(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine | Unable]:
    """A machine of its own with a running systemd, or why there is none."""
    with contextlib.ExitStack() as ending:
        try:
            made: Machine | Unable = ending.enter_context(booted(tmp_path_factory.mktemp("machine") / "it", dist))
        except Unable as why:
            made = why
        yield made


@pytest.fixture
def place(machine: Machine | Unable, dist: Path) -> Iterator[Here]:
    """Where packages are installed: the machine of its own, else this very one, for one test run at a time."""
    if isinstance(machine, Machine):
        yield machine
        return
    if os.geteuid() != 0:
        pytest.skip("installing a package takes root")
    with open("/tmp/edfn-agent-packaging.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in PLACES:
            if Path("/", name).exists():
                pytest.skip(f"/{name} is there: an edfn-agent is installed here, and is not to be touched ({machine})")
        yield Here(dist)
