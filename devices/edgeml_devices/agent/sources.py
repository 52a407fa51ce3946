"""Where signed metadata, manifests and blobs come from: none of it is trusted for where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tuf.api.exceptions import DownloadError, DownloadHTTPError

from edgeml.bundle_checks import manifest_entries
from edgeml.bundle_place import MANIFEST, FolderPlace, Place, ZipPlace
from edgeml.manifest import FileEntry, Manifest
from edgeml_devices.agent.failures import UnreachableError

CHUNK_BYTES: Final = 64 * 1024
_NOT_FOUND: Final = 404


@dataclass(frozen=True, slots=True)
class BlobStream:
    """Bytes of a blob, from ``start`` on."""

    start: int
    chunks: Iterator[bytes]


class BlobSource(Protocol):
    """What gives blobs: a bundle, a folder, the server."""

    @property
    def patient(self) -> bool:
        """Say whether what does not come now may come later."""
        ...

    def blob(self, entry: FileEntry, start: int) -> AbstractContextManager[BlobStream]:
        """Open a blob at ``start``, or at 0 where the source cannot do that.

        Raises:
            UnreachableError: it does not come; also from the stream's iterator.
        """
        ...


class SignedSource(BlobSource, Protocol):
    """The server, or a folder that was carried here."""

    @property
    def clock_offset_s(self) -> float | None:
        """Give how far this device's clock is ahead of the source's; ``None`` where it has none."""
        ...

    def metadata(self, name: str) -> Iterator[bytes]:
        """Give a metadata file: ``timestamp.json``, ``3.snapshot.json``.

        Raises:
            DownloadHTTPError: with status 404 where it is not there.
            DownloadError: it does not come.
        """
        ...

    def manifest(self, model: str, release: int, sha256: str) -> Iterator[bytes]:
        """Give the bytes of a manifest.

        Raises:
            UnreachableError: it does not come.
        """
        ...


class FolderSource:
    """What ``edgeml publish --export`` wrote: ``metadata/``, ``targets/``, ``blobs/sha256/``."""

    patient = False
    clock_offset_s = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def metadata(self, name: str) -> Iterator[bytes]:
        try:
            with (self._folder / "metadata" / name).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError as error:
            raise DownloadHTTPError(f"{self._folder} holds no metadata/{name}", _NOT_FOUND) from error
        except OSError as error:
            raise DownloadError(f"{self._folder}/metadata/{name}: {error.strerror}") from error

    def manifest(self, model: str, release: int, sha256: str) -> Iterator[bytes]:
        path = self._folder / "targets" / "models" / model / f"{sha256}.{release}.json"
        return _file_chunks(path, 0)

    @contextmanager
    def blob(self, entry: FileEntry, start: int) -> Iterator[BlobStream]:
        yield BlobStream(start, _file_chunks(self._folder / "blobs" / "sha256" / entry.sha256, start))


class BundleBlobs:
    """A bundle's files by their hashes."""

    patient = False

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._place: Place = FolderPlace(path) if path.is_dir() else ZipPlace(path)
        self._names = {entry.sha256: entry.path for entry in manifest_entries(manifest)}

    def manifest_bytes(self) -> bytes:
        """Give the manifest's text as it stands in the bundle."""
        with self._place.open(MANIFEST) as file:
            return file.read()

    @contextmanager
    def blob(self, entry: FileEntry, start: int) -> Iterator[BlobStream]:
        with self._place.open(self._names[entry.sha256]) as file:
            file.seek(start)
            yield BlobStream(start, iter(lambda: file.read(CHUNK_BYTES), b""))


def _file_chunks(path: Path, start: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise UnreachableError(f"{path}: {error.strerror}") from error
