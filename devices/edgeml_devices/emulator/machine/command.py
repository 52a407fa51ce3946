"""QEMU's command line for a board and an image.

Two halves: the hardware, which a snapshot must find again as it was, and what stands behind it on this
machine (disk file, ports), which may differ each time. QEMU takes an added device without a word when it
restores: only the key guards against that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml_devices.emulator.boards import Board
from edgeml_devices.emulator.images.image import (
    HTTP_PORT,
    MODEL_ARGUMENT,
    SSH_PORT,
    TARGET_ARGUMENT,
    Image,
)
from edgeml_devices.emulator.machine.qmp import SOCKET
from edgeml_devices.emulator.qemu import Qemu

CONSOLE: Final = "console"
"""Label of the first serial line, the kernel's console: ``query-chardev`` names its port by it."""
SERIAL: Final = "serial"
"""Label of the second serial line, which no kernel message disturbs."""
DISK: Final = "disk"
"""Drive, for ``block_set_io_throttle``."""
MEMORY: Final = "memory"
"""What stands behind the board's memory."""
NETWORK: Final = "network"
"""Network device, for ``set_link``."""
TRANSLATIONS_MIB: Final = 256
"""Of translated code, in memory of this machine, as far as it is used. By default QEMU takes up to 1 GiB;
with 64 MiB, one start of Python threw away what the one before had translated."""
_LOOPBACK: Final = "127.0.0.1"
_RECIPE: Final = "1"
"""Rises when snapshots are taken in another way, beyond what the rest of their key sees."""


@dataclass(frozen=True, slots=True)
class Place:
    """The folder of one machine, made for it alone: sockets in it are as private as the folder is."""

    folder: Path
    """QEMU is started in it: the path of a socket has 107 bytes at most (unix(7))."""

    @property
    def disk(self) -> Path:
        """The copy-on-write layer over the image's disk."""
        return self.folder / "disk.qcow2"

    @property
    def console_log(self) -> Path:
        """All that came out of the first serial line."""
        return self.folder / "console.log"


@dataclass(frozen=True, slots=True)
class MemoryFile:
    """A file that is the board's memory: how a snapshot is taken, and gone on from without reading it."""

    path: Path
    kept: bool
    """Whether the file takes what the guest writes; otherwise each machine has a copy of what it changes."""


def hardware_arguments(qemu: Qemu, board: Board, memory_bytes: int | None = None) -> tuple[str, ...]:
    """Give the half that a snapshot depends on.

    Args:
        qemu: the QEMU that is installed.
        board: what is emulated.
        memory_bytes: another memory than the board's, to test with less.
    """
    memory_mib = (memory_bytes or board.memory_bytes) >> 20
    return (
        *("-machine", f"{qemu.machine},gic-version=3,memory-backend={MEMORY}", "-cpu", board.cpu),
        *("-smp", str(board.cores), "-m", str(memory_mib)),
        *("-display", "none", "-nodefaults", "-no-reboot", "-append", kernel_arguments(board)),
        *("-serial", f"chardev:{CONSOLE}", "-device", f"pci-serial,chardev={SERIAL}"),
        *("-device", f"virtio-blk-pci,drive={DISK}", "-device", f"virtio-net-pci,netdev={NETWORK},romfile="),
        *("-device", "virtio-rng-pci"),
    )


def kernel_arguments(board: Board) -> str:
    """Give the kernel's command line: the guest learns from it which board it is.

    Addresses are not random: QEMU translates code for the address at which it lies, and would do so anew for
    every process. A kernel at a random one also changes page tables at each system call, which no board here
    does.
    """
    model = board.model.replace(" ", "_")
    return (
        "console=ttyAMA0 quiet panic=-1 nokaslr norandmaps "
        f"{TARGET_ARGUMENT}={board.name} {MODEL_ARGUMENT}={model}"
    )


def memory_arguments(memory_bytes: int, file: MemoryFile | None = None) -> tuple[str, ...]:
    """Give what stands behind the memory: this machine's own, or a file."""
    size = f"id={MEMORY},size={memory_bytes >> 20}M"
    if file is None:
        return ("-object", f"memory-backend-ram,{size}")
    share = "on" if file.kept else "off"
    return ("-object", f"memory-backend-file,{size},mem-path={_escaped(file.path)},share={share}")


def host_arguments(image: Image, place: Place, card: Path | None = None) -> tuple[str, ...]:
    """Give the half that may differ from one start to the next; ``card`` is where a card is served.

    Ports are on loopback and chosen by the system: QEMU has them open before anyone can ask it which
    they are, so that no two machines race for one.
    """
    forwards = ",".join(f"hostfwd=tcp:{_LOOPBACK}:0-:{port}" for port in (SSH_PORT, HTTP_PORT))
    line = f"host={_LOOPBACK},port=0,server=on,wait=off"
    drive = f"file={_escaped(place.disk)},if=none,id={DISK},format=qcow2,cache=writeback,discard=unmap"
    if card is not None:
        drive = f"file=nbd:unix:{_escaped(card)},if=none,id={DISK},format=raw,cache=none"
    return (
        *("-accel", f"tcg,tb-size={TRANSLATIONS_MIB}"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-drive", drive),
        *("-chardev", f"socket,id={CONSOLE},{line},logfile={_escaped(place.console_log)}"),
        *("-chardev", f"socket,id={SERIAL},{line}"),
        *("-netdev", f"user,id={NETWORK},{forwards}"),
        *("-qmp", f"unix:{SOCKET},server=on,wait=off"),
    )


def command(
    qemu: Qemu,
    board: Board,
    image: Image,
    place: Place,
    memory_bytes: int | None = None,
    file: MemoryFile | None = None,
    card: Path | None = None,
) -> tuple[str, ...]:
    """Give the whole command line."""
    # a backend stands before the device that names it
    return (
        str(qemu.program),
        *memory_arguments(memory_bytes or board.memory_bytes, file),
        *host_arguments(image, place, card),
        *hardware_arguments(qemu, board, memory_bytes),
    )


def overlay_command(base: Path, place: Place) -> tuple[str, ...]:
    """Give the command that makes a machine's disk: all that it writes goes there, none to the base."""
    return (
        *("qemu-img", "create", "-q", "-f", "qcow2"),
        *("-b", str(base.absolute()), "-F", "qcow2", str(place.disk)),
    )


def snapshot_key(qemu: Qemu, board: Board, image: Image, memory_bytes: int | None = None) -> str:
    """Give the key of a snapshot: what must be the same for a state to be restored."""
    parts = (_RECIPE, qemu.version, image.key, *hardware_arguments(qemu, board, memory_bytes))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _escaped(path: Path) -> str:
    """QEMU's options are separated by commas; two of them stand for one."""
    return str(path).replace(",", ",,")
