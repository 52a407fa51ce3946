"""Quantization inside TFLite, on the real models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from edgeml_converters.quantize import litert, tflite_model

from edgeml.errors import AlreadyQuantizedError, DataError, ModelFileError
from tests.integration import quantize_models as models
from tests.integration.quantize_models import Samples, only, outputs, run_step, sqnr, top1

pytestmark = pytest.mark.data

CHILD = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from ai_edge_litert.interpreter import Interpreter
data, folder = Path(sys.argv[1]), Path(sys.argv[2])
source = data / "kws_float.tflite"
held = np.load(data / "data.npz")
arrays = ((held["calib_q"].astype(np.float32) - held["zero_point"]) * held["scale"]).astype(np.float32)
engine = Interpreter(str(source), num_threads=1)
engine.allocate_tensors()
engine.set_tensor(engine.get_input_details()[0]["index"], arrays[:1])
engine.invoke()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start = peak(), time.process_time()
class Samples:
    sha256 = ""
    def __len__(self): return len(arrays)
    def __iter__(self): return ({"input_1": item[None]} for item in arrays)
from edgeml.converter import StepRequest
from edgeml_converters.quantize.litert import STEPS
STEPS[0].run(StepRequest(source, folder, calibration=Samples()))
print(json.dumps({
    "cpu_seconds": time.process_time() - start,
    "bytes": peak() - before,
    "frameworks": [name for name in ("tensorflow", "keras", "torch", "jax") if name in sys.modules],
}))
"""


def test_kws_keeps_its_accuracy_and_its_outputs(data_dir: Path, tmp_path: Path) -> None:
    task, source = models.kws(data_dir), data_dir / "kws" / "kws_float.tflite"
    result = run_step("litert-int8-static", source, tmp_path / "made", task.calibration)
    reference = only(outputs("litert", source, task.evaluation))
    made = only(outputs("litert", result.artifact, task.evaluation))
    assert abs(top1(made, task.labels) - top1(reference, task.labels)) <= 0.004 + 1e-9
    assert sqnr(reference, made) > 30.0
    assert not result.findings
    assert set(result.versions) == {"ai-edge-litert", "ai-edge-quantizer"}
    assert any("the best of 6 on the calibration data" in note for note in result.notes)
    assert len(result.ranges) > 10
    assert all(low <= 0.0 <= high for low, high in result.ranges.values())


def test_kws_takes_2_cpu_seconds_and_150_mb_at_most_and_no_framework(data_dir: Path, tmp_path: Path) -> None:
    runs = []
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(data_dir / "kws"), str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        runs.append(json.loads(done.stdout))
    assert [found["frameworks"] for found in runs] == [[]] * 3
    assert max(found["bytes"] for found in runs) <= 150e6
    assert min(found["cpu_seconds"] for found in runs) <= 2.0  # 0.6 s on an idle machine


def test_a_model_without_a_signature_is_quantized(data_dir: Path, tmp_path: Path) -> None:
    task, source = models.ic(data_dir), data_dir / "ic" / "pretrainedResnet.tflite"
    result = run_step("litert-int8-static", source, tmp_path / "made", task.calibration)
    reference = only(outputs("litert", source, task.evaluation))
    made = only(outputs("litert", result.artifact, task.evaluation))
    assert top1(reference, task.labels) - top1(made, task.labels) <= 0.003 + 1e-9
    assert sqnr(reference, made) > 22.0
    assert "signature serving_default added" in result.notes


def test_vww_agrees_with_its_float_model(data_dir: Path, tmp_path: Path) -> None:
    task, source = models.vww(data_dir), data_dir / "vww" / "vww_96_float.tflite"
    result = run_step("litert-int8-static", source, tmp_path / "made", task.calibration)
    reference = only(outputs("litert", source, task.evaluation))
    assert sqnr(reference, only(outputs("litert", result.artifact, task.evaluation))) > 26.0


