"""Each step is compared with its source, shared steps run once, and failures name the step."""

import shutil
from dataclasses import dataclass, field

import numpy as np
import onnx
import pytest
from edgeml_converters.compare.outputs import OutputComparison
from edgeml_converters.evaluate.accuracy import Naming
from edgeml_converters.formats.files import hash_tree
from edgeml_converters.variants.artifact import Artifact
from edgeml_converters.variants.step_cache import StepCache
from edgeml_converters.variants.step_runner import Executor, parity_failure

from edgeml.converter import QuantizerSettings, State, StepResult
from edgeml.errors import ConversionError, ParityError

FLOAT, HALF, INT8 = (State("onnx", scheme) for scheme in ("float32", "float16", "int8_static"))
OTHER = State("openvino", "float32")


@dataclass
class CopyStep:
    """A step that copies its source, and changes it if told to."""

    name: str = "copy"
    target: State = HALF
    change: object = None
    runs: list = field(default_factory=list)
    source: State = FLOAT
    requires: tuple = ()
    cost: float = 1.0

    def run(self, request):
        self.runs.append(request)
        artifact = request.output_dir / "model.onnx"
        shutil.copyfile(request.source, artifact)
        if self.change is not None:
            model = onnx.load(artifact)
            self.change(model)
            onnx.save(model, artifact)
        return StepResult(artifact)


@pytest.fixture
def source(tmp_path):
    """Two layers: y = relu(x·A)·B."""
    rng = np.random.default_rng(0)
    weights = [
        onnx.numpy_helper.from_array(rng.normal(size=(8, 8)).astype(np.float32), name) for name in "AB"
    ]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "A"], ["first"]),
            onnx.helper.make_node("Relu", ["first"], ["second"]),
            onnx.helper.make_node("MatMul", ["second", "B"], ["y"]),
        ],
        "two-layers",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 8])],
        weights,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "source.onnx")
    artifact = Artifact(tmp_path / "source.onnx", FLOAT, hash_tree(tmp_path / "source.onnx"))
    session = artifact.session()
    artifact.inputs, artifact.outputs = session.inputs, session.outputs
    artifact.naming = Naming({"x": "x"}, {"y": "y"})
    return artifact


@pytest.fixture
def executor(source, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    made = Executor(source, scratch, StepCache(None), {}, trust_code=False, progress=lambda _: None)
    rng = np.random.default_rng(1)
    made.use_samples([{"x": rng.normal(size=(1, 8)).astype(np.float32)} for _ in range(4)])
    return made


def scale_first_weights(model):
    tensor = model.graph.initializer[0]
    changed = onnx.numpy_helper.to_array(tensor) * np.linspace(-1, 2, 8, dtype=np.float32)
    tensor.CopyFrom(onnx.numpy_helper.from_array(changed.astype(np.float32), tensor.name))


def test_a_faithful_step_passes_and_is_traced(executor):
    made = executor.make([CopyStep()], QuantizerSettings(), None)
    assert made.trace.name == "copy"
    assert made.trace.outputs[0].max_abs == 0


@pytest.mark.parametrize("target", [HALF, INT8], ids=str)
def test_a_step_that_changes_the_numbers_fails_by_name_with_the_first_tensor(executor, target):
    step = CopyStep("breaks-weights", target, scale_first_weights)
    with pytest.raises(ParityError, match=r"^breaks-weights: output 'y'.*diverges is first \(SQNR"):
        executor.make([step], QuantizerSettings(), None)


def test_shared_steps_run_once_and_a_failure_is_not_tried_again(executor):
    good, bad = CopyStep(), CopyStep("breaks-weights", HALF, scale_first_weights)
    for _ in range(2):
        executor.make([good], QuantizerSettings(), None)
        with pytest.raises(ParityError):
            executor.make([bad], QuantizerSettings(), None)
    assert (len(good.runs), len(bad.runs)) == (1, 1)


def test_a_changed_layout_is_an_error(executor):
    def transpose(model):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
        model.graph.node.insert(0, onnx.helper.make_node("Reshape", ["x", "side"], ["flat"]))
        model.graph.node[1].input[0] = "flat"
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 8]), "side"))

    with pytest.raises(ConversionError, match=r"copy: input x float32\[1,8\] became x float32\[8,1\]"):
        executor.make([CopyStep(change=transpose)], QuantizerSettings(), None)


def test_a_renamed_input_is_a_finding_and_runs_under_the_sources_name(executor):
    def rename(model):
        model.graph.input[0].name = model.graph.node[0].input[0] = "renamed"

    made = executor.make([CopyStep(change=rename)], QuantizerSettings(), None)
    assert [finding.code for finding in made.findings] == ["names-changed"]
    assert made.run({"x": np.ones((1, 8), np.float32)}).keys() == {"y"}


def test_a_failed_step_leaves_no_folder(executor):
    def fail(_):
        raise ConversionError("copy: no")

    with pytest.raises(ConversionError, match="copy: no"):
        executor.make([CopyStep(change=fail)], QuantizerSettings(), None)
    assert list(executor.scratch.iterdir()) == []


def output(**changed):
    values = {"max_abs": 0.0, "reference_max": 1.0, "cosine": 1.0, "cosine_min": 1.0, "sqnr_db": 30.0}
    values |= changed
    return OutputComparison("y", samples=1, top1_agreement=None, **values)


@pytest.mark.parametrize(
    ("target", "changed", "breaks"),
    [
        (FLOAT, {"max_abs": 0.9e-5}, False),
        (FLOAT, {"max_abs": 1.1e-5}, True),
        (OTHER, {"max_abs": 0.9e-3}, False),
        (OTHER, {"max_abs": 1.1e-3}, True),
        (HALF, {"max_abs": 0.9e-2}, False),
        (HALF, {"max_abs": 1.1e-2}, True),
        (OTHER, {"cosine": 0.998}, True),
        (INT8, {"sqnr_db": 6.1}, False),
        (INT8, {"sqnr_db": 5.9}, True),
        (INT8, {"cosine": 0.89}, True),
    ],
    ids=str,
)
def test_the_limits_are_those_of_the_architecture(target, changed, breaks):
    assert (parity_failure(FLOAT, target, [output(**changed)]) is not None) is breaks
