"""What a request was resolved to, and the keys of the artifacts that follow from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeml import typed_json
from edgeml.atomic import replacing_file
from edgeml.errors import MessageError
from edgeml_devices.emulator.images import kernel, wheels
from edgeml_devices.emulator.images.apt import Deb
from edgeml_devices.emulator.images.bytecode import host_python
from edgeml_devices.emulator.images.cache import Cache
from edgeml_devices.emulator.images.disk import DISK_BYTES, FILE_SYSTEM_OPTIONS, QCOW2_OPTIONS
from edgeml_devices.emulator.images.image import SUITE, ImageRequest
from edgeml_devices.emulator.images.recipe import RECIPE_VERSION, recipe_hash
from edgeml_devices.emulator.images.rootfs import packages_of
from edgeml_devices.emulator.images.wheels import Wheel

_BUSYBOX: Final = "busybox-static"


@dataclass(frozen=True, slots=True)
class Plan:
    """Exact packages and wheels."""

    debs: tuple[Deb, ...]
    """Of the root file system, dependencies first."""
    kernel: Deb
    wheels: tuple[Wheel, ...]
    """Without edgeml's own, where these are built from a checkout."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Content addresses of the artifacts of one image."""

    root: str
    kernel: str
    engines: str
    site: str
    image: str


def keys_of(plan: Plan, request: ImageRequest, own_key: str, public_key: str) -> Keys:
    """Work out the keys.

    Args:
        plan: the packages.
        request: what they were resolved from.
        own_key: of edgeml's own code.
        public_key: the SSH key that the guest lets in.
    """
    can_compile = str(host_python() is not None)
    deb_hashes = [deb.sha256 for deb in plan.debs]
    root = _hash("root", str(RECIPE_VERSION), request.flavour, recipe_hash(), can_compile, *deb_hashes)
    busybox = next((deb.sha256 for deb in plan.debs if deb.name == _BUSYBOX), "")
    boot = _hash("kernel", str(RECIPE_VERSION), plan.kernel.sha256, busybox, recipe_hash(), *kernel.MODULES)
    engines = _hash("engines", can_compile, *sorted(wheel.sha256 for wheel in plan.wheels))
    site = _hash("site", engines, own_key)
    image = _hash(
        "image", root, boot, site, public_key, str(DISK_BYTES), *FILE_SYSTEM_OPTIONS, *QCOW2_OPTIONS
    )
    return Keys(root, boot, engines, site, image)


def request_key(request: ImageRequest) -> str:
    """Give the key under which the plan of a request is kept: all that decides what is asked for."""
    names = (kernel.META_PACKAGE, *packages_of(request.flavour))
    return _hash("plan", SUITE, *names, wheels.declared(request.engines))


def read_plan(cache: Cache, key: str) -> Plan | None:
    """Give a plan that was kept; ``None`` if there is none, or none that this version can read."""
    path = _place(cache, key)
    try:
        return typed_json.read(Plan, typed_json.parse(path.read_bytes(), str(path)), str(path))
    except (OSError, MessageError):
        return None


def write_plan(cache: Cache, key: str, plan: Plan) -> None:
    """Keep a plan."""
    path = _place(cache, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as scratch:
        scratch.write_text(json.dumps(typed_json.write(plan), indent=1) + "\n", encoding="utf-8")


def _place(cache: Cache, key: str) -> Path:
    return cache.folder / "plans" / f"{key}.json"


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
