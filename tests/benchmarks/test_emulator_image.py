"""From an empty cache to a booted machine, as an ordinary user; packages and wheels were fetched before."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.boards import board_named
from edgeml_devices.emulator.images.build import build_image, find_image
from edgeml_devices.emulator.images.cache import remove_tree
from edgeml_devices.emulator.images.image import Image, ImageRequest

from tests.conftest import require
from tests.integration.emulator.built_images import shared_cache
from tests.integration.emulator.hand_booted import booted

NOBODY = 65534
BUDGET_S = 240.0
MOST_USED_BYTES = 600_000_000
DOWNLOADS = ("apt", "debs", "wheels", "plans")


def _as_ordinary_user(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Give how to run Python as an ordinary user, and the variables for it."""
    variables = os.environ | {
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "EDGEML_CACHE_DIR": str(folder / "cache"),
    }
    if os.getuid() != 0:
        return [sys.executable], variables
    as_user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env"]
    # the interpreter's own library is the other Python's own business
    own = [path for path in sys.path if path and not path.startswith(sys.base_prefix)]
    variables["PYTHONPATH"] = os.pathsep.join(own)
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        found = subprocess.run(
            [*as_user, python, "-c", "import click, rich"], env=variables, capture_output=True, check=False
        )
        if found.returncode == 0:
            return [*as_user, python], variables
    return [], variables


@pytest.mark.bench
def test_an_ordinary_user_builds_and_boots_within_four_minutes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lacking = tools.missing((*tools.TO_BUILD, *tools.TO_BOOT))
    require(not lacking, f"not installed: {', '.join(tool.program for tool in lacking)}")
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(shared_cache()))
    build_image(ImageRequest())
    user = Path(tempfile.gettempdir()) / f"edgeml-bench-{os.getpid()}"  # pytest's folders are for root alone
    python, variables = _as_ordinary_user(user)
    require(python, "no Python here that an ordinary user could run")
    try:
        for name in DOWNLOADS:
            shutil.copytree(shared_cache() / "emulator" / name, user / "cache/emulator" / name)
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", user], check=os.getuid() == 0)
        began_s = time.monotonic()
        done = subprocess.run(
            [*python, "-P", "-m", "edgeml", "emulate", "build", "--json"],
            env=variables,
            cwd=user,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        built_s = time.monotonic() - began_s
        monkeypatch.setenv("EDGEML_CACHE_DIR", str(user / "cache"))
        image = find_image(ImageRequest())
        assert image is not None
        assert image.key == json.loads(done.stdout)["image"]["key"]
        _boot(image, tmp_path)
        booted_s = time.monotonic() - began_s
    finally:
        remove_tree(user)
    print(f"\nbuilt in {built_s:.1f} s, booted after {booted_s:.1f} s; {image.used_bytes / 1e6:.0f} MB used")
    assert booted_s <= BUDGET_S
    assert image.used_bytes <= MOST_USED_BYTES


def _boot(image: Image, folder: Path) -> None:
    """Boot it to where edgeml and LiteRT answer."""
    with booted(image, board_named("raspberry-pi-4"), folder) as machine:
        machine.ready()
        machine.run("python3 -P -c 'import edgeml, ai_edge_litert.interpreter' && test -d /var/lib/edgeml")
