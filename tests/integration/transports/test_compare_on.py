"""``edgeml compare BUNDLE --on URL``: a bundle's variants here and on another machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgeml.bundle import open_bundle, write_bundle
from edgeml.cli import main
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.tensors import Quantization, TensorSpec
from edgeml.testing.models import make_quantized
from tests.integration.transports.ssh_server import ssh_server
from tests.unit.core.release_folders import digits, times
from tests.waiting import eventually

PROGRAMS = Path(sys.executable).parent
OTHER_EDGEML = """#!{python}
import subprocess, sys
import numpy as np
words = sys.argv[1:]
{before}
done = subprocess.run([sys.executable, "-m", "edgeml", *words])
if done.returncode == 0 and "--output" in words:
    path = words[words.index("--output") + 1]
    with np.load(path) as held:
        arrays = dict(held)
    for name in arrays.keys() - {{"sample"}}:
        arrays[name] = {change}
    np.savez(path, **arrays)
sys.exit(done.returncode)
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, here and there; edgeml is on the PATH."""
    folder = tmp_path / "there"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setenv("PATH", f"{PROGRAMS}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def other(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Give the other machine an edgeml that goes on its own way before or after it ran a model."""

    def make(change: str, before: str = "") -> None:
        program = tmp_path / "programs" / "edgeml"
        program.parent.mkdir()
        program.write_text(OTHER_EDGEML.format(python=sys.executable, before=before, change=change))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return make


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def rows(done: Result) -> dict[str, dict[str, object]]:
    return {row["variant"]: row for row in json.loads(done.stdout)["variants"]}


def test_a_machine_like_this_one_gives_the_same_bytes(there: Path, tmp_path: Path) -> None:
    done = compare(digits(tmp_path / "made"), "--on", "local:", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["schema"], report["model"], report["on"], report["data"]) == (1, "digits", "local:", None)
    row = rows(done)["litert-float32"]
    assert (row["verdict"], row["samples"], row["max_abs_allowed"]) == ("equal", 6, 1e-3)
    assert row["engine_here"] == row["engine_there"]
    assert row["outputs"] == [
        {"output": "scores", "values": 60, "differing": 0, "max_abs": 0.0, "steps": None}
    ]
    assert list(there.iterdir()) == []


def test_a_machine_behind_ssh_is_compared_with(there: Path, tmp_path: Path) -> None:
    (tmp_path / "sshd").mkdir()
    bundle = digits(tmp_path / "made")
    with ssh_server(tmp_path / "sshd", f"SetEnv PATH={os.environ['PATH']} TMPDIR={there}") as server:
        done = compare(bundle, "--on", server.url, "--json")
    assert done.exit_code == 0, done.output
    assert {row["verdict"] for row in rows(done).values()} == {"equal"}


def test_a_difference_within_the_tolerance_is_told(
    other: Callable[..., None], there: Path, tmp_path: Path
) -> None:
    other("arrays[name] + np.float32(1e-4)")
    done = compare(digits(tmp_path / "made"), "--on", "local:")
    assert done.exit_code == 0, done.output
    title, heads, first, _ = done.stdout.splitlines()
    assert title.startswith("digits release 1, 6 golden samples: local: against here")
    assert heads.split()[:3] == ["variant", "outputs", "max"]
    assert first.split()[:2] == ["litert-float32", "within"]
    assert "0.001" in first


def test_a_difference_beyond_the_tolerance_ends_with_3(
    other: Callable[..., None], there: Path, tmp_path: Path
) -> None:
    other("arrays[name] * 1.5")
    done = compare(digits(tmp_path / "made"), "--on", "local:", "--variant", "onnxruntime-float32")
    assert done.exit_code == 3
    assert "BEYOND" in done.stdout
    assert "onnxruntime-float32: output 'scores' is off by" in done.stdout
    assert "litert" not in done.stdout


def quantized(folder: Path) -> Path:
    """Write ``y = max(x, 0)`` for LiteRT, int8 on both sides, as a bundle without golden samples."""
    model = make_quantized(folder, "litert")
    grid = Quantization((0.5,), (10,))
    x, y = (TensorSpec(name, (1, 16), "int8", grid) for name in ("x", "y"))
    file = FileEntry("variants/litert-int8_static/model.tflite", 0, "")
    variant = Variant("litert-int8_static", "litert", "int8_static", (file,), (), inputs=(x,), outputs=(y,))
    path = folder / "relu-1.edgeml"
    write_bundle(path, Manifest("relu", 1, (x,), (y,), (variant,), ()), {file.path: model})
    return path


@pytest.mark.parametrize(("steps", "verdict", "code"), [(0, "equal", 0), (1, "within", 0), (2, "beyond", 3)])
def test_int8_on_litert_may_be_one_step_off(
    other: Callable[..., None], there: Path, tmp_path: Path, steps: int, verdict: str, code: int
) -> None:
    bundle = quantized(tmp_path)
    np.save(tmp_path / "x.npy", np.arange(-24, 24, dtype=np.int8).reshape(3, 16))
    other(f"arrays[name] + np.int8({steps}) * (np.arange(16) == 3).astype(np.int8)")
    done = compare(bundle, "--data", tmp_path / "x.npy", "--on", "local:", "--json")
    assert done.exit_code == code
    row = rows(done)["litert-int8_static"]
    assert row["verdict"] == verdict
    assert row["outputs"] == [
        {"output": "y", "values": 48, "differing": 3 * (steps > 0), "max_abs": steps, "steps": steps}
    ]


