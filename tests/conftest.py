"""What the tests share: the real data, the workers, and skips that CI turns into failures."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["edgeml.testing.plugin", "pytester"]
REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("EDGEML_DATA", REPOSITORY.parent / "shared" / "data")).absolute()
# A busy machine is no counterexample; CI sees the same examples each time.
hypothesis_settings.register_profile("edgeml", deadline=None)
hypothesis_settings.register_profile("ci", deadline=None, derandomize=True)
REQUIRE_ALL = os.environ.get("EDGEML_REQUIRE_ALL") == "1"
hypothesis_settings.load_profile("ci" if REQUIRE_ALL else "edgeml")


def require(condition: object, reason: str) -> None:
    """Skip the test with this reason unless the condition holds; fail it under EDGEML_REQUIRE_ALL=1."""
    if condition:
        return
    if REQUIRE_ALL:
        pytest.fail(f"EDGEML_REQUIRE_ALL=1, but: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(name="require", scope="session")
def require_fixture() -> Callable[[object, str], None]:
    return require


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the working tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real models and data (EDGEML_DATA)."""
    require((DATA / "README.md").is_file(), f"no models and data in {DATA}; set EDGEML_DATA")
    return DATA


@pytest.fixture(scope="session")
def coral_standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that stands in for the Edge TPU's."""
    coral = importlib.import_module("edgeml.testing.coral")
    compiler = coral.compiler()
    require(compiler is not None, "no C compiler (cc, gcc or clang)")
    library: Path = coral.build_standin(tmp_path_factory.mktemp("coral"), [compiler])
    return library


@pytest.fixture(autouse=True)
def marked_needs(request: pytest.FixtureRequest) -> None:
    """Honour ``@pytest.mark.data`` and ``@pytest.mark.worker("tensorflow")``."""
    if request.node.get_closest_marker("data"):
        request.getfixturevalue("data_dir")
    for marker in request.node.iter_markers("worker"):
        for name in marker.args:
            missing = _missing_worker(name)
            require(missing is None, missing or "")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's cache and telemetry out of the tests: a step taken from it would not be tested."""
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("EDGEML_TELEMETRY_FOLDER", str(tmp_path_factory.getbasetemp() / "rings"))
    monkeypatch.setenv("COLUMNS", "120")


def _missing_worker(name: str) -> str | None:
    """Say what a worker lacks, or None when it can be used."""
    workers = importlib.import_module("edgeml_converters.workers.catalogue")
    status = workers.status(name)
    return None if status.usable else f"worker {name}: {status.reason}"
