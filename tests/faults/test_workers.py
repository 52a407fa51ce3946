"""Workers that die, hang, write nonsense or lose their parent: real processes, really killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from edgeml_converters.workers import catalogue, install, run
from edgeml_converters.workers.run import run_job

from edgeml.errors import WorkerError, WorkerTimeoutError
from tests.waiting import gone, pid_in

Script = Callable[[str], None]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Let the worker ``onnx2tf`` be this interpreter with a script of the test's own."""
    home = tmp_path / "package"
    home.mkdir()
    monkeypatch.setenv("EDGEML_WORKER_ONNX2TF", sys.executable)
    monkeypatch.setattr(run, "folder", lambda _: home)

    def write(body: str) -> None:
        text = "def convert(request):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        (home / "worker.py").write_text(text, encoding="utf-8")

    return write


def test_a_job_gets_its_request_and_gives_its_result(worker: Script) -> None:
    worker("return {'doubled': request['value'] * 2}")
    assert run_job("onnx2tf", {"value": 21}, 120.0) == {"ok": True, "doubled": 42}


def test_an_exception_is_told_with_the_end_of_the_log(worker: Script) -> None:
    worker("print('reading the model')\nraise ValueError('operator Foo is unknown')")
    with pytest.raises(WorkerError, match="worker onnx2tf: operator Foo is unknown") as caught:
        run_job("onnx2tf", {}, 120.0)
    assert "reading the model" in str(caught.value)
    log = str(caught.value).partition("(")[2].partition(")")[0]
    assert "Traceback" in Path(log).read_text(encoding="utf-8")


def test_a_worker_killed_by_the_system_is_told_by_its_signal(worker: Script) -> None:
    worker("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(WorkerError, match=r"killed by signal 9 and left no result; .* out of memory"):
        run_job("onnx2tf", {}, 120.0)


def test_a_worker_that_leaves_without_a_result_is_told_by_its_exit_code(worker: Script) -> None:
    worker("import os\nos._exit(7)")
    with pytest.raises(WorkerError, match="ended with exit code 7 and left no result"):
        run_job("onnx2tf", {}, 120.0)


@pytest.mark.parametrize(("content", "complaint"), [("{oops", "not JSON"), ("[1]", "without 'ok'")])
def test_a_result_that_is_garbage_is_refused(worker: Script, content: str, complaint: str) -> None:
    worker(f"import os, sys\nopen(sys.argv[3], 'w').write({content!r})\nos._exit(0)")
    with pytest.raises(WorkerError, match=complaint):
        run_job("onnx2tf", {}, 120.0)


def test_a_worker_that_hangs_is_killed_with_its_children(worker: Script, tmp_path: Path) -> None:
    pids = tmp_path / "child"
    worker(
        f"""
        import subprocess, time
        child = subprocess.Popen(["sleep", "600"])
        open({str(pids)!r}, "w").write(f"{{child.pid}}\\n")
        time.sleep(600)
        """
    )
    started = time.monotonic()
    with pytest.raises(WorkerTimeoutError, match="did not finish within 2 s"):
        run_job("onnx2tf", {}, 2.0)
    assert time.monotonic() - started < 120
    assert gone(pid_in(pids))


def test_children_that_a_finished_worker_left_are_killed_too(worker: Script, tmp_path: Path) -> None:
    pids = tmp_path / "child"
    worker(
        f"""
        import subprocess
        child = subprocess.Popen(["sleep", "600"])
        open({str(pids)!r}, "w").write(f"{{child.pid}}\\n")
        return {{}}
        """
    )
    assert run_job("onnx2tf", {}, 120.0)["ok"]
    assert gone(pid_in(pids))


PARENT = """
import sys
from pathlib import Path
from edgeml_converters.workers import run
run.folder = lambda _: Path(sys.argv[1])
run.run_job("onnx2tf", {"pids": sys.argv[2]}, 600.0)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_a_worker_dies_with_its_parent(worker: Script, tmp_path: Path, number: signal.Signals) -> None:
    worker(
        """
        import os, time
        open(request["pids"], "w").write(f"{os.getpid()}\\n")
        time.sleep(600)
        """
    )
    pids = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path / "package", pids], stderr=subprocess.DEVNULL
    )
    try:
        child = pid_in(pids)
        parent.send_signal(number)
        parent.wait(60)
        assert gone(child)
    finally:
        parent.kill()
        parent.wait()


@pytest.fixture
def small_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A worker of no packages; gives the folder of all workers."""
    home, place = tmp_path / "package", tmp_path / "workers"
    home.mkdir(exist_ok=True)
    (home / "requirements.txt").write_text("no-such-package-of-edgeml==1.0\n", encoding="utf-8")
    monkeypatch.setenv("EDGEML_WORKERS_DIR", str(place))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(catalogue, "folder", lambda _: home)
    monkeypatch.setattr(install, "folder", lambda _: home)
    return place


def folders(place: Path) -> list[Path]:
    return [item for item in place.iterdir() if item.is_dir()]


def test_an_installation_that_fails_leaves_nothing_and_tells_what_pip_said(small_worker: Path) -> None:
    with pytest.raises(WorkerError, match="no-such-package-of-edgeml"):
        install.install("keras")
    assert folders(small_worker) == []


def test_an_interrupted_installation_leaves_nothing(small_worker: Path) -> None:
    def interrupt(line: str) -> None:
        if line == "installing the packages":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        install.install("keras", progress=interrupt)
    assert folders(small_worker) == []


def test_what_a_killed_installation_left_is_cleared_by_the_next_one(small_worker: Path) -> None:
    (small_worker / ".keras.abandoned").mkdir(parents=True)
    with pytest.raises(WorkerError):
        install.install("keras")
    assert folders(small_worker) == []
