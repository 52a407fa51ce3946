"""A snapshot that is not whole is said to be, before QEMU waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.emulator.boards import board_named
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.machine.command import snapshot_key
from edgeml_devices.emulator.machine.launch import Setup, Snapshot
from edgeml_devices.emulator.machine.snapshots import find_snapshot
from edgeml_devices.emulator.qemu import Qemu

from edgeml.errors import EngineError


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    paths = dict.fromkeys(("kernel", "initrd", "disk", "root", "site", "ssh_key"), tmp_path / "nothing")
    folder = tmp_path / "emulator" / "images" / "a1"
    image = Image("a1", folder, ("litert",), "minimal", **paths, packages=(), size_bytes=1, used_bytes=1)
    return Setup.of(Qemu(Path("qemu"), "7.2.22", "virt-7.2"), board_named("raspberry-pi-4"), image)


@pytest.fixture
def snapshot(setup: Setup) -> Snapshot:
    key = snapshot_key(setup.qemu, setup.board, setup.image, setup.memory_bytes)
    made = Snapshot(setup.image.folder / "snapshots" / key)
    made.folder.mkdir(parents=True)
    for part in (made.memory, made.state, made.disk):
        part.write_bytes(b"1")
    with made.memory.open("r+b") as memory:
        memory.truncate(setup.memory_bytes)
    one = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    (made.folder / "SHA256SUMS").write_text(f"{one}  state\n{one}  disk.qcow2\n")
    return made


def test_a_whole_snapshot_is_found(setup: Setup, snapshot: Snapshot) -> None:
    assert find_snapshot(setup) == snapshot


@pytest.mark.parametrize("part", ["memory", "state", "disk.qcow2"])
@pytest.mark.parametrize("is_there", [True, False])
def test_a_snapshot_with_a_part_missing_or_cut_off_is_refused(
    setup: Setup, snapshot: Snapshot, part: str, *, is_there: bool
) -> None:
    (snapshot.folder / part).unlink()
    if is_there:
        (snapshot.folder / part).touch()
    with pytest.raises(EngineError, match=f"{part} is missing or cut off; remove that folder, or boot"):
        find_snapshot(setup)


@pytest.mark.parametrize("part", ["state", "disk.qcow2", "SHA256SUMS"])
def test_a_snapshot_that_was_changed_is_refused(setup: Setup, snapshot: Snapshot, part: str) -> None:
    (snapshot.folder / part).write_bytes(b"2")
    with pytest.raises(EngineError, match="does not hold what was written; remove that folder, or boot"):
        find_snapshot(setup)
