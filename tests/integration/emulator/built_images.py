"""The images that tests of the emulator share: built once, kept between runs, one for all workers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.images.build import build_image
from edgeml_devices.emulator.images.cache import hold
from edgeml_devices.emulator.images.image import Image, ImageRequest
from edgeml_devices.emulator.tools import Tool

from edgeml.errors import EdgemlError
from tests.conftest import require

VARIABLE = "EDGEML_TEST_EMULATOR_CACHE"
"""A cache folder that outlives the tests; in the folder for temporary files by default."""


def shared_cache() -> Path:
    default = Path(tempfile.gettempdir()) / f"edgeml-emulator-tests-{os.getuid()}"
    return Path(os.environ.get(VARIABLE) or default)


@contextmanager
def built(wanted: ImageRequest, needed: Sequence[Tool]) -> Iterator[Image]:
    """Give an image; held, so that nobody's `clean` takes it. Skips where it cannot be built or run."""
    lacking = tools.missing((*tools.TO_BUILD, *needed))
    require(not lacking, f"not installed: {', '.join(tool.program for tool in lacking)}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEML_CACHE_DIR", str(shared_cache()))
        try:
            found = build_image(wanted)
        except EdgemlError as error:
            require(condition=False, reason=f"no image could be built: {error}")
            raise
    with hold(found):
        yield found
