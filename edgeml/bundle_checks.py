"""What a manifest must hold that types cannot say: names, paths, hashes, references."""

from __future__ import annotations

import re
from typing import Final

from edgeml.archive import unsafe_name
from edgeml.bundle_place import MANIFEST
from edgeml.errors import BundleError, UnsafeFileError
from edgeml.manifest import FileEntry, Manifest, Variant

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_PLACE_OPTIONS: Final = ("_dir", "_path", "_file", "delegate")
"""How options end that an engine writes to or loads code from: they are the caller's to set."""
_HASH: Final = re.compile(r"[0-9a-f]{64}")


def manifest_entries(manifest: Manifest) -> tuple[FileEntry, ...]:
    """Give every file that the manifest lists: the variants', their golden outputs, and the others."""
    found: list[FileEntry] = []
    for variant in manifest.variants:
        found.extend(variant.files)
        if variant.golden is not None:
            found.append(variant.golden)
    return (*found, *manifest.files)


def check_manifest(manifest: Manifest, where: str) -> None:
    """Check what types cannot say: names, paths, hashes, references.

    Raises:
        BundleError: says what is wrong in ``where``.
        UnsafeFileError: a path that would leave the bundle's folder.
    """
    check_name(manifest.name, manifest.release)
    names = [variant.name for variant in manifest.variants]
    for variant in manifest.variants:
        _check_variant(variant, names.count(variant.name), where)
    paths = [entry.path for entry in manifest_entries(manifest)]
    _check_paths(paths, where)
    for entry in manifest_entries(manifest):
        if entry.size_bytes < 0 or not _HASH.fullmatch(entry.sha256):
            raise BundleError(f"{where}: {entry.path}: a size below 0, or no sha256 in hex")
    for reference in (manifest.labels, manifest.golden_inputs):
        if reference is not None and reference not in paths:
            raise BundleError(f"{where}: {reference} is referred to, but not among the files")


def _check_variant(variant: Variant, count: int, where: str) -> None:
    if count > 1 or not variant.files or not _NAME.fullmatch(variant.name):
        what = "has no files" if not variant.files else "stands there twice"
        if not _NAME.fullmatch(variant.name):
            what = "has a name that no folder should have"
        raise BundleError(f"{where}: variant {variant.name!r} {what}")
    if variant.fallback not in {None, *(entry.path for entry in variant.files[1:])}:
        raise BundleError(
            f"{where}: variant {variant.name} falls back to {variant.fallback}, "
            "which is none of its further files"
        )
    for option in variant.options:
        if option.replace("-", "_").endswith(_PLACE_OPTIONS):
            raise UnsafeFileError(
                f"{where}: variant {variant.name} sets {option}, an engine option that names a "
                "place on the machine that runs it; refused, do not trust its source"
            )


def is_bundle_name(name: str) -> bool:
    """Say whether a text can be a bundle's name, and with it a folder's."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str, release: int) -> None:
    """Check a bundle's name and counter.

    Raises:
        BundleError: they cannot be a bundle's.
    """
    if not is_bundle_name(name):
        raise BundleError(
            f"{name!r} cannot be a bundle's name: use letters, digits, '.', '_' and '-', at most 128"
        )
    if release < 0:
        raise BundleError(f"release {release} of {name}: a release is a counter from 0")


def _check_paths(paths: list[str], where: str) -> None:
    folders = {path.rpartition("/")[0] for path in paths}
    folders |= {
        "/".join(folder.split("/")[:depth]) for folder in folders for depth in range(1, folder.count("/") + 1)
    }
    seen = {MANIFEST}
    for path in paths:
        reason = unsafe_name(path)
        if reason is not None:
            raise UnsafeFileError(f"{where}: {reason}: {path!r}; refused, do not trust its source")
        # some file systems do not tell case apart
        if path.casefold() in seen or path in folders:
            raise BundleError(f"{where}: two files share the path {path!r}")
        seen.add(path.casefold())
