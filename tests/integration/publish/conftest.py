"""Workshops with a repository on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.integration.publish.workshop import Workshop
from tests.integration.server_process import ServerProcess

_NUMBERS = count(1)


@pytest.fixture
def empty(server: ServerProcess, tmp_path: Path) -> Workshop:
    """A workshop whose server has no repository yet; on both databases."""
    return Workshop(tmp_path / "workshop", server.url, server.admin_token)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of this test alone, on SQLite: the database makes no difference."""
    with ServerProcess(tmp_path / "server") as process:
        yield process


@pytest.fixture
def own(process: ServerProcess, tmp_path: Path) -> Workshop:
    """A workshop with a repository of this test alone: its keys may change."""
    workshop = Workshop(tmp_path / "workshop", process.url, process.admin_token)
    workshop.do("repo", "init")
    return workshop


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Workshop]]:
    folder = tmp_path_factory.mktemp("shared")
    with ServerProcess(folder / "server") as process:
        workshop = Workshop(folder / "workshop", process.url, process.admin_token)
        workshop.do("repo", "init")
        yield process, workshop


@pytest.fixture
def shop(shared: tuple[ServerProcess, Workshop], tmp_path: Path) -> Workshop:
    """A workshop with a model of its own in a repository that others publish to as well."""
    workshop = Workshop(tmp_path / "workshop", shared[1].url, shared[1].token, f"kws-{next(_NUMBERS)}")
    workshop.keys = shared[1].keys
    return workshop


@pytest.fixture
def data(shared: tuple[ServerProcess, Workshop]) -> Path:
    """The folder of the server that ``shop`` publishes to."""
    return shared[0].data
