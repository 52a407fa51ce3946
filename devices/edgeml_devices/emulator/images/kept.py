"""Images in the cache: ``image.json``, ``packages.txt`` and the disk, and where the other parts are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from edgeml import typed_json
from edgeml.errors import MessageError
from edgeml.words import RuntimeName
from edgeml_devices.emulator.images import kernel
from edgeml_devices.emulator.images.cache import Cache
from edgeml_devices.emulator.images.image import Flavour, Image, ImageRequest, Package
from edgeml_devices.emulator.images.plan import Keys, Plan
from edgeml_devices.emulator.images.wheels import Wheel, wheel_at

DISK: Final = "disk.qcow2"
_DESCRIPTION: Final = "image.json"
_LIST: Final = "packages.txt"


@dataclass(frozen=True, slots=True)
class Kept:
    """What ``image.json`` says."""

    engines: tuple[RuntimeName, ...]
    flavour: Flavour
    keys: Keys
    packages: tuple[Package, ...]
    used_bytes: int
    built_s: float
    """When, in seconds since 1970."""

    @classmethod
    def of(
        cls,
        request: ImageRequest,
        keys: Keys,
        plan: Plan,
        own: Iterable[Path],
        used_bytes: int,
        built_s: float,
    ) -> Self:
        return cls(request.engines, request.flavour, keys, _packages(plan, own), used_bytes, built_s)


def write_image(folder: Path, kept: Kept) -> None:
    """Describe an image in its folder."""
    text = json.dumps({"schema": 1} | typed_json.write(kept), indent=1)
    (folder / _DESCRIPTION).write_text(text + "\n", encoding="utf-8")
    lines = [f"{one.kind}\t{one.name}\t{one.version}\t{one.file}\t{one.sha256}\n" for one in kept.packages]
    (folder / _LIST).write_text("".join(lines), encoding="utf-8")


def read_kept(folder: Path) -> Kept | None:
    """Give what a folder's ``image.json`` says; ``None`` if it holds no image, or one of another version."""
    path = folder / _DESCRIPTION
    try:
        return typed_json.read(Kept, typed_json.parse(path.read_bytes(), str(path)), str(path))
    except (OSError, MessageError):
        return None


def read_image(cache: Cache, key: str) -> Image | None:
    """Give an image; ``None`` if it, or a part of it, is not there."""
    folder = cache.place("images", key)
    kept = read_kept(folder)
    if kept is None:
        return None
    boot = cache.place("kernels", kept.keys.kernel)
    root, site = cache.place("roots", kept.keys.root), cache.place("sites", kept.keys.site)
    files = (boot / kernel.KERNEL, boot / kernel.INITRD, folder / DISK)
    if not all(path.is_file() for path in files) or not (root.is_dir() and site.is_dir()):
        return None
    return Image(
        key=key,
        folder=folder,
        engines=kept.engines,
        flavour=kept.flavour,
        kernel=files[0],
        initrd=files[1],
        disk=files[2],
        root=root,
        site=site,
        ssh_key=cache.folder / "ssh_key",
        packages=kept.packages,
        size_bytes=sum(path.stat().st_size for path in files),
        used_bytes=kept.used_bytes,
    )


def kept_images(cache: Cache) -> tuple[Image, ...]:
    """Give every whole image, the newest first."""
    dated = []
    for folder in (cache.folder / "images").glob("[0-9a-f]*"):
        image, kept = read_image(cache, folder.name), read_kept(folder)
        if image is not None and kept is not None:
            dated.append((kept.built_s, image))
    return tuple(image for _, image in sorted(dated, key=lambda pair: -pair[0]))


def _packages(plan: Plan, own: Iterable[Path]) -> tuple[Package, ...]:
    debian = [
        Package(deb.name, deb.version, "debian", deb.file, deb.sha256) for deb in (*plan.debs, plan.kernel)
    ]
    python = [_python(wheel) for wheel in (*plan.wheels, *(wheel_at(path) for path in own))]
    return tuple(sorted([*debian, *python], key=lambda package: (package.kind, package.name)))


def _python(wheel: Wheel) -> Package:
    return Package(wheel.name, wheel.version, "python", wheel.file, wheel.sha256)
