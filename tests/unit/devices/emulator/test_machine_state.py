"""Machines as folders: names, locks, and what a killed owner leaves, with processes in QEMU's place."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from edgeml_devices.emulator.images.cache import remove_tree
from edgeml_devices.emulator.machine import keeper, state

from edgeml.errors import EdgemlError, UsageError
from tests.unit.devices.emulator.conftest import BOARD, RECORD, SLEEP, run
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("cache")

OWNER_THAT_DIES = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
from tests.unit.devices.emulator.conftest import RECORD, BOARD, run
from edgeml_devices.emulator.machine import state
folder, owner = state.new_folder(BOARD)
print(run(folder).pid, flush=True)
os._exit(1)
"""


def test_a_machine_has_its_board_s_name_and_the_next_one_a_number() -> None:
    (first, one), (second, two) = state.new_folder(BOARD), state.new_folder(BOARD)
    assert (first.name, second.name) == (BOARD, f"{BOARD}-2")
    assert first.stat().st_mode & 0o777 == 0o700
    one.close()
    two.close()


def test_a_name_is_given_once() -> None:
    _, owner = state.new_folder(BOARD, "mine")
    with pytest.raises(UsageError, match=r"there is a machine 'mine' already.* edgeml emulate stop mine"):
        state.new_folder(BOARD, "mine")
    owner.close()


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "my pi", "-F", "pi*", "a\n", "a" * 65])
def test_a_name_is_a_folder_s_and_a_host_s(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        state.new_folder(BOARD, name)


def test_a_machine_runs_as_long_as_its_process_has_the_lock() -> None:
    folder, owner = state.new_folder(BOARD)
    process = run(folder)
    assert [(found.name, found.running) for found in state.machines()] == [(BOARD, True)]
    assert not state.ended_within(folder, 0.01)
    state.kill(folder)
    assert process.wait(60) == -9
    assert [(found.name, found.running) for found in state.machines()] == [(BOARD, False)]
    owner.close()


def test_two_do_not_run_in_one_folder() -> None:
    folder, owner = state.new_folder(BOARD)
    process = run(folder)
    with pytest.raises(EdgemlError, match="runs already"), state.run_lock(folder):
        pass
    state.kill(folder)
    process.wait()
    owner.close()


def test_a_process_that_took_the_number_of_a_dead_machine_is_left_alone() -> None:
    folder, owner = state.new_folder(BOARD)
    other = subprocess.Popen(SLEEP)
    (folder / state.RUNNING).write_bytes(str(other.pid).encode())
    state.write_record(folder, RECORD)
    state.kill(folder)
    time.sleep(0.1)
    assert other.poll() is None
    other.kill()
    other.wait()
    owner.close()


def test_a_process_that_has_the_lock_and_did_not_say_its_number_yet_is_waited_for() -> None:
    folder, owner = state.new_folder(BOARD)
    with state.run_lock(folder) as lock:
        process = subprocess.Popen(
            ["/bin/sh", "-c", "sleep 0.3; echo $$ >running; exec sleep 300"],
            cwd=folder,
            pass_fds=[lock.fileno()],
        )
    assert state.is_running(folder)
    owner.close()
    assert state.sweep() == (BOARD,)
    assert process.wait(60) == -9


def test_a_machine_whose_owner_was_killed_is_ended_by_the_next_who_looks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OWNER_THAT_DIES, ":".join(path for path in sys.path if path)],
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path("/proc") / done.stdout.strip() / "stat"
    assert left.exists(), done.stderr
    assert state.machines() == ()
    deadline = time.monotonic() + 60
    while left.exists() and ") Z" not in left.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left.exists() or ") Z" in left.read_text()
    assert list((tmp_path / "emulator/machines").iterdir()) == []


def test_a_detached_machine_outlives_its_owner() -> None:
    folder, owner = state.new_folder(BOARD)
    process = run(folder)
    state.detached(folder, RECORD)
    owner.close()
    assert state.sweep() == ()
    assert [found.record.detached for found in state.machines()] == [True]
    assert process.poll() is None
    state.kill(folder)
    process.wait()


