"""What shows only after a while: memory that creeps, files that stay open, answers that threads mix up."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgeml import plugins
from edgeml.errors import EngineMissingError
from edgeml.runtime import Runtime
from edgeml.testing.models import WIDTH, make_double
from edgeml.words import RUNTIMES, RuntimeName
from tests.conftest import require

pytestmark = pytest.mark.soak
SECONDS = 60
LOADS = 500
THREADS = 8


@pytest.fixture(params=RUNTIMES)
def name(request: pytest.FixtureRequest) -> RuntimeName:
    return request.param


@pytest.fixture
def runtime(name: RuntimeName) -> Runtime:
    try:
        return plugins.runtime(name)
    except EngineMissingError as error:
        require(condition=False, reason=str(error))
        raise


@pytest.fixture
def artifact(name: RuntimeName, tmp_path: Path) -> Path:
    return make_double(tmp_path, name)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_session_that_runs_for_a_minute_keeps_its_memory(runtime: Runtime, artifact: Path) -> None:
    x = np.ones((1, WIDTH), np.float32)
    with runtime.load(artifact) as session:
        for _ in range(10_000):
            session.run({"x": x})
        before, end, count = _resident_bytes(), time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            for _ in range(1_000):
                session.run({"x": x})
            count += 1_000
        grown = _resident_bytes() - before
    print(f"{count:,} runs, {grown / 1e6:+.1f} MB")
    assert grown < 4e6


def test_loading_and_closing_many_times_frees_memory_and_files(runtime: Runtime, artifact: Path) -> None:
    x = np.ones((1, WIDTH), np.float32)

    def cycle(times: int) -> None:
        for _ in range(times):
            with runtime.load(artifact) as session:
                session.run({"x": x})

    cycle(50)
    before, files = _resident_bytes(), _open_files()
    cycle(LOADS)
    grown = _resident_bytes() - before
    print(f"{LOADS} loads, {grown / 1e6:+.1f} MB")
    assert _open_files() <= files
    assert grown < 20e6


def test_threads_that_share_a_session_get_their_own_answers(runtime: Runtime, artifact: Path) -> None:
    end = time.monotonic() + SECONDS

    def wrong(seed: int) -> int:
        rng, count = np.random.default_rng(seed), 0
        while time.monotonic() < end:
            x = rng.normal(size=(1, WIDTH)).astype(np.float32)
            count += not np.array_equal(session.run({"x": x})["y"], 2 * x)
        return count

    with runtime.load(artifact) as session, ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(wrong, range(THREADS))) == 0
