"""``edgeml bench`` and ``edgeml run`` on another machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgeml.cli import main
from edgeml.testing.models import make_double
from tests.integration.transports.serial_line import SerialServer
from tests.integration.transports.ssh_server import ssh_server
from tests.unit.core.release_folders import times
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = Path(sys.executable).parent
X = np.arange(48, dtype=np.float32).reshape(3, 16)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder of the other machine, which has edgeml on its PATH."""
    folder = tmp_path / "there"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("PATH", f"{PROGRAMS}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_double(tmp_path, "onnxruntime")


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", X)
    return tmp_path / "x.npy"


@pytest.fixture(params=["local", "ssh", "serial"])
def url(request: pytest.FixtureRequest, there: Path, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield "local:"
    elif request.param == "ssh":
        (tmp_path / "sshd").mkdir()
        path = f"SetEnv PATH={os.environ['PATH']} TMPDIR={there}"
        with ssh_server(tmp_path / "sshd", path) as server:
            yield server.url
    else:
        server = SerialServer(["sh"])
        yield server.url
        server.close()


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_bench_measures_there_and_says_what_it_says_here(url, model):
    done = call("bench", model, "--runs", 5, "--json", "--on", url)
    assert done.exit_code == 0, done.output
    here = json.loads(call("bench", model, "--runs", 5, "--json").stdout)
    found = json.loads(done.stdout)
    (row,) = found["results"]
    assert row.keys() == here["results"][0].keys()
    assert (found["schema"], row["status"], row["artifact"], row["runs"]) == (1, "ok", str(model), 5)


def test_bench_prints_the_same_table(there, model):
    done = call("bench", model, "--runs", 5, "--threads", "1,2", "--on", "local:")
    assert done.exit_code == 0, done.output
    assert model.name in done.stdout
    assert "per s," in done.stdout
    assert list(there.iterdir()) == []


def test_a_model_that_cannot_be_measured_there_is_a_row_with_its_reason(there, model, tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(200))
    done = call("bench", model, broken, "--runs", 3, "--json", "--on", "local:", "--runtime", "onnxruntime")
    rows = json.loads(done.stdout)["results"]
    assert [row["status"] for row in rows] == ["ok", "failed"]
    assert str(there) not in rows[1]["reason"]


def test_a_wrong_option_there_is_wrong_usage_here(there, model):
    done = call("bench", model, "--option", "no_such=1", "--on", "local:")
    assert done.exit_code == 2
    assert "no_such" in done.stderr
    assert list(there.iterdir()) == []


def test_a_machine_without_edgeml_says_how_to_bring_it_there(there, model, monkeypatch, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "mktemp", "rm", "mkdir"):
        (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("HOME", str(tmp_path))
    done = call("bench", model, "--on", "local:")
    assert done.exit_code == 1
    assert "edgeml devices provision local:" in done.stderr


def test_run_gives_the_results_of_the_machine(url, model, samples):
    done = call("run", model, samples, "--on", url, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["results"][2]["outputs"]["y"] == (2 * X[2:]).tolist()


def test_run_prints_lines_and_writes_the_output_here(there, model, samples, tmp_path):
    lines = call("run", model, samples, "--on", "local:", "--limit", 2)
    assert lines.stdout.splitlines() == call("run", model, samples, "--limit", 2).stdout.splitlines()
    assert call("run", model, samples, "--on", "local:", "--output", tmp_path / "r.npz").exit_code == 0
    with np.load(tmp_path / "r.npz") as found:
        assert (found["y"] == 2 * X).all()
    assert list(there.iterdir()) == []


def test_a_model_of_two_files_goes_there_whole(there, tmp_path):
    done = call("bench", make_double(tmp_path, "openvino"), "--runs", 3, "--json", "--on", "local:")
    assert [row["status"] for row in json.loads(done.stdout)["results"]] == ["ok"]


def test_a_bundle_is_measured_there_by_variant(there, tmp_path):
    bundle = times(tmp_path, 2.0, 1)
    done = call("bench", bundle, "--runs", 3, "--json", "--on", "local:")
    rows = json.loads(done.stdout)["results"]
    assert rows
    assert all(row["variant"] and row["status"] == "ok" for row in rows)


def test_samples_that_are_not_there_are_wrong_usage(there, model, tmp_path):
    done = call("run", model, tmp_path / "missing.npy", "--on", "local:")
    assert done.exit_code == 2
    assert "no such file or folder" in done.stderr


def test_ctrl_c_ends_it_there_and_removes_what_was_put(there, model):
    argv = [sys.executable, "-m", "edgeml", "bench", str(model), "--seconds", "60", "--on", "local:"]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as program:
        eventually(lambda: list(there.glob("edgeml.*/1/*")))
        time.sleep(1)
        program.send_signal(signal.SIGINT)
        assert program.wait(60) == 130
    assert list(there.glob("edgeml.*")) == []
