"""Magnitude pruning: which weights become 0, and where that pays; docs/adr/0021 has the measurements.

The score of a weight is that of LAMP: its square over the sum of the squares in its layer that are not
smaller. Scores compare across layers, so that one share for the whole model spares the layers that need
their weights; the largest of a layer has score 1, and no layer is emptied. Lee et al., Layer-Adaptive
Sparsity for the Magnitude-Based Pruning, ICLR 2021, equation 3. With 20 % of the weights at 0 MobileNetV2
keeps 85.1 % top-1 that way, and 78.0 % with the same share in each layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgeml.arrays import Array
from edgeml.words import RuntimeName

PRUNED: Final = ("litert", "int8_static")
"""The only runtime and scheme in which zeros make a file smaller at shares that models bear."""
UNPAID: Final[Mapping[RuntimeName, str]] = {
    "onnxruntime": "ONNX Runtime is no faster with weights of 0, and an int8 file is no smaller with less "
    "than 89 % of them: ONNX stores 8 bytes of place with each other weight",
    "openvino": "OpenVINO stores weights of 0 like any others, and is no faster with them",
}
"""Why a runtime is not offered pruned variants."""
UNPAID_ON_EDGE_TPU: Final = "the Edge TPU compiler maps no operator whose weights are unpacked first"
PATTERNS: Final = (
    "no runtime here is faster with N:M patterns, and two zeros in each four weights cost more accuracy "
    "than as many zeros where they matter least: give a share, 0.3 say"
)
"""Why ``2:4`` is refused."""


def least(layers: Sequence[Array], share: float) -> list[NDArray[np.bool_]]:
    """Mark that share of all weights which have the lowest scores, layer by layer.

    Of equal scores the first come first, so that the same weights give the same marks.
    """
    scores = [_scores(one) for one in layers]
    every = np.concatenate(scores) if scores else np.zeros(0)
    marked = np.zeros(every.size, bool)
    marked[np.argsort(every, kind="stable")[: int(share * every.size)]] = True
    ends = np.cumsum([one.size for one in scores])[:-1]
    return [part.reshape(one.shape) for part, one in zip(np.split(marked, ends), layers, strict=True)]


def _scores(weights: Array) -> NDArray[np.float64]:
    squares = weights.reshape(-1).astype(np.float64) ** 2
    order = np.argsort(squares, kind="stable")
    rest = np.cumsum(squares[order][::-1])[::-1]
    scores = np.zeros_like(squares)
    scores[order] = np.divide(squares[order], rest, out=np.zeros_like(rest), where=rest > 0.0)
    return scores
