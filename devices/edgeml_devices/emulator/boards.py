"""The boards that can be emulated: one table, for the full machine and for user mode.

A board's name is that of its target (``edgeml targets``). Revision codes are Raspberry Pi's "new-style"
ones, main identification registers those of Arm's core manuals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from edgeml.errors import UsageError

_GIB: Final = 1 << 30
_IMPLEMENTER_ARM: Final = 0x41
_SERIAL: Final = "00000000ed6e0001"
"""Every emulated board has this one: identity comes from enrolment, not from here."""

_FAITHFUL: Final = (
    "the engines' own aarch64 wheels, and the kernels that they choose for this CPU",
    "Debian 12: kernel, ext4, user space, Python 3.11, processes, signals, memory limits",
    "number of cores, memory",
    "SSH, the network, a serial console; a power cut loses what was not synced",
)
_NOT_FAITHFUL: Final = (
    "latency: emulated time says nothing of the board, not even which variant is the faster one",
    "power, temperature, throttling, memory bandwidth, speed and wear of the SD card",
    "GPIO, camera, VideoCore, USB, radio, the board's firmware",
    "Raspberry Pi OS: the kernel is Debian's for virtual machines, and does not randomize addresses",
)
_CLAIMS_CRYPTO: Final = "the CPU claims AES and SHA instructions, which this board's silicon lacks"


@dataclass(frozen=True, slots=True)
class Board:
    """A board, as far as it can be emulated."""

    name: str
    """Also the name of its target: ``raspberry-pi-4``."""
    model: str
    """What the device tree calls it."""
    compatible: tuple[str, ...]
    """The device tree's ``compatible``, the most exact first."""
    cpu: str
    """QEMU's ``-cpu``. Never ``max``: int8 kernels of LiteRT give wrong results on it, without an error."""
    cores: int
    memory_bytes: int
    """Of the smallest one sold, as of the target."""
    midr: int
    """Main identification register: implementer, variant, part and revision of the core."""
    features: tuple[str, ...]
    """``Features`` of ``/proc/cpuinfo``."""
    bogomips: str
    revision: str
    """The board's revision code, in hexadecimal."""
    faithful: tuple[str, ...]
    """What holds on the board too, in words for a person."""
    not_faithful: tuple[str, ...]
    """What must not be concluded from the emulation."""

    @property
    def memory_mib(self) -> int:
        return self.memory_bytes >> 20

    @property
    def cpuinfo(self) -> str:
        """``/proc/cpuinfo`` as the board has it.

        User mode needs it in its root: ONNX Runtime and LiteRT die on the file of an x86 machine.
        """
        core = (
            f"BogoMIPS\t: {self.bogomips}\n"
            f"Features\t: {' '.join(self.features)}\n"
            f"CPU implementer\t: {self.midr >> 24:#04x}\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: {self.midr >> 20 & 0xF:#x}\n"
            f"CPU part\t: {self.midr >> 4 & 0xFFF:#05x}\n"
            f"CPU revision\t: {self.midr & 0xF}\n\n"
        )
        cores = "".join(f"processor\t: {number}\n{core}" for number in range(self.cores))
        return f"{cores}Revision\t: {self.revision}\nSerial\t\t: {_SERIAL}\nModel\t\t: {self.model}\n"


def system_files(board: Board) -> Mapping[str, bytes]:
    """Give the files below ``/proc`` and ``/sys`` that say what the board is; paths without a leading ``/``.

    User mode lays them over its root. A full machine has a kernel for these, but for the device tree.
    """
    cpus = f"0-{board.cores - 1}\n".encode()
    files = {
        "proc/cpuinfo": board.cpuinfo.encode(),
        "proc/device-tree/model": f"{board.model}\0".encode(),
        "proc/device-tree/compatible": "".join(f"{name}\0" for name in board.compatible).encode(),
        **{f"sys/devices/system/cpu/{state}": cpus for state in ("possible", "present", "online")},
    }
    for number in range(board.cores):
        register = f"sys/devices/system/cpu/cpu{number}/regs/identification/midr_el1"
        files[register] = f"{board.midr:#018x}\n".encode()
        topology = f"sys/devices/system/cpu/cpu{number}/topology"
        files |= {
            f"{topology}/physical_package_id": b"0\n",
            f"{topology}/core_id": f"{number}\n".encode(),
            f"{topology}/core_siblings": f"{(1 << board.cores) - 1:x}\n".encode(),
            f"{topology}/thread_siblings": f"{1 << number:x}\n".encode(),
        }
    return files


