"""A snapshot that is not whole is said to be, before QEMU waits for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from edgeml_devices.emulator.boards import board_named
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.machine.command import snapshot_key
from edgeml_devices.emulator.machine.launch import Setup, Snapshot
from edgeml_devices.emulator.machine.snapshots import find_snapshot
from edgeml_devices.emulator.machine.soundness import checked_memory, memory_damage, write_sums
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
    with pytest.raises(EngineError, match=f"{part} is missing or cut off; boot without it: --fresh"):
        find_snapshot(setup)


@pytest.mark.parametrize("part", ["state", "disk.qcow2", "SHA256SUMS"])
def test_a_snapshot_that_was_changed_is_refused(setup: Setup, snapshot: Snapshot, part: str) -> None:
    (snapshot.folder / part).write_bytes(b"2")
    with pytest.raises(EngineError, match="does not hold what was written; boot without it: --fresh"):
        find_snapshot(setup)


OTHER = "its memory does not hold what was written"


def _write(snapshot: Snapshot, place: int, data: bytes) -> None:
    with snapshot.memory.open("r+b") as memory:
        memory.seek(place)
        memory.write(data)


def test_a_memory_is_whole_wherever_its_holes_are(snapshot: Snapshot) -> None:
    _write(snapshot, 300_000_000, b"data")
    write_sums(snapshot)
    _write(snapshot, 400_000_000, bytes(100_000))  # a hole no longer, and zero all the same
    assert memory_damage(snapshot) is None


@pytest.mark.parametrize("place", [0, 300_000_003, 700_000_000])
def test_a_memory_with_another_byte_is_damaged(snapshot: Snapshot, place: int) -> None:
    _write(snapshot, 300_000_000, b"data")
    write_sums(snapshot)
    _write(snapshot, place, b"x")
    assert memory_damage(snapshot) == OTHER


def test_a_memory_whose_data_moved_is_damaged(snapshot: Snapshot) -> None:
    _write(snapshot, 1 << 28, b"data")
    write_sums(snapshot)
    _write(snapshot, 1 << 28, bytes(4))
    _write(snapshot, 1 << 29, b"data")
    assert memory_damage(snapshot) == OTHER


def _fail_at_its_end(process: subprocess.Popen[bytes]) -> None:
    process.wait(60)
    raise EngineError("its serial line is gone")


def test_a_machine_on_a_damaged_memory_is_not_waited_for(snapshot: Snapshot) -> None:
    write_sums(snapshot)
    _write(snapshot, 5, b"x")
    process = subprocess.Popen(["sleep", "300"])
    with (
        pytest.raises(EngineError, match=f"the snapshot is damaged: {OTHER}"),
        checked_memory(snapshot, process),
    ):
        _fail_at_its_end(process)
    assert process.returncode == -9


def test_a_machine_that_fails_on_a_sound_memory_says_what_it_said(snapshot: Snapshot) -> None:
    write_sums(snapshot)
    process = subprocess.Popen(["sleep", "300"])
    with pytest.raises(EngineError, match=r"^it does not answer$"), checked_memory(snapshot, process):
        raise EngineError("it does not answer")
    assert process.poll() is None
    process.kill()
    process.wait()
