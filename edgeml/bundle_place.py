"""Where a bundle's files lie: in a stored zip, or in the folder that one was extracted to.

What could lead out of the bundle or hide something (links, special files, folders, compression) is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, NoReturn, Protocol
from zipfile import ZIP_STORED

from edgeml.archive import open_zip
from edgeml.errors import BundleError, UnsafeFileError

MANIFEST: Final = "manifest.json"
RECORD: Final = "record.json"
"""What a conversion did; a bundle may be without."""


class Place(Protocol):
    """Where a bundle's files lie."""

    def sizes(self) -> dict[str, int]:
        """Give the size in bytes of every file, by its path.

        Raises:
            BundleError, ModelFileError: not a bundle's, or no zip.
            UnsafeFileError: something in it that a bundle does not hold.
            OSError: it cannot be read.
        """
        ...

    def open(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file that ``sizes`` names."""
        ...


@dataclass(frozen=True, slots=True)
class ZipPlace:
    """A bundle file."""

    path: Path

    def sizes(self) -> dict[str, int]:
        with open_zip(self.path) as archive:
            members = archive.infolist()
            if not members or members[0].filename != MANIFEST or members[0].header_offset != 0:
                raise BundleError(f"{self.path} is not a bundle: its first file is not {MANIFEST}")
            for member in members:
                if member.is_dir():
                    raise BundleError(
                        f"{self.path}: {member.filename!r} is a folder; a bundle holds files only"
                    )
                if member.compress_type != ZIP_STORED or member.compress_size != member.file_size:
                    raise UnsafeFileError(f"{self.path}: {member.filename} is compressed; a bundle is stored")
            return {member.filename: member.file_size for member in members}

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        with open_zip(self.path) as archive, archive.open(name) as file:
            yield file


@dataclass(frozen=True, slots=True)
class FolderPlace:
    """An extracted bundle."""

    path: Path

    def sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, folders, files in os.walk(self.path, onerror=_raise):
            for name in (*folders, *files):
                place = Path(folder, name)
                status = place.lstat()
                if name in files and stat.S_ISREG(status.st_mode):
                    found[place.relative_to(self.path).as_posix()] = status.st_size
                elif not stat.S_ISDIR(status.st_mode):
                    raise UnsafeFileError(f"{place} is a link or a special file; a bundle holds files only")
        return found

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        # O_NOFOLLOW: a link that took the file's place since the check is refused
        with os.fdopen(os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            yield file


def _raise(error: OSError) -> NoReturn:
    raise error
