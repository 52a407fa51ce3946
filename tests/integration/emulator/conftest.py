"""The images that the tests of the emulator share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.images.image import Image, ImageRequest

from edgeml.words import RUNTIMES
from tests.integration.emulator.built_images import built, shared_cache


@pytest.fixture(scope="session")
def image() -> Iterator[Image]:
    """An image with LiteRT, minimal."""
    with built(ImageRequest(), tools.TO_BOOT) as found:
        yield found


@pytest.fixture(scope="session")
def full_image() -> Iterator[Image]:
    """An image with every engine, for user mode."""
    with built(ImageRequest(RUNTIMES), tools.TO_RUN_IN_USER_MODE) as found:
        yield found


@pytest.fixture
def built_cache(own_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code under test find the images that the tests share."""
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(shared_cache()))
