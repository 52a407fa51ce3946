"""What an image is: what was asked for, what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from edgeml.errors import UsageError
from edgeml.words import RUNTIMES, RuntimeName

Flavour = Literal["minimal", "systemd"]
"""``minimal``: a shell script is process 1, boots in half the time. ``systemd``: for tests of units."""
FLAVOURS: Final[tuple[Flavour, ...]] = get_args(Flavour)
DEFAULT_ENGINES: Final[tuple[RuntimeName, ...]] = ("litert",)
SUITE: Final = "bookworm"
"""Debian 12, for its Python 3.11."""
PYTHON: Final = "3.11"
"""The guest's Python, of :data:`SUITE`."""
SITE: Final = f"usr/local/lib/python{PYTHON}/dist-packages"
"""Where the guest's Python finds the wheels, below its root."""

SSH_PORT: Final = 22
HTTP_PORT: Final = 8080
"""``GET /ready.json`` answers when everything is up: ``{"target": ..., "image": ..., "boot_id": ...}``."""
TARGET_ARGUMENT: Final = "edgeml.target"
"""On the kernel's command line: the board's name (``edgeml.target=raspberry-pi-4``)."""
MODEL_ARGUMENT: Final = "edgeml.model"
"""On the kernel's command line: the device tree's model, ``_`` for blanks; the guest lays it over its own."""


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What an image is to hold. One image serves every board: they differ by what QEMU is told.

    Raises:
        UsageError: no such engine or flavour.
    """

    engines: tuple[RuntimeName, ...] = DEFAULT_ENGINES
    """Without double names, in the order of ``edgeml.words.RUNTIMES``, whatever order they were given in."""
    flavour: Flavour = "minimal"
    mirror: str = ""
    """URL of a Debian mirror; by default the one that this machine's apt uses for Debian."""

    def __post_init__(self) -> None:
        unknown = [name for name in self.engines if name not in RUNTIMES]
        if unknown:
            raise UsageError(f"no engine {unknown[0]!r}; there are: {', '.join(RUNTIMES)}")
        if self.flavour not in FLAVOURS:
            raise UsageError(f"no flavour {self.flavour!r}; there are: {', '.join(FLAVOURS)}")
        object.__setattr__(self, "engines", tuple(name for name in RUNTIMES if name in self.engines))


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package or a Python distribution in an image."""

    name: str
    version: str
    kind: Literal["debian", "python"]
    file: str
    """Name of the file that it came in."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Image:
    """A built image. Its files are read-only and shared: never written, never moved.

    Whoever uses one holds it (:func:`edgeml_devices.emulator.images.cache.hold`) so that ``clean`` leaves it.
    """

    key: str
    """Content address: of packages, wheels, edgeml's own sources, recipe and file system options."""
    folder: Path
    """Holds ``image.json`` and ``packages.txt``: packages and versions, for whoever passes the image on."""
    engines: tuple[RuntimeName, ...]
    flavour: Flavour
    kernel: Path
    initrd: Path
    disk: Path
    """Compressed qcow2, in it one ext4 file system, ``/dev/vda``. Back overlays by it, by absolute path."""
    root: Path
    """The root file system as a folder, for ``qemu-aarch64 -L``: without wheels, ``/proc`` and ``/sys``."""
    site: Path
    """The wheels, unpacked: ``PYTHONPATH`` for user mode."""
    ssh_key: Path
    """Private key, mode 0600, that root in the guest accepts; the cache's own."""
    packages: tuple[Package, ...]
    size_bytes: int
    """Of kernel, initrd and disk, on this machine."""
    used_bytes: int
    """Of the file system inside, as the guest sees it."""
