"""scikit-learn's handwritten digits as (pictures, labels): uint8 [N, 8, 8, 1] from 0 to 16, int64 [N].

`edgeml convert --calibration digits:calibration --evaluate digits:test` calls these functions.
"""

import numpy as np
from sklearn.datasets import load_digits

HELD_OUT = 500


def training() -> tuple[np.ndarray, np.ndarray]:
    """Give the 1,297 digits that the model was trained on."""
    pictures, labels = _shuffled()
    return pictures[HELD_OUT:], labels[HELD_OUT:]


def calibration() -> tuple[np.ndarray, np.ndarray]:
    """Give 100 training digits: quantizers may see them, the accuracy is taken on others."""
    pictures, labels = training()
    return pictures[:100], labels[:100]


def test() -> tuple[np.ndarray, np.ndarray]:
    """Give the 500 digits that training has not seen."""
    pictures, labels = _shuffled()
    return pictures[:HELD_OUT], labels[:HELD_OUT]


def _shuffled() -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    return digits.images[order].astype(np.uint8)[..., None], digits.target[order].astype(np.int64)
