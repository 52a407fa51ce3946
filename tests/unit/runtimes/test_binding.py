"""Checks and conversions around an engine's call."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from edgeml_runtimes.binding import (
    bind,
    bind_checked,
    quantization_table,
    restoring,
    storing,
)

from edgeml.arrays import dequantize, quantize
from edgeml.errors import ModelFileError
from edgeml.tensors import Quantization, TensorSpec

RANGES = Quantization((0.037,), (-3,))
SLICES = Quantization((0.5, 0.25), (0, 3), axis=1)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
@pytest.mark.parametrize("quantization", [RANGES, SLICES])
def test_conversions_with_constants_worked_out_are_those_of_the_core(
    quantization: Quantization, dtype: str
) -> None:
    spec = TensorSpec("x", (1, 2, 500), dtype, quantization)
    values = np.random.default_rng(0).normal(0, 40, (1, 2, 500)).astype(np.float32)
    stored = quantize(values, quantization, dtype)
    assert (storing(spec)(values) == stored).all()
    assert storing(spec)(values).dtype == dtype
    assert (restoring(spec)(stored) == dequantize(stored, quantization)).all()


def test_a_float_input_with_a_quantized_output_gives_floats() -> None:
    outputs = (TensorSpec("y", (1, 2), "int8", RANGES),)
    inputs = (TensorSpec("x", (1, 2), "float32"),)
    stored = np.array([[1, 2]], np.int8)
    run = bind(inputs, outputs, lambda _: [stored], lambda _: stored)
    result = run({"x": np.zeros((1, 2), np.float32)})["y"]
    assert (result == dequantize(stored, RANGES)).all()


def test_one_stored_input_of_several_is_enough_for_stored_outputs() -> None:
    inputs = (TensorSpec("a", (1,), "int8", RANGES), TensorSpec("b", (1,), "int8", RANGES))
    outputs = (TensorSpec("y", (1,), "int8", RANGES),)
    run = bind_checked(inputs, outputs, lambda arrays: [arrays[0] + arrays[1]])
    stored, floats = np.array([5], np.int8), dequantize(np.array([5], np.int8), RANGES)
    assert run({"a": stored, "b": floats})["y"].dtype == np.int8
    assert run({"a": floats, "b": floats})["y"].dtype == np.float32
    assert run({"a": stored, "b": floats})["y"][0] == 10


def test_an_integer_input_without_quantization_does_not_decide_the_outputs_dtype() -> None:
    inputs = (TensorSpec("ids", (1,), "int64"),)
    outputs = (TensorSpec("y", (1,), "int8", RANGES),)
    run = bind_checked(inputs, outputs, lambda _: [np.array([5], np.int8)])
    assert run({"ids": np.array([1])})["y"].dtype == np.float32


def test_scales_of_a_whole_tensor_and_of_slices_are_read() -> None:
    text = json.dumps(
        {
            "x": {"scale": list(RANGES.scale), "zero_point": list(RANGES.zero_point)},
            "w": {"scale": list(SLICES.scale), "zero_point": list(SLICES.zero_point), "axis": SLICES.axis},
        }
    )
    assert quantization_table(text, Path("model")) == {"x": RANGES, "w": SLICES}


def test_a_single_scale_may_be_written_without_a_list() -> None:
    text = '{"x": {"scale": 0.5, "zero_point": 83}}'
    assert quantization_table(text, Path("model")) == {"x": Quantization((0.5,), (83,))}


@pytest.mark.parametrize("text", ["{", "[1]", '{"x": 1}', '{"x": {"scale": "a", "zero_point": 1}}'])
def test_a_quantization_entry_that_cannot_be_read_names_the_file(text: str) -> None:
    with pytest.raises(ModelFileError, match=r"model\.onnx: its edgeml\.quantization entry"):
        quantization_table(text, Path("model.onnx"))
