"""`make demo` does what it says: one model, a bundle that runs on each runtime, a report."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgeml
from tests.conftest import REPOSITORY

RUNTIMES = ("litert", "onnxruntime", "openvino")
pytestmark = pytest.mark.worker("onnx2tf")


@pytest.fixture(scope="module")
def shown_and_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("demo")
    program = [sys.executable, REPOSITORY / "examples" / "digits" / "demo.py", folder]
    # of the tests here, which take the same steps
    environment = os.environ | {"EDGEML_CACHE_DIR": str(tmp_path_factory.getbasetemp() / "cache")}
    done = subprocess.run(
        program, capture_output=True, text=True, check=False, cwd=REPOSITORY, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, folder


@pytest.fixture(scope="module")
def manifest(shown_and_folder: tuple[str, Path]) -> dict[str, object]:
    from zipfile import ZipFile

    with ZipFile(shown_and_folder[1] / "digits-1.edgeml") as bundle:
        return json.loads(bundle.read("manifest.json"))


def test_the_demo_runs_every_runtime_and_says_what_to_try_next(shown_and_folder: tuple[str, Path]) -> None:
    shown, folder = shown_and_folder
    for runtime in RUNTIMES:
        assert f"{runtime}-int8_static" in shown
        assert f"--variant {runtime}-int8_static" in shown
    assert "Try next:" in shown
    assert (folder / "report.html").stat().st_size > 10_000


def test_every_runtime_has_a_float_and_an_int8_variant_within_a_point(manifest: dict[str, object]) -> None:
    measured = {variant["name"]: variant["measured"] for variant in manifest["variants"]}
    for runtime in RUNTIMES:
        for scheme in ("float32", "int8_static"):
            result = measured[f"{runtime}-{scheme}"]
            assert result["accuracy"] >= result["float_accuracy"] - 0.01
            assert result["float_accuracy"] == pytest.approx(0.98, abs=0.005)
            assert result["latency_ms"]["p50"] > 0


def test_the_bundle_answers_in_three_lines(shown_and_folder: tuple[str, Path]) -> None:
    model = edgeml.load(shown_and_folder[1] / "digits-1.edgeml")
    picture = np.zeros((8, 8, 1), np.uint8)
    picture[1:7, 3:5] = 16
    assert model.predict(picture).best.label == "1"


def test_the_command_that_the_readme_shows_first_works(tmp_path: Path) -> None:
    text = (REPOSITORY / "README.md").read_text().replace("\\\n", " ")
    command = next(line for line in text.splitlines() if line.startswith("$ edgeml convert"))
    words = shlex.split(command.removeprefix("$ edgeml ").replace("--output build/", f"--output {tmp_path}"))
    edgeml_command = Path(sys.executable).parent / "edgeml"
    done = subprocess.run(
        [edgeml_command, *words], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first = text.partition(command)[2].partition("```")[0]  # a search of another model follows
    shown = re.findall(r"^(litert|onnxruntime|openvino)-(\S+) .* ok$", first, re.MULTILINE)
    made = re.findall(r"^(litert|onnxruntime|openvino)-(\S+) .* ok *$", done.stdout, re.MULTILINE)
    assert shown == made
    assert {path.name for path in tmp_path.iterdir()} == {"digits-1.edgeml", "report.html"}
