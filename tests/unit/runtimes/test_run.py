"""`edgeml run`: samples in, results out, and on again after an interruption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from edgeml_runtimes import running

from edgeml.cli import main
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.testing.models import make_double, make_quantized
from tests.unit.core.release_folders import digits

X = np.arange(48, dtype=np.float32).reshape(3, 16)


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_double(tmp_path, "onnxruntime")


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


def _records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_results_are_printed_one_a_line(model: Path, samples: Path) -> None:
    done = _run(model, samples)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("sample 0: y [0 2 4 6")


def test_json_holds_outputs_and_where_they_are_from(model: Path, samples: Path) -> None:
    report = json.loads(_run(model, samples, "--json").stdout)
    assert (report["schema"], report["runtime"], report["samples"]) == (1, "onnxruntime", 3)
    assert report["runtime_version"] == version("onnxruntime")
    assert report["results"][2]["outputs"]["y"] == (2 * X[2:]).tolist()


def test_npz_holds_the_outputs_stacked(model: Path, samples: Path, tmp_path: Path) -> None:
    assert _run(model, samples, "--output", tmp_path / "r.npz").exit_code == 0
    with np.load(tmp_path / "r.npz") as found:
        assert found["y"].dtype == np.float32
        assert (found["y"] == 2 * X).all()
        assert found["sample"].tolist() == ["sample 0", "sample 1", "sample 2"]


def test_npz_and_csv_are_read_too(model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=X)
    header = ",".join(f"v{place}" for place in range(16))
    np.savetxt(tmp_path / "in.csv", X, delimiter=",", header=header, comments="")
    for name in ("in.npz", "in.csv"):
        report = json.loads(_run(model, tmp_path / name, "--json").stdout)
        assert [part["outputs"]["y"][0] for part in report["results"]] == (2 * X).tolist()


def test_processing_is_applied_before_and_after(model: Path, samples: Path) -> None:
    done = _run(model, samples, "--preprocess", "scale=0.5", "--postprocess", "argmax=true", "--json")
    first = json.loads(done.stdout)["results"][0]
    assert first["classes"] == [{"index": 15, "label": None, "score": 15.0}]
    assert first["outputs"]["y"] == X[:1].tolist()


def test_raw_gives_what_the_model_gives_of_what_it_takes(tmp_path: Path) -> None:
    stored = np.arange(-24, 24, dtype=np.int8).reshape(3, 16)
    np.save(tmp_path / "stored.npy", stored)
    model = make_quantized(tmp_path, "litert")
    done = _run(model, tmp_path / "stored.npy", "--raw", "--output", tmp_path / "r.npz")
    assert done.exit_code == 0, done.output
    with np.load(tmp_path / "r.npz") as found:
        assert found["y"].dtype == np.int8
        assert (found["y"] == np.maximum(stored, 10)).all()


def test_raw_leaves_out_what_a_bundle_declares(tmp_path: Path) -> None:
    bundle = digits(tmp_path, preprocess=Preprocess(scale=0.5), postprocess=Postprocess(argmax=True))
    with np.load(tmp_path / "inputs.npz") as held, np.load(tmp_path / "litert-float32.npz") as made:
        np.save(tmp_path / "x.npy", held["picture"])
        wanted = made["scores"]
    words = ("--variant", "litert-float32", "--output", tmp_path / "r.npz", "--raw")
    assert _run(bundle, tmp_path / "x.npy", *words).exit_code == 0
    with np.load(tmp_path / "r.npz") as found:
        assert set(found) == {"scores", "sample"}
        assert found["scores"].tobytes() == wanted.tobytes()


def test_raw_and_processing_together_are_refused(model: Path, samples: Path) -> None:
    done = _run(model, samples, "--raw", "--preprocess", "scale=0.5")
    assert done.exit_code == 2
    assert "give either" in done.stderr


def test_a_float_sample_of_an_int8_model_gives_floats(samples: Path, tmp_path: Path) -> None:
    model = make_quantized(tmp_path, "litert")
    report = json.loads(_run(model, samples, "--limit", 1, "--json").stdout)
    assert report["results"][0]["outputs"]["y"] == X[:1].tolist()


def test_stored_samples_of_an_int8_model_are_shown_as_floats(tmp_path: Path) -> None:
    model = make_quantized(tmp_path, "litert")
    np.save(tmp_path / "x.npy", np.full((1, 16), 14, np.int8))
    report = json.loads(_run(model, tmp_path / "x.npy", "--json").stdout)
    assert report["results"][0]["outputs"]["y"] == [[2.0] * 16]


class Interruption:
    """Stands for Ctrl-C at the given sample, and counts what is run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None) -> None:
        self.ran: list[str] = []
        whole = running.finish

        def finish(outputs: object, postprocess: object, labels: Sequence[str]) -> object:
            if at is not None and len(self.ran) == at:
                raise KeyboardInterrupt
            self.ran.append("sample")
            return whole(outputs, postprocess, labels)  # type: ignore[arg-type]  # passed through as it came

        monkeypatch.setattr(running, "finish", finish)


@pytest.mark.parametrize("name", ["r.jsonl", "r.npz"])
def test_an_interrupted_run_goes_on_where_it_was(
    model: Path, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    output = tmp_path / name
    Interruption(monkeypatch, at=2)
    assert _run(model, samples, "--output", output).exit_code == 130
    assert not output.exists()
    monkeypatch.undo()
    second = Interruption(monkeypatch, at=None)
    assert _run(model, samples, "--output", output).exit_code == 0
    assert len(second.ran) == 1
    if name.endswith("npz"):
        with np.load(output) as found:
            assert (found["y"] == 2 * X).all()
    else:
        assert [record["sample"] for record in _records(output)] == ["sample 0", "sample 1", "sample 2"]
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_a_line_cut_short_by_a_crash_is_run_again(model: Path, samples: Path, tmp_path: Path) -> None:
    output, part = tmp_path / "r.jsonl", tmp_path / "r.jsonl.part"
    with pytest.MonkeyPatch.context() as patch:
        Interruption(patch, at=2)
        _run(model, samples, "--output", output)
    part.write_text(part.read_text()[:-20])
    assert _run(model, samples, "--output", output).exit_code == 0
    assert [record["outputs"]["y"] for record in _records(output)] == [[row] for row in (2 * X).tolist()]  # type: ignore[index]  # JSON


def test_other_data_begin_anew(model: Path, samples: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        Interruption(patch, at=2)
        _run(model, samples, "--output", output)
    np.save(samples, X + 1)
    assert _run(model, samples, "--output", output).exit_code == 0
    assert [record["outputs"]["y"] for record in _records(output)] == [[row] for row in (2 * X + 2).tolist()]  # type: ignore[index]  # JSON


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--output", "r.txt"], 2, r"name it *.jsonl or *.npz"),
        (["--option", "threads"], 2, "write it as key=value"),
        (["--variant", "litert-float32"], 2, "has no variant 'litert-float32'"),
        (["--runtime", "litert"], 1, "is an ONNX model, which litert does not read"),
        (["--runtime", "abacus"], 2, "runtimes are: litert, onnxruntime, openvino"),
    ],
)
def test_wrong_calls_say_what_to_do(
    model: Path, samples: Path, arguments: list[str], exit_code: int, message: str
) -> None:
    done = _run(model, samples, *arguments)
    assert done.exit_code == exit_code
    assert message in done.stderr
