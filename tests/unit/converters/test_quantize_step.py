"""What quantizers refuse before and after their tool has run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from edgeml_converters.quantize.step import (
    CheckedSamples,
    Coverage,
    judge_coverage,
    quantizer_errors,
    refuse_quantized,
)

from edgeml.arrays import Array
from edgeml.errors import AlreadyQuantizedError, DataError, NothingToQuantizeError, QuantizationError
from edgeml.tensors import TensorSpec

INPUTS = (TensorSpec("x", (1, 3), "float32"),)
MODEL = Path("model.onnx")


class Given:
    sha256 = "not used"

    def __init__(self, samples: list[dict[str, Array]], count: int | None = None) -> None:
        self._samples = samples
        self._count = len(samples) if count is None else count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return iter(self._samples)


def good(value: float = 1.0) -> dict[str, Array]:
    return {"x": np.full((1, 3), value, np.float32)}


def read(samples: list[dict[str, Array]], count: int | None = None) -> list[object]:
    return list(CheckedSamples("step", Given(samples, count), INPUTS))


def test_good_samples_pass_and_can_be_read_again() -> None:
    samples = CheckedSamples("step", Given([good(), good(2)]), INPUTS)
    assert len(list(samples)) == len(list(samples)) == len(samples) == 2


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"y": np.zeros((1, 3), np.float32)}, "no input 'y'; inputs are: x"),
        ({"x": np.zeros((1, 4), np.float32)}, "got (1, 4), needs (1, 3)"),
        ({"x": np.zeros(3, np.float32)}, "add the batch dimension"),
        ({"x": np.zeros((1, 3), np.float64)}, "got float64, needs float32"),
        ({"x": np.array([[0, np.nan, 0]], np.float32)}, "of input 'x' has NaN"),
        ({"x": np.array([[0, np.inf, 0]], np.float32)}, "of input 'x' has infinite values"),
    ],
)
def test_a_bad_sample_is_named_by_its_index_and_input(bad: dict[str, Array], said: str) -> None:
    with pytest.raises(DataError, match="calibration sample 3") as raised:
        read([good(), good(), good(), bad])
    assert said in str(raised.value)


def test_no_samples_are_an_error() -> None:
    with pytest.raises(DataError, match="hold no samples"):
        read([])


def test_no_calibration_data_at_all_says_how_to_give_some() -> None:
    with pytest.raises(DataError, match="--calibration"):
        CheckedSamples("step", None, INPUTS)


def test_a_source_that_was_used_up_is_noticed() -> None:
    with pytest.raises(DataError, match="announced 5 samples and gave 2"):
        read([good(), good()], count=5)


def test_nothing_quantized_is_an_error_with_the_count() -> None:
    with pytest.raises(NothingToQuantizeError, match="0 of 7 operators"):
        judge_coverage("step", MODEL, Coverage(7, 0))


def test_a_part_quantized_is_a_finding_with_the_counts_and_names() -> None:
    (finding,) = judge_coverage("step", MODEL, Coverage(7, 5, ("conv_a", "conv_b")))
    assert finding.code == "operators-not-quantized"
    assert "5 of 7" in finding.message
    assert "conv_a, conv_b" in finding.message


def test_all_quantized_is_nothing_to_tell() -> None:
    assert judge_coverage("step", MODEL, Coverage(7, 7)) == ()


def test_a_quantized_model_is_refused_with_what_was_found() -> None:
    with pytest.raises(AlreadyQuantizedError, match=r"already quantized .QuantizeLinear found.; start from"):
        refuse_quantized(MODEL, "QuantizeLinear")


def test_a_tools_exception_becomes_ours() -> None:
    with (
        pytest.raises(QuantizationError, match=r"step: model.onnx could not be quantized: boom"),
        quantizer_errors("step", MODEL),
    ):
        raise RuntimeError("boom")
