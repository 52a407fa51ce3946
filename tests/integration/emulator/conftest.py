"""The images that the tests of the emulator share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.boards import board_named
from edgeml_devices.emulator.images.image import Image, ImageRequest
from edgeml_devices.emulator.machine.launch import Setup, Snapshot
from edgeml_devices.emulator.machine.snapshots import take_snapshot
from edgeml_devices.emulator.qemu import find_qemu

from edgeml.words import RUNTIMES
from tests.integration.emulator.built_images import built, shared_cache


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """An image with LiteRT, minimal."""
    with built(ImageRequest(), tools.TO_BOOT) as found:
        yield found


@pytest.fixture(scope="session")
def setup(image: Image) -> Setup:
    """A Raspberry Pi 4 with that image."""
    return Setup.of(find_qemu(), board_named("raspberry-pi-4"), image)


@pytest.fixture(scope="session")
def snapshot(setup: Setup) -> Snapshot:
    """Of that board; taken once, kept in the image's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEML_CACHE_DIR", str(shared_cache()))
        return take_snapshot(setup)


@pytest.fixture(scope="session")
def full_image() -> Iterator[Image]:
    """An image with every engine, for user mode."""
    with built(ImageRequest(RUNTIMES), tools.TO_RUN_IN_USER_MODE) as found:
        yield found


@pytest.fixture
def built_cache(own_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code under test find the images that the tests share."""
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(shared_cache()))
