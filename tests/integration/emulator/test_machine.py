"""A machine and what may happen to it: power cuts, reboots, a pulled cable, a slow card, a hang."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from edgeml_devices.emulator.boards import board_named
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.machine import state
from edgeml_devices.emulator.machine.launch import Setup
from edgeml_devices.emulator.machine.machine import Machine
from edgeml_devices.emulator.qemu import find_qemu

from edgeml.errors import EngineError, TransportError
from tests.waiting import eventually

MEMORY_BYTES = 256 << 20
"""Less than the board's: these tests need none."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Machines of these tests lie apart from those of others."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_machines(own_cache: None, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(folders))


@pytest.fixture(scope="module")
def setup(image: Image) -> Setup:
    return Setup.of(find_qemu(), board_named("raspberry-pi-4"), image, MEMORY_BYTES)


@pytest.fixture(scope="module")
def machine(setup: Setup, folders: Path) -> Iterator[Machine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEML_CACHE_DIR", str(folders))
        machine = Machine.start(setup)
    with machine:
        yield machine


def _up(machine: Machine) -> Machine:
    if not machine.running:
        machine.restart()
    return machine


def test_memory_and_cores_are_as_asked_for(machine: Machine) -> None:
    assert int(_up(machine).sh("nproc")) == 4
    total_kib = int(machine.sh("grep MemTotal /proc/meminfo").split()[1])
    assert 180 << 10 < total_kib < 256 << 10


def test_files_go_in_and_out(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 400)
    _up(machine).put(tmp_path / "sent", "/opt/sent")
    machine.get("/opt/sent", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()


def test_a_power_cut_loses_what_was_not_synced_and_nothing_else(machine: Machine) -> None:
    _up(machine).sh("echo kept >/opt/synced; sync; echo lost >/opt/unsynced")
    machine.power_cut()
    assert not machine.running
    machine.restart()
    assert machine.sh("cat /opt/synced; cat /opt/unsynced 2>/dev/null || true").split() == ["kept"]


def test_a_reboot_from_inside_is_seen_and_the_disk_goes_on(machine: Machine) -> None:
    with suppress(TransportError):  # the end may come before the answer
        _up(machine).sh("echo kept >/opt/before; kill -TERM 1")
    assert machine.wait_ended(180)
    machine.restart()
    assert machine.sh("cat /opt/before") == "kept\n"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that cannot answer is soon given up."""
    monkeypatch.setattr("edgeml_devices.transports.ssh.KILLED_WITHIN_S", 1.0)


@pytest.mark.usefixtures("impatient")
def test_a_pulled_cable_ends_connections_and_the_next_goes_through(machine: Machine) -> None:
    boot = _up(machine).sh("cat /proc/sys/kernel/random/boot_id")
    machine.network(on=False)
    with pytest.raises(TransportError):
        machine.sh("true", timeout_s=2)
    machine.network(on=True)
    assert machine.sh("cat /proc/sys/kernel/random/boot_id") == boot


@pytest.mark.usefixtures("impatient")
def test_a_hung_machine_answers_after_it_was_let_go_on(machine: Machine) -> None:
    _up(machine).sh("true")
    machine.hang()
    assert machine.running
    with pytest.raises(TransportError):
        machine.sh("true", timeout_s=2)
    machine.resume()
    assert machine.sh("echo back") == "back\n"


@pytest.mark.usefixtures("impatient")
def test_a_hung_machine_is_not_waited_for_when_it_is_to_stop(machine: Machine) -> None:
    _up(machine).sh("true")
    machine.hang()
    begun = time.monotonic()
    assert not machine.stop()
    assert time.monotonic() - begun < 12
    assert not machine.running


def test_a_slow_disk_is_slow_until_it_is_not(machine: Machine) -> None:
    write = "dd if=/dev/zero of=/opt/zeros bs=1M count=4 conv=fsync 2>/dev/null; rm /opt/zeros"
    _up(machine).slow_disk(bytes_per_s=1_000_000)
    begun = time.monotonic()
    machine.sh(write)
    assert time.monotonic() - begun > 2.5
    machine.slow_disk()


def test_a_slow_network_is_slow_until_it_is_not(machine: Machine) -> None:
    _up(machine).slow_network(bits_per_s=1_000_000)
    begun = time.monotonic()
    machine.sh("head -c 250000 /dev/zero")
    assert time.monotonic() - begun > 1.5
    machine.slow_network()
    assert "netem" not in machine.sh("tc qdisc show")


@pytest.mark.usefixtures("impatient")
def test_a_network_that_loses_everything_is_mended_without_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeml_devices.emulator.machine.machine._HEARD_WITHIN_S", 3.0)
    _up(machine).slow_network(loss_percent=100)
    machine.slow_network()
    assert machine.sh("echo back") == "back\n"


def test_the_clock_can_be_wrong(machine: Machine) -> None:
    _up(machine).set_clock(1_500_000_000)
    assert 1_500_000_000 <= int(machine.sh("date +%s")) < 1_500_000_600
    machine.set_clock(time.time())


def test_two_run_beside_each_other_with_ports_and_host_keys_of_their_own(
    machine: Machine, setup: Setup
) -> None:
    key = "dropbearkey -y -f /etc/dropbear/dropbear_ed25519_host_key | grep ^ssh"
    with Machine.start(setup) as other:
        assert (machine.name, other.name) == ("raspberry-pi-4", "raspberry-pi-4-2")
        assert other.ports.ssh != _up(machine).ports.ssh
        assert other.sh(key) != machine.sh(key)
        assert {found.name for found in state.machines()} == {machine.name, other.name}
    assert not other.folder.exists()


def test_a_shutdown_is_clean_and_writes_everything(machine: Machine) -> None:
    _up(machine).sh("echo kept >/opt/unsynced")
    assert machine.stop()
    machine.restart()
    assert machine.sh("cat /opt/unsynced") == "kept\n"


def test_who_types_reboot_in_it_ends_it(machine: Machine) -> None:
    with suppress(TransportError):  # the connection may end before the answer
        _up(machine).run(["reboot"])
    assert machine.wait_ended(180)


def test_a_detached_machine_stays_so_when_its_power_is_cut_and_comes_back(setup: Setup) -> None:
    with Machine.start(setup, name="apart", wait=False) as machine:
        machine.detach()
        machine.restart(wait=False)
        assert state.sweep() == ()
        assert machine.running


def test_a_machine_that_does_not_come_up_says_what_its_console_says(setup: Setup) -> None:
    with Machine.start(setup, name="dark", wait=False) as machine, pytest.raises(EngineError) as caught:
        machine.wait_ready(within_s=0.01)
    assert "SSH does not answer after 0.01 s" in str(caught.value)


def test_a_qemu_that_refuses_its_arguments_says_why_and_leaves_nothing(setup: Setup, folders: Path) -> None:
    from dataclasses import replace

    wrong = replace(setup, qemu=replace(setup.qemu, machine="virt-0.1"))
    with pytest.raises(EngineError, match="unsupported machine type"):
        Machine.start(wrong, name="wrong")
    assert not (folders / "emulator/machines/wrong").exists()


STARTED_AND_KILLED = """
import os, sys
from edgeml_devices.emulator.boards import board_named
from edgeml_devices.emulator.images.cache import Cache
from edgeml_devices.emulator.images.kept import read_image
from edgeml_devices.emulator.machine.launch import Setup
from edgeml_devices.emulator.machine.machine import Machine
from edgeml_devices.emulator.qemu import find_qemu
from pathlib import Path
image = read_image(Cache(Path(sys.argv[1])), sys.argv[2])
setup = Setup.of(find_qemu(), board_named("raspberry-pi-4"), image, 256 << 20)
machine = Machine.start(setup, name="left", wait=False)
print(machine.running, flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_machine_whose_process_was_killed_ends_by_itself(setup: Setup, folders: Path) -> None:
    cache = setup.image.folder.parent.parent
    argv = [sys.executable, "-c", STARTED_AND_KILLED, str(cache), setup.image.key]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    left = folders / "emulator/machines/left"
    assert done.stdout == "True\n", done.stderr
    eventually(lambda: not left.exists(), "the machine is gone")
