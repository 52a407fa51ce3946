"""Release folders: built whole beside their place, checked, switched to, repaired, and removed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edgeml.bundle import open_bundle
from edgeml.bundle_checks import manifest_entries
from edgeml.bundle_place import MANIFEST
from edgeml.errors import BundleError, ModelFileError
from edgeml.installed import (
    INSTALLED,
    Installation,
    InstalledModel,
    needed_files,
    open_installed,
    read_installation,
    write_installation,
)
from edgeml.manifest import FileEntry, Manifest
from edgeml.manifest_json import loads
from edgeml_devices.agent.blobs import BlobStore
from edgeml_devices.agent.disk import (
    link_file,
    make_folder,
    remove_link,
    remove_tree,
    replace_link,
    sync_folder,
    sync_tree,
    write_file,
)
from edgeml_devices.agent.home import committed_mark
from edgeml_devices.messages import Tested

_FIGURES = ("p50_ms", "p95_ms", "p99_ms", "load_ms", "peak_memory_bytes")


def build_release(
    store: BlobStore,
    model: InstalledModel,
    manifest_sha256: str,
    variants: tuple[str, ...],
) -> None:
    """Make ``releases/N`` from verified blobs: whole, with its name only once all of it is on the disk.

    For a release that ``current`` does not lead to.

    Raises:
        OSError: it could not be written; there is no such folder then.
        BundleError: a blob is missing.
    """
    content = store.read(manifest_sha256)
    if content is None:
        raise BundleError(f"the manifest of {model.name} is damaged; it is fetched again")
    manifest = loads(content)
    folder = model.release_folder(manifest.release)
    scratch = model.releases / f".{manifest.release}.new"
    make_folder(model.releases)
    remove_tree(scratch)
    os.mkdir(scratch, 0o755)  # noqa: PTH102 - as agent.disk
    link_file(store.path(manifest_sha256), scratch / MANIFEST)
    for entry in _once(needed_files(manifest, variants)):
        place = scratch / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        link_file(store.path(entry.sha256), place)
    write_installation(scratch, Installation(manifest.name, manifest.release, manifest_sha256, variants))
    sync_tree(scratch)
    remove_tree(folder)
    os.rename(scratch, folder)  # noqa: PTH104 - as agent.disk
    sync_folder(model.releases)


def keep_variant(folder: Path, variant: str, tested: Mapping[str, Tested]) -> None:
    """Let a release folder hold one of its variants only, with what was measured of it.

    For a release that ``current`` does not lead to. Done again, it changes nothing.

    Raises:
        OSError: the folder cannot be written.
        BundleError: it is damaged.
    """
    installation = read_installation(folder)
    measured = {variant: _figures(tested[variant])} if variant in tested else {}
    kept = replace(installation, variants=(variant,), measured=measured)
    if kept != installation:
        # beside it: what a kill leaves half written must not lie in a release
        scratch = folder.with_name(f".{folder.name}.new")
        remove_tree(scratch)
        os.mkdir(scratch, 0o755)  # noqa: PTH102 - as agent.disk
        write_installation(scratch, kept)
        os.replace(scratch / INSTALLED, folder / INSTALLED)  # noqa: PTH105 - as agent.disk
        remove_tree(scratch)
    manifest = loads((folder / MANIFEST).read_bytes())
    needed = {entry.path for entry in needed_files(manifest, [variant])}
    for entry in manifest_entries(manifest):
        if entry.path not in needed:
            (folder / entry.path).unlink(missing_ok=True)
            with suppress(OSError):  # others are in it
                (folder / entry.path).parent.rmdir()
    sync_tree(folder)


def _figures(tested: Tested) -> dict[str, float]:
    found = {name: getattr(tested, name) for name in _FIGURES}
    return {name: value for name, value in found.items() if value is not None}


def _once(entries: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    return tuple({entry.path: entry for entry in entries}.values())


def why_damaged(folder: Path, manifest_sha256: str | None) -> str | None:
    """Read a release folder whole and say what is wrong with it; ``None`` if it is sound.

    Args:
        folder: of the release, or of a factory bundle.
        manifest_sha256: that the state file remembers; ``None``: the folder's own word is taken.
    """
    try:
        bundle = open_installed(folder)
        installed = (folder / INSTALLED).exists()
        said = read_installation(folder).manifest_sha256 if installed else manifest_sha256
        if manifest_sha256 not in {None, said}:
            return f"{folder} is not of the manifest that was verified here"
        bundle.verify()
    except (BundleError, ModelFileError, OSError) as error:
        return str(error)
    return None


def restore(store: BlobStore, folder: Path, manifest_sha256: str) -> bool:
    """Put files that are missing or damaged back from sound blobs; say whether the release is sound then.

    Each file is replaced by a rename: a process that has it open keeps what it has.
    """
    content = store.read(manifest_sha256)
    try:
        installation = read_installation(folder)
        if content is None or installation.manifest_sha256 != manifest_sha256:
            return False
        if (folder / MANIFEST).read_bytes() != content:
            _replace(store, manifest_sha256, folder / MANIFEST)
        for entry in _once(needed_files(loads(content), installation.variants)):
            place = folder / entry.path
            if not _is(place, entry) and store.is_sound(entry.sha256):
                _replace(store, entry.sha256, place)
    except (OSError, BundleError):
        return False
    return why_damaged(folder, manifest_sha256) is None


def _is(place: Path, entry: FileEntry) -> bool:
    try:
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
    except OSError:
        return False


def _replace(store: BlobStore, sha256: str, place: Path) -> None:
    make_folder(place.parent)
    # outside of the folder: a release holds no file but its own
    scratch = store.folder / f"{sha256}.part"
    scratch.unlink(missing_ok=True)
    link_file(store.path(sha256), scratch)
    os.replace(scratch, place)  # noqa: PTH105 - as agent.disk
    sync_folder(place.parent)


# --- switching


def switch(model: InstalledModel, release: int | None) -> None:
    """Let ``current`` lead to a release, or with ``None`` nowhere; ``previous`` says where it led before."""
    running = model.running()
    if running is not None and running != release:
        replace_link(model.previous, f"releases/{running}")
    switch_back(model, release)


def switch_back(model: InstalledModel, release: int | None) -> None:
    """Let ``current`` lead to a release, or with ``None`` nowhere; ``previous`` stays as it is."""
    if release is None:
        remove_link(model.current)
    else:
        replace_link(model.current, f"releases/{release}")


def switch_to_factory(model: InstalledModel) -> bool:
    """Let ``current`` lead to the factory bundle, if there is a sound one; say whether it does."""
    folder = model.factory
    if not folder.is_dir() or why_damaged(folder, None) is not None:
        return False
    replace_link(model.current, folder.name)
    return True


def factory_release(model: InstalledModel) -> int | None:
    """Give the number of the factory bundle's release; ``None`` if there is no readable one."""
    with suppress(BundleError, ModelFileError, OSError):
        folder = model.factory
        opened = open_installed(folder) if (folder / INSTALLED).exists() else open_bundle(folder)
        return opened.manifest.release
    return None


