"""What 8 bits come to on an x86 without VNNI, shown on one: QEMU runs the engines as a Haswell would.

Before VNNI, x86 multiplies u8 by s8 with ``pmaddubsw``, which adds two products into 16 bits and clips them.
"""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from edgeml_converters.convert import convert

from edgeml.health import HealthPolicy
from edgeml.selftest import SelftestResult, run_selftest
from edgeml.targets import host
from tests.conftest import require

RUNTIMES = ("onnxruntime", "openvino")
WITHOUT_VNNI, WITH_VNNI = "x86-64-v3", "x86-64-vnni"
CPU = "Haswell"
"""The first with AVX2, and six years before VNNI."""
CHANNELS, CLASSES = 64, 10


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a bundle for both kinds of machine, of a network whose products are as large as 8 bits allow."""
    folder = tmp_path_factory.mktemp("saturating")
    generator = np.random.default_rng(0)
    inputs = generator.uniform(0.7, 1.0, (64, CHANNELS, 4, 4)).astype(np.float32)
    labels = generator.integers(0, CLASSES, 64)
    result = convert(
        saturating(folder, generator),
        targets=(WITHOUT_VNNI, WITH_VNNI),
        schemes=("int8_static",),
        runtimes=RUNTIMES,
        calibration=inputs,
        evaluation=(inputs, labels),
        measure=False,
        accuracy_control=False,
        use_cache=False,
        output=folder / "saturating.edgeml",
    )
    assert result.bundle is not None
    return result.bundle


def saturating(folder: Path, generator: np.random.Generator) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = generator.uniform(0.7, 1.0, (CLASSES, CHANNELS, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["scores"]),
        helper.make_node("GlobalAveragePool", ["scores"], ["means"]),
        helper.make_node("Flatten", ["means"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, CLASSES])],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        folder / "saturating.onnx",
    )
    return folder / "saturating.onnx"


@pytest.fixture
def haswell(tmp_path: Path) -> str:
    """Give an interpreter that runs on a Haswell."""
    qemu = shutil.which("qemu-x86_64-static")
    require(
        qemu is not None and platform.machine() == "x86_64", "qemu-x86_64-static (qemu-user-static) on x86"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {qemu} -cpu {CPU} "{sys.executable}" "$@" 2>/dev/null\n')
    python.chmod(0o755)
    return str(python)


def selftest_of(bundle: Path, variant: str, python: str) -> SelftestResult:
    return run_selftest(bundle, variant, HealthPolicy(), timeout_s=120, python=python)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_variant_with_7_bit_weights_gives_without_vnni_what_it_gives_with_it(
    runtime: str, bundle: Path, haswell: str
) -> None:
    found = selftest_of(bundle, f"{runtime}-int8_static-reduced", haswell)
    assert found.passed, found.detail


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_variant_with_8_bit_weights_is_lost_without_vnni_and_the_self_test_says_so(
    runtime: str, bundle: Path, haswell: str
) -> None:
    found = selftest_of(bundle, f"{runtime}-int8_static", haswell)
    made_with_vnni = "vnni" in host().cpu_features
    assert (found.passed, found.reason) == ((False, "parity") if made_with_vnni else (True, None))
