"""Which rows a request asks for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from edgeml_converters.cli.options import input_shapes
from edgeml_converters.convert import convert
from edgeml_converters.formats.shapes import fixed_shapes, with_shapes
from edgeml_converters.report.bundle import bundle_name, places
from edgeml_converters.variants.gates import Gates
from edgeml_converters.variants.request import Request, wanted_rows
from onnx import TensorProto, helper

from edgeml.data import DataDeclaration
from edgeml.errors import ConversionError, UsageError
from edgeml.targets import target
from edgeml.tensors import TensorSpec

DATA = DataDeclaration("c.npz")


def rows(*targets, **options):
    return wanted_rows(Request(Path("m.onnx"), tuple(map(target, targets)), **options))


def test_without_calibration_data_only_float32_is_made():
    assert [row.name for row in rows("raspberry-pi-4")] == [
        "litert-float32",
        "onnxruntime-float32",
        "openvino-float32",
    ]


def test_with_calibration_data_int8_static_comes_too():
    made = rows("raspberry-pi-4", calibration=DATA)
    assert [row.name for row in made if row.runtime == "litert"] == ["litert-float32", "litert-int8_static"]


def test_targets_with_the_same_needs_share_a_row():
    made = rows("raspberry-pi-4", "raspberry-pi-5", schemes=("int8_static",), runtimes=("onnxruntime",))
    assert [(row.name, row.targets) for row in made] == [
        ("onnxruntime-int8_static", ("raspberry-pi-4", "raspberry-pi-5"))
    ]


def test_a_cpu_without_vnni_gets_reduced_weights_in_a_row_of_its_own():
    made = rows("raspberry-pi-4", "x86-64-v3", schemes=("int8_static",), runtimes=("onnxruntime", "litert"))
    assert {row.name: row.targets for row in made} == {
        "onnxruntime-int8_static": ("raspberry-pi-4",),
        "onnxruntime-int8_static-reduced": ("x86-64-v3",),
        "litert-int8_static": ("raspberry-pi-4", "x86-64-v3"),
    }


def test_a_runtime_that_no_target_has_is_a_row_with_a_reason():
    made = rows("coral-usb", runtimes=("openvino",))
    assert [(row.name, row.status) for row in made] == [("openvino-float32", "unavailable")]
    assert "no target has openvino (coral-usb)" in made[0].reason


def test_the_io_dtype_is_for_static_int8_only():
    made = rows("raspberry-pi-4", schemes=("float32", "int8_static"), runtimes=("litert",), io_dtype="int8")
    assert {row.scheme: row.settings.io_dtype for row in made} == {
        "float32": "float32",
        "int8_static": "int8",
    }


def test_the_output_is_a_folder_or_a_bundle():
    assert places(Path("out"), "kws", 3).bundle == Path("out/kws-3.edgeml")
    assert places(Path("out"), "kws", 3).report == Path("out/report.html")
    assert places(Path("a/b.edgeml"), "kws", 3).report == Path("a/b.report.html")
    with pytest.raises(UsageError, match=r"name a folder, or a bundle as NAME\.edgeml"):
        places(Path("out.zip"), "kws", 3)


def test_a_bundles_name_comes_from_the_file():
    assert bundle_name("", Path("/x/my model (1).onnx")) == "my-model-1"
    assert bundle_name("kws", Path("/x/model.onnx")) == "kws"


def test_input_shapes_are_read_with_and_without_a_name():
    assert input_shapes(["1,3,8,8", "b=1x4"]) == {"": (1, 3, 8, 8), "b": (1, 4)}
    with pytest.raises(UsageError, match="give it as INPUT=1,3,224,224"):
        input_shapes(["b=1,n"])


@pytest.mark.parametrize("name", ["../evil", "a/b", " ", ".hidden"])
def test_a_bundle_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(UsageError, match="letters, digits"):
        bundle_name(name, Path("m.onnx"))


def test_a_gate_that_nothing_can_show_is_refused_before_the_work():
    request = Request(Path("m.onnx"), (target("raspberry-pi-4"),), gates=Gates(max_drop=0.5))
    with pytest.raises(UsageError, match="give --evaluate"):
        request.check()
    blind = Request(Path("m.onnx"), (target("raspberry-pi-4"),), gates=Gates(max_latency_ms=1), measure=False)
    with pytest.raises(UsageError, match="leave --no-measure out"):
        blind.check()


@pytest.mark.parametrize("gate", ["max_drop", "max_slice_drop"])
def test_a_gate_on_accuracy_without_labels_is_refused_before_the_work(tmp_path, gate):
    told = []
    given = {"evaluation": np.zeros((3, 4), np.float32), "measure": False, gate: 1.0}
    with pytest.raises(UsageError, match="a gate on accuracy needs labels"):
        convert(relu(tmp_path), runtimes=["onnxruntime"], progress=told.append, **given)
    assert told == ["read the source"]


@pytest.mark.parametrize(
    ("metric", "labels"), [("auc", np.array([0, 1, 0])), ("mse", np.zeros((3, 4), np.float32))]
)
def test_a_gate_on_classes_without_any_is_refused_before_the_work(tmp_path, metric, labels):
    given = {"metric": metric, "evaluation": (np.zeros((3, 4), np.float32), labels), "measure": False}
    with pytest.raises(UsageError, match=f"by {metric} no class of .* can be judged by itself"):
        convert(relu(tmp_path), runtimes=["onnxruntime"], max_slice_drop=1.0, **given)


SPEC = TensorSpec("x", (None, 4), "float32")


def test_a_shape_for_no_input_is_refused():
    with pytest.raises(UsageError, match="no input 'inptu'; inputs are: x"):
        with_shapes((SPEC,), {"inptu": (1, 4)})


def test_a_shape_that_contradicts_the_model_is_refused():
    with pytest.raises(UsageError, match="fix only its free dimensions"):
        with_shapes((SPEC,), {"x": (1, 5)})
    assert with_shapes((SPEC,), {"": (2, 4)})[0].shape == (2, 4)


@pytest.mark.parametrize("side", [-1, 0])
def test_a_side_that_is_no_size_is_refused_as_given(side):
    with pytest.raises(UsageError, match=rf"input 'x' cannot take \({side}, 4\); give whole numbers from 1"):
        with_shapes((SPEC,), {"": (side, 4)})
    with pytest.raises(ConversionError, match="give whole numbers from 1"):
        fixed_shapes({"x": (None, 4)}, {"x": (side, 4)})


def test_a_model_that_takes_text_is_refused_with_the_name_of_the_tensor(tmp_path):
    text = helper.make_tensor_value_info("words", TensorProto.STRING, [1, 2])
    same = helper.make_tensor_value_info("same", TensorProto.STRING, [1, 2])
    graph = helper.make_graph([helper.make_node("Identity", ["words"], ["same"])], "text", [text], [same])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "text.onnx",
    )
    with pytest.raises(ConversionError, match="tensor 'words' does not hold numbers"):
        convert(tmp_path / "text.onnx", runtimes=["onnxruntime"], measure=False)


def relu(folder: Path) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], name="relu")], "m", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "m.onnx",
    )
    return folder / "m.onnx"


def test_a_run_that_makes_nothing_tells_of_the_bundle_that_stands_there(tmp_path):
    given = {"runtimes": ["onnxruntime"], "measure": False, "output": tmp_path}
    first = convert(relu(tmp_path), **given)
    assert first.bundle is not None
    second = convert(tmp_path / "m.onnx", max_size_bytes=1, **given)
    assert second.bundle is None
    assert "bundle-of-an-earlier-run" in {one.code for one in second.outcome.findings}


def test_the_edge_tpu_has_a_variant_of_its_own_with_integers_at_its_ends() -> None:
    made = rows("coral-usb", "raspberry-pi-4", schemes=("float32", "int8_static"), runtimes=("litert",))
    assert {row.name: (row.targets, row.settings.io_dtype, row.edge_tpu) for row in made} == {
        "litert-float32": (("coral-usb", "raspberry-pi-4"), "float32", False),
        "litert-int8_static-coral": (("coral-usb",), "int8", True),
        "litert-int8_static": (("raspberry-pi-4",), "float32", False),
    }
    (asked,) = rows("coral-usb", schemes=("int8_static",), runtimes=("litert",), io_dtype="float32")
    assert asked.settings.io_dtype == "float32"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_drop": "abc"}, "max_drop must be a number, not 'abc'"),
        ({"max_latency_ms": float("nan")}, "max_latency_ms must be a number, not nan"),
        ({"max_size_bytes": "60k"}, "max_size_bytes must be a number, not '60k'"),
        ({"threads": 0}, "threads 0: give whole numbers from 1"),
        ({"threads": ()}, "give whole numbers from 1"),
        ({"objective": "speed"}, "no objective 'speed'; objectives are: latency, size, memory"),
        ({"io_dtype": "int9"}, "no io_dtype 'int9'; io_dtypes are: float32, int8, uint8"),
        ({"method": "best"}, "no method 'best'; methods are: default, minmax, percentile"),
        ({"compile_edgetpu": "shh://host"}, "no transport 'shh'"),
        ({"budget_s": -1.0}, "--budget-s -1"),
        ({"jobs": 0}, "--jobs 0"),
        ({"sparsity": "2:4"}, "--prune 2:4"),
        ({"resume": True, "use_cache": False}, "not both"),
        ({"evaluation": (np.zeros((3, 2), np.float32), [0, 1])}, "cannot read samples from a list"),
        ({"evaluation": (np.zeros((3, 2)), np.zeros(2, int))}, "evaluation: 2 labels for 3 samples"),
    ],
)
def test_an_argument_that_makes_no_sense_is_told_by_its_name(tmp_path: Path, options, says) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(UsageError) as refused:
        convert(tmp_path / "m.onnx", measure=False, **options)
    assert says in str(refused.value)
