"""Conversions that are interrupted, killed or given bad input leave nothing half-written."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_converters.convert import convert
from edgeml_converters.variants.workspace import workspace

from edgeml.cli import main
from edgeml.errors import BundleError

pytestmark = pytest.mark.data


@pytest.fixture
def model(data_dir, tmp_path):
    return shutil.copy(data_dir / "kws/kws_float.tflite", tmp_path / "model.tflite")


def arguments(model, output, *more, runtime="litert"):
    return ["convert", str(model), "--runtime", runtime, "--no-measure", "-o", str(output), *more]


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("after_s", [0.4, 0.8, 1.2])
def test_a_run_that_is_ended_leaves_whole_files_or_none(model, tmp_path, kind, after_s):
    output = tmp_path / "out"
    environment = {**os.environ, "EDGEML_CACHE_DIR": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "edgeml", *arguments(model, output, "--runtime", "openvino")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(after_s)
    process.send_signal(kind)
    process.wait(120)
    left = {path.name for path in output.iterdir()} if output.exists() else set()
    assert left <= {"model-1.edgeml", "report.html"}
    if kind != signal.SIGKILL:
        scratch = tmp_path / "cache/scratch"
        assert not scratch.exists() or not any(scratch.iterdir())


def test_what_a_killed_run_left_is_swept_by_the_next(model, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "cache"))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f"cache/scratch/{dead.pid}-abc"
    left.mkdir(parents=True)
    (left / "half").write_text("x")
    convert(model, runtimes=("litert",), measure=False)
    assert not left.exists()


def test_what_a_run_in_another_container_works_in_is_left_alone(tmp_path, monkeypatch):
    """Its process has a number that says nothing here, and it has the cache in common."""
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path / "cache"))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with workspace(use_cache=True, progress=print) as other:
        there = other.scratch.rename(other.scratch.with_name(f"{dead.pid}-abc"))
        with workspace(use_cache=True, progress=print):
            assert there.exists()
    with workspace(use_cache=True, progress=print):
        assert not there.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"not a model at all, only text", "model"),
    ],
    ids=["empty", "lfs", "text"],
)
def test_a_file_that_is_no_model_is_one_message_and_no_output(tmp_path, content, says):
    file = tmp_path / "model.tflite"
    file.write_bytes(content)
    done = CliRunner().invoke(main, arguments(file, tmp_path / "out"))
    assert done.exit_code == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_truncated_model_is_one_message_and_no_output(model, tmp_path):
    file = tmp_path / "model.tflite"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    done = CliRunner().invoke(main, arguments(file, tmp_path / "out"))
    assert done.exit_code == 1
    assert "model.tflite" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (np.zeros((0, 49, 10, 1), np.float32), "no samples"),
        (np.full((40, 49, 10, 1), np.nan, np.float32), "sample 0 of input 'input_1' has NaN"),
        (np.zeros((40, 10, 49, 2), np.float32), "(10, 49, 2)"),
    ],
    ids=["empty", "nan", "shape"],
)
def test_calibration_data_that_cannot_be_used_are_one_message(model, tmp_path, samples, says):
    np.save(tmp_path / "c.npy", samples)
    more = ("--calibration", str(tmp_path / "c.npy"))
    done = CliRunner().invoke(main, arguments(model, tmp_path / "out", *more))
    assert done.exit_code == 1
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_labels_out_of_range_are_one_message(model, tmp_path):
    np.savez(tmp_path / "e.npz", x=np.ones((4, 49, 10, 1), np.float32), y=np.array([0, 1, 12, 3]))
    done = CliRunner().invoke(main, arguments(model, tmp_path / "out", "--evaluate", str(tmp_path / "e.npz")))
    assert done.exit_code == 1
    assert "labels run from 0 to 12, the output has 12 places" in done.stderr


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--target", "raspberry-pi-9"), "no target 'raspberry-pi-9'"),
        (("--scheme", "int7"), "int4_weights, all, auto"),
        (("--max-drop", "nan"), "max_drop must be a number"),
        (("--budget-s", "nan"), "--budget-s nan"),
        (("--resume", "--no-cache"), "not both"),
        (("--max-size", "big"), "--max-size 'big'"),
        (("--max-size", "1e400k"), "--max-size '1e400k'"),
        (("--input-shape", "a,b"), "--input-shape"),
    ],
)
def test_wrong_usage_is_exit_code_2(model, tmp_path, more, says):
    done = CliRunner().invoke(main, arguments(model, tmp_path / "out", *more))
    assert done.exit_code == 2
    assert says in done.stderr


def test_an_output_that_is_a_file_is_refused_before_any_work(model, tmp_path):
    (tmp_path / "out").write_text("mine")
    done = CliRunner().invoke(main, arguments(model, tmp_path / "out"))
    assert done.exit_code == 2
    assert (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_a_bundle_error(model):
    with pytest.raises(BundleError, match="cannot make the folder"):
        convert(model, runtimes=("litert",), measure=False, output="/proc/nowhere")


@pytest.mark.parametrize("runtime", ["litert", "onnxruntime", "openvino"])
def test_a_full_disk_is_one_message_and_leaves_nothing(model, tmp_path, runtime):
    """Every write beyond 50 kB fails as a full disk does."""
    program = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from edgeml.cli import main\n"
        f"main({arguments(model, tmp_path / 'out', runtime=runtime)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "full" in done.stderr or "size limit" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("*"))