@pytest.mark.parametrize("method", ["default", "minmax", "percentile"])
@pytest.mark.parametrize("io_dtype", ["int8", "uint8"])
def test_integer_inputs_and_outputs_serve_float_callers(
    data_dir: Path, tmp_path: Path, io_dtype: str, method: str
) -> None:
    task, source = models.kws(data_dir), data_dir / "kws" / "kws_float.tflite"
    name = "litert-int8-static"
    real = run_step(name, source, tmp_path / "float", task.calibration, method=method)
    whole = run_step(name, source, tmp_path / "whole", task.calibration, method=method, io_dtype=io_dtype)
    with models.plugins.runtime("litert").load(whole.artifact) as session:
        assert {spec.dtype for spec in (*session.inputs, *session.outputs)} == {io_dtype}
        assert all(spec.quantization for spec in (*session.inputs, *session.outputs))
    parsed = tflite_model.parse(whole.artifact.read_bytes())
    named = [item.tensorIndex for item in (*parsed.signatureDefs[0].inputs, *parsed.signatureDefs[0].outputs)]
    assert named == [*parsed.subgraphs[0].inputs, *parsed.subgraphs[0].outputs]
    some = task.evaluation[:100]
    assert (
        sqnr(only(outputs("litert", real.artifact, some)), only(outputs("litert", whole.artifact, some))) > 40
    )


@pytest.mark.parametrize(
    ("scheme", "least_db"),
    [("int16x8", 35), ("int8-dynamic", 30), ("int8-weights", 35), ("int4-weights", 12), ("float16", 60)],
)
def test_every_other_scheme_comes_this_close_to_float(
    data_dir: Path, tmp_path: Path, scheme: str, least_db: float
) -> None:
    task, source = models.kws(data_dir), data_dir / "kws" / "kws_float.tflite"
    result = run_step(f"litert-{scheme}", source, tmp_path / "made", task.calibration)
    some = task.evaluation[:100]
    reference = only(outputs("litert", source, some))
    assert sqnr(reference, only(outputs("litert", result.artifact, some))) > least_db
    assert result.artifact.stat().st_size < source.stat().st_size