@pytest.mark.parametrize("damage", ["", "{", '{"schema": 1, "brett": "raspberry-pi-4"}'])
def test_a_detached_machine_whose_record_cannot_be_read_keeps_running_with_its_disk(damage: str) -> None:
    folder, owner = state.new_folder(BOARD)
    process = run(folder)
    state.detached(folder, RECORD)
    owner.close()
    (folder / "machine.json").write_text(damage)
    assert state.sweep() == ()
    assert state.machines() == ()
    assert state.unreadable() == (folder,)
    assert process.poll() is None
    state.kill(folder)
    process.wait()


def test_what_was_never_started_is_removed() -> None:
    folder, owner = state.new_folder(BOARD)
    owner.close()
    assert state.sweep() == (BOARD,)
    assert not folder.exists()


def test_a_file_beside_the_machines_is_no_machine(tmp_path: Path) -> None:
    folder, owner = state.new_folder(BOARD)
    (folder.parent / ".DS_Store").touch()
    assert state.machines() == ()
    assert state.sweep() == ()
    assert (tmp_path / "emulator/machines/.DS_Store").exists()
    owner.close()


def test_who_ends_a_machine_waits_for_who_starts_it_again() -> None:
    folder, owner = state.new_folder(BOARD)
    is_changing = threading.Event()
    processes: list[subprocess.Popen[bytes]] = []

    def start_again() -> None:
        with state.changing(folder):
            is_changing.set()
            time.sleep(0.3)
            processes.append(run(folder))

    other = threading.Thread(target=start_again)
    other.start()
    is_changing.wait(60)
    state.end(folder)
    other.join(60)
    assert processes[0].wait(60) == -9
    assert not folder.exists()
    state.end(folder)  # nothing is left to be ended
    owner.close()


def test_who_waited_to_start_a_machine_that_is_ended_finds_it_gone() -> None:
    folder, owner = state.new_folder(BOARD)
    said: list[str] = []

    def start_again() -> None:
        with pytest.raises(UsageError) as caught, state.changing(folder):
            pass
        said.append(str(caught.value))

    other = threading.Thread(target=start_again)
    with state.changing(folder):
        other.start()
        time.sleep(0.2)
        remove_tree(folder)
    other.join(60)
    assert said == [f"there is no machine {BOARD} any more"]
    owner.close()


def test_a_machine_that_is_started_again_is_not_swept() -> None:
    folder, owner = state.new_folder(BOARD)
    owner.close()
    with state.changing(folder):
        assert state.sweep() == ()
    assert state.sweep() == (BOARD,)


def test_the_keeper_ends_a_machine_once_its_owner_is_gone(cache: Path) -> None:
    folder, owner = state.new_folder(BOARD)
    process = run(folder)
    keeper.watch(folder)
    time.sleep(0.3)
    assert process.poll() is None
    owner.close()
    assert process.wait(60) == -9
    eventually(lambda: not folder.exists(), "the folder is gone")


def test_the_keeper_leaves_a_machine_that_was_detached(cache: Path) -> None:
    folder, owner = state.new_folder(BOARD)
    process = run(folder)
    keeper.watch(folder)
    state.detached(folder, RECORD)
    owner.close()
    eventually(lambda: not _keepers(folder), "the keeper has ended")
    assert process.poll() is None
    state.end(folder)
    process.wait()


def test_no_keeper_is_left_of_a_machine_that_was_ended_and_none_ends_the_next_of_its_name(
    cache: Path,
) -> None:
    folder, owner = state.new_folder(BOARD, "mine")
    keeper.watch(folder)
    eventually(lambda: _keepers(folder), "the keeper waits")
    state.end(folder)
    _, other = state.new_folder(BOARD, "mine")
    owner.close()
    eventually(lambda: not _keepers(folder), "the keeper has ended")
    assert folder.exists()
    other.close()


def _keepers(folder: Path) -> list[Path]:
    """Give the processes that keep a machine, or kept one of its name."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"machine.keeper\0{folder}\0" in file.read_text(errors="replace"):
                found.append(file)
    return found
