"""Real models along whole routes: plan, run each step, compare the end with the beginning."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from edgeml_converters.formats import onnx_file, tflite_file
from edgeml_converters.formats.objects import export_object
from edgeml_converters.graph import plan, this_machine
from edgeml_converters.workers.catalogue import interpreter

from edgeml import plugins
from edgeml.converter import State, StepRequest, StepResult
from edgeml.errors import ConversionError, UsageError
from edgeml.testing.steps import run_all
from edgeml.words import Format
from tests.conftest import require

Arrays = Mapping[str, Any]


def convert(source: Path, formats: tuple[Format, Format], place: Path, **given: Any) -> StepResult:
    """Run the planned path in ``place``; skips if it lacks something."""
    start, end = (State(format_, "float32") for format_ in formats)
    found = plan(start, end, plugins.conversion_steps(), this_machine())
    require(found.runnable, "; ".join(f"{item.requirement.name}: {item.reason}" for item in found.missing))
    result = None
    for step in found.steps:
        folder = place / step.name
        folder.mkdir()
        result = step.run(StepRequest(source, folder, **given))
        source = result.artifact
    assert result is not None
    return result


def worst(given: Arrays, expected: Arrays) -> float:
    assert set(given) == set(expected)
    return max(
        float(np.abs(given[name] - value).max() / np.abs(value).max()) for name, value in expected.items()
    )


def noise(shape: tuple[int, ...], low: float, high: float) -> Any:
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


ONNX_MODELS = {
    "face, opset 9, two outputs": ("face/version-RFB-320.onnx", noise((2, 3, 240, 320), -1, 1)),
    "mobilenet": ("mobilenet/mobilenet_v2_1.0_224_float.onnx", noise((2, 3, 224, 224), -1, 1)),
}


@pytest.mark.data
@pytest.mark.parametrize("target", ["tflite", "openvino"])
@pytest.mark.parametrize("name", ONNX_MODELS)
def test_an_onnx_model_keeps_its_layout_and_numbers(
    data_dir: Path, tmp_path: Path, name: str, target: Format
) -> None:
    place, samples = ONNX_MODELS[name]
    given = {"input": samples}
    result = convert(data_dir / place, ("onnx", target), tmp_path)
    expected = run_all(data_dir / place, "onnx", given, {})
    assert worst(run_all(result.artifact, target, given, {}), expected) < 1e-4


@pytest.mark.data
def test_an_old_opset_is_raised_and_said_so(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "face" / "version-RFB-320.onnx"
    assert onnx_file.prepare(source, tmp_path / "m.onnx", {}) == ("opset 9: upgraded to 17",)
    given = {"input": noise((1, 3, 240, 320), -1, 1)}
    expected = run_all(source, "onnx", given, {})
    assert worst(run_all(tmp_path / "m.onnx", "onnx", given, {}), expected) < 1e-5


@pytest.mark.data
@pytest.mark.worker("keras", "tensorflow")
@pytest.mark.parametrize(
    ("model", "samples"),
    [
        ("ic/pretrainedResnet.h5", noise((2, 32, 32, 3), 0, 255)),
        ("vww/vww_96.h5", noise((2, 96, 96, 3), 0, 1)),
    ],
)
def test_two_frameworks_read_the_same_numbers_from_a_keras_2_file(
    data_dir: Path, tmp_path: Path, model: str, samples: Any
) -> None:
    archive = tmp_path / "samples.npz"
    np.savez(archive, input_1=samples)
    without = convert(data_dir / model, ("keras", "openvino"), tmp_path)
    steps = {step.name: step for step in plugins.conversion_steps()}
    folder = tmp_path / "onnx"
    folder.mkdir()
    made = steps["keras-to-onnx"].run(StepRequest(data_dir / model, folder, samples=archive))
    assert made.source_outputs is not None
    with np.load(made.source_outputs) as file:
        expected = {name: file[name] for name in file.files}
    assert worst(run_all(without.artifact, "openvino", {"input_1": samples}, {}), expected) < 1e-4


KERAS_3 = """
import os, sys
os.environ["KERAS_BACKEND"] = "openvino"
import keras
image, extra = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="extra")
features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="conv")(image))
both = keras.layers.Concatenate()([features, extra])
outputs = [keras.layers.Dense(3, name="scores")(both), keras.layers.Dense(2, name="more")(both)]
keras.Model([image, extra], outputs).save(sys.argv[1])
"""


@pytest.mark.worker("keras", "tensorflow")
@pytest.mark.parametrize("target", ["tflite", "onnx", "openvino"])
def test_a_keras_3_model_keeps_its_weights_and_its_two_inputs(tmp_path: Path, target: Format) -> None:
    model, archive, output = tmp_path / "m.keras", tmp_path / "samples.npz", tmp_path / "out"
    output.mkdir()
    subprocess.run([interpreter("keras"), "-c", KERAS_3, model], check=True, capture_output=True)
    samples = {"image": noise((2, 8, 8, 3), -1, 1), "extra": noise((2, 4), -1, 1)}
    np.savez(archive, **samples)
    steps = {step.name: step for step in plugins.conversion_steps()}
    result = steps[f"keras-to-{target}"].run(StepRequest(model, output, samples=archive))
    assert result.source_outputs is not None
    with np.load(result.source_outputs) as file:
        expected = {name: file[name] for name in file.files}
    assert set(expected) == {"scores", "more"}
    assert worst(run_all(result.artifact, target, samples, {}), expected) < 1e-5


def test_an_operator_nobody_knows_is_named(tmp_path: Path) -> None:
    model = onnx.load_model(str(free_model(tmp_path / "m.onnx", [1, 4])))
    model.graph.node[0].op_type, model.graph.node[0].domain = "DecodeThing", "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    onnx.save_model(model, str(tmp_path / "m.onnx"))
    with pytest.raises(ConversionError, match="DecodeThing"):
        convert(tmp_path / "m.onnx", ("onnx", "openvino"), tmp_path)


@pytest.mark.data
def test_a_saved_model_becomes_openvino_without_tensorflow(data_dir: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeml.converter import StepRequest; "
        "from edgeml_converters.steps.savedmodel import STEPS; "
        "STEPS[0].run(StepRequest(Path(sys.argv[1]), Path(sys.argv[2]))); "
        "print([m for m in ('tensorflow', 'tf_keras', 'torch') if m in sys.modules])"
    )
    argv = [sys.executable, "-c", code, data_dir / "kws" / "kws_ref_model", tmp_path]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert (tmp_path / "model.xml").is_file()


@pytest.mark.data
def test_a_tflite_file_without_a_signature_gets_one(data_dir: Path, tmp_path: Path) -> None:
    source, target = data_dir / "ic" / "pretrainedResnet.tflite", tmp_path / "m.tflite"
    notes = tflite_file.prepare(source, target, {})
    assert "signature serving_default added" in notes
    assert tflite_file.names(target) == tflite_file.names(source)
    given = {"input_1": noise((2, 32, 32, 3), 0, 255)}
    assert worst(run_all(target, "tflite", given, {}), run_all(source, "tflite", given, {})) == 0


@pytest.mark.data
def test_int8_tflite_becomes_openvino_that_takes_floats(data_dir: Path, tmp_path: Path) -> None:
    source = data_dir / "kws" / "kws_ref_model_int8.tflite"
    steps = {step.name: step for step in plugins.conversion_steps()}
    result = steps["tflite-to-openvino-int8-static"].run(StepRequest(source, tmp_path))
    with np.load(data_dir / "kws" / "data.npz") as file:
        inputs = (file["test_q"][:50].astype(np.float32) - 83) * np.float32(0.5847029)
    name = tflite_file.names(source).inputs[0]
    ours = run_all(result.artifact, "openvino", {name: inputs}, {})
    theirs = run_all(source, "tflite", {name: inputs}, {})
    output = next(iter(theirs))
    agree = (ours[output].argmax(-1) == theirs[output].argmax(-1)).mean()
    assert agree >= 0.98
    assert np.abs(ours[output] - theirs[output]).max() < 0.1


# --- shapes


def free_model(path: Path, shape: list[int | str]) -> Path:
    port, real = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    node = onnx.helper.make_node("Relu", ["image"], ["out"])
    graph = onnx.helper.make_graph([node], "g", [port("image", real, shape)], [port("out", real, shape)])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def test_free_dimensions_without_a_size_name_the_option(tmp_path: Path) -> None:
    model = free_model(tmp_path / "m.onnx", ["n", 3, "h", "w"])
    with pytest.raises(ConversionError, match="--input-shape image=1,3,224,224"):
        convert(model, ("onnx", "openvino"), tmp_path)


@pytest.mark.parametrize("name", ["image", ""])
def test_a_given_size_is_taken(tmp_path: Path, name: str) -> None:
    model = free_model(tmp_path / "m.onnx", ["n", 3, "h", "w"])
    result = convert(model, ("onnx", "openvino"), tmp_path, input_shapes={name: (1, 3, 8, 8)})
    assert result.notes == ("input image: shape fixed to [1, 3, 8, 8]",)
    with plugins.runtime("openvino").load(result.artifact) as session:
        assert session.inputs[0].shape == (1, 3, 8, 8)
        assert session.outputs[0].shape == (1, 3, 8, 8)


def test_a_free_batch_becomes_one(tmp_path: Path) -> None:
    model = free_model(tmp_path / "m.onnx", ["n", 3, 8, 8])
    onnx_file.prepare(model, tmp_path / "static.onnx", {})
    with plugins.runtime("onnxruntime").load(tmp_path / "static.onnx") as session:
        assert session.inputs[0].shape == session.outputs[0].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("shapes", "complaint"),
    [
        ({"picture": (1, 3, 8, 8)}, "inputs are: image"),
        ({"image": (1, 4, 8, 8)}, "cannot be made"),
        ({"image": (1, 3, 8)}, "cannot be made"),
    ],
)
def test_a_size_that_does_not_fit_is_refused(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], complaint: str
) -> None:
    model = free_model(tmp_path / "m.onnx", ["n", 3, "h", "w"])
    with pytest.raises(ConversionError, match=complaint):
        convert(model, ("onnx", "openvino"), tmp_path, input_shapes=shapes)


def test_weights_in_a_second_file_are_taken_in(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    model = onnx.load_model(str(free_model(tmp_path / "m.onnx", [1, 4])))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4, dtype=np.float32), "w"))
    model.graph.node[0].CopyFrom(onnx.helper.make_node("Add", ["image", "w"], ["out"]))
    onnx.save_model(
        model, str(source / "m.onnx"), save_as_external_data=True, location="w.data", size_threshold=0
    )
    assert (source / "w.data").is_file()
    onnx_file.prepare(source / "m.onnx", tmp_path / "one.onnx", {})
    given = {"image": np.zeros((1, 4), np.float32)}
    assert run_all(tmp_path / "one.onnx", "onnx", given, {})["out"].tolist() == [[0, 1, 2, 3]]


def test_operators_without_their_old_code_are_read_for_openvino(data_dir: Path, tmp_path: Path) -> None:
    """As AI Edge Quantizer writes those that it adds."""
    from ai_edge_litert.tools import flatbuffer_utils

    source, made = tmp_path / "source.tflite", tmp_path / "made"
    made.mkdir()
    model = flatbuffer_utils.read_model(str(data_dir / "kws/kws_float.tflite"))
    for code in model.operatorCodes:
        code.deprecatedBuiltinCode = 0
    flatbuffer_utils.write_model(model, str(source))
    steps = {step.name: step for step in plugins.conversion_steps()}
    result = steps["tflite-to-openvino"].run(StepRequest(source, made))
    given = {"input_1": np.random.default_rng(0).normal(size=(2, 49, 10, 1)).astype(np.float32)}
    expected = run_all(source, "tflite", given, {})
    for name, values in run_all(result.artifact, "openvino", given, {}).items():
        np.testing.assert_allclose(values, expected[name], atol=1e-5)


@pytest.mark.parametrize(
    ("step", "source"),
    [
        ("onnx-to-openvino", "kws/kws_float.onnx"),
        ("tflite-to-openvino", "kws/kws_float.tflite"),
        ("tflite-to-openvino", "vww/vww_96_float.tflite"),
    ],
)
def test_openvinos_running_numbers_do_not_reach_the_file(
    data_dir: Path, tmp_path: Path, step: str, source: str
) -> None:
    """They go on from one model to the next of a process, so that a second look has others."""
    steps = {one.name: one for one in plugins.conversion_steps()}
    made = []
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        result = steps[step].run(StepRequest(data_dir / source, tmp_path / place))
        made.append(result.artifact.read_text())
    assert made[0] == made[1]


@pytest.mark.worker("tensorflow")
def test_tf2onnx_gives_the_same_file_from_process_to_process(data_dir: Path, tmp_path: Path) -> None:
    step = next(one for one in plugins.conversion_steps() if one.name == "tflite-to-onnx")
    made = []
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        result = step.run(StepRequest(data_dir / "ic/pretrainedResnet.tflite", tmp_path / place))
        made.append(result.artifact.read_bytes())
    assert made[0] == made[1]


# --- Python objects


def test_a_scikit_learn_estimator_becomes_onnx_with_arrays(tmp_path: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 5)).astype(np.float32)
    model = linear_model.LogisticRegression().fit(features, features[:, 0] > 0)
    path = export_object(model, features[:1], tmp_path)
    given = run_all(path, "onnx", {"X": features}, {})
    np.testing.assert_allclose(given["probabilities"], model.predict_proba(features), atol=1e-5)


def test_an_estimator_that_was_not_fitted_is_refused(tmp_path: Path) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    with pytest.raises(UsageError, match=r"call fit\(\) first"):
        export_object(linear_model.LogisticRegression(), np.zeros((1, 5)), tmp_path)


def test_other_objects_are_refused_with_what_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"torch\.nn\.Module, a fitted scikit-learn estimator"):
        export_object({"weights": 1}, np.zeros((1, 5)), tmp_path)


EXPORT = """
import sys, torch
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from edgeml_converters.formats.objects import export_object
model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Softmax(-1))
print(export_object(model, torch.zeros(1, 4), Path(sys.argv[1])).name, model.training)
"""


@pytest.mark.worker("torch")
def test_a_torch_module_becomes_tflite(tmp_path: Path, repository: Path) -> None:
    argv = [
        interpreter("torch"),
        "-W",
        "ignore",
        "-c",
        EXPORT,
        tmp_path,
        repository,
        repository / "converters",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["model.pt2", "True"]
    samples = tmp_path / "samples.npz"
    np.savez(samples, input=noise((3, 4), -1, 1))
    result = convert(tmp_path / "model.pt2", ("pt2", "tflite"), tmp_path, samples=samples)
    assert result.source_outputs is not None
    with np.load(result.source_outputs) as file:
        expected = {name: file[name] for name in file.files}
    assert worst(run_all(result.artifact, "tflite", {"input": noise((3, 4), -1, 1)}, {}), expected) < 1e-5
