"""One embedded AWS for all tests of the paths."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.setup`, however pytest was started

from tests.setup.conftest import models_are_read_once

from .cloud import Cloud

__all__ = ["models_are_read_once"]


@pytest.fixture(scope="package")
def cloud() -> Iterator[Cloud]:
    made = Cloud()
    yield made
    made.close()
