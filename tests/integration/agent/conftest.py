"""A repository with real bundles, a server in front of it, and agents that are real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent.bundles import scaled
from tests.integration.agent.fixture_server import Server, serving
from tests.integration.agent.processes import Device
from tests.integration.agent.tiny_repository import TinyRepository
from tests.integration.server_process import ServerProcess
from tests.unit.core.release_folders import digits


@pytest.fixture
def repository_here(tmp_path: Path) -> TinyRepository:
    """A repository that has signed two releases of ``times``."""
    repository = TinyRepository(tmp_path / "repository", {"times": "times", "digits": "digits"})
    for release in (1, 2):
        repository.publish(scaled(tmp_path / "bundles", release))
    return repository


@pytest.fixture
def fleet(repository_here: TinyRepository) -> Iterator[Server]:
    with serving(repository_here.folder) as (found, url):
        yield found, url


@pytest.fixture
def device(tmp_path: Path, fleet: Server, repository_here: TinyRepository) -> Iterator[Device]:
    """A device that has joined the server."""
    made = Device(tmp_path / "home", fleet[1])
    made.enrol(repository_here.first_root)
    yield made
    made.kill()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[ServerProcess]:
    """A real server, instead of the one that ``fleet`` plays."""
    with ServerProcess(tmp_path / "server") as process:
        yield process


@pytest.fixture
def digits_bundle(tmp_path: Path) -> Path:
    return digits(tmp_path / "bundles", 1)
