"""Quantization inside OpenVINO IR, on the real models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino
import pytest

from edgeml.errors import AlreadyQuantizedError, DataError, QuantizationError
from tests.integration import quantize_models as models
from tests.integration.quantize_models import Samples, only, outputs, run_step, sqnr, top1

pytestmark = pytest.mark.data
STATIC = "openvino-int8-static"


@pytest.fixture(scope="module")
def kws_ir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ir")
    return run_step("onnx-to-openvino", data_dir / "kws" / "kws_float.onnx", folder / "kws").artifact


def test_kws_keeps_its_accuracy_and_beats_nncfs_defaults(
    data_dir: Path, kws_ir: Path, tmp_path: Path
) -> None:
    task = models.kws(data_dir)
    result = run_step(STATIC, kws_ir, tmp_path / "made", task.calibration)
    reference = only(outputs("openvino", kws_ir, task.evaluation))
    made = only(outputs("openvino", result.artifact, task.evaluation))
    assert abs(top1(made, task.labels) - top1(reference, task.labels)) <= 0.004 + 1e-9
    assert sqnr(reference, made) > 28.0  # NNCF's defaults: 23.2
    assert not result.findings
    assert len(result.ranges) == 11
    assert set(result.versions) == {"nncf", "openvino"}


def test_a_model_with_two_outputs_is_quantized(data_dir: Path, tmp_path: Path) -> None:
    task, source = models.face(data_dir), data_dir / "face" / "version-RFB-320.onnx"
    real = run_step("onnx-to-openvino", source, tmp_path / "ir").artifact
    result = run_step(STATIC, real, tmp_path / "made", task.calibration)
    reference = outputs("openvino", real, task.evaluation)
    made = outputs("openvino", result.artifact, task.evaluation)
    assert list(made) == list(reference)
    assert all(sqnr(reference[name], made[name]) > 38.0 for name in reference)


@pytest.mark.parametrize("method", ["default", "percentile"])
def test_the_order_of_the_samples_changes_no_byte(
    data_dir: Path, kws_ir: Path, tmp_path: Path, method: str
) -> None:
    task = models.kws(data_dir)
    made = [
        run_step(STATIC, kws_ir, tmp_path / name, samples, method=method).artifact
        for name, samples in (("one", task.calibration), ("two", models.shuffled(task.calibration)))
    ]
    assert made[0].read_bytes() == made[1].read_bytes()
    assert made[0].with_suffix(".bin").read_bytes() == made[1].with_suffix(".bin").read_bytes()


def test_seven_bits_keep_the_accuracy_of_kws(data_dir: Path, kws_ir: Path, tmp_path: Path) -> None:
    """Without corrected biases it lost 1.2 points."""
    task = models.kws(data_dir)
    made = [
        run_step(STATIC, kws_ir, tmp_path / name, samples, reduce_range=True).artifact
        for name, samples in (("one", task.calibration), ("two", models.shuffled(task.calibration)))
    ]
    assert made[0].with_suffix(".bin").read_bytes() == made[1].with_suffix(".bin").read_bytes()
    reference = only(outputs("openvino", kws_ir, task.evaluation))
    found = only(outputs("openvino", made[0], task.evaluation))
    assert top1(reference, task.labels) - top1(found, task.labels) <= 0.004 + 1e-9
    assert sqnr(reference, found) > 28.0
    weights = [
        node.get_data().astype(int)
        for node in openvino.Core().read_model(str(made[0])).get_ordered_ops()
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i8"
    ]
    # NNCF leaves depthwise weights, of five dimensions, at 8 bits
    dense = [array for array in weights if array.ndim != 5]
    assert (len(dense), len(weights)) == (6, 10)
    assert all(-64 <= array.min() <= array.max() <= 64 for array in dense)


@pytest.mark.soak
def test_seven_bits_keep_the_accuracy_of_mobilenet_v2(data_dir: Path, tmp_path: Path) -> None:
    """Without corrected biases it fell from 86.2 to 82 %."""
    task, source = models.mobilenet(data_dir), data_dir / "mobilenet" / "mobilenet_v2_1.0_224_float.onnx"
    real = run_step("onnx-to-openvino", source, tmp_path / "ir").artifact
    made = run_step(STATIC, real, tmp_path / "made", task.calibration, reduce_range=True).artifact
    reference = only(outputs("openvino", real, task.evaluation))
    found = only(outputs("openvino", made, task.evaluation))
    assert top1(reference, task.labels) - top1(found, task.labels) <= 0.005 + 1e-9


@pytest.mark.parametrize(("scheme", "least_db"), [("int8-weights", 35), ("float16", 60)])
def test_other_schemes_come_this_close_to_float(
    data_dir: Path, kws_ir: Path, tmp_path: Path, scheme: str, least_db: float
) -> None:
    result = run_step(f"openvino-{scheme}", kws_ir, tmp_path / "made")
    some = models.kws(data_dir).evaluation[:100]
    reference = only(outputs("openvino", kws_ir, some))
    assert sqnr(reference, only(outputs("openvino", result.artifact, some))) > least_db
    assert (
        result.artifact.with_suffix(".bin").stat().st_size < 0.6 * kws_ir.with_suffix(".bin").stat().st_size
    )


def test_convolutions_that_nncf_leaves_in_int8_are_told(kws_ir: Path, tmp_path: Path) -> None:
    (finding,) = run_step("openvino-int4-weights", kws_ir, tmp_path / "made").findings
    assert finding.code == "operators-not-quantized"
    assert "1 of 10" in finding.message


def test_resnet_read_from_tflite_keeps_its_accuracy(data_dir: Path, tmp_path: Path) -> None:
    task, source = models.ic(data_dir), data_dir / "ic" / "pretrainedResnet.tflite"
    real = run_step("tflite-to-openvino", source, tmp_path / "ir").artifact
    made = run_step(STATIC, real, tmp_path / "made", task.calibration).artifact
    reference = top1(only(outputs("openvino", real, task.evaluation)), task.labels)
    assert reference - top1(only(outputs("openvino", made, task.evaluation)), task.labels) <= 0.003 + 1e-9


@pytest.mark.parametrize("first", ["int8-static", "int8-weights", "float16"])
def test_a_quantized_model_is_not_quantized_again(
    data_dir: Path, kws_ir: Path, tmp_path: Path, first: str
) -> None:
    samples = models.kws(data_dir).calibration
    made = run_step(f"openvino-{first}", kws_ir, tmp_path / "first", samples)
    with pytest.raises(AlreadyQuantizedError, match="already quantized"):
        run_step(STATIC, made.artifact, tmp_path / "second", samples)


def test_a_sample_with_nan_is_named(data_dir: Path, kws_ir: Path, tmp_path: Path) -> None:
    good = models.kws(data_dir).calibration.arrays[0]
    with pytest.raises(DataError, match="sample 1 of input 'input_1' has NaN"):
        run_step(STATIC, kws_ir, tmp_path / "made", Samples("input_1", [good, good * np.float32(np.nan)]))


def test_integer_inputs_are_refused_not_ignored(data_dir: Path, kws_ir: Path, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="int8 inputs are not offered"):
        run_step(STATIC, kws_ir, tmp_path / "made", models.kws(data_dir).calibration, io_dtype="int8")


def test_nothing_is_printed_and_nothing_is_sent(data_dir: Path, kws_ir: Path, tmp_path: Path) -> None:
    """In a process of its own, in which opening a socket is an error."""
    child = """
import socket, sys
from pathlib import Path
def refuse(*_): raise SystemExit("a socket was opened")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
from tests.integration import quantize_models as models
task = models.kws(Path(sys.argv[1]))
from edgeml.offline import silence_openvino
silence_openvino()
models.run_step("openvino-int8-static", Path(sys.argv[2]), Path(sys.argv[3]), task.calibration)
print([name for name in sys.modules if name.startswith("openvino_telemetry") and sys.modules[name]])
"""
    done = subprocess.run(
        [sys.executable, "-c", child, str(data_dir), str(kws_ir), str(tmp_path / "made")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert done.stderr == ""
