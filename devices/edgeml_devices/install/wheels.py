"""Which of a folder's wheels a device's Python takes, told from their names."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from edgeml.errors import UsageError

_NAME: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._]+)-(?P<version>[A-Za-z0-9._!+]+)(-\d[^-]*)?"
    r"-(?P<python>[a-z0-9_.]+)-(?P<abi>[a-z0-9_.]+)-(?P<platform>[a-z0-9_.]+)\.whl",
    re.IGNORECASE,
)
"""Binary distribution format, "File name convention"; a tag may be several, joined by dots."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel in a folder on this machine."""

    path: Path
    distribution: str
    """Normalised name."""
    version: str
    tags: frozenset[str]
    """``cp311-cp311-manylinux2014_aarch64`` …"""
    sha256: str


def read_wheels(folder: Path) -> tuple[Wheel, ...]:
    """Look at the wheels in a folder.

    Raises:
        UsageError: there are none, or one has a name that is no wheel's.
    """
    paths = sorted(folder.glob("*.whl"))
    if not paths:
        raise UsageError(f"no wheels in {folder}: fill it by `pip wheel` or `pip download`")
    return tuple(_wheel(path) for path in paths)


def _wheel(path: Path) -> Wheel:
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise UsageError(f"{path.name} is not the name of a wheel")
    tags = product(*(found[part].lower().split(".") for part in ("python", "abi", "platform")))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Wheel(
        path,
        re.sub(r"[-_.]+", "-", found["name"]).lower(),
        found["version"],
        frozenset("-".join(tag) for tag in tags),
        digest,
    )


def suitable(wheels: Sequence[Wheel], tags: Collection[str]) -> tuple[Wheel, ...]:
    """Give the wheels that a Python with these tags takes.

    Raises:
        UsageError: a distribution is there for other machines only; says which.
    """
    fit = tuple(wheel for wheel in wheels if wheel.tags & set(tags))
    lost = {wheel.distribution for wheel in wheels} - {wheel.distribution for wheel in fit}
    if lost:
        shown = next(wheel for wheel in wheels if wheel.distribution in lost)
        best = next(iter(tags), "none")
        raise UsageError(
            f"no wheel of {', '.join(sorted(lost))} fits the device: {shown.path.name} does not, its Python "
            f"takes {best} at best. Fetch the right ones by `pip download --only-binary :all: --platform …`"
        )
    return fit
