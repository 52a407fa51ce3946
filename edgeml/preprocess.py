"""Pre- and post-processing, declared once and run the same way wherever the model goes.

The order is fixed: colour → resize → crop (centre) → values → layout → dtype, where the values are

    ((sample - zero_point) * scale - mean) / std

so that all the usual forms can be written down as they stand in a model's own documentation:

    x / 127.5 - 1                          mean = 127.5, std = 127.5
    (x / 255 - [.485 …]) / [.229 …]        scale = 1/255, mean = [.485 …], std = [.229 …]
    (q - 83) * 0.5847 (stored integers)    zero_point = 83, scale = 0.5847

``edgeml.pipeline`` does it; this module is the declaration only and imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgeml.words import SampleDtype


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a raw sample (an image [H,W,C] uint8, or an array) becomes the model's input, batch added.

    The default does nothing but cast to the model's dtype and add a missing batch dimension.
    """

    color: Literal["rgb", "bgr", "gray"] | None = None
    """Colour order of the result; images are decoded as RGB."""
    resize: tuple[int, int] | None = None
    """Height and width. With ``crop`` the short side is brought to ``min(resize)`` and the ratio is kept;
    without it the image is brought to exactly this size."""
    crop: tuple[int, int] | None = None
    """Height and width of the centre crop."""
    interpolation: Literal["bilinear", "nearest", "bicubic"] = "bilinear"
    zero_point: float = 0.0
    """Subtracted before ``scale``: for samples that are stored as quantized integers."""
    scale: float = 1.0
    """Multiplied before ``mean`` is subtracted: 1/255 for values in 0…1."""
    mean: tuple[float, ...] = ()
    """Subtracted after ``scale``; one value, or one per channel in the order of ``color``."""
    std: tuple[float, ...] = ()
    """Divided by after ``mean``."""
    layout: Literal["nhwc", "nchw"] | None = None
    """Layout of the result for samples in [H,W,C]."""
    dtype: SampleDtype | None = None
    """``None``: the model's, or for a quantized input float32 unless the sample has the stored dtype already
    and nothing is calculated."""


@dataclass(frozen=True, slots=True)
class Postprocess:
    """What is done with the outputs for a person; ``Model.predict`` applies it, ``Model.run`` does not."""

    softmax: bool = False
    argmax: bool = False
    """Give the best class (with its label if the bundle has labels) and its score."""
    output: str | None = None
    """The output it applies to; ``None``: the only one, or the first."""
    top: int = 1
    """How many classes are given; more than one asks for ``argmax`` as well."""
    label_offset: int = 0
    """Class = argmax - label_offset: 1 for models whose index 0 is the background."""