def leads_to_factory(model: InstalledModel) -> bool:
    """Say whether ``current`` leads to the bundle that came with the image."""
    with suppress(OSError):
        return model.current.readlink() == Path(model.factory.name)
    return False


# --- what is kept


def mark_committed(model: InstalledModel, release: int) -> None:
    """Note on the disk that a release was committed here."""
    mark = committed_mark(model, release)
    if not mark.exists():
        write_file(mark, b"")


def releases_here(model: InstalledModel) -> frozenset[int]:
    """Give the numbers of all release folders of a model."""
    with suppress(OSError):
        return frozenset(int(one.name) for one in model.releases.iterdir() if one.name.isdecimal())
    return frozenset()


def remove_releases_but(model: InstalledModel, kept: frozenset[int]) -> None:
    """Remove releases, their marks and what was left half made."""
    with suppress(FileNotFoundError):
        for place in list(model.releases.iterdir()):
            number = place.name.removesuffix(".committed")
            if number.isdecimal() and int(number) in kept:
                continue
            if place.is_dir() and not place.is_symlink():
                remove_tree(place)
            else:
                place.unlink(missing_ok=True)
    previous = model.before()
    if previous is not None and previous not in kept:
        remove_link(model.previous)


def hashes_of(model: InstalledModel, release: int) -> frozenset[str]:
    """Give the hashes of all that a release folder holds; empty if it cannot be read."""
    folder = model.release_folder(release)
    with suppress(BundleError, ModelFileError, OSError):
        installation = read_installation(folder)
        manifest = loads((folder / MANIFEST).read_bytes())
        return hashes_needed(manifest, installation.manifest_sha256, installation.variants)
    return frozenset()


def hashes_needed(manifest: Manifest, manifest_sha256: str, variants: Iterable[str]) -> frozenset[str]:
    """Give the hashes of the manifest and of all files that these variants need."""
    return frozenset({manifest_sha256, *(entry.sha256 for entry in needed_files(manifest, variants))})
