"""The bundle: a stored zip whose first file, the manifest, lists every other with size and hash.

Nothing of a bundle is used before its name, kind, size and hash are found right. An extracted bundle (a
folder with the same files) is held to the same rules.
"""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, NoReturn
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from edgeml.archive import READ_ERRORS
from edgeml.atomic import new_file, replacing_folder
from edgeml.bundle_checks import check_manifest, check_name, manifest_entries
from edgeml.bundle_place import MANIFEST, RECORD, FolderPlace, Place, ZipPlace
from edgeml.errors import BundleError, ModelFileError, UnsafeFileError
from edgeml.manifest import FileEntry, Manifest
from edgeml.manifest_json import SIZE_LIMIT_BYTES, dumps, loads

SUFFIX: Final = ".edgeml"
_FIRST: Final = (MANIFEST, RECORD, "README.md")
_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest a zip can say: the same files give the same bytes."""
_ZIP_MAGIC: Final = b"PK\x03\x04"
_ZIP_NAME_AT: Final = 30
"""Where a zip's first file has its name (APPNOTE 4.3.7)."""
_CHUNK_BYTES: Final = 1024 * 1024


def bundle_file_name(name: str, release: int) -> str:
    """Give ``NAME-RELEASE.edgeml``.

    Raises:
        BundleError: the name or the counter cannot be a bundle's.
    """
    check_name(name, release)
    return f"{name}-{release}{SUFFIX}"


def is_bundle(path: Path) -> bool:
    """Say whether a path is meant as a bundle: by its name, as an extracted one, or by its content.

    Whether it is a sound one only :func:`open_bundle` can tell.
    """
    if path.suffix == SUFFIX or (path / MANIFEST).is_file():
        return True
    with suppress(OSError):
        if path.is_file():  # a pipe would not end
            with path.open("rb") as file:
                head = file.read(_ZIP_NAME_AT + len(MANIFEST))
            return head.startswith(_ZIP_MAGIC) and head[_ZIP_NAME_AT:] == MANIFEST.encode()
    return False


# --- writing


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, Path]) -> Manifest:
    """Write a bundle that appears whole or not at all; the same input gives the same bytes.

    Args:
        path: the file to write; an existing one is replaced.
        manifest: entries with an empty ``sha256`` get size and hash filled in, others are held to them;
            a file that no entry lists is added to ``Manifest.files``.
        files: path in the bundle to the file that holds its content.

    Returns:
        The manifest as written.

    Raises:
        BundleError: a listed file is missing or another than listed, a path is unsafe, the disk is full.
    """
    try:
        filled = _fill(manifest, files)
        check_manifest(filled, str(path))
        with new_file(path) as file:
            _write_zip(file, filled, files)
    except OSError as error:
        _reject_write(path, error)
    return filled


def _fill(manifest: Manifest, files: Mapping[str, Path]) -> Manifest:
    found = {name: _measure(name, place) for name, place in files.items()}

    def fill(entry: FileEntry) -> FileEntry:
        if entry.path not in found:
            raise BundleError(f"the manifest lists {entry.path}, which is not among the files to write")
        size_bytes, sha256 = found[entry.path]
        if not entry.sha256:
            return replace(entry, size_bytes=size_bytes, sha256=sha256)
        if (entry.size_bytes, entry.sha256) != (size_bytes, sha256):
            raise BundleError(f"{files[entry.path]} is not the file that the manifest lists as {entry.path}")
        return entry

    listed = {entry.path for entry in manifest_entries(manifest)}
    return replace(
        manifest,
        variants=tuple(
            replace(
                variant,
                files=tuple(fill(entry) for entry in variant.files),
                golden=None if variant.golden is None else fill(variant.golden),
            )
            for variant in manifest.variants
        ),
        files=(
            *(fill(entry) for entry in manifest.files),
            *(FileEntry(name, *found[name]) for name in sorted(files) if name not in listed),
        ),
    )


def _measure(name: str, place: Path) -> tuple[int, str]:
    try:
        with place.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return file.tell(), digest.hexdigest()
    except OSError as error:
        raise BundleError(f"cannot read {place}, which goes to {name}: {error.strerror}") from error


