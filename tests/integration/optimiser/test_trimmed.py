"""A search makes variants without dead channels beside those that have them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from edgeml_converters.convert import convert
from edgeml_converters.quantize import tflite_model
from edgeml_converters.reproduce import reproduce
from onnx import numpy_helper

from edgeml.arrays import Array
from edgeml.bundle import open_bundle
from edgeml.data import DataDeclaration
from edgeml.words import RuntimeName
from tests.integration.optimiser import broken_int8
from tests.integration.optimiser.broken_int8 import converted

CHANNELS = 16
DEAD = [1, 2, 3, 6, 8, 9, 12, 15]
RANDOM = np.random.default_rng(11)


def digits(folder: Path, suffix: str) -> Path:
    """Write the digits' network with more channels behind its second convolution, all of them dead."""
    model = tflite_model.parse((broken_int8.DIGITS / "digits.tflite").read_bytes())
    path = folder / f"dead{suffix}"
    if suffix == ".onnx":
        held = onnx.load(broken_int8.DIGITS / "digits.onnx")
        for item in held.graph.initializer:
            values = numpy_helper.to_array(item)
            if item.name in {"conv2", "conv2_bias", "conv3"}:
                item.CopyFrom(numpy_helper.from_array(_wider(item.name, values, 1), item.name))
        del held.graph.value_info[:]
        onnx.save(held, path)
        return path
    for tensor in model.subgraphs[0].tensors:
        name, buffer = tensor.name.decode(), model.buffers[tensor.buffer]
        tensor.shapeSignature = None  # OpenVINO goes by it
        if name in {"conv2_conv_filter", "conv2_conv_bias", "conv3_conv_filter"}:
            values = np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape)
            made = _wider(name, values, -1)
            buffer.data, tensor.shape = np.frombuffer(made.tobytes(), np.uint8), list(made.shape)
        elif list(tensor.shape)[-1:] == [32] and len(tensor.shape) == 4:
            tensor.shape = [*list(tensor.shape)[:3], 32 * WIDER]
    path.write_bytes(tflite_model.content(model))
    return path


WIDER = 6


def _wider(name: str, values: Array, inputs_axis: int) -> Array:
    axis = inputs_axis if name.startswith("conv3") else 0
    shape = list(values.shape)
    shape[axis] *= WIDER - 1
    dead = np.random.default_rng(7).normal(size=shape).astype(np.float32)
    dead *= np.float32(1e-30) if name.endswith(("conv2", "filter")) and axis == 0 else np.float32(1)
    return np.concatenate([values, -np.abs(dead) if name.endswith("bias") else dead], axis=axis)


@pytest.mark.parametrize(
    ("suffix", "runtimes"), [(".tflite", ("litert", "openvino")), (".onnx", ("onnxruntime", "openvino"))]
)
def test_a_search_makes_each_variant_without_dead_channels_too(
    tmp_path: Path, suffix: str, runtimes: tuple[RuntimeName, ...]
) -> None:
    out = tmp_path / "out.edgeml"
    result = converted(digits(tmp_path, suffix), *runtimes, schemes="auto", objective="size", output=out)
    rows = {row.name: row for row in result.rows}
    for runtime in runtimes:
        for scheme in ("float32", "int8_static"):
            with_them, without = (rows[f"{runtime}-{scheme}{end}"] for end in ("", "-trimmed"))
            assert without.status == "ok"
            assert without.size_bytes < 0.5 * with_them.size_bytes
            (told,) = (one for one in without.findings if one.code == "trimmed")
            assert "160 of 192 channels of 1 operator; " in told.message
            assert " against " in told.message
        assert rows[f"{runtime}-float32-trimmed"].drop_points == 0.0
        assert rows[f"{runtime}-float32-trimmed"].measured.sqnr_db > 100
    assert all("-trimmed" in (choice.variant or "") for choice in result.choices)
    opened = open_bundle(out)
    opened.verify()
    assert {name for name, row in rows.items() if row.status == "ok"} == {
        variant.name for variant in opened.manifest.variants
    }
    with zipfile.ZipFile(out) as archive:
        record = json.loads(archive.read("record.json"))
    (entry,) = (one for one in record["variants"] if one["name"] == f"{runtimes[0]}-int8_static-trimmed")
    assert entry["settings"]["trimmed"] is True
    assert entry["steps"][0]["name"] == f"{suffix[1:]}-trimmed"
    assert "160 of 192" in entry["steps"][0]["notes"][0]


def test_zeros_are_looked_for_in_what_is_left(tmp_path: Path) -> None:
    result = converted(digits(tmp_path, ".tflite"), "litert", schemes="auto", objective="size")
    pruned = [row for row in result.outcome.data.tried if row.settings.sparsity]
    assert pruned
    assert all(row.settings.trimmed for row in pruned)


def test_processes_beside_each_other_make_the_same(tmp_path: Path) -> None:
    source = digits(tmp_path, ".onnx")
    one, two = (
        converted(source, "onnxruntime", "openvino", schemes="auto", accuracy_control=False, jobs=jobs)
        for jobs in (1, 2)
    )
    assert [(row.name, row.status, row.sha256) for row in one.rows] == [
        (row.name, row.status, row.sha256) for row in two.rows
    ]


def test_it_is_made_again_from_its_record(tmp_path: Path) -> None:
    source, out = digits(tmp_path, ".tflite"), tmp_path / "out.edgeml"
    data = broken_int8.held_out_file(tmp_path)
    convert(
        source,
        runtimes="litert",
        schemes="auto",
        calibration=DataDeclaration(f"{data}:x"),
        evaluation=DataDeclaration(f"{data}:x,y"),
        measure=False,
        output=out,
    )
    again = reproduce(out, source=source)
    assert again.same
    assert any("-trimmed" in one.name for one in again.variants)


def test_the_step_comes_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "cache"))
    source = digits(tmp_path, ".tflite")
    found = [
        [step.cached for row in converted(source, "litert", schemes="auto", use_cache=True).rows
         for step in row.steps if step.name == "tflite-trimmed"]
        for _ in range(2)
    ]  # fmt: skip
    assert found[0][0] is False
    assert all(found[1])


def test_schemes_asked_for_by_name_stay_as_they_are_and_a_finding_tells(tmp_path: Path) -> None:
    result = converted(digits(tmp_path, ".onnx"), "onnxruntime")
    assert [row.name for row in result.rows] == ["onnxruntime-float32", "onnxruntime-int8_static"]
    (told,) = (one for one in result.outcome.findings if one.code == "dead-channels")
    assert "160 of 192 channels of 1 operator" in told.message
    assert "--scheme auto" in told.remedy


def test_a_model_that_needs_its_channels_is_searched_as_before(tmp_path: Path) -> None:
    result = converted(broken_int8.DIGITS / "digits.onnx", "onnxruntime", schemes="auto")
    assert not any(row.settings.trimmed for row in result.outcome.data.tried)


def test_a_size_that_was_fixed_holds_behind_the_step_too(tmp_path: Path) -> None:
    path = digits(tmp_path, ".onnx")
    model = onnx.load(path)
    side = model.graph.input[0].type.tensor_type.shape.dim[0]
    side.ClearField("dim_value")
    side.dim_param = "batch"
    onnx.save(model, path)
    result = converted(path, "openvino", schemes="auto", input_shapes={"image": (1, 8, 8, 1)})
    rows = {row.name: row for row in result.rows}
    assert rows["openvino-int8_static-trimmed"].status == "ok"
    assert rows["openvino-float32-trimmed"].inputs[0].shape == (1, 8, 8, 1)
