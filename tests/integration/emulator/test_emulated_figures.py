"""Times that an emulated machine gives are marked, and never become those of a board."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgeml import plugins
from edgeml.bundle import open_bundle
from edgeml.cli import main
from edgeml.testing.models import make_double
from tests.unit.core.release_folders import digits

pytestmark = pytest.mark.usefixtures("full_image", "built_cache")
URL = "emulator:raspberry-pi-4?mode=user"
SENTENCE = "emulated: correctness, memory and protocol only"


def _call(*arguments: object) -> Result:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done


def test_bench_marks_its_figures_as_emulated(tmp_path: Path) -> None:
    model = make_double(tmp_path, "onnxruntime")
    (row,) = json.loads(_call("bench", model, "--runs", 3, "--json", "--on", URL).stdout)["results"]
    assert (row["machine"], row["emulated"]) == ("raspberry-pi-4", True)
    (row,) = json.loads(_call("bench", model, "--runs", 3, "--json").stdout)["results"]
    assert row["emulated"] is False


def test_a_self_test_tells_no_times_and_holds_its_limit(tmp_path: Path) -> None:
    bundle = digits(tmp_path)
    with plugins.transport(URL) as board:
        board.put(bundle, "/tmp/digits.edgeml")  # noqa: S108 - there
        argv = ["edgeml", "selftest", "/tmp/digits.edgeml", "--variant", "litert-float32"]  # noqa: S108
        said = board.run(argv, 300).stdout.decode()
        result = json.loads(board.run([*argv, "--json"], 300).stdout)
    assert SENTENCE in said
    assert " ms" not in said
    assert (result["passed"], result["emulated"]) == (True, True)
    assert (result["latency_ms"], result["load_ms"]) == (None, None)
    assert result["peak_memory_bytes"] > 0


def test_convert_takes_memory_from_an_emulated_board_and_no_latency(tmp_path: Path) -> None:
    model = make_double(tmp_path, "onnxruntime")
    words = ("--target", "raspberry-pi-4", "--runtime", "onnxruntime", "--scheme", "float32", "--json")
    done = json.loads(_call("convert", model, *words, "--measure", URL, "-o", tmp_path / "out").stdout)
    (bundle,) = (tmp_path / "out").glob("*.edgeml")
    (variant,) = open_bundle(bundle).manifest.variants
    assert variant.measured.latency_ms is None
    assert variant.measured.load_ms is None
    assert variant.measured.peak_memory_bytes is not None
    assert SENTENCE in json.dumps(done)
    (report,) = (tmp_path / "out").glob("*.html")
    assert SENTENCE in report.read_text()
