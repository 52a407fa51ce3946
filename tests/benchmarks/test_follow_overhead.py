"""What a call of an installed model costs over that of one that follows nothing: the counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeml
from tests.benchmarks.test_model_overhead import _microseconds
from tests.unit.core.release_folders import install, switch, times

BUDGET_US = 0.5
X = np.ones((1, 16), np.float32)


def test_following_and_counting_cost_at_most_half_a_microsecond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_HOME", str(tmp_path / "home"))
    switch(install(tmp_path / "home", times(tmp_path / "made", 2.0, 1)), 1)
    with edgeml.load("times") as model, edgeml.load("times", follow=False) as pinned:
        plain, followed = _microseconds(lambda: pinned(X), lambda: model(X))
    print(f"plain {plain:.2f} us, followed {followed:.2f} us, {followed - plain:+.2f} us")
    assert followed - plain <= BUDGET_US
