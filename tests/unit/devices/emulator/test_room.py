"""Disks that are full and folders that cannot be written to, where images and machines are made."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from edgeml_devices.emulator import programs
from edgeml_devices.emulator.images.cache import Cache
from edgeml_devices.emulator.images.room import room_in

from edgeml.cli import main
from edgeml.errors import EdgemlError

FULL = Path("/dev/full")


def test_what_a_program_says_of_a_full_disk_becomes_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EdgemlError) as caught, room_in(tmp_path / "not" / "there"):
        programs.run(["dd", "if=/dev/zero", f"of={FULL}", "count=1"], "making the disk")
    message = str(caught.value)
    assert message.startswith("making the disk failed: dd ended with exit code 1: a disk is full.")
    assert f"{tmp_path}/not/there has " in message
    assert "edgeml emulate clean" in message
    assert "EDGEML_CACHE_DIR" in message


def test_what_the_system_says_of_a_full_disk_becomes_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EdgemlError, match="a disk is full"), room_in(tmp_path):
        FULL.write_bytes(b"1")


def test_other_errors_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), room_in(tmp_path):
        (tmp_path / "none").read_bytes()
    with pytest.raises(EdgemlError, match=r"^making it failed: false ended"), room_in(tmp_path):
        programs.run(["false"], "making it")


def test_a_cache_that_cannot_be_written_to_is_said_with_what_chooses_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(EdgemlError, match="EDGEML_CACHE_DIR"), Cache(Path("/proc/none")).building():
        pass
    for words in (["build"], ["raspberry-pi-4"], ["clean"]):
        monkeypatch.setenv("EDGEML_CACHE_DIR", "/dev/null")
        done = CliRunner().invoke(main, ["emulate", *words])
        assert done.exit_code == 1
        assert "the cache folder /dev/null/emulator cannot be written to (Not a directory)" in done.stderr
