"""Removes images that nothing uses, and the parts that no image needs any more."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml_devices.emulator.images.cache import Cache, open_cache, remove_tree, unused
from edgeml_devices.emulator.images.kept import read_kept

_PARTS: Final = ("roots", "kernels", "engines", "sites", "edgeml")
_DOWNLOADS: Final = ("debs", "wheels", "plans", "apt")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What came of it."""

    removed: tuple[str, ...]
    """Keys of images."""
    in_use: tuple[str, ...]
    """Keys of images that a machine uses, and that stay."""
    freed_bytes: int


def clean(*, downloads: bool = False) -> Cleaned:
    """Remove every image that nothing uses, what builds left behind, and the parts that no image needs.

    Args:
        downloads: remove packages and wheels too, and what requests were resolved to.

    Raises:
        EdgemlError: an image is being built.
    """
    cache = open_cache()
    removed, in_use, freed_bytes = [], [], 0
    with cache.cleaning():
        for folder in _entries(cache.folder / "images"):
            with unused(folder) as free:
                if free:
                    freed_bytes += _remove(folder)
                    removed.append(folder.name)
                else:
                    in_use.append(folder.name)
        needed = _needed(cache, in_use)
        for kind in _PARTS:
            for folder in _entries(cache.folder / kind):
                if folder.name not in needed:
                    freed_bytes += _remove(folder)
        for kind in _DOWNLOADS if downloads else ():
            freed_bytes += _remove(cache.folder / kind)
    whole = (key for key in removed if not key.startswith("."))
    return Cleaned(tuple(whole), tuple(in_use), freed_bytes)


def _needed(cache: Cache, keys: list[str]) -> set[str]:
    """Give the keys of the parts of images."""
    found: set[str] = set()
    for key in keys:
        kept = read_kept(cache.place("images", key))
        if kept is not None:
            found |= {kept.keys.root, kept.keys.kernel, kept.keys.site}
    return found


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(folder: Path) -> int:
    """Remove a folder; gives the bytes that the disk has back, files with other names elsewhere left out."""
    freed_bytes = 0
    for place, _, files in os.walk(folder):
        for name in files:
            state = Path(place, name).lstat()
            if state.st_nlink == 1:
                freed_bytes += state.st_blocks * 512
    remove_tree(folder)
    return freed_bytes
