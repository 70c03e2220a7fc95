"""Starts the collectors that a test asks for, and stops what is left running."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # so that tests can say `from collectors import ...`

from collectors import Nfacctd, Nfcapd


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.interop)


@pytest.fixture
def nfcapd(tmp_path: Path) -> Iterator[Nfcapd]:
    collector = Nfcapd(tmp_path / "nfcapd")
    collector.start()
    yield collector
    collector.stop()


@pytest.fixture
def nfacctd(tmp_path: Path) -> Iterator[Nfacctd]:
    collector = Nfacctd(tmp_path / "nfacctd")
    collector.start()
    yield collector
    collector.stop()
