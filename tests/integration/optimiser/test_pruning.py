"""Weights of 0: which are set, how LiteRT stores them, and when ``convert`` makes such a variant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from edgeml_converters.quantize import tflite_model
from edgeml_converters.quantize.tflite_sparse import sparsely_stored
from edgeml_runtimes.litert import LiteRTOptions

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.errors import QuantizationError
from tests.integration.optimiser import broken_int8, redundant
from tests.integration.quantize_models import Samples, only, outputs, run_step, top1

STEP = "litert-int8-static"


def calibration() -> Samples:
    return Samples(redundant.NAME, broken_int8.calibration_digits())


def quantized(source: Path, folder: Path, **settings: Any) -> Path:
    return run_step(STEP, source, folder, calibration(), **settings).artifact


def kinds(path: Path) -> list[str]:
    model = tflite_model.parse(path.read_bytes())
    names = tflite_model.operators(model)
    return [names[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def right(path: Path) -> float:
    pictures, labels = broken_int8.held_out_digits()
    return top1(only(outputs("litert", path, pictures)), labels)


# --- the quantizer


@pytest.mark.parametrize("method", ["default", "minmax"])
def test_redundant_weights_make_a_smaller_file_that_is_as_right(tmp_path: Path, method: str) -> None:
    source = redundant.tflite(tmp_path)
    plain = quantized(source, tmp_path / "plain", method=method)
    pruned = quantized(source, tmp_path / "pruned", method=method, sparsity=0.8)
    assert pruned.stat().st_size < 0.6 * plain.stat().st_size
    assert right(pruned) >= right(source) - 0.005
    assert kinds(pruned).count("DENSIFY") == 2
    assert "DENSIFY" not in kinds(plain)


def test_the_record_says_how_many_weights_became_zero_and_how_they_are_stored(tmp_path: Path) -> None:
    made = run_step(STEP, redundant.tflite(tmp_path), tmp_path / "out", calibration(), sparsity=0.8)
    total = 16 * 9 + 256 * 9 * 16 + 64 * 9 * 256
    assert f"{int(0.8 * total)} of {total} weights set to 0 in 3 operators, 3 biases corrected" in made.notes
    assert made.notes[-1] == "weights of 2 operators stored sparsely"


def test_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    source = redundant.tflite(tmp_path)
    one, two = (quantized(source, tmp_path / name, sparsity=0.5).read_bytes() for name in ("a", "b"))
    assert one == two


def test_biases_take_back_what_pruning_shifts(tmp_path: Path) -> None:
    """Means of the outputs over the calibration data stay; weights alone would move them."""
    source = broken_int8.DIGITS / "digits.tflite"
    samples = broken_int8.calibration_digits()
    found = [
        only(outputs("litert", path, samples)).mean(axis=0)
        for path in (source, quantized(source, tmp_path / "pruned", sparsity=0.2))
    ]
    spread = only(outputs("litert", source, samples)).std()
    assert np.abs(found[0] - found[1]).max() < 0.1 * spread


@pytest.mark.parametrize("step", ["onnxruntime-int8-static", "openvino-int8-static", "litert-int8-dynamic"])
def test_what_gains_nothing_refuses_with_the_reason(tmp_path: Path, step: str) -> None:
    source = broken_int8.DIGITS / ("digits.tflite" if step.startswith("litert") else "digits.onnx")
    if step.startswith("openvino"):
        source = run_step("onnx-to-openvino", source, tmp_path / "ir").artifact
    with pytest.raises(QuantizationError, match=r"no faster|not pruned here"):
        run_step(step, source, tmp_path / "out", calibration(), sparsity=0.3)


# --- the file


@pytest.mark.parametrize("share", [0.6, 0.97])
@pytest.mark.parametrize("quantize", [False, True])
def test_sparsely_stored_weights_compute_the_same_to_the_last_bit(
    tmp_path: Path, share: float, quantize: bool
) -> None:
    source = broken_int8.DIGITS / "digits.tflite"
    if quantize:
        source = quantized(source, tmp_path / "int8")
    model = tflite_model.parse(source.read_bytes())
    random = np.random.default_rng(0)
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is None or len(np.atleast_1d(tensor.shape)) < 4 or not len(data):
            continue
        values = np.frombuffer(bytes(data), np.int8 if quantize else np.float32).copy()
        values[random.random(values.size) < share] = 0
        model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    zeroed, packed = tmp_path / "zeroed.tflite", tmp_path / "packed.tflite"
    zeroed.write_bytes(tflite_model.content(model))
    content, stored = sparsely_stored(zeroed.read_bytes())
    packed.write_bytes(content)
    assert stored >= 2
    assert packed.stat().st_size < zeroed.stat().st_size
    assert all(
        np.array_equal(computed(zeroed, xnnpack), computed(packed, xnnpack)) for xnnpack in (True, False)
    )


def computed(path: Path, xnnpack: bool) -> Array:
    with plugins.runtime("litert").load(path, LiteRTOptions(xnnpack=xnnpack)) as session:
        found = [session.run({redundant.NAME: item}) for item in broken_int8.calibration_digits()[:20]]
    return np.concatenate([only(one) for one in found])


def test_a_model_without_zeros_stays_as_it_is() -> None:
    content = (broken_int8.DIGITS / "digits.tflite").read_bytes()
    assert sparsely_stored(content) == (content, 0)
