"""Parity: each engine gives on an emulated board what it gives here, int8 on LiteRT to a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgeml.cli import main
from tests.benchmarks import parity
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.usefixtures("full_image", "built_cache")
DIGITS = REPOSITORY / "examples" / "digits"
BOTH = ("float32", "int8_static")
SHARE_OF_FLOAT_TOLERANCE = 0.01
"""A bundle allows a thousandth of the largest value; Arm's float kernels stay within 1e-5."""


def edgeml(*words: object) -> Any:
    return CliRunner().invoke(main, list(map(str, words)))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Bundles of the digits, whose conversions need no worker: from TFLite, and from ONNX."""
    made = {}
    for name, runtimes in (("digits.tflite", ("litert", "openvino")), ("digits.onnx", ("onnxruntime",))):
        folder = tmp_path_factory.mktemp("digits")
        words = [word for runtime in runtimes for word in ("--runtime", runtime)]
        words += ["--config", str(DIGITS / "digits.toml"), "--no-measure", "--no-cache", "-o", str(folder)]
        done = edgeml("convert", DIGITS / name, *words)
        assert done.exit_code == 0, done.output
        made |= dict.fromkeys(runtimes, folder / "digits-1.edgeml")
    return made


def compared(bundle: Path, board: str, *words: str) -> dict[str, dict[str, Any]]:
    """Give the rows of ``edgeml compare`` by variant; none is beyond its tolerance."""
    done = edgeml("compare", bundle, "--on", f"emulator:{board}", "--mode", "user", "--json", *words)
    assert done.exit_code == 0, done.output
    return {row["variant"]: row for row in json.loads(done.stdout)["variants"]}


def check(rows: dict[str, dict[str, Any]]) -> None:
    for name, row in rows.items():
        assert row["verdict"] in {"equal", "within"}, (name, row["reason"])
        assert row["engine_here"] == row["engine_there"]
        if name == "litert-int8_static":
            assert max(output["steps"] for output in row["outputs"]) <= 1.01
        elif row["scheme"] == "float32":
            most = max(output["max_abs"] for output in row["outputs"])
            assert most <= SHARE_OF_FLOAT_TOLERANCE * row["max_abs_allowed"], (name, most)


@pytest.mark.parametrize(
    ("board", "runtime"),
    [
        *(("raspberry-pi-4", runtime) for runtime in parity.RUNTIMES),
        ("raspberry-pi-5", "litert"),
        *(pytest.param("raspberry-pi-5", name, marks=pytest.mark.soak) for name in parity.RUNTIMES[1:]),
    ],
)
def test_the_digits_give_there_what_they_give_here(digits: dict[str, Path], runtime: str, board: str) -> None:
    names = [f"{runtime}-{scheme}" for scheme in BOTH]
    rows = compared(digits[runtime], board, *(word for name in names for word in ("--variant", name)))
    assert set(rows) == set(names)
    check(rows)


@pytest.mark.data
@pytest.mark.worker("tensorflow", "onnx2tf")
@pytest.mark.parametrize(
    "model",
    ["kws", *(pytest.param(model, marks=pytest.mark.soak) for model in ("ic", "vww", "face"))],
)
def test_published_models_give_there_what_they_give_here(model: str, tmp_path: Path) -> None:
    rows = compared(parity.bundle(model, tmp_path), "raspberry-pi-4")
    assert set(rows) == {f"{runtime}-{scheme}" for runtime in parity.RUNTIMES for scheme in BOTH}
    check(rows)
