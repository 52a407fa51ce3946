"""Pre- and post-processing, declared once and run the same way wherever the model goes.

The order is fixed: colour → resize (short side) → crop (centre) → scale/mean/std → layout → dtype.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a raw sample (an image [H,W,C] uint8, or an array) becomes the model's input, batch added.

    The default does nothing but cast to the model's dtype and add a missing batch dimension.
    """

    color: Literal["rgb", "bgr", "gray"] | None = None
    """Colour order of the result; images are decoded as RGB."""
    resize: tuple[int, int] | None = None
    """Height and width; with ``crop`` the short side is brought to ``min(resize)`` and the ratio kept."""
    crop: tuple[int, int] | None = None
    """Height and width of the centre crop."""
    interpolation: Literal["bilinear", "nearest", "bicubic"] = "bilinear"
    scale: float = 1.0
    """Multiplied first: 1/255 for values in 0…1."""
    mean: tuple[float, ...] = ()
    """Subtracted after ``scale``; one value or one per channel."""
    std: tuple[float, ...] = ()
    """Divided by after ``mean``."""
    layout: Literal["nhwc", "nchw"] | None = None
    """Layout of the result for samples in [H,W,C]."""
    dtype: str | None = None
    """numpy dtype name; ``None``: the model's."""


@dataclass(frozen=True, slots=True)
class Postprocess:
    """What is done with the outputs for a person; ``Model.predict`` applies it, ``Model.run`` does not."""

    softmax: bool = False
    argmax: bool = False
    """Give the best class (with its label if the bundle has labels) and its score."""
    output: str | None = None
    """The output it applies to; ``None``: the only one, or the first."""
    top: int = 1
    label_offset: int = 0
    """Class = argmax - label_offset: 1 for models whose index 0 is the background."""
