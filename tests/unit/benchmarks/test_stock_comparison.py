"""The arithmetic of the comparison with stock quantizers."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from tests.benchmarks.search_cost import Cost
from tests.benchmarks.stock_comparison import AGAIN, Comparison, Entry
from tests.benchmarks.stock_faces import f1, f1_of, faces, joined
from tests.benchmarks.stock_making import FLOAT, OURS
from tests.benchmarks.stock_table import tables

NOTHING = (0.0, 0.0, 1.0, 1.0)


def detections(*boxes: tuple[float, ...], sure: float = 0.9) -> np.ndarray:
    rows = [(1 - sure, sure, *box) for box in boxes] + [(0.9, 0.1, *NOTHING)]
    return np.array([rows], np.float32)


def test_overlapping_boxes_are_one_face_and_unsure_ones_none() -> None:
    found = detections((0.1, 0.1, 0.3, 0.3), (0.11, 0.1, 0.31, 0.3), (0.6, 0.6, 0.8, 0.8))
    assert len(faces(found)) == 2
    assert len(faces(detections((0.1, 0.1, 0.3, 0.3), sure=0.5))) == 0


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ([(0.1, 0.1, 0.3, 0.3), (0.6, 0.6, 0.8, 0.8)], 1.0),
        ([(0.1, 0.1, 0.3, 0.3)], 2 / 3),
        ([(0.1, 0.1, 0.3, 0.3), (0.4, 0.1, 0.5, 0.2)], 0.5),
        ([], 0.0),
    ],
)
def test_f1_counts_faces_at_the_same_place(found: list[tuple[float, ...]], wanted: float) -> None:
    expected = detections((0.1, 0.1, 0.3, 0.3), (0.6, 0.6, 0.8, 0.8))
    assert f1_of(detections(*found), expected) == pytest.approx(wanted)


def test_two_outputs_are_told_apart_by_their_shape() -> None:
    whole = detections((0.1, 0.1, 0.3, 0.3))
    outputs = {"a": whole[..., 2:], "b": whole[..., :2]}
    assert np.array_equal(joined(outputs), whole)
    assert f1(outputs, whole) == 1.0


def entry(label: str, accuracy: float, ratio: float) -> Entry:
    return Entry(label, accuracy, 30.0, 100.0 * ratio, ratio, 1000, 1.0)


COMPARISON = Comparison(
    "kws",
    "litert",
    "litert-int8_static",
    (
        entry(FLOAT, 92.8, 2.0),
        entry(OURS, 92.6, 1.0),
        entry("LiteRT calibration", 92.2, 0.8),
        entry("AEQ, extremes", 92.4, 1.25),
        entry(AGAIN, 92.6, 1.01),
        Entry("AEQ, defaults", error="it | failed in /a/path of somebody"),
    ),
)


def test_the_best_stock_result_is_the_fastest_that_holds_the_gate() -> None:
    best = COMPARISON.best_stock
    assert best is not None
    assert best.label == "AEQ, extremes"
    assert COMPARISON.drop(best) == pytest.approx(0.4)


def test_the_page_tells_ratios_what_is_lost_and_what_failed_without_paths() -> None:
    text = tables([COMPARISON], Cost(100.0, 150.0, 1_000_000_000))
    lines = text.splitlines()
    assert any(
        "| AEQ, extremes | 0.40 | 0.62 | `int8_static` | 0.20 | 0.50 | **0.80** |" in one for one in lines
    )
    assert any("LiteRT calibration | 92.2 % | **0.60**" in one for one in lines)
    assert "/a/path" not in text
    rows = [one for one in lines if one.startswith("|")]
    assert len({one.count("|") for one in rows[:3]}) == 1
    assert all(left.count("|") == right.count("|") for left, right in pairwise(rows[3:]))
