"""The files of ours in an image, as they lie in ``files``; and the version of how images are made."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final

RECIPE_VERSION: Final = 3
"""Rises when images come out different from the same packages, beyond what the keys see by themselves."""


def recipe_bytes(name: str) -> bytes:
    """Give one of the files."""
    return resources.files("edgeml_devices.emulator.images").joinpath("files", name).read_bytes()


def recipe_text(name: str) -> str:
    """Give one of the files as text."""
    return recipe_bytes(name).decode()


def recipe_hash() -> str:
    """Give the hash of all the files."""
    digest = hashlib.sha256()
    folder = resources.files("edgeml_devices.emulator.images").joinpath("files")
    for place in (folder, folder.joinpath("systemd")):
        for item in sorted(place.iterdir(), key=lambda item: item.name):
            if item.is_file():
                digest.update(f"{item.name}\0".encode() + item.read_bytes() + b"\0")
    return digest.hexdigest()
