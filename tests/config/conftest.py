from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from edfn_agent.config import Config, ConfigError, load, load_with_warnings

Load = Callable[..., Config]
Faults = Callable[..., list[str]]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Put YAML in `c.yaml` of an empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)

    def write_(text: str) -> str:
        Path("c.yaml").write_text(textwrap.dedent(text), encoding="utf-8")
        return "c.yaml"

    return write_


@pytest.fixture
def loaded(write: Callable[[str], str]) -> Load:
    return lambda text, **environ: load(write(text), environ)


@pytest.fixture
def faults(write: Callable[[str], str]) -> Faults:
    """The fault lines of a text that cannot be used."""

    def faults_(text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(write(text), environ)
        assert str(caught.value) == "\n".join(map(str, caught.value.faults))
        return str(caught.value).splitlines()

    return faults_


@pytest.fixture
def warnings(write: Callable[[str], str]) -> Faults:
    return lambda text, **environ: [str(warning) for warning in load_with_warnings(write(text), environ)[1]]
