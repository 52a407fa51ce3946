"""Files of the user's that are called like our tools are never imported in their place."""

import subprocess
import sys

import pytest
from edgeml_converters.evaluate.latency import Job, measure
from edgeml_converters.workers import catalogue, install, run
from edgeml_converters.workers.run import run_job

from edgeml.errors import WorkerError
from edgeml.measure import Measurement

TOOLS = ("onnxruntime", "openvino", "ai_edge_litert", "numpy", "edgeml", "json", "venv", "pip", "tempfile")


@pytest.fixture
def traps(tmp_path, monkeypatch):
    """A working folder full of modules that tell if they are run; gives where they tell it."""
    folder, told = tmp_path / "mine", tmp_path / "told"
    folder.mkdir()
    for name in TOOLS:
        (folder / f"{name}.py").write_text(
            f"open({str(told)!r}, 'a').write({name!r})\nraise SystemExit('{name} is the wrong one')\n"
        )
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return told


def test_the_traps_work(traps):
    done = subprocess.run([sys.executable, "-m", "edgeml", "--version"], check=False, capture_output=True)
    assert done.returncode != 0
    assert traps.exists()


@pytest.mark.data
@pytest.mark.parametrize(
    ("runtime", "file"), [("onnxruntime", "kws_float.onnx"), ("litert", "kws_float.tflite")]
)
def test_measuring_imports_the_engines(data_dir, traps, runtime, file):
    found = measure([Job("it", runtime, data_dir / "kws" / file, {})], progress=lambda _: None)
    assert isinstance(found["it"], Measurement), found
    assert not traps.exists()


def test_a_worker_imports_its_own(traps, tmp_path, monkeypatch):
    home = tmp_path / "package"
    home.mkdir()
    (home / "worker.py").write_text("def convert(request):\n    import numpy, json\n    return {}\n")
    monkeypatch.setenv("EDGEML_WORKER_ONNX2TF", sys.executable)
    monkeypatch.setattr(run, "folder", lambda _: home)
    assert run_job("onnx2tf", {}, 60.0)["ok"]
    assert not traps.exists()


def test_installing_a_worker_uses_pythons_own_venv_and_pip(traps, tmp_path, monkeypatch):
    home = tmp_path / "package"
    home.mkdir()
    (home / "requirements.txt").write_text("no-such-package-of-edgeml==1.0\n")
    monkeypatch.setenv("EDGEML_WORKERS_DIR", str(tmp_path / "workers"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(catalogue, "folder", lambda _: home)
    monkeypatch.setattr(install, "folder", lambda _: home)
    with pytest.raises(WorkerError, match="no-such-package-of-edgeml"):
        install.install("keras")
    assert not traps.exists()
