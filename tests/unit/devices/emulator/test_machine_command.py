from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgeml_devices.emulator.boards import BOARDS, Board, board_named
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.machine.addresses import Addresses, read_addresses
from edgeml_devices.emulator.machine.command import (
    MemoryFile,
    Place,
    command,
    hardware_arguments,
    host_arguments,
    memory_arguments,
    overlay_command,
    snapshot_key,
)
from edgeml_devices.emulator.qemu import Qemu

from edgeml.errors import EngineError

QEMU = Qemu(Path("/usr/bin/qemu-system-aarch64"), "7.2.22 (Debian 1:7.2)", "virt-7.2")
PI_4 = board_named("raspberry-pi-4")
PLACE = Place(Path("/run/machine"))
IMAGE = Image(
    *(
        "a1",
        Path("/cache/images/a1"),
        ("litert",),
        "minimal",
        Path("/cache/vmlinuz.gz"),
        Path("/cache/initrd.gz"),
    ),
    *(Path("/cache/disk.qcow2"), Path("/cache/root"), Path("/cache/site"), Path("/cache/ssh_key"), (), 0, 0),
)


def _value(arguments: tuple[str, ...], option: str) -> str:
    return arguments[arguments.index(option) + 1]


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_cpu_cores_and_memory_are_the_board_s(board: Board) -> None:
    arguments = command(QEMU, board, IMAGE, PLACE)
    assert _value(arguments, "-cpu") == board.cpu
    assert _value(arguments, "-smp") == "4"
    assert _value(arguments, "-m") == str(board.memory_mib)
    assert _value(arguments, "-machine") == "virt-7.2,gic-version=3,memory-backend=memory"
    assert "max" not in " ".join(arguments)


def test_the_guest_is_told_its_board() -> None:
    words = _value(hardware_arguments(QEMU, PI_4), "-append").split()
    assert "edgeml.target=raspberry-pi-4" in words
    assert "edgeml.model=Raspberry_Pi_4_Model_B_Rev_1.1" in words


def test_a_panic_or_reboot_ends_qemu() -> None:
    arguments = command(QEMU, PI_4, IMAGE, PLACE)
    assert "-no-reboot" in arguments
    assert "panic=-1" in _value(arguments, "-append")


def test_every_port_is_on_loopback_and_free() -> None:
    arguments = " ".join(host_arguments(IMAGE, PLACE))
    assert arguments.count("127.0.0.1") == 4
    assert arguments.count("127.0.0.1:0-:") == 2
    assert arguments.count("host=127.0.0.1,port=0,server=on,wait=off") == 2


def test_a_comma_in_a_path_is_doubled() -> None:
    arguments = host_arguments(IMAGE, Place(Path("/run/a,b")))
    assert _value(arguments, "-drive").startswith("file=/run/a,,b/disk.qcow2,if=none")


def test_the_image_is_written_by_no_machine() -> None:
    assert str(IMAGE.disk) not in " ".join(command(QEMU, PI_4, IMAGE, PLACE))
    overlay = overlay_command(IMAGE.disk, PLACE)
    assert _value(overlay, "-b") == str(IMAGE.disk)
    assert overlay[-1] == "/run/machine/disk.qcow2"


def test_each_device_stands_behind_its_backend() -> None:
    arguments = command(QEMU, PI_4, IMAGE, PLACE)
    for backend, device in (
        ("-object", "virt-7.2"),
        ("-drive", "virtio-blk-pci"),
        ("-netdev", "virtio-net-pci"),
        ("-chardev", "pci-serial"),
    ):
        places = [place for place, one in enumerate(arguments) if one.startswith(device)]
        assert arguments.index(backend) < places[0]


def test_a_snapshot_s_memory_takes_what_is_written_only_while_it_is_taken() -> None:
    assert memory_arguments(256 << 20)[1] == "memory-backend-ram,id=memory,size=256M"
    taken, used = (
        memory_arguments(256 << 20, MemoryFile(Path("/s,1/memory"), kept))[1] for kept in (True, False)
    )
    assert taken == "memory-backend-file,id=memory,size=256M,mem-path=/s,,1/memory,share=on"
    assert used == taken.replace("share=on", "share=off")


def test_a_snapshot_is_of_one_qemu_board_image_and_memory() -> None:
    keys = {
        snapshot_key(QEMU, PI_4, IMAGE),
        snapshot_key(replace(QEMU, version="7.2.23"), PI_4, IMAGE),
        snapshot_key(replace(QEMU, machine="virt-8.0"), PI_4, IMAGE),
        snapshot_key(QEMU, board_named("raspberry-pi-5"), IMAGE),
        snapshot_key(QEMU, PI_4, replace(IMAGE, key="a2")),
        snapshot_key(QEMU, PI_4, IMAGE, 128 << 20),
    }
    assert len(keys) == 6
    assert snapshot_key(QEMU, PI_4, IMAGE) == snapshot_key(QEMU, PI_4, IMAGE, PI_4.memory_bytes)


CHARDEVS = [
    {"frontend-open": True, "filename": "disconnected:tcp:127.0.0.1:36481,server=on", "label": "console"},
    {"frontend-open": True, "filename": "unix:/run/qmp,server=on", "label": "compat_monitor0"},
    {
        "frontend-open": True,
        "filename": "tcp:127.0.0.1:37403,server=on <-> 127.0.0.1:50000",
        "label": "serial",
    },
]
USER_NETWORK = """\
Hub -1 (network):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[ESTABLISHED]   13       127.0.0.1 50012       10.0.2.15    22     0     0
  TCP[HOST_FORWARD]  12       127.0.0.1 38251       10.0.2.15    22     0     0
  TCP[HOST_FORWARD]  11       127.0.0.1 42815       10.0.2.15  8080     0     0
"""


def test_the_ports_are_those_that_qemu_says() -> None:
    found = read_addresses(CHARDEVS, USER_NETWORK)
    assert found == Addresses(ssh=38251, http=42815, console=36481, serial=37403)


def test_a_qemu_that_does_not_say_is_an_error() -> None:
    with pytest.raises(EngineError, match="22"):
        read_addresses(CHARDEVS, "Hub -1 (network):\n")
