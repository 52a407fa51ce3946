"""What rounded weights add to outputs on average is taken back in the biases, on each runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from edgeml_converters.quantize import tflite_bias, tflite_model

from edgeml.arrays import Array
from edgeml.errors import QuantizationError
from edgeml.words import RuntimeName
from tests.integration import quantize_models as models
from tests.integration.optimiser import broken_int8
from tests.integration.quantize_models import Samples, only, outputs, run_step, shuffled, sqnr, top1

RUNTIMES: tuple[RuntimeName, ...] = ("litert", "onnxruntime", "openvino")


def coarse(runtime: RuntimeName, folder: Path) -> Path:
    if runtime == "litert":
        return broken_int8.coarse_tflite(folder)
    path = broken_int8.coarse_onnx(folder)
    return run_step("onnx-to-openvino", path, folder / "ir").artifact if runtime == "openvino" else path


def calibration() -> Samples:
    return Samples("image", broken_int8.calibration_digits())


def made(runtime: RuntimeName, source: Path, folder: Path, samples: Samples, **settings: object) -> Path:
    return run_step(f"{runtime}-int8-static", source, folder, samples, **settings).artifact


@pytest.mark.parametrize("method", ["default", "minmax"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_scores_that_rounded_weights_moved_come_back(
    runtime: RuntimeName, method: str, tmp_path: Path
) -> None:
    source, (pictures, labels) = coarse(runtime, tmp_path), broken_int8.held_out_digits()
    wanted = only(outputs(runtime, source, pictures))
    plain, corrected = (
        only(outputs(runtime, path, pictures))
        for path in (
            made(runtime, source, tmp_path / str(bias_correction), calibration(), **settings)
            for bias_correction in (False, True)
            for settings in ({"method": method, "bias_correction": bias_correction},)
        )
    )
    assert sqnr(wanted, plain) < 10
    assert sqnr(wanted, corrected) > 25
    assert top1(plain, labels) < top1(wanted, labels) - 0.04
    assert top1(corrected, labels) > top1(wanted, labels) - 0.005


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_order_of_the_samples_changes_no_byte(runtime: RuntimeName, tmp_path: Path) -> None:
    source, samples = coarse(runtime, tmp_path), calibration()
    one, two = (
        made(runtime, source, tmp_path / name, given, bias_correction=True)
        for name, given in (("one", samples), ("two", shuffled(samples)))
    )
    held = ".bin" if runtime == "openvino" else one.suffix
    assert one.with_suffix(held).read_bytes() == two.with_suffix(held).read_bytes()


@pytest.mark.data
def test_biases_behind_depthwise_convolutions_are_corrected_in_tflite(data_dir: Path, tmp_path: Path) -> None:
    task, source = models.vww(data_dir), data_dir / "vww" / "vww_96_float.tflite"
    wanted = only(outputs("litert", source, task.evaluation))
    plain, corrected = (
        sqnr(wanted, only(outputs("litert", path, task.evaluation)))
        for path in (
            made("litert", source, tmp_path / str(asked), task.calibration, bias_correction=asked)
            for asked in (False, True)
        )
    )
    assert corrected > plain + 2


@pytest.mark.parametrize(
    ("weights", "channels", "group_of"),
    [
        ((6, 1, 1, 4), 4, [[0, 1, 2, 3]] * 6),
        ((6, 1, 1, 2), 4, [[0, 1]] * 3 + [[2, 3]] * 3),
        ((1, 3, 3, 4), 4, [[0], [1], [2], [3]]),
        ((1, 3, 3, 4), 2, [[0], [0], [1], [1]]),
        ((1, 1, 1, 1), 1, [[0]]),
        ((5, 4), 4, [[0, 1, 2, 3]] * 5),
    ],
)
def test_the_shift_of_an_output_is_that_of_the_channels_it_takes(
    weights: tuple[int, ...], channels: int, group_of: list[list[int]]
) -> None:
    random = np.random.default_rng(0)
    error, means = random.normal(size=weights), random.normal(size=channels)
    taken: Array = np.moveaxis(error, -1, 0)[..., None] if weights[0] == 1 < weights[-1] else error
    wanted = [
        sum(taken[place, ..., at].sum() * means[channel] for at, channel in enumerate(group))
        for place, group in enumerate(group_of)
    ]
    found = tflite_bias._shift(error, means)
    assert found is not None
    np.testing.assert_allclose(found, wanted)


def test_what_the_quantizer_reordered_is_refused(tmp_path: Path) -> None:
    model = tflite_model.parse(broken_int8.coarse_tflite(tmp_path).read_bytes())
    other = tflite_model.parse(tflite_model.content(model))
    other.subgraphs[0].operators.reverse()
    with pytest.raises(QuantizationError, match="leave bias_correction out"):
        tflite_bias.correct(model, other, {})
