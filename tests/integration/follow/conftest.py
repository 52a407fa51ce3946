"""A device with two releases of one model, and what listens to its beats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.installed import InstalledModel
from tests.integration.follow.listening import Agent
from tests.unit.core.release_folders import install, switch, times


@pytest.fixture(name="home")
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(name="installed")
def two_releases(home: Path, tmp_path: Path) -> InstalledModel:
    """``times``: release 1 gives the input, release 2 gives it twice, under other names."""
    install(home, times(tmp_path / "made", 1.0, 1))
    model = install(home, times(tmp_path / "made", 2.0, 2, names="ab"))
    switch(model, 1)
    return model


@pytest.fixture(name="agent")
def listening(installed: InstalledModel) -> Iterator[Agent]:
    agent = Agent(installed.home)
    yield agent
    agent.receiver.close()
