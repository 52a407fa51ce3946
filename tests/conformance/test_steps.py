"""Every registered conversion step keeps the contract, on real models."""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from edgeml_converters.graph import this_machine
from edgeml_converters.workers.catalogue import interpreter

from edgeml import plugins
from edgeml.converter import ConversionStep, Sample, State, StepRequest
from edgeml.errors import EngineMissingError
from edgeml.testing.steps import StepContract, imported_tools, run_all
from edgeml.words import ARTIFACT_FILE
from tests.conftest import require


def _steps() -> tuple[ConversionStep, ...]:
    try:
        return plugins.conversion_steps()
    except EngineMissingError:
        return ()


ALL = {step.name: step for step in _steps()}
COUNT = 4
MATRIX_PRODUCTS_ONLY = {"onnxruntime-int8-dynamic", "onnxruntime-int4-weights"}
"""They refuse a model of convolutions."""
SOURCES = {
    "onnx": "kws/kws_float.onnx",
    "tflite": "kws/kws_float.tflite",
    "savedmodel": "kws/kws_ref_model",
    "keras": "ic/pretrainedResnet.h5",
}
MAKE_PT2 = """
import sys, torch
torch.manual_seed(0)
layers = torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(1568, 4)
model = torch.nn.Sequential(*layers)
torch.export.save(torch.export.export(model.eval(), (torch.zeros(1, 3, 16, 16),)), sys.argv[1])
"""


@dataclass(frozen=True)
class Stream:
    """Calibration data in memory."""

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for sample in self.samples:
            for value in sample.values():
                digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()


def kws_inputs(data_dir: Path, count: int) -> np.ndarray[Any, Any]:
    with np.load(data_dir / "kws" / "data.npz") as file:
        stored = file["calib_q"][:count]
    return ((stored.astype(np.float32) - 83) * np.float32(0.5847029)).reshape(-1, 49, 10, 1)


def test_there_are_steps() -> None:
    assert len(ALL) > 10


def test_every_name_is_its_own() -> None:
    assert [name for name, count in Counter(step.name for step in _steps()).items() if count > 1] == []


def test_importing_the_steps_imports_none_of_their_tools() -> None:
    assert imported_tools() == []


@pytest.mark.data
@pytest.mark.parametrize("step_name", sorted(ALL))
class TestEveryStep(StepContract):
    @pytest.fixture
    def step(self, step_name: str) -> ConversionStep:
        step, available = ALL[step_name], this_machine()
        for requirement in step.requires:
            reason = available.reason(requirement)
            require(reason is None, f"{requirement.kind} {requirement.name}: {reason}")
        return step

    @pytest.fixture
    def samples(self, step: ConversionStep, data_dir: Path) -> Mapping[str, Any]:
        generator = np.random.default_rng(0)
        if step.source.format == "keras":
            return {"input_1": generator.uniform(0, 255, (COUNT, 32, 32, 3)).astype(np.float32)}
        if step.source.format == "pt2":
            return {"input": generator.normal(size=(COUNT, 3, 16, 16)).astype(np.float32)}
        return {"input_1": kws_inputs(data_dir, COUNT)}

    @pytest.fixture
    def request_(
        self,
        step: ConversionStep,
        samples: Mapping[str, Any],
        data_dir: Path,
        tmp_path: Path,
        made_sources: Path,
    ) -> StepRequest:
        output = tmp_path / "output"
        output.mkdir()
        archive = tmp_path / "samples.npz"
        np.savez(archive, **samples)
        quantizes = step.source.scheme != step.target.scheme
        calibration = Stream(tuple({"input_1": row[None]} for row in kws_inputs(data_dir, 100)))
        runnable = step.source.format in {"onnx", "tflite", "openvino"}
        return StepRequest(
            _source(step, data_dir, made_sources),
            output,
            calibration=calibration if quantizes else None,
            samples=None if runnable else archive,
        )

    @pytest.fixture
    def reference(
        self, step: ConversionStep, request_: StepRequest, samples: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        if step.source.format not in {"onnx", "tflite", "openvino"}:
            return None
        return run_all(request_.source, step.source.format, samples, {})


@pytest.fixture(scope="session")
def made_sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for sources that a test makes and the next one finds."""
    return tmp_path_factory.mktemp("sources")


def _source(step: ConversionStep, data_dir: Path, made: Path) -> Path:
    if step.name in MATRIX_PRODUCTS_ONLY:
        return _matrix_products(made / "products.onnx")
    if step.source.format == "pt2":
        return _exported_program(made / "model.pt2")
    if step.source == State("openvino", "float32"):
        return _made("onnx-to-openvino", data_dir / SOURCES["onnx"], made)
    if step.source.scheme == "float32":
        return data_dir / SOURCES[step.source.format]
    quantizer = next(
        one.name
        for one in ALL.values()
        if one.target == step.source and one.source == State(step.source.format, "float32")
    )
    calibration = Stream(tuple({"input_1": row[None]} for row in kws_inputs(data_dir, 100)))
    return _made(quantizer, data_dir / SOURCES[step.source.format], made, calibration)


def _made(step: str, source: Path, made: Path, calibration: Stream | None = None) -> Path:
    """Give what another step makes of a source, once."""
    folder = made / step
    artifact = folder / ARTIFACT_FILE[ALL[step].target.format]
    if not artifact.exists():
        folder.mkdir()
        ALL[step].run(StepRequest(source, folder, calibration=calibration))
    return artifact


def _exported_program(target: Path) -> Path:
    if not target.exists():
        # the framework's own warnings are its business
        argv = [interpreter("torch"), "-W", "ignore", "-c", MAKE_PT2, target]
        subprocess.run(argv, check=True, capture_output=True)
    return target


def _matrix_products(target: Path) -> Path:
    """Two dense layers on the keyword spotter's input."""
    generator = np.random.default_rng(0)
    first = generator.normal(size=(490, 64)).astype(np.float32) / 20
    second = generator.normal(size=(64, 12)).astype(np.float32) / 8
    nodes = [
        onnx.helper.make_node("Flatten", ["input_1"], ["flat"], name="flatten"),
        onnx.helper.make_node("MatMul", ["flat", "first"], ["hidden"], name="first_layer"),
        onnx.helper.make_node("Relu", ["hidden"], ["active"], name="relu"),
        onnx.helper.make_node("MatMul", ["active", "second"], ["dense"], name="second_layer"),
    ]
    port, real = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "products",
        [port("input_1", real, [1, 49, 10, 1])],
        [port("dense", real, [1, 12])],
        [onnx.numpy_helper.from_array(first, "first"), onnx.numpy_helper.from_array(second, "second")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), str(target))
    return target
