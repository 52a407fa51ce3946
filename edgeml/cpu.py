"""What the CPU of this machine can do, in the words of Linux's ``/proc/cpuinfo``; needs no engine.

``vnni`` is added where the CPU multiplies u8×s8 into 32 bits in one step, by either of its two
instruction sets (``avx512_vnni``, ``avx_vnni``): which one does not matter to quantization.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CPUINFO: Final = Path("/proc/cpuinfo")
BOARD: Final = Path("/proc/device-tree/model")
EMULATOR_IMAGE: Final = Path("/etc/edgeml-image")
"""Names the image that ``edgeml emulate build`` made this system as."""
VNNI: Final = frozenset({"avx512_vnni", "avx_vnni"})
ARCHITECTURES: Final = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
"""Other systems' words for Linux's."""
ARM_PARTS: Final = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd49": "Neoverse-N2",
}
"""``CPU part`` of implementer 0x41 (Arm's Main ID Register) to the core's name."""
MAC_FLAGS: Final = {
    "FEAT_DotProd": "asimddp",
    "FEAT_FP16": "asimdhp",
    "FEAT_BF16": "bf16",
    "FEAT_I8MM": "i8mm",
    "FEAT_AES": "aes",
    "FEAT_PMULL": "pmull",
    "FEAT_SHA256": "sha2",
    "FEAT_CRC32": "crc32",
    "FEAT_LSE": "atomics",
}
"""macOS ``hw.optional.arm`` names to Linux's."""
MAC_X86: Final = {"avx1.0": "avx", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "lzcnt": "abm", "sse3": "pni"}
"""macOS ``machdep.cpu`` names, lower case, to Linux's."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """One machine's CPU."""

    architecture: str
    """``x86_64``, ``aarch64``, or what the system calls it."""
    model: str
    """As the CPU names itself; empty where it does not."""
    cores: int
    """Logical CPUs that this process may use."""
    features: frozenset[str]
    """Flags as spelled in ``/proc/cpuinfo``, and ``vnni``."""


def cpu() -> Cpu:
    """Look at the CPU of this machine; what cannot be found out is left empty."""
    machine = platform.machine().lower()
    architecture = ARCHITECTURES.get(machine, machine)
    if CPUINFO.is_file():
        return parse_cpuinfo(CPUINFO.read_text(encoding="utf-8", errors="replace"), architecture, cores())
    if platform.system() == "Darwin":
        return parse_sysctl(_sysctl(), architecture, cores())
    return Cpu(architecture, platform.processor(), cores(), frozenset())


def cores() -> int:
    """Count the logical CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def parse_cpuinfo(text: str, architecture: str, cores: int) -> Cpu:
    """Read the text of ``/proc/cpuinfo``; of several kinds of core only what all of them can do."""
    blocks = [_block(part) for part in text.split("\n\n") if part.strip()]
    flags = [
        frozenset(block[key].split()) for block in blocks for key in ("flags", "Features") if key in block
    ]
    return Cpu(
        architecture,
        _model(blocks),
        cores,
        _with_vnni(frozenset.intersection(*flags) if flags else frozenset()),
    )


def parse_sysctl(values: Mapping[str, str], architecture: str, cores: int) -> Cpu:
    """Read what macOS's ``sysctl`` says under ``hw.optional.arm`` and ``machdep.cpu``."""
    words = " ".join(
        values.get(f"machdep.cpu.{key}", "") for key in ("features", "leaf7_features", "extfeatures")
    ).lower()
    flags = {MAC_X86.get(word, word) for word in words.split()}
    flags |= {
        ours for theirs, ours in MAC_FLAGS.items() if values.get(f"hw.optional.arm.{theirs}", "0") == "1"
    }
    if architecture == "aarch64":
        flags |= {"fp", "asimd"}
    return Cpu(architecture, values.get("machdep.cpu.brand_string", ""), cores, _with_vnni(frozenset(flags)))


def memory_bytes() -> int | None:
    """Give the machine's memory, ``None`` where it cannot be found out."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def emulated() -> bool:
    """Say whether this machine is one that ``edgeml emulate`` made: its times mean nothing."""
    return EMULATOR_IMAGE.exists()


def board() -> str:
    """Give the board's name from the device tree, such as ``Raspberry Pi 4 Model B Rev 1.4``, or nothing."""
    try:
        return BOARD.read_text(encoding="utf-8", errors="replace").rstrip("\0\n")
    except OSError:
        return ""


def _with_vnni(features: frozenset[str]) -> frozenset[str]:
    return features | {"vnni"} if features & VNNI else features


def _block(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _model(blocks: list[dict[str, str]]) -> str:
    for block in blocks:
        if "model name" in block:
            return block["model name"]
    arm = (block for block in blocks if block.get("CPU implementer") == "0x41")
    names = dict.fromkeys(ARM_PARTS.get(block.get("CPU part", ""), "") for block in arm)
    return " + ".join(name for name in names if name)


def _sysctl() -> dict[str, str]:
    import subprocess

    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", "hw.optional", "machdep.cpu"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.partition(":") for line in done.stdout.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
