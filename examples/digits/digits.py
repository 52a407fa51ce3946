"""scikit-learn's handwritten digits as samples: a picture, uint8 [8, 8, 1] from 0 to 16, and its label.

`digits.toml` declares `calibration` and `test` as the data that `edgeml convert` reads.
"""

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits

HELD_OUT = 500


def shuffled() -> tuple[np.ndarray, np.ndarray]:
    """Give all 1,797 pictures [N, 8, 8, 1] and labels [N] in one fixed order."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    return digits.images[order].astype(np.uint8)[..., None], digits.target[order].astype(np.int64)


def calibration() -> Iterator[tuple[np.ndarray, np.int64]]:
    """Give 100 digits of the training part: quantizers may see them, accuracy is taken on others."""
    pictures, labels = shuffled()
    return zip(pictures[-100:], labels[-100:], strict=True)


def test() -> Iterator[tuple[np.ndarray, np.int64]]:
    """Give the 500 digits that training has not seen."""
    pictures, labels = shuffled()
    return zip(pictures[:HELD_OUT], labels[:HELD_OUT], strict=True)
