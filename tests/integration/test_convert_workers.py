"""Sources that no runtime here runs: the worker that converts them runs them, too."""

import pytest
from edgeml_converters.convert import convert

from edgeml.data import DataDeclaration
from edgeml.preprocess import Preprocess

pytestmark = pytest.mark.data


@pytest.mark.worker("tensorflow")
def test_a_saved_model_is_compared_with_itself_and_quantized_without_loss(data_dir, tmp_path):
    kws = data_dir / "kws"
    result = convert(
        kws / "kws_ref_model",
        calibration=DataDeclaration(f"{kws / 'data.npz'}:calib_q"),
        evaluation=DataDeclaration(f"{kws / 'data.npz'}:test_q,test_y"),
        preprocess=Preprocess(zero_point=83, scale=0.5847029),
        runtimes=("litert",),
        measure=False,
        output=tmp_path,
    )
    rows = {row.scheme: row for row in result.rows}
    assert [row.status for row in result.rows] == ["ok", "ok"], [row.reason for row in result.rows]
    assert rows["float32"].measured.accuracy == pytest.approx(0.928)
    assert rows["int8_static"].drop_points <= 0.4
    first = rows["float32"].steps[0]
    assert first.name == "savedmodel-to-tflite"
    assert first.outputs[0].sqnr_db > 80
    assert result.outcome.data.reference_by == "tflite/float32"


@pytest.mark.worker("onnx2tf")
def test_an_onnx_model_keeps_its_layout_on_all_three_runtimes(data_dir):
    kws = data_dir / "kws"
    result = convert(
        kws / "kws_float.onnx",
        calibration=DataDeclaration(f"{kws / 'data.npz'}:calib_q"),
        evaluation=DataDeclaration(f"{kws / 'data.npz'}:test_q,test_y"),
        preprocess=Preprocess(zero_point=83, scale=0.5847029),
        measure=False,
    )
    assert [row.status for row in result.rows] == ["ok"] * 6, [row.reason for row in result.rows]
    assert {row.inputs[0].shape[1:] for row in result.rows} == {(49, 10, 1)}
    assert max(row.drop_points for row in result.rows) <= 0.4


def test_a_worker_that_fails_is_the_reason_of_its_rows(data_dir, tmp_path, monkeypatch):
    """The interpreter that stands for the worker ends at once with a complaint."""
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no such framework here' >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("EDGEML_WORKER_ONNX2TF", str(broken))
    result = convert(
        data_dir / "kws/kws_float.onnx", runtimes=("litert", "onnxruntime"), measure=False, use_cache=False
    )
    litert, onnxruntime = result.rows
    assert litert.status in {"failed", "unavailable"}
    assert litert.reason
    assert onnxruntime.status == "ok"


@pytest.mark.worker("keras")
def test_all_convolutions_of_a_keras_model_are_quantized_for_openvino(data_dir):
    ic = data_dir / "ic"
    result = convert(
        ic / "pretrainedResnet.h5",
        calibration=DataDeclaration(f"{ic / 'data.npz'}:calib"),
        evaluation=DataDeclaration(f"{ic / 'data.npz'}:test,test_y"),
        runtimes=("openvino",),
        measure=False,
    )
    float32, int8 = result.rows
    assert (float32.status, int8.status) == ("ok", "ok"), [row.reason for row in result.rows]
    assert [one.code for one in int8.findings if one.code == "operators-not-quantized"] == []
    assert float32.steps[0].outputs[0].sqnr_db > 80
    assert int8.drop_points <= 1.0
