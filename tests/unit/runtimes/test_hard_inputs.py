"""Inputs and options that engines take badly are refused, or made right, before they reach one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from edgeml_runtimes.binding import bind_checked, storing
from edgeml_runtimes.openvino import OpenVino
from edgeml_runtimes.options import checked_options
from openvino import opset13 as opset

from edgeml.errors import InferenceError, InputError, UsageError
from edgeml.runtime import RuntimeOptions
from edgeml.tensors import Quantization, TensorSpec

STORED = TensorSpec("x", (1, 3), "int8", Quantization((0.5,), (3,)))


@pytest.mark.parametrize("kind", ["bf16", "u4", "i4"])
def test_openvino_refuses_inputs_that_numpy_cannot_hold(tmp_path: Path, kind: str) -> None:
    x = opset.parameter([1, 2], getattr(ov.Type, kind))
    ov.save_model(ov.Model([opset.convert(x, "f32")], [x]), tmp_path / "m.xml", compress_to_fp16=False)
    with pytest.raises(InferenceError, match=f"is {kind}, which numpy cannot hold"):
        OpenVino().load(tmp_path / "m.xml")


def test_more_threads_than_an_engine_bears_are_refused() -> None:
    with pytest.raises(UsageError, match="too many"):
        checked_options(RuntimeOptions(threads=100_000), "litert")


@pytest.mark.parametrize("dtype", ["int8", "int32"])
def test_nan_is_no_number_that_integers_store(dtype: str) -> None:
    store = storing(TensorSpec("x", (1, 3), dtype, STORED.quantization))
    with pytest.raises(InputError, match="input 'x' holds NaN"):
        store(np.array([[1, np.nan, 2]], np.float32))
    assert store(np.array([[1, np.inf, -1]], np.float32))[0, 0] == 5


def test_floats_of_the_other_byte_order_are_stored_alike() -> None:
    run = bind_checked((STORED,), (), lambda arrays: seen.extend(arrays) or [])
    seen: list[np.ndarray] = []
    values = np.array([[1.0, 2.0, -1.0]], np.float32)
    run({"x": values.astype(">f4")})
    run({"x": values})
    assert np.array_equal(seen[0], seen[1])
