"""A reference of three inputs, a confidence and three classes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeml.reference_data import feature_reference, joint_reference
from edgeml.telemetry.reference import CONFIDENCE, Reference, with_digest


@pytest.fixture(scope="session")
def reference() -> Reference:
    random = np.random.default_rng(2)
    rows = random.normal(size=(5000, 3))
    rows[:, 2] = np.round(rows[:, 2])
    features = [feature_reference(f"x[{place}]", rows[:, place]) for place in range(3)]
    known = [one for one in features if one is not None]
    return with_digest(
        Reference(
            5000,
            tuple(known),
            classes={"cat": 3000, "dog": 1500, "eel": 500},
            confidence=feature_reference(CONFIDENCE, random.beta(8, 2, 5000)),
            joint=joint_reference(known, rows),
        )
    )
