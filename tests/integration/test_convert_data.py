"""Data that a conversion judges models by, and the layer that `compare` names, on real engines."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from edgeml_converters.convert import convert
from onnx import TensorProto, helper, numpy_helper

from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.data import DataDeclaration
from edgeml.errors import DataError
from edgeml.health import HealthPolicy, health_policy


def saved(path, node, outputs, *initializers):
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, outputs])],
        list(initializers),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def summing(tmp_path):
    """A model of one value: the sum of its four inputs."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [1])
    return saved(tmp_path / "sum.onnx", helper.make_node("ReduceSum", ["x", "axes"], ["y"]), 1, axes)


@pytest.fixture
def scoring(tmp_path):
    """A model of four scores: its four inputs."""
    return saved(tmp_path / "scores.onnx", helper.make_node("Identity", ["x"], ["y"]), 4)


def judged(model, values, labels, **options):
    path = model.parent / "data.npz"
    np.savez(path, x=values, y=labels)
    found = convert(
        model,
        evaluation=DataDeclaration(f"{path}:x,y"),
        runtimes=("onnxruntime",),
        schemes=("float32",),
        measure=False,
        output=model.parent / "out",
        **options,
    )
    (row,) = found.rows
    return row.measured, found


def test_whole_values_that_one_output_regresses_are_not_taken_for_classes(summing):
    values = np.arange(80, dtype=np.float32).reshape(20, 4)
    measured, _ = judged(summing, values, values.sum(1, keepdims=True))
    assert (measured.metric, measured.accuracy) == ("mse", 0.0)


def test_classes_as_floats_are_judged_as_classes(scoring):
    values = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    measured, _ = judged(scoring, values, values.argmax(1).astype(np.float32))
    assert (measured.metric, measured.accuracy) == ("top1", 1.0)


def test_classes_as_floats_that_are_one_too_high_are_refused(scoring):
    values = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    with pytest.raises(DataError, match="labels run from 1 to 4, the output has 4 places"):
        judged(scoring, values, (values.argmax(1) + 1).astype(np.float32))


def test_one_hot_labels_are_refused_by_their_shape(scoring):
    values = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    with pytest.raises(DataError, match=r"a label has the shape \(4,\)"):
        judged(scoring, values, np.eye(4, dtype=np.float32)[values.argmax(1)], metric="top1")


@pytest.mark.data
def test_the_health_policy_travels_in_the_bundle(scoring, tmp_path):
    made = convert(
        scoring,
        runtimes="onnxruntime",
        measure=False,
        output=tmp_path,
        health={"probation_s": 5, "min_calls": 3},
    )

    assert health_policy(open_bundle(made.bundle).manifest) == HealthPolicy(probation_s=5.0, min_calls=3)


@pytest.mark.parametrize(("place", "layer"), [(0, "activation/Relu"), (2, "activation_2/Relu")])
def test_compare_names_the_broken_layer_across_formats(data_dir, tmp_path, place, layer):
    kws = data_dir / "kws"
    model = onnx.load(kws / "kws_float.onnx")
    weights = [node for node in model.graph.node if node.op_type == "Conv"][place].input[1]
    for tensor in model.graph.initializer:
        if tensor.name == weights:
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), weights))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    given = [str(kws / "kws_float.tflite"), str(broken), "--data", f"{kws / 'data.npz'}:test_q"]
    processing = ["--preprocess", "zero_point=83", "--preprocess", "scale=0.5847029"]
    result = CliRunner().invoke(main, ["compare", *given, *processing, "--json"], catch_exceptions=False)
    first = json.loads(result.stdout)["first_divergence"]
    assert f"/{layer};" in first["name"]
    assert first["paired_by"] == "place"
