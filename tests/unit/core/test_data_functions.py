"""Functions that do not give the same samples each time."""

import pytest

from edgeml.data import open_data
from edgeml.errors import DataError
from edgeml.tensors import TensorSpec

ROW = (TensorSpec("x", (1, 4), "float32"),)


def opened(tmp_path, body):
    path = tmp_path / "source.py"
    path.write_text(f"import numpy as np\nRNG = np.random.default_rng(0)\n{body}")
    return open_data(f"{path}:samples", inputs=ROW)


@pytest.mark.parametrize(
    "body",
    [
        "def samples():\n    for i in RNG.permutation(20):\n        yield np.full(4, i), i\n",
        "def samples():\n    for i in range(20):\n        yield RNG.normal(size=4), i\n",
        "def samples():\n    for i in range(20):\n        yield np.full(4, i), RNG.integers(1000)\n",
    ],
)
def test_a_function_that_shuffles_or_draws_anew_is_refused(tmp_path, body):
    with pytest.raises(DataError, match=r"gives other samples each time, sample \d+ is not what it was"):
        list(opened(tmp_path, body))


def test_a_function_that_seeds_itself_is_read_again_and_again(tmp_path):
    data = opened(
        tmp_path,
        "def samples():\n"
        "    for i in np.random.default_rng(1).permutation(20):\n"
        "        yield np.full(4, i), i\n",
    )
    for _ in range(2):
        assert [int(sample["x"][0, 0]) for sample in data] == data.labels.tolist()


def test_labels_of_one_column_are_classes(tmp_path):
    data = opened(
        tmp_path, "def samples():\n    for i in range(3):\n        yield np.full(4, i), np.array([i])\n"
    )
    assert data.labels.tolist() == [0, 1, 2]
    assert data.labels.dtype.kind == "i"