def test_data_are_prepared_here_as_the_bundle_declares(there: Path, tmp_path: Path) -> None:
    bundle = times(tmp_path, 2.0, 1)
    np.save(tmp_path / "x.npy", np.ones((50, 16), np.float32))
    without = compare(bundle, "--on", "local:")
    assert without.exit_code == 2
    assert "has no golden samples to compare on; give some with --data" in without.stderr
    done = compare(
        bundle, "--on", "local:", "--data", tmp_path / "x.npy", "--preprocess", "scale=0.5", "--json"
    )
    (row,) = rows(done).values()
    # without a tolerance of its own: 1e-5 of the largest value, which is 2 · 0.5
    assert (row["verdict"], row["samples"], row["max_abs_allowed"]) == ("equal", 32, pytest.approx(1e-5))


def test_what_does_not_run_there_is_a_row_with_its_reason(
    other: Callable[..., None], there: Path, tmp_path: Path
) -> None:
    before = "if 'litert-float32' in words: sys.exit('Segmentation fault')"
    other("arrays[name]", before)
    done = compare(digits(tmp_path / "made"), "--on", "local:", "--json")
    assert done.exit_code == 0, done.output
    row = rows(done)["litert-float32"]
    assert (row["verdict"], row["reason"]) == ("not_compared", "on local:: Segmentation fault")
    assert rows(done)["onnxruntime-float32"]["verdict"] == "equal"


def test_what_does_not_run_here_is_a_row_with_its_reason(there: Path, tmp_path: Path) -> None:
    bundle = open_bundle(digits(tmp_path / "made"))
    files = {name: tmp_path / "whole" / name for name in bundle.names}
    bundle.extract(tmp_path / "whole")
    first, second = bundle.manifest.variants
    newer = replace(bundle.manifest, variants=(replace(first, runtime_version=">=99"), second))
    write_bundle(tmp_path / "newer-1.edgeml", newer, files)
    done = compare(tmp_path / "newer-1.edgeml", "--on", "local:", "--json")
    assert done.exit_code == 0, done.output
    row = rows(done)["litert-float32"]
    assert row["verdict"] == "not_compared"
    assert str(row["reason"]).startswith("here: no variant of digits can run here")


def test_nothing_compared_is_an_error(other: Callable[..., None], there: Path, tmp_path: Path) -> None:
    other("arrays[name]", "sys.exit('no engine')")
    done = compare(digits(tmp_path / "made"), "--on", "local:")
    assert done.exit_code == 1
    assert "no variant of digits could be compared with local:: on local:: no engine" in done.stderr


def test_an_edgeml_that_knows_no_raw_outputs_is_too_old(
    other: Callable[..., None], there: Path, tmp_path: Path
) -> None:
    other("arrays[name]", "words = [word for word in words if word != '--raw'] + ['--rawr']")
    done = compare(digits(tmp_path / "made"), "--on", "local:")
    assert done.exit_code == 1
    assert "is too old: edgeml devices provision local:" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{bundle}"], "give a second model, or another machine: --on URL"),
        (["{bundle}", "{bundle}", "--on", "local:"], "--on takes one bundle"),
        (["{bundle}", "--on", "local:", "--mode", "user"], "--mode user: goes with --on emulator:BOARD"),
        (
            ["{bundle}", "--on", "local:", "--variant", "x"],
            "has no variant 'x'; its variants are: litert-float32",
        ),
        (["{bundle}", "--on", "local:", "--limit", "3"], "golden samples are taken as they are"),
        (["{model}", "--on", "local:"], "is no bundle; --on compares one"),
        (["{bundle}", "{model}", "--limit", "3"], "go with --on"),
    ],
)
def test_wrong_usage_says_what_is_right(there: Path, tmp_path: Path, words: list[str], message: str) -> None:
    places = {"bundle": digits(tmp_path / "made"), "model": make_quantized(tmp_path, "litert")}
    done = compare(*(word.format(**places) for word in words))
    assert done.exit_code == 2
    assert message in done.stderr
    assert list(there.iterdir()) == []


def test_ctrl_c_leaves_nothing_here_nor_there(
    other: Callable[..., None], there: Path, tmp_path: Path
) -> None:
    other("arrays[name]", "import time; time.sleep(60)")
    argv = [sys.executable, "-m", "edgeml", "compare", str(digits(tmp_path / "made")), "--on", "local:"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as program:
        eventually(lambda: list(there.glob("edgeml.*/2/inputs.npz")))
        time.sleep(1)
        program.send_signal(signal.SIGINT)
        assert program.wait(60) == 130
    assert list(there.iterdir()) == []
