"""The kernel and its first root file system, out of Debian's kernel for virtual machines."""

from __future__ import annotations

import gzip
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from edgeml.errors import EdgemlError
from edgeml_devices.emulator import programs, tools
from edgeml_devices.emulator.images.cpio import CpioArchive
from edgeml_devices.emulator.images.recipe import recipe_bytes

META_PACKAGE: Final = "linux-image-cloud-arm64"
"""Depends on the kernel of the day, whose own name has a number in it."""
KERNEL: Final = "vmlinuz.gz"
INITRD: Final = "initrd.gz"
MODULES: Final = (
    *("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng"),
    *("sch_netem", "sch_tbf"),
)
"""What a machine's devices need, and what makes its network a bad one; dependencies come by themselves."""
_INFORMATION: Final = re.compile(rb"(depends|name)=([^\0]*)\0")
"""Strings of the section .modinfo."""


def make_kernel(kernel_deb: Path, busybox: Path, folder: Path) -> None:
    """Write kernel and initrd into a folder.

    Args:
        kernel_deb: Debian's package of a kernel for virtual machines.
        busybox: an arm64 busybox that needs no library.
        folder: where to.

    Raises:
        EdgemlError: the package is damaged, or lacks a module.
    """
    with tempfile.TemporaryDirectory(prefix=".kernel.", dir=folder) as name:
        unpacked = Path(name)
        argv: list[str | Path] = [tools.find(tools.DPKG_DEB), "-x", kernel_deb, unpacked]
        programs.run(argv, f"unpacking {kernel_deb.name}")
        kernels = sorted((unpacked / "boot").glob("vmlinuz-*"))
        if not kernels:
            raise EdgemlError(f"{kernel_deb.name} holds no kernel")
        kernel = kernels[0].read_bytes()
        (folder / KERNEL).write_bytes(gzip.compress(kernel, compresslevel=1, mtime=0))
        found = find_modules(unpacked / "lib" / "modules")
        initrd = initrd_of([found[name] for name in load_order(found, MODULES)], busybox)
        (folder / INITRD).write_bytes(gzip.compress(initrd, compresslevel=6, mtime=0))


def find_modules(folder: Path) -> dict[str, Path]:
    """Give the modules below a folder by their names, in which ``-`` is ``_``."""
    return {path.stem.replace("-", "_"): path for path in sorted(folder.rglob("*.ko"))}


def module_depends(content: bytes) -> tuple[str, ...]:
    """Read from a module's file which others must be loaded before it."""
    for key, value in _INFORMATION.findall(content):
        if key == b"depends":
            return tuple(name.replace("-", "_") for name in value.decode().split(",") if name)
    return ()


def load_order(modules: Mapping[str, Path], wanted: Sequence[str]) -> tuple[str, ...]:
    """Give the modules to load, each behind those that it depends on.

    Raises:
        EdgemlError: one is not there.
    """
    order: dict[str, None] = {}

    def add(name: str, needed_by: str) -> None:
        if name in order:
            return
        if name not in modules:
            raise EdgemlError(f"the kernel has no module {name}{needed_by}")
        for other in module_depends(modules[name].read_bytes()):
            add(other, f", which {name} needs")
        order[name] = None

    for name in wanted:
        add(name, "")
    return tuple(order)


def initrd_of(modules: Sequence[Path], busybox: Path) -> bytes:
    """Give the archive that the kernel starts from: busybox, the modules in load order, ``/init``."""
    archive = CpioArchive()
    for name in ("bin", "dev", "proc", "sys", "mnt", "modules", "run"):
        archive.folder(name)
    archive.character_device("dev/console", 5, 1)
    archive.character_device("dev/null", 1, 3, 0o666)
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    archive.link("bin/sh", "busybox")
    # insmod goes by name: 00-virtio.ko, 01-…
    for number, module in enumerate(modules):
        archive.file(f"modules/{number:02}-{module.name}", module.read_bytes())
    archive.file("init", recipe_bytes("initrd-init.sh"), 0o755)
    return archive.finish()
