"""The example of a project that tests with emulated devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.emulator.built_images import shared_cache


def _pytest(repository: Path, *words: str) -> str:
    argv = [sys.executable, "-m", "pytest", "-p", "edgeml.testing.plugin", "-p", "no:cacheprovider", *words]
    done = subprocess.run(
        argv,
        cwd=repository / "examples" / "pytest_device",
        env=os.environ | {"EDGEML_CACHE_DIR": str(shared_cache())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.splitlines()[-1]


def test_cables_and_networks_need_no_emulator(repository: Path) -> None:
    assert "5 passed, 2 deselected" in _pytest(repository, "-m", "not emulated")


@pytest.mark.usefixtures("snapshot")
def test_an_emulated_board_keeps_its_count_when_the_power_goes(repository: Path) -> None:
    assert "2 passed, 5 deselected" in _pytest(repository, "-m", "emulated")
