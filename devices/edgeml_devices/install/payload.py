"""What is sent of a bundle: its files by hash, each checked before it leaves this machine."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from edgeml.bundle import open_bundle
from edgeml.bundle_place import MANIFEST, FolderPlace, ZipPlace
from edgeml.errors import BundleError
from edgeml.installed import INSTALLED, Installation, needed_files, write_installation
from edgeml.manifest import FileEntry
from edgeml.manifest_json import SIZE_LIMIT_BYTES, loads


class Payload:
    """A bundle whose files were all found right. For several threads; ``with`` removes what it unpacked.

    Raises:
        BundleError: a file is not what the manifest lists; says which.
        UnsafeFileError: as of :func:`edgeml.bundle.open_bundle`.
    """

    def __init__(self, path: Path) -> None:
        self._bundle = open_bundle(path)
        self._bundle.verify()
        place = FolderPlace(path) if self._bundle.is_folder else ZipPlace(path)
        with place.open(MANIFEST) as file:
            self._text = file.read(SIZE_LIMIT_BYTES + 1)
        self.manifest = loads(self._text, f"{path}: {MANIFEST}")
        if self.manifest != self._bundle.manifest:
            raise BundleError(f"{path} changed while it was read; try again")
        self.manifest_sha256 = hashlib.sha256(self._text).hexdigest()
        self._folder = Path(tempfile.mkdtemp(prefix="edgeml-deploy-"))
        self._unpacked: dict[str, Path] = {}
        self._unpacking = threading.Lock()

    def files(self, variant: str) -> tuple[FileEntry, ...]:
        """Give all that the release's folder holds for a variant, the manifest first."""
        manifest = FileEntry(MANIFEST, len(self._text), self.manifest_sha256)
        return (manifest, *needed_files(self.manifest, (variant,)))

    def local(self, entry: FileEntry) -> Path:
        """Give a file on this machine with an entry's content.

        Raises:
            BundleError: the bundle was changed since it was opened.
        """
        with self._unpacking:
            place = self._unpacked.get(entry.sha256)
            if place is None and entry.path == MANIFEST:
                place = self.scratch(MANIFEST, self._text)
            elif place is None:
                folder = self._bundle.extract(self._folder / entry.sha256, [entry.path])
                place = folder / entry.path
            self._unpacked[entry.sha256] = place
        return place

    def scratch(self, name: str, content: bytes) -> Path:
        """Give a new file on this machine."""
        place = Path(tempfile.mkdtemp(dir=self._folder)) / name
        place.write_bytes(content)
        return place

    def installed_json(self, variant: str, measured: Mapping[str, float]) -> Path:
        """Give a new file on this machine that is a release folder's ``installed.json``."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        manifest = self.manifest
        found = {variant: dict(measured)} if measured else {}
        write_installation(
            folder, Installation(manifest.name, manifest.release, self.manifest_sha256, (variant,), found)
        )
        return folder / INSTALLED

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sums(files: tuple[FileEntry, ...]) -> bytes:
    """Give the list of files as ``sha256sum`` writes it."""
    return "".join(f"{entry.sha256}  {entry.path}\n" for entry in files).encode()
