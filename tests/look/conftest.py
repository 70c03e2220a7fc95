"""The commands that look at IPFIX, run as people run them, over files that `edfn-agent export` wrote."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = str(Path(sys.executable).with_name("edfn-agent"))
LOG = (
    "version account-id vpc-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action "
    "log-status\n"
    "5 123456789012 vpc-0a eni-0a 10.0.0.1 10.0.0.2 1000 443 6 10 5000 1735922400 1735922460 ACCEPT OK\n"
    "5 123456789012 vpc-0b eni-0b 10.0.0.3 10.0.0.4 53 53 17 1 60 1735922400 1735922460 REJECT OK\n"
    "5 123456789012 vpc-0a eni-0a 2001:db8::1 2001:db8::2 0 0 58 2 160 1735922400 1735922460 ACCEPT OK\n"
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def edfn_agent(tmp_path: Path) -> Run:
    """`edfn_agent(*arguments)`: what it printed, and its status."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    return run


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "flows.log"
    path.write_text(LOG)
    return path


@pytest.fixture(scope="session")
def _exported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    (folder / "flows.log").write_text(LOG)
    command = [PROGRAM, "export", "flows.log", "--output"]
    aws = ["--profile", "aws", "--enterprise-number", "4242"]
    subprocess.run([*command, "flows.ipfix", "--output", "flows.pcap"], cwd=folder, check=True, timeout=60)
    subprocess.run([*command, "aws.ipfix", *aws], cwd=folder, check=True, timeout=60)
    return folder


@pytest.fixture
def exported(_exported_once: Path, tmp_path: Path) -> Path:
    """A folder with flows.ipfix, flows.pcap, and the same in profile aws as aws.ipfix."""
    shutil.copytree(_exported_once, tmp_path, dirs_exist_ok=True)
    return tmp_path