def board_named(name: str) -> Board:
    """Give a board.

    Raises:
        UsageError: there is none of that name; says which there are.
    """
    if name not in BOARDS:
        raise UsageError(f"no board {name!r} to emulate; there are: {', '.join(BOARDS)}")
    return BOARDS[name]


def _midr(variant: int, part: int, revision: int) -> int:
    """Implementer, variant, architecture (15: told by feature registers), part, revision."""
    return _IMPLEMENTER_ARM << 24 | variant << 20 | 0xF << 16 | part << 4 | revision


_ARMV8: Final = ("fp", "asimd", "evtstrm", "crc32", "cpuid")
_ARMV8_2: Final = (
    *("fp", "asimd", "evtstrm", "aes", "pmull", "sha1", "sha2", "crc32", "atomics", "fphp", "asimdhp"),
    *("cpuid", "asimdrdm", "lrcpc", "dcpop", "asimddp"),
)
_A53: Final = _midr(0, 0xD03, 4)
_A72: Final = _midr(0, 0xD08, 3)
_A76: Final = _midr(4, 0xD0B, 1)

_TABLE: Final = (
    Board(
        name="raspberry-pi-zero-2w",
        model="Raspberry Pi Zero 2 W Rev 1.0",
        compatible=("raspberrypi,model-zero-2-w", "brcm,bcm2837"),
        cpu="cortex-a53",
        cores=4,
        memory_bytes=_GIB // 2,
        midr=_A53,
        features=_ARMV8,
        bogomips="38.40",
        revision="902120",
        faithful=_FAITHFUL,
        not_faithful=(*_NOT_FAITHFUL, _CLAIMS_CRYPTO),
    ),
    Board(
        name="raspberry-pi-3b-plus",
        model="Raspberry Pi 3 Model B Plus Rev 1.3",
        compatible=("raspberrypi,3-model-b-plus", "brcm,bcm2837"),
        cpu="cortex-a53",
        cores=4,
        memory_bytes=_GIB,
        midr=_A53,
        features=_ARMV8,
        bogomips="38.40",
        revision="a020d3",
        faithful=_FAITHFUL,
        not_faithful=(*_NOT_FAITHFUL, _CLAIMS_CRYPTO),
    ),
    Board(
        name="raspberry-pi-4",
        model="Raspberry Pi 4 Model B Rev 1.1",
        compatible=("raspberrypi,4-model-b", "brcm,bcm2711"),
        cpu="cortex-a72",
        cores=4,
        memory_bytes=_GIB,
        midr=_A72,
        features=_ARMV8,
        bogomips="108.00",
        revision="a03111",
        faithful=_FAITHFUL,
        not_faithful=(*_NOT_FAITHFUL, _CLAIMS_CRYPTO),
    ),
    Board(
        name="raspberry-pi-5",
        model="Raspberry Pi 5 Model B Rev 1.1",
        compatible=("raspberrypi,5-model-b", "brcm,bcm2712"),
        cpu="cortex-a76",
        cores=4,
        memory_bytes=2 * _GIB,
        midr=_A76,
        features=_ARMV8_2,
        bogomips="108.00",
        revision="b04171",
        faithful=(*_FAITHFUL, "fp16 arithmetic and dot products: other kernels than on a Raspberry Pi 4"),
        not_faithful=_NOT_FAITHFUL,
    ),
)
BOARDS: Final[Mapping[str, Board]] = MappingProxyType({board.name: board for board in _TABLE})
"""By name, from the smallest board to the largest."""
