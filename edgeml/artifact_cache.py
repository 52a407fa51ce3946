"""Variants of bundle files, extracted once and kept by content in ``variants`` of the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgeml.bundle import Bundle
from edgeml.errors import BundleError
from edgeml.manifest import Variant
from edgeml.settings import settings

ABANDONED_AFTER_S: Final = 3600.0
"""No extraction takes that long: a scratch folder of this age has no process any more."""


def artifact(bundle: Bundle, variant: Variant) -> Path:
    """Give the file of a variant that its runtime loads, its content checked.

    Of an extracted bundle it is the bundle's own; of a bundle file it is in the cache.

    Raises:
        BundleError: damaged, or the cache cannot be written.
    """
    names = [entry.path for entry in variant.files]
    if bundle.is_folder:
        for name in names:
            bundle.check(name)
        return bundle.path / names[0]
    key = hashlib.sha256("\n".join(f"{entry.sha256} {entry.path}" for entry in variant.files).encode())
    target = settings().cache_dir / "variants" / key.hexdigest()
    if not _is_whole(target, variant):
        _fill_cache(bundle, names, target)
    return target / names[0]


def _is_whole(folder: Path, variant: Variant) -> bool:
    for entry in variant.files:
        place = folder / entry.path
        if place.is_symlink() or not place.is_file() or place.stat().st_size != entry.size_bytes:
            return False
        with place.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                return False
    return True


def _fill_cache(bundle: Bundle, names: list[str], target: Path) -> None:
    """Extract beside and rename; of two processes at once the second finds the first one's work."""
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_abandoned(target.parent)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name[:16]}.", dir=target.parent))
    except OSError as error:
        raise BundleError(
            f"cannot write to the cache {target.parent}: {error.strerror}; "
            "set EDGEML_CACHE_DIR to a folder of yours, or load an extracted bundle"
        ) from error
    try:
        bundle.extract(scratch / "whole", names)
        if target.exists():  # damaged, or it would have been used
            target.rename(scratch / "damaged")
        with suppress(OSError):
            os.rename(scratch / "whole", target)  # noqa: PTH104 - fails on a folder that is there, as wanted
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not target.is_dir():
        raise BundleError(
            f"cannot write to the cache {target.parent}; set EDGEML_CACHE_DIR to a folder of yours"
        )


def _remove_abandoned(cache: Path) -> None:
    """Remove what processes left that were killed while they extracted."""
    for scratch in cache.glob(".*"):
        with suppress(OSError):
            if time.time() - scratch.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(scratch, ignore_errors=True)
