"""Scratch folders: gone with the block, and those of killed processes with the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgeml_devices.emulator.own_folder import own_folder

OWNER = """
import sys
from pathlib import Path
from edgeml_devices.emulator.own_folder import own_folder
with own_folder("scratch.", Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print(folder, flush=True)
    sys.stdin.read()
"""


def _interrupted_in(folder: Path) -> None:
    (folder / "file").touch()
    raise KeyboardInterrupt


def test_a_folder_goes_with_its_block_however_that_ends(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), own_folder("scratch.", tmp_path) as folder:
        _interrupted_in(folder)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_goes_with_the_next_and_that_of_a_living_one_stays(
    tmp_path: Path,
) -> None:
    argv = [sys.executable, "-c", OWNER, str(tmp_path)]
    owner = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        os.utime(folder, (0, 0))
        with own_folder("scratch.", tmp_path):
            assert (folder / "half").exists()
    finally:
        owner.kill()
        owner.communicate()
    with own_folder("other.", tmp_path):
        assert folder.exists()
    with own_folder("scratch.", tmp_path):
        assert not folder.exists()


def test_a_folder_that_was_just_made_is_not_taken_from_who_is_about_to_lock_it(tmp_path: Path) -> None:
    (tmp_path / "scratch.new").mkdir()
    with own_folder("scratch.", tmp_path):
        assert (tmp_path / "scratch.new").exists()
