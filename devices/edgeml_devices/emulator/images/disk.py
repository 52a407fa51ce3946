"""The disk of an image: one tree of files, an ext4 file system, a compressed qcow2."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgeml.errors import EdgemlError
from edgeml_devices.emulator import programs, tools
from edgeml_devices.emulator.images.cache import remove_tree
from edgeml_devices.emulator.images.image import SITE
from edgeml_devices.emulator.images.rootfs import AGENT_HOME, AGENT_ID

DISK_BYTES: Final = 2 << 30
"""What the guest sees; the file on this machine holds what is used."""
FILE_SYSTEM_OPTIONS: Final = (
    *("-q", "-F", "-t", "ext4", "-L", "edgeml", "-O", "^metadata_csum,^metadata_csum_seed"),
    *("-m", "1", "-J", "size=16", "-E", "root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1"),
)
"""Without checksums: Linux 6.1 refuses a journal with them, once a power cut tore its last commit block."""
QCOW2_OPTIONS: Final = ("-o", "compression_type=zstd")
"""A fifth of the time of zlib, and smaller. QEMU 5.1 and newer read it."""
_AS_ROOT: Final = """
set -e
chown -R "$3:$3" "$1/$4"
"$5" $6 -d "$1" "$2"
"""
_COUNTS: Final = re.compile(
    r"^(Block count|Free blocks|Block size|Inode count|Free inodes):\s+(\d+)$", re.MULTILINE
)


def make_disk(root: Path, site: Path, own_files: Iterable[tuple[str, bytes, int]], disk: Path) -> int:
    """Write a disk; gives the bytes that are used in its file system.

    Args:
        root: the root file system, left as it is.
        site: the wheels, unpacked.
        own_files: path, content and mode of files of this image alone.
        disk: the qcow2 to write; its folder serves for scratch.

    Raises:
        EdgemlError: a program failed, or the disk is full.
    """
    tree, raw = disk.parent / ".tree", disk.parent / ".raw"
    link_tree(root, tree)
    link_tree(site, tree / SITE)
    for name, content, mode in own_files:
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
    with raw.open("wb") as file:
        file.truncate(DISK_BYTES)
    mke2fs = tools.find(tools.MKE2FS)
    options = " ".join(FILE_SYSTEM_OPTIONS)
    programs.run(
        ["fakeroot", "sh", "-c", _AS_ROOT, "sh", tree, raw, str(AGENT_ID), AGENT_HOME, mke2fs, options],
        "making the file system",
    )
    used = _used_bytes(raw)
    remove_tree(tree)
    programs.run(
        ["qemu-img", "convert", "-q", "-c", "-W", "-f", "raw", "-O", "qcow2", *QCOW2_OPTIONS, raw, disk],
        "making the disk",
    )
    raw.unlink()
    return used


def link_tree(source: Path, target: Path) -> None:
    """Copy a tree by hard links; folders are new, files must not be written through."""
    target.mkdir(parents=True, exist_ok=True)
    for place, folders, files in os.walk(source):
        here = target / Path(place).relative_to(source)
        for name in folders:
            inside = Path(place, name)
            if inside.is_symlink():
                files.append(name)
            else:
                (here / name).mkdir(exist_ok=True)
                shutil.copymode(inside, here / name)
        for name in files:
            os.link(Path(place, name), here / name, follow_symlinks=False)


def _used_bytes(raw: Path) -> int:
    said = programs.run(
        [tools.find(tools.Tool("dumpe2fs", "e2fsprogs")), "-h", raw], "reading the file system"
    )
    counts = {key: int(value) for key, value in _COUNTS.findall(said)}
    try:
        return (counts["Block count"] - counts["Free blocks"]) * counts["Block size"]
    except KeyError as error:
        raise EdgemlError(f"dumpe2fs says no {error.args[0]} of {raw}") from error
