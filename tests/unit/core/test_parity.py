"""Golden samples taken apart, and outputs held against them."""

from __future__ import annotations

import numpy as np
import pytest

from edgeml.errors import BundleError
from edgeml.manifest import Tolerance
from edgeml.parity import OutputParity, samples
from edgeml.tensors import TensorSpec

LOOSE = Tolerance(max_abs=100.0, cosine_min=-1.0)


def fault(expected: list[list[float]], got: list[list[float]], tolerance: Tolerance) -> str | None:
    parity = OutputParity("y", np.array(expected, np.float32), tolerance)
    for row in got:
        parity.add(np.array([row], np.float32))
    return parity.fault()


def test_samples_come_back_as_they_were_before_they_were_stacked() -> None:
    specs = (
        TensorSpec("a", (1, 3), "float32"),
        TensorSpec("free", (None, 2), "float32"),
        TensorSpec("pair", (2,), "float32"),
        TensorSpec("scalar", (), "float32"),
    )
    wanted = [
        {
            "a": np.full((1, 3), n, np.float32),
            "free": np.full((1, 2), n, np.float32),
            "pair": np.full((2,), n, np.float32),
            "scalar": np.array(n, np.float32),
        }
        for n in range(4)
    ]
    stacked = {name: np.concatenate([np.atleast_1d(one[name]) for one in wanted]) for name in wanted[0]}
    for got, one in zip(samples(specs, stacked, "x"), wanted, strict=True):
        assert got.keys() == one.keys()
        for name, array in got.items():
            np.testing.assert_array_equal(array, one[name])


@pytest.mark.parametrize(
    ("stacked", "said"),
    [
        ({"a": np.zeros((4, 3))}, "holds no 'b'"),
        ({"a": np.zeros((4, 3)), "b": np.zeros((3, 2))}, "whole number of samples"),
        ({"a": np.zeros((4, 3)), "b": np.zeros((6, 2))}, "whole number of samples"),
        ({"a": np.zeros((0, 3)), "b": np.zeros((0, 2))}, "whole number of samples"),
    ],
)
def test_samples_that_do_not_fit_the_inputs_are_refused(stacked: dict[str, np.ndarray], said: str) -> None:
    specs = (TensorSpec("a", (1, 3), "float32"), TensorSpec("b", (2, 2), "float32"))
    with pytest.raises(BundleError, match=said):
        list(samples(specs, stacked, "golden/inputs.npz"))


def test_equal_outputs_are_within_any_tolerance() -> None:
    exact = Tolerance(0.0, 1.0 - 1e-12, 1.0)
    assert fault([[1, 2], [3, 1]], [[1, 2], [3, 1]], exact) is None


@pytest.mark.parametrize(
    ("got", "tolerance", "said"),
    [
        ([[1, 2.5], [3, 1]], Tolerance(0.4, 0.0), "is off by 0.5, at most 0.4"),
        ([[1, 2], [-3, -1]], Tolerance(100.0, 0.99), None),
        ([[2, 1], [1, 3]], Tolerance(2.5, 0.99), "has cosine 0."),
        ([[2, 1], [3, 1]], Tolerance(100.0, -1.0, 0.51), "best class in 50%, at least 51%"),
        ([[2, 1], [3, 1]], Tolerance(100.0, -1.0, 0.5), None),
        ([[1, np.nan], [3, 1]], LOOSE, "NaN or infinite"),
        ([[1, np.inf], [3, 1]], LOOSE, "NaN or infinite"),
        ([[1, 2]], LOOSE, "has 1 rows, the golden samples have 2"),
        ([[1, 2], [3, 1], [0, 0]], LOOSE, "has shape"),
        ([[1, 2, 3], [3, 1, 3]], LOOSE, "has shape"),
        ([[0, 0], [0, 0]], Tolerance(2.5, 0.5), "has cosine 0,"),
    ],
)
def test_each_of_the_three_limits_must_hold(
    got: list[list[float]], tolerance: Tolerance, said: str | None
) -> None:
    found = fault([[1, 2], [3, 1]], got, tolerance)
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert said in found
        assert found.startswith("output 'y' ")


def test_infinities_that_the_golden_samples_have_are_no_fault() -> None:
    assert fault([[1, -np.inf]], [[1, -np.inf]], Tolerance(0.1)) is None
    assert fault([[1, -np.inf]], [[1, 0]], LOOSE) is not None
    assert fault([[np.nan, 1]], [[np.nan, 1]], Tolerance(0.1)) is None


def test_the_angle_of_values_around_zero_is_not_asked_for() -> None:
    assert fault([[1e-6]], [[-1e-6]], Tolerance(1e-3, 0.999)) is None
    assert fault([[1e-2]], [[-1e-2]], Tolerance(1e-3, 0.999)) is not None


def test_outputs_of_any_number_of_rows_are_compared_row_by_row() -> None:
    parity = OutputParity("boxes", np.arange(10, dtype=np.float32).reshape(5, 2), Tolerance(0.1))
    for begin, end in ((0, 1), (1, 4), (4, 5)):
        parity.add(np.arange(2 * begin, 2 * end, dtype=np.float32).reshape(-1, 2))
    assert parity.fault() is None


def test_stored_integers_are_compared_as_they_are() -> None:
    parity = OutputParity("y", np.array([[-128, 127]], np.int8), Tolerance(1.0, 0.9))
    parity.add(np.array([[127, -128]], np.int8))
    assert "is off by 255" in str(parity.fault())