def _write_zip(file: BinaryIO, manifest: Manifest, files: Mapping[str, Path]) -> None:
    entries = {entry.path: entry for entry in manifest_entries(manifest)}
    with ZipFile(file, "w", ZIP_STORED) as archive:
        archive.writestr(_info(MANIFEST), dumps(manifest))
        for name in sorted(entries, key=_order):
            info = _info(name)
            info.file_size = entries[name].size_bytes
            digest = hashlib.sha256()
            with files[name].open("rb") as source, archive.open(info, "w") as target:
                while chunk := source.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    target.write(chunk)
            if digest.hexdigest() != entries[name].sha256:
                raise BundleError(f"{files[name]} changed while it was written to the bundle; try again")


def _order(name: str) -> tuple[int, str]:
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)


def _info(name: str) -> ZipInfo:
    info = ZipInfo(name, _TIME)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.create_system = 3
    return info


def _reject_write(path: Path, error: OSError) -> NoReturn:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        raise BundleError(
            f"cannot write {path}: the disk is full; free some space and run again (nothing was written)"
        ) from error
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        raise BundleError(f"cannot write {path}: no permission in {path.parent}") from error
    raise BundleError(f"cannot write {path}: {error.strerror or error}") from error


# --- reading


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was opened: its names and sizes are as listed, its contents are checked when read."""

    path: Path
    manifest: Manifest
    _place: Place

    @property
    def is_folder(self) -> bool:
        """Whether it is an extracted bundle."""
        return isinstance(self._place, FolderPlace)

    @property
    def names(self) -> tuple[str, ...]:
        """Every file's path but the manifest's."""
        return tuple(entry.path for entry in manifest_entries(self.manifest))

    def read(self, name: str) -> bytes:
        """Give a file's content.

        Raises:
            BundleError: the bundle has no such file, or its content is not what the manifest lists.
        """
        return b"".join(self._chunks(self._entry(name)))

    def check(self, name: str) -> None:
        """Read a file's content, without holding it, and compare it with the manifest.

        Raises:
            BundleError: as :meth:`read`.
        """
        for _ in self._chunks(self._entry(name)):
            pass

    def extract(self, folder: Path, names: Iterable[str] | None = None) -> Path:
        """Write files to a new folder, which appears whole or not at all.

        Args:
            folder: must not exist, or be empty.
            names: what to write; everything and the manifest by default, which gives an extracted bundle.

        Raises:
            BundleError: as :meth:`read`, or the folder is not empty or cannot be written.
        """
        entries = [self._entry(name) for name in (self.names if names is None else names)]
        if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise BundleError(f"cannot extract to {folder}: it exists and is not an empty folder")
        try:
            with replacing_folder(folder) as scratch:
                if names is None:
                    (scratch / MANIFEST).write_bytes(dumps(self.manifest))
                for entry in entries:
                    target = scratch / entry.path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        file.writelines(self._chunks(entry))
        except OSError as error:
            _reject_write(folder, error)
        return folder

    def damaged(self) -> dict[str, str]:
        """Read every file; give the path and the reason of each that is not what the manifest lists."""
        found: dict[str, str] = {}
        for entry in manifest_entries(self.manifest):
            try:
                for _ in self._chunks(entry):
                    pass
            except BundleError as error:
                found[entry.path] = str(error)
        return found

    def verify(self) -> None:
        """Check size and hash of every file.

        Raises:
            BundleError: names each file that is not what the manifest lists.
        """
        damaged = self.damaged()
        if damaged:
            raise BundleError("; ".join(damaged.values()))

    def _entry(self, name: str) -> FileEntry:
        for entry in manifest_entries(self.manifest):
            if entry.path == name:
                return entry
        raise BundleError(f"{self.path} holds no file {name!r}; it holds: {', '.join(self.names)}")

    def _chunks(self, entry: FileEntry) -> Iterator[bytes]:
        """Give a file's content in pieces; the error for a wrong size or hash comes last."""
        digest, size_bytes = hashlib.sha256(), 0
        try:
            with self._place.open(entry.path) as file:
                while chunk := file.read(min(_CHUNK_BYTES, entry.size_bytes - size_bytes + 1)):
                    digest.update(chunk)
                    size_bytes += len(chunk)
                    if size_bytes > entry.size_bytes:
                        break
                    yield chunk
        except (*READ_ERRORS, KeyError, ModelFileError) as error:
            raise BundleError(self._damage(entry)) from error
        except OSError as error:
            raise BundleError(f"{self.path}: {entry.path} cannot be read: {error}") from error
        if size_bytes != entry.size_bytes or digest.hexdigest() != entry.sha256:
            raise BundleError(self._damage(entry))

    def _damage(self, entry: FileEntry) -> str:
        return (
            f"{self.path}: {entry.path} is damaged (its size or sha256 is not the manifest's); "
            "copy the bundle again from its source"
        )


