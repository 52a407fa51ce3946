"""Machines that go on from a snapshot: at once, each one of its own, the snapshot as it was."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from edgeml_devices.emulator.machine.launch import Setup, Snapshot
from edgeml_devices.emulator.machine.machine import Machine
from edgeml_devices.emulator.machine.snapshots import find_snapshot, take_snapshot
from edgeml_devices.emulator.machine.soundness import MEMORY_SUM

from edgeml.errors import EngineError

IDENTITY = """
cat /proc/sys/kernel/random/boot_id
dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key | grep ^ssh
head -c 16 /dev/urandom | od -An -tx1
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_machines(own_cache: None, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines of these tests lie apart from those of others."""
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(folders))


@pytest.fixture(scope="module")
def machine(setup: Setup, snapshot: Snapshot, folders: Path) -> Iterator[Machine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEML_CACHE_DIR", str(folders))
        machine = Machine.start(setup, snapshot=snapshot)
    with machine:
        yield machine


def _kept(snapshot: Snapshot) -> list[tuple[str, int, int]]:
    files = sorted(snapshot.folder.iterdir())
    return [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files]


def test_a_machine_that_goes_on_knows_the_time_and_was_not_booted(machine: Machine) -> None:
    assert machine.record.restored
    assert abs(float(machine.sh("date +%s.%N")) - time.time()) < 30
    assert machine.console_log == ""


def test_its_page_has_the_boot_id_that_programs_see(machine: Machine) -> None:
    boot_id = machine.sh("cat /proc/sys/kernel/random/boot_id").strip()
    with urllib.request.urlopen(f"http://127.0.0.1:{machine.ports.http}/ready.json", timeout=60) as page:
        assert json.load(page)["boot_id"] == boot_id


def test_both_serial_lines_have_a_shell(machine: Machine) -> None:
    from edgeml_devices.emulator.machine.line import Line

    for port in (machine.ports.console, machine.ports.serial):
        with Line(port, machine.name) as line:
            line.wait_for_shell(60)
            assert line.run("echo $((6 * 7))", 60) == "42"


def test_two_from_one_snapshot_have_nothing_in_common_but_what_they_hold(
    machine: Machine, setup: Setup, snapshot: Snapshot
) -> None:
    before = _kept(snapshot)
    with Machine.start(setup, snapshot=snapshot) as other:
        ours, theirs = machine.sh(IDENTITY).splitlines(), other.sh(IDENTITY).splitlines()
        assert len(ours) == len(theirs) == 3
        assert not set(ours) & set(theirs)
        machine.sh("echo mine >/opt/file; sync")
        assert other.sh("ls /opt").split() == []
    assert _kept(snapshot) == before


def test_after_a_power_cut_it_boots_on_the_disk_that_it_had(machine: Machine) -> None:
    machine.sh("echo kept >/opt/file; sync")
    machine.power_cut()
    machine.restart()
    assert not machine.record.restored
    assert machine.sh("cat /opt/file") == "kept\n"


def test_a_snapshot_is_taken_once(setup: Setup, snapshot: Snapshot) -> None:
    said: list[str] = []
    assert take_snapshot(setup, said.append) == snapshot == find_snapshot(setup)
    assert said == []


def test_a_damaged_snapshot_says_where_it_is(setup: Setup, snapshot: Snapshot, tmp_path: Path) -> None:
    broken = Snapshot(tmp_path)
    broken.memory.symlink_to(snapshot.memory)
    broken.disk.symlink_to(setup.image.disk)
    broken.state.write_bytes(snapshot.state.read_bytes()[:1000])
    with pytest.raises(EngineError, match="boot without it: --fresh; or remove that folder") as caught:
        Machine.start(setup, snapshot=broken, name="broken")
    assert str(tmp_path) in str(caught.value)


def test_a_machine_is_not_waited_for_where_the_memory_is_damaged(
    setup: Setup, snapshot: Snapshot, tmp_path: Path
) -> None:
    broken = Snapshot(tmp_path)
    broken.disk.symlink_to(setup.image.disk)
    broken.state.symlink_to(snapshot.state)
    (tmp_path / MEMORY_SUM).symlink_to(snapshot.folder / MEMORY_SUM)
    subprocess.run(["cp", "--sparse=always", snapshot.memory, broken.memory], check=True)
    with broken.memory.open("r+b") as memory:
        memory.seek(2 << 20)  # the kernel
        memory.write(bytes(8 << 20))
    begun = time.monotonic()
    with pytest.raises(EngineError, match="damaged: its memory does not hold what was written"):
        Machine.start(setup, snapshot=broken, name="broken")
    assert time.monotonic() - begun < 30
