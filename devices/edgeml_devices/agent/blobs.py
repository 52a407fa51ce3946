"""Files by their hash, each once, shared by releases through hard links."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgeml.manifest import FileEntry
from edgeml_devices.agent.disk import clear, make_folder, sync_folder, write_file

PART: Final = ".part"
"""Behind the name of a blob that is not whole yet."""
READ_ONLY: Final = 0o444
"""A release's files are hard links to blobs: nobody is to write into them."""


class BlobStore:
    """``blobs/sha256``: what has no ``.part`` behind its name was verified when it got that name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def part(self, sha256: str) -> Path:
        return self.folder / f"{sha256}{PART}"

    def has(self, sha256: str, size_bytes: int) -> bool:
        """Say whether a blob of that size is here; its content was verified when it came."""
        try:
            return self.path(sha256).stat().st_size == size_bytes
        except OSError:
            return False

    def is_sound(self, sha256: str) -> bool:
        """Read a blob and say whether it is what its name says."""
        try:
            with self.path(sha256).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except OSError:
            return False

    def put(self, content: bytes) -> str:
        """Store bytes under their hash, and give it."""
        sha256 = hashlib.sha256(content).hexdigest()
        make_folder(self.folder)
        write_file(self.path(sha256), content, READ_ONLY)
        return sha256

    def read(self, sha256: str) -> bytes | None:
        """Give a small blob's content; ``None`` if it is not here, or damaged."""
        with suppress(OSError):
            content = self.path(sha256).read_bytes()
            if hashlib.sha256(content).hexdigest() == sha256:
                return content
        return None

    def accept(self, sha256: str) -> None:
        """Give a verified part, which is on the disk, its name."""
        os.chmod(self.part(sha256), READ_ONLY)  # noqa: PTH101 - as agent.disk
        os.replace(self.part(sha256), self.path(sha256))  # noqa: PTH105 - as agent.disk
        sync_folder(self.folder)

    def drop(self, sha256: str) -> None:
        """Remove a blob or its part; nothing happens where there is none."""
        for path in (self.path(sha256), self.part(sha256)):
            clear(path)

    def here_bytes(self, entries: Iterable[FileEntry]) -> int:
        """Give how much of these files is here, parts included."""
        found = 0
        for sha256 in {entry.sha256 for entry in entries}:
            for path in (self.path(sha256), self.part(sha256)):
                with suppress(OSError):
                    found += path.stat().st_size
                    break
        return found

    def free_bytes(self) -> int:
        """Give how much the file system has left for whoever the agent is."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def keep_only(self, hashes: frozenset[str]) -> None:
        """Remove every blob and part but these."""
        with suppress(FileNotFoundError):
            for path in list(self.folder.iterdir()):
                if path.name.removesuffix(PART) not in hashes:
                    clear(path)
