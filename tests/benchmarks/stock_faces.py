"""How much of what a face detector finds is what its float model finds: the mean F1 over pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from edgeml.arrays import Array

SCORE_MIN: Final = 0.7
"""As the detector's authors have it."""
NMS_OVERLAP: Final = 0.3
SAME_OVERLAP: Final = 0.5
"""Intersection over union above which two boxes are one face."""


def f1(outputs: Mapping[str, Array], label: Array) -> float:
    """Give F1 of one picture; ``label`` holds float's scores and boxes, as ``joined`` makes them."""
    return f1_of(joined(outputs), label)


def joined(outputs: Mapping[str, Array]) -> Array:
    """Put scores [1, N, 2] and boxes [1, N, 4] side by side; of one output give that."""
    several = sorted(outputs.values(), key=lambda array: int(array.shape[-1]))
    return several[0] if len(several) == 1 else np.concatenate(several, axis=-1)


def f1_of(found: Array, expected: Array) -> float:
    """Give F1 of what is found in one picture; 1 where neither has a face."""
    left, right = faces(found), faces(expected)
    if not len(left) + len(right):
        return 1.0
    open_ = list(range(len(right)))
    same = 0
    for box in left:
        near = max(open_, key=lambda place: float(_overlap(box, right[place : place + 1])[0]), default=None)
        if near is not None and _overlap(box, right[near : near + 1])[0] >= SAME_OVERLAP:
            open_.remove(near)
            same += 1
    return 2 * same / (len(left) + len(right))


def faces(values: Array) -> Array:
    """Give the boxes [M, 4] that stand for a face each, the surest first."""
    rows = values.reshape(-1, 6)
    rows = rows[rows[:, 1] >= SCORE_MIN]
    left = rows[np.argsort(-rows[:, 1])][:, 2:]
    kept = []
    while len(left):
        kept.append(left[0])
        left = left[1:][_overlap(left[0], left[1:]) < NMS_OVERLAP]
    return np.array(kept).reshape(-1, 4)


def _overlap(box: Array, others: Array) -> Array:
    corner, end = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(end - corner, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    overlap: Array = common / (areas - common + 1e-12)
    return overlap
