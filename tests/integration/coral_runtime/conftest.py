"""A published model, compiled and not, and the stand-in as this machine's Edge TPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeml import edgetpu
from edgeml.arrays import Array
from edgeml.testing.coral import VARIABLE, standin_options

NAME = "mobilenet_v1_0.25_128_quant"


@pytest.fixture
def source(data_dir: Path) -> Path:
    return data_dir / "coral" / f"{NAME}.tflite"


@pytest.fixture
def compiled(data_dir: Path) -> Path:
    return data_dir / "coral" / f"{NAME}_edgetpu.tflite"


@pytest.fixture
def coral(coral_standin: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The stand-in as this machine's library; its options can be changed."""
    monkeypatch.setenv(edgetpu.VARIABLE, str(coral_standin))
    monkeypatch.setenv(VARIABLE, standin_options(source))
    return monkeypatch


@pytest.fixture
def cat(data_dir: Path) -> Array:
    with Image.open(data_dir / "coral" / "cat.bmp") as image:
        return np.asarray(image.convert("RGB").resize((128, 128)), np.uint8)[np.newaxis]
