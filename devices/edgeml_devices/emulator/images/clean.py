"""Removes images that nothing uses, and the parts that no image needs any more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgeml.errors import EdgemlError
from edgeml_devices.emulator.images.cache import Cache, idle_s, open_cache, remove_tree, unused
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.images.kept import kept_images, read_kept
from edgeml_devices.emulator.machine.state import images_of_machines

_PARTS: Final = ("roots", "kernels", "engines", "sites", "edgeml")
KEPT_OF_A_KIND: Final = 3
"""As many images with the same engines and flavour stay when a new one is built."""
FOUND_LATELY_S: Final = 600.0
"""Who found an image so long ago at most may be about to hold it."""
_DOWNLOADS: Final = ("debs", "wheels", "plans", "apt")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What came of it."""

    removed: tuple[str, ...]
    """Keys of images."""
    in_use: tuple[str, ...]
    """Keys of images that a machine uses, running or off, and that stay."""
    freed_bytes: int


def clean(*, downloads: bool = False) -> Cleaned:
    """Remove every image that nothing uses, what builds left behind, and the parts that no image needs.

    Args:
        downloads: remove packages and wheels too, and what requests were resolved to.

    Raises:
        EdgemlError: an image is being built.
    """
    cache = open_cache()
    with cache.cleaning():
        cleaned = _remove_images(cache, _entries(cache.folder / "images"))
        freed_bytes = sum(_remove(cache.folder / kind) for kind in (_DOWNLOADS if downloads else ()))
    return replace(cleaned, freed_bytes=cleaned.freed_bytes + freed_bytes)


def retire(image: Image) -> None:
    """Remove old images of the same kind as a new one: all but the newest few, and none that is used.

    Each change of edgeml's sources makes a new image. Nothing is done while another one is being built.
    """
    cache = open_cache()
    alike = [
        one for one in kept_images(cache) if (one.engines, one.flavour) == (image.engines, image.flavour)
    ]
    old = [one.folder for one in alike[KEPT_OF_A_KIND:] if idle_s(one) > FOUND_LATELY_S]
    if old:
        with suppress(EdgemlError), cache.cleaning():
            _remove_images(cache, old)


def _remove_images(cache: Cache, folders: Sequence[Path]) -> Cleaned:
    """Remove those of the images that nothing uses, then the parts that no image needs."""
    removed, in_use, freed_bytes = [], [], 0
    of_machines = images_of_machines(cache)
    for folder in folders:
        with unused(folder) as free:
            if free and folder.name not in of_machines:
                freed_bytes += _remove(folder)
                removed.append(folder.name)
            else:
                in_use.append(folder.name)
    needed = _needed(cache)
    for kind in _PARTS:
        for part in _entries(cache.folder / kind):
            if part.name not in needed:
                freed_bytes += _remove(part)
    whole = (key for key in removed if not key.startswith("."))
    return Cleaned(tuple(whole), tuple(in_use), freed_bytes)


def _needed(cache: Cache) -> set[str]:
    """Give the keys of the parts of the images that are left."""
    found: set[str] = set()
    for folder in _entries(cache.folder / "images"):
        kept = read_kept(folder)
        if kept is not None:
            found |= {kept.keys.root, kept.keys.kernel, kept.keys.engines, kept.keys.site}
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
