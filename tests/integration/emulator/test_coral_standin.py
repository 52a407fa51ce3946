"""The stand-in for the Edge TPU under an emulated Raspberry Pi: the ARM library, with LiteRT's ARM wheel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgeml
from edgeml import edgetpu, plugins
from edgeml.testing.coral import VARIABLE, build_standin, standin_options
from tests.conftest import require

pytestmark = [pytest.mark.usefixtures("full_image", "built_cache"), pytest.mark.data]
VARIABLE_OF_COMPILER = "EDGEML_TEST_AARCH64_CC"
COMPILER = "aarch64-linux-gnu-gcc"
NAME = "mobilenet_v1_0.25_128_quant"
THERE = Path("/tmp")  # noqa: S108 - on the board
PROGRAM = """
import sys, warnings
import numpy as np
import edgeml

warnings.simplefilter("ignore")
x = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3)).astype(np.uint8)
with edgeml.load("/tmp/model_edgetpu.tflite") as model:
    for _ in range(2):
        sys.stdout.write(f"{model(x).tobytes().hex()} {model.fallback is not None}\\n")
"""


@pytest.fixture(scope="module")
def arm_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get(VARIABLE_OF_COMPILER, COMPILER))
    packages = "gcc-aarch64-linux-gnu, libc6-dev-arm64-cross"
    require(compiler is not None, f"not installed: {COMPILER} (packages {packages})")
    return build_standin(tmp_path_factory.mktemp("arm"), [str(compiler)], python="/usr/bin/python3")


def test_a_compiled_model_answers_on_the_board_as_its_source_does_here(
    arm_library: Path, data_dir: Path
) -> None:
    source = data_dir / "coral" / f"{NAME}.tflite"
    there = THERE / "model.tflite"
    with edgeml.load(source) as model:
        x = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3)).astype(np.uint8)
        expected = model(x).tobytes().hex()
    with plugins.transport("emulator:raspberry-pi-4?mode=user") as board:
        board.put(arm_library, str(THERE / arm_library.name))
        board.put(source, str(there))
        board.put(source.with_name(f"{NAME}_edgetpu.tflite"), str(THERE / "model_edgetpu.tflite"))
        for options, fell_back in (
            (standin_options(there), ["False", "False"]),
            (standin_options(there, fail_after=1), ["False", "True"]),
            (standin_options(there, attached="none"), ["True", "True"]),
        ):
            variables = [f"{edgetpu.VARIABLE}={THERE / arm_library.name}", f"{VARIABLE}={options}"]
            done = board.run(["env", *variables, "python3", "-c", PROGRAM], 300)
            assert done.exit_code == 0, done.stderr.decode()
            answers = [line.split() for line in done.stdout.decode().splitlines()]
            assert answers == [[expected, fallback] for fallback in fell_back], options