def test_depthwise_weights_that_stay_float_are_told(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "kws" / "kws_float.tflite"
    (finding,) = run_step("litert-int4-weights", source, tmp_path / "made").findings
    assert finding.code == "operators-not-quantized"
    assert "6 of 10" in finding.message


@pytest.mark.parametrize(("scheme", "least_db"), [("int8-static", 27), ("int16x8", 35)])
def test_without_the_private_module_the_public_quantizer_takes_its_place(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, least_db: float
) -> None:
    task, source = models.kws(data_dir), data_dir / "kws" / "kws_float.tflite"
    private = run_step(f"litert-{scheme}", source, tmp_path / "private", task.calibration, method="minmax")
    assert set(private.versions) == {"ai-edge-litert"}
    monkeypatch.setattr(litert, "WRAPPER_VERSIONS", ((99, 0), (99, 1)))
    assert litert.wrapper() is None
    result = run_step(f"litert-{scheme}", source, tmp_path / "made", task.calibration, method="minmax")
    assert "ai-edge-quantizer" in result.versions
    some = task.evaluation[:100]
    reference = only(outputs("litert", source, some))
    assert sqnr(reference, only(outputs("litert", result.artifact, some))) > least_db


def test_the_private_module_of_the_pinned_version_is_used() -> None:
    assert litert.wrapper() is not None


@pytest.mark.parametrize("method", ["default", "minmax", "percentile"])
def test_the_order_of_the_samples_changes_no_byte(data_dir: Path, tmp_path: Path, method: str) -> None:
    task, source = models.kws(data_dir), data_dir / "kws" / "kws_float.tflite"
    made = [
        run_step("litert-int8-static", source, tmp_path / name, samples, method=method).artifact.read_bytes()
        for name, samples in (("one", task.calibration), ("two", models.shuffled(task.calibration)))
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize("scheme", ["int8-static", "int8-dynamic", "float16"])
def test_an_int8_model_is_not_quantized_twice(data_dir: Path, tmp_path: Path, scheme: str) -> None:
    source = data_dir / "kws" / "kws_ref_model_int8.tflite"
    with pytest.raises(AlreadyQuantizedError, match=r"int8 tensor .* start from the float"):
        run_step(f"litert-{scheme}", source, tmp_path / "made", models.kws(data_dir).calibration)


def test_a_dynamic_range_model_is_not_quantized_twice(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "kws" / "kws_ref_model_dynrange.tflite"
    with pytest.raises(AlreadyQuantizedError):
        run_step("litert-int8-static", source, tmp_path / "made", models.kws(data_dir).calibration)


def test_a_sample_with_nan_is_met_before_the_tool(data_dir: Path, tmp_path: Path) -> None:
    good = models.kws(data_dir).calibration.arrays[0]
    bad = good.copy()
    bad[0, 3] = np.nan
    with pytest.raises(DataError, match="sample 2 of input 'input_1' has NaN"):
        run_step(
            "litert-int8-static",
            data_dir / "kws" / "kws_float.tflite",
            tmp_path / "made",
            Samples("input_1", [good, good, bad]),
        )


def test_another_format_is_named_as_such(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="TFLite"):
        run_step("litert-int8-static", data_dir / "kws" / "kws_float.onnx", tmp_path / "made")


@pytest.mark.soak
@pytest.mark.worker("onnx2tf")
def test_mobilenet_v2_from_onnx_loses_half_a_point_at_most(data_dir: Path, tmp_path: Path) -> None:
    task = models.mobilenet(data_dir)
    original = data_dir / "mobilenet" / "mobilenet_v2_1.0_224_float.onnx"
    source = run_step("onnx-to-tflite", original, tmp_path / "float").artifact
    result = run_step("litert-int8-static", source, tmp_path / "made", task.calibration)
    reference = only(outputs("litert", source, task.evaluation))
    made = only(outputs("litert", result.artifact, task.evaluation))
    assert top1(reference, task.labels) == pytest.approx(0.862, abs=0.001)
    assert top1(reference, task.labels) - top1(made, task.labels) <= 0.005 + 1e-9
    assert float((made.argmax(1) == reference.argmax(1)).mean()) >= 0.98
    assert not result.findings
    assert "1 activation functions moved into the operators before them" in result.notes


@pytest.mark.worker("onnx2tf")
def test_an_activation_function_behind_a_transpose_moves_without_a_change(
    data_dir: Path, tmp_path: Path
) -> None:
    original = data_dir / "mobilenet" / "mobilenet_v2_1.0_224_float.onnx"
    source = run_step("onnx-to-tflite", original, tmp_path / "float").artifact
    parsed = tflite_model.parse(source.read_bytes())
    assert "RELU6" in tflite_model.operators(parsed)
    assert tflite_model.fuse_activations(parsed) == 1
    assert "RELU6" not in tflite_model.operators(parsed)
    moved = tmp_path / "moved.tflite"
    moved.write_bytes(tflite_model.content(parsed))
    some = models.mobilenet(data_dir).evaluation[:5]
    np.testing.assert_allclose(
        only(outputs("litert", moved, some)), only(outputs("litert", source, some)), atol=1e-6
    )


@pytest.mark.worker("onnx2tf")
def test_a_face_detector_from_onnx_keeps_scores_and_boxes(data_dir: Path, tmp_path: Path) -> None:
    task, original = models.face(data_dir), data_dir / "face" / "version-RFB-320.onnx"
    source = run_step("onnx-to-tflite", original, tmp_path / "float").artifact
    result = run_step("litert-int8-static", source, tmp_path / "made", task.calibration)
    wanted = outputs("onnxruntime", original, task.evaluation)
    made = outputs("litert", result.artifact, task.evaluation)
    assert sorted(made) == sorted(wanted) == ["boxes", "scores"]
    assert all(sqnr(wanted[name], made[name]) > 42.0 for name in wanted)
