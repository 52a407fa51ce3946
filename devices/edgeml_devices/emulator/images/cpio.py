"""Writes cpio archives of the form "newc", which Linux takes as its first root file system.

Documentation/driver-api/early-userspace/buffer-format.rst of the kernel has the format. Owners are root,
times are 0: the same content gives the same bytes.
"""

from __future__ import annotations

import stat
from typing import Final

_MAGIC: Final = b"070701"
_TRAILER: Final = "TRAILER!!!"


class CpioArchive:
    """An archive in memory; entries stand in the order in which they were added."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._entries = 0

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._add(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        self._add(path, stat.S_IFREG | mode, content)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(path, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        self._add(path, stat.S_IFCHR | mode, b"", (major, minor))

    def finish(self) -> bytes:
        """Give the whole archive."""
        self._add(_TRAILER, 0, b"")
        return b"".join(self._parts)

    def _add(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        self._entries += 1
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # inode, mode, uid, gid, links, time, size, device, device of a node, length of the name, checksum
        fields = (self._entries, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name), 0)
        header = _MAGIC + b"".join(b"%08X" % field for field in fields)
        self._parts += [_padded(header + name), _padded(content)]


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 4)
