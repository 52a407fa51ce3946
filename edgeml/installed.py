"""Installed models: where their releases lie under the home folder, and what a release folder holds.

A release folder is a bundle of which only some variants are here: the manifest as signed, ``installed.json``,
and the files that those variants need. The layout is the same whoever installs: docs/reference/fleet.md.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from edgeml import typed_json
from edgeml.atomic import replacing_file
from edgeml.bundle import Bundle, open_bundle, read_folder
from edgeml.bundle_checks import is_bundle_name, manifest_entries
from edgeml.bundle_place import MANIFEST
from edgeml.errors import BundleError, MessageError, UsageError
from edgeml.manifest import FileEntry, Manifest

MODELS: Final = "models"
RELEASES: Final = "releases"
CURRENT: Final = "current"
"""Of an installed model, the link to the release in use."""
PREVIOUS: Final = "previous"
"""The link to the release that ran before; renamed before ``current`` is."""
FACTORY: Final = "factory"
INSTALLED: Final = "installed.json"
_SIZE_LIMIT_BYTES: Final = 1024 * 1024
_RELEASE: Final = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """The folder of one model under ``home``; it need not exist.

    Raises:
        UsageError: the name cannot be a model's, and must not become a path.
    """

    home: Path
    name: str

    def __post_init__(self) -> None:
        if not is_bundle_name(self.name):
            raise UsageError(
                f"{self.name!r:.80} cannot be a model's name: use letters, digits, '.', '_' and '-'"
            )

    @property
    def folder(self) -> Path:
        return self.home / MODELS / self.name

    @property
    def releases(self) -> Path:
        return self.folder / RELEASES

    @property
    def current(self) -> Path:
        """The link that is renamed to switch."""
        return self.folder / CURRENT

    @property
    def previous(self) -> Path:
        """The link to the release that ran before."""
        return self.folder / PREVIOUS

    @property
    def factory(self) -> Path:
        """The folder of a bundle that came with the image."""
        return self.folder / FACTORY

    def release_folder(self, release: int) -> Path:
        return self.releases / str(release)

    def running(self) -> int | None:
        """Give the release that ``current`` leads to; ``None`` if it leads to none, or to the factory's."""
        return _release_behind(self.current)

    def before(self) -> int | None:
        """Give the release that ``previous`` leads to; ``None`` if it leads to none."""
        return _release_behind(self.previous)


def release_of(folder: Path) -> int | None:
    """Give the number of a release folder, by its path alone; ``None`` for another folder."""
    if folder.parent.name != RELEASES or not _RELEASE.fullmatch(folder.name):
        return None
    return int(folder.name)


def _release_behind(link: Path) -> int | None:
    try:
        return release_of(link.readlink())
    except OSError:
        return None


def installed_models(home: Path) -> tuple[InstalledModel, ...]:
    """List every model that has a folder under ``home``, by name."""
    try:
        names = sorted(place.name for place in (home / MODELS).iterdir() if place.is_dir())
    except OSError:
        return ()
    return tuple(InstalledModel(home, name) for name in names if is_bundle_name(name))


# --- one release


@dataclass(frozen=True, slots=True)
class Installation:
    """What ``installed.json`` says of a release folder."""

    model: str
    release: int
    manifest_sha256: str
    """Of the file ``manifest.json`` beside it."""
    variants: tuple[str, ...]
    """Those that are here; the first is the one to load."""
    measured: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By variant, on this device: ``p50_ms``, ``p95_ms``, ``p99_ms``, ``peak_memory_bytes``, ``load_ms``."""
    schema: int = 1


def is_installed(folder: Path) -> bool:
    """Say whether a folder is a release folder that an installer finished."""
    return (folder / INSTALLED).is_file()


def read_installation(folder: Path) -> Installation:
    """Read ``installed.json`` of a release folder.

    Raises:
        BundleError: it is missing or cannot be read.
    """
    path = folder / INSTALLED
    try:
        with path.open("rb") as file:
            text = file.read(_SIZE_LIMIT_BYTES)
        found = typed_json.read(Installation, typed_json.parse(text, str(path)), str(path))
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}; install the release again") from error
    except MessageError as error:
        raise BundleError(f"{error}; install the release again") from error
    if not found.variants:
        raise BundleError(f"{path}: variants: names none; install the release again")
    return found


def write_installation(folder: Path, installation: Installation) -> None:
    """Write ``installed.json``, whole or not at all, and on the disk when this returns.

    Raises:
        OSError: the folder cannot be written.
    """
    values = {"schema": installation.schema} | typed_json.write(installation)
    with replacing_file(folder / INSTALLED) as scratch:
        scratch.write_text(json.dumps(values, indent=2) + "\n")


def needed_files(manifest: Manifest, variants: Iterable[str]) -> tuple[FileEntry, ...]:
    """Give the files that a release folder with these variants must hold, the manifest aside.

    They are the variants' own and what all share: labels, golden inputs; not the model card or the record.

    Raises:
        BundleError: the manifest has no such variant.
    """
    return manifest_entries(_only(manifest, variants))


def open_installed(folder: Path) -> Bundle:
    """Open a release folder: a bundle of the variants that are here, the one to load first.

    A folder without ``installed.json`` is an extracted bundle, with all of its variants.

    Raises:
        BundleError: a file is missing or of another size, one is not the manifest's, or the manifest is
            not the one that was installed.
        UnsafeFileError: it holds links.
    """
    if not is_installed(folder):
        return open_bundle(folder)
    installation = read_installation(folder)
    try:
        with (folder / MANIFEST).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{folder / MANIFEST}: cannot be read: {error.strerror}") from error
    if digest != installation.manifest_sha256:
        raise BundleError(
            f"{folder}: {MANIFEST} is not the one that was installed; install the release again"
        )
    bundle = read_folder(folder, lambda manifest: _only(manifest, installation.variants), aside={INSTALLED})
    if (bundle.manifest.name, bundle.manifest.release) != (installation.model, installation.release):
        raise BundleError(f"{folder}: {INSTALLED} is of another release; install the release again")
    return bundle


def open_release(path: Path) -> Bundle:
    """Open a bundle file, an extracted bundle, or a release folder with the variants that are here.

    Raises:
        BundleError, UnsafeFileError: as ``edgeml.bundle.open_bundle``.
    """
    return open_installed(path) if path.is_dir() else open_bundle(path)


def _only(manifest: Manifest, variants: Iterable[str]) -> Manifest:
    """Give the manifest of a bundle that has these variants only, in this order."""
    by_name = {variant.name: variant for variant in manifest.variants}
    names = tuple(dict.fromkeys(variants))
    unknown = [name for name in names if name not in by_name]
    if unknown or not names:
        what = f"no variant {unknown[0]!r}" if unknown else "nothing without a variant"
        raise BundleError(f"{manifest.name} release {manifest.release} has {what}: {', '.join(by_name)}")
    shared = {manifest.labels, manifest.golden_inputs}
    return replace(
        manifest,
        variants=tuple(by_name[name] for name in names),
        files=tuple(entry for entry in manifest.files if entry.path in shared),
    )