def open_bundle(path: Path) -> Bundle:
    """Open a bundle file or an extracted bundle and check names, kinds and sizes of all its files.

    Raises:
        BundleError: no bundle, damaged or incomplete, or with files that its manifest does not list.
        UnsafeFileError: it holds links, paths that leave its folder, duplicates or a zip bomb.
    """
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise BundleError(f"{path}: a pipe or device, not a bundle; save it to a file first")
    try:
        _require_zip(path)
        place: Place = FolderPlace(path) if path.is_dir() else ZipPlace(path)
        sizes = place.sizes()
    except FileNotFoundError as error:
        raise BundleError(f"no such bundle: {path}") from error
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    except UnsafeFileError:
        raise
    except ModelFileError as error:
        raise BundleError(f"{error} (a bundle is a zip)") from error
    manifest = _read_manifest(path, place, sizes)
    return _checked(path, place, sizes, manifest, manifest)


def read_folder(path: Path, part: Callable[[Manifest], Manifest], aside: Collection[str]) -> Bundle:
    """Open a folder that holds a part of an extracted bundle, checked as by :func:`open_bundle`.

    Args:
        path: the folder.
        part: gives the manifest of what must be there; the rest of the whole manifest may be.
        aside: files that are no bundle's, and may be there.

    Raises:
        BundleError, UnsafeFileError: as :func:`open_bundle`, and what ``part`` raises.
    """
    place = FolderPlace(path)
    try:
        sizes = place.sizes()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error
    whole = _read_manifest(path, place, sizes)
    kept = {name: size_bytes for name, size_bytes in sizes.items() if name not in aside}
    return _checked(path, place, kept, whole, part(whole))


def _checked(
    path: Path, place: Place, sizes: Mapping[str, int], whole: Manifest, manifest: Manifest
) -> Bundle:
    """Check that all files of ``manifest`` are there, and none that ``whole`` does not list."""
    listed = {entry.path: entry.size_bytes for entry in manifest_entries(whole)}
    for name in sizes.keys() - listed.keys() - {MANIFEST}:
        raise BundleError(f"{path}: {name!r} is not in the manifest; refused, make the bundle again")
    for entry in manifest_entries(manifest):
        if entry.path not in sizes:
            raise BundleError(f"{path}: {entry.path} is in the manifest, but missing")
        if sizes[entry.path] != entry.size_bytes:
            raise BundleError(
                f"{path}: {entry.path} has {sizes[entry.path]} bytes, the manifest says {entry.size_bytes}"
            )
    return Bundle(path, manifest, place)


def _require_zip(path: Path) -> None:
    """Refuse a file that neither is called a bundle nor begins as a zip: it is no damaged bundle."""
    if path.is_dir() or path.suffix == SUFFIX:
        return
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            raise BundleError(f"{path} is not a bundle: a bundle is a zip called NAME{SUFFIX}")


def _read_manifest(path: Path, place: Place, sizes: Mapping[str, int]) -> Manifest:
    if MANIFEST not in sizes:
        raise BundleError(f"{path} is not a bundle: it holds no {MANIFEST}")
    try:
        with place.open(MANIFEST) as file:
            text = file.read(SIZE_LIMIT_BYTES + 1)
    except (OSError, *READ_ERRORS) as error:
        raise BundleError(f"{path}: {MANIFEST} cannot be read: {error}") from error
    manifest = loads(text, f"{path}: {MANIFEST}")
    check_manifest(manifest, f"{path}: {MANIFEST}")
    return manifest
