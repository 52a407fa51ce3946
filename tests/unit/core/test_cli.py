"""The command line's edge: commands by entry point, one message per error, exit codes, signals."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from edgeml import __version__, plugins
from edgeml.cli import main
from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import BundleError, EdgemlError, GateError, UsageError


class Named(UserWarning):
    __module__ = "edgeml.model"


def _raise(error: BaseException) -> None:
    raise error


def run_command(monkeypatch: pytest.MonkeyPatch, body: object, *arguments: str) -> Result:
    """Run a command that some distribution registered and whose body is ``body``."""
    command = click.Command("probe", callback=body)  # type: ignore[arg-type] # any callable
    monkeypatch.setattr(plugins, "names", lambda *_: ("probe",))
    monkeypatch.setattr(plugins, "load", lambda *_: command)
    return CliRunner().invoke(main, [*arguments, "probe"])


@pytest.mark.parametrize(
    ("error", "code"),
    [(BundleError("b is damaged"), 1), (UsageError("no target x"), 2), (GateError("3 points lost"), 3)],
)
def test_an_error_is_one_message_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, error: EdgemlError, code: int
) -> None:
    result = run_command(monkeypatch, lambda: _raise(error))
    assert (result.exit_code, result.stderr, result.stdout) == (code, f"error: {error}\n", "")


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (["targets", "nothing", "--json"], "UsageError", 2),
        (["targets", "--json", "--wrong"], "UsageError", 2),
    ],
)
def test_with_json_an_error_is_an_object_on_stdout(words: list[str], kind: str, code: int) -> None:
    result = CliRunner().invoke(main, words)
    document = json.loads(result.stdout)
    assert (result.exit_code, document["schema"], document["error"]["type"]) == (code, 1, kind)
    assert document["error"]["message"] in result.stderr


def test_an_answer_that_was_printed_stays_the_only_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def body(as_json: bool) -> None:
        assert as_json
        print_json({"variants": []})
        raise GateError("3 points lost")

    command = json_option(click.Command("probe", callback=body))
    monkeypatch.setattr(plugins, "names", lambda *_: ("probe",))
    monkeypatch.setattr(plugins, "load", lambda *_: command)
    result = CliRunner().invoke(main, ["probe", "--json"])
    assert (result.exit_code, json.loads(result.stdout)) == (3, {"schema": 1, "variants": []})


def test_wrong_usage_is_exit_code_2() -> None:
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2


def test_a_misspelt_command_gets_the_close_one() -> None:
    result = CliRunner().invoke(main, ["completon"])
    assert result.exit_code == 2
    assert "did you mean 'completion'?" in result.stderr


def test_an_unexpected_exception_is_called_a_bug_and_shows_its_trace_only_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = run_command(monkeypatch, lambda: _raise(KeyError("x")))
    assert result.exit_code == 1
    assert "this is a bug in edgeml: KeyError: 'x'" in result.stderr
    assert "--debug" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in run_command(monkeypatch, lambda: _raise(KeyError("x")), "--debug").stderr
    monkeypatch.setenv("EDGEML_DEBUG", "1")
    assert "Traceback" in run_command(monkeypatch, lambda: _raise(KeyError("x"))).stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/out.edgeml"), "disk full"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/out.edgeml"), "no permission"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/out.edgeml"), "no such file"),
    ],
)
def test_a_failure_of_the_system_names_the_file(
    monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    result = run_command(monkeypatch, lambda: _raise(error))
    assert result.exit_code == 1
    assert said in result.stderr
    assert "/data/out.edgeml" in result.stderr


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_command(monkeypatch, lambda: _raise(KeyboardInterrupt()))
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_an_error_that_is_its_own_cause_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = EdgemlError("first"), EdgemlError("second")
    first.__cause__, second.__cause__ = second, first
    result = run_command(monkeypatch, lambda: _raise(first))
    assert result.exit_code == 1
    assert "error: first" in result.stderr


def test_own_warnings_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def body() -> None:
        warnings.warn("made for another CPU", Named, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run_command(monkeypatch, body).stderr == "warning: made for another CPU\n"


def test_a_command_that_cannot_be_imported_is_listed_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("probe", "edgeml_of_nobody.cli:probe", plugins.COMMAND_GROUP)
    monkeypatch.setattr(plugins, "_entries", lambda *_: (broken,))
    listed = CliRunner().invoke(main, ["--help"])
    assert listed.exit_code == 0
    assert "No module named 'edgeml_of_nobody'" in " ".join(listed.stdout.split())
    assert "completion" in listed.stdout
    called = CliRunner().invoke(main, ["probe", "--any", "thing"])
    assert called.exit_code == 1
    assert "the command 'probe' cannot be loaded" in called.stderr


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).stdout == f"edgeml, version {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_that_asks_edgeml(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert "_EDGEML_COMPLETE" in result.stdout


def test_python_m_edgeml_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edgeml", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"edgeml, version {__version__}\n"


def test_help_imports_neither_numpy_nor_an_engine() -> None:
    code = (
        "import sys\nfrom edgeml.cli import main\nmain(['--help'], standalone_mode=False)\n"
        "print([n for n in ('numpy', 'rich', 'onnxruntime', 'openvino', 'ai_edge_litert') "
        "if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_not_an_error_message() -> None:
    command = f"{sys.executable} -m edgeml completion zsh | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


WAITING = """
import sys, time, click
from pathlib import Path
from edgeml import plugins
from edgeml.atomic import replacing_file
from edgeml.cli import main

def body():
    with replacing_file(Path(sys.argv[1]) / "out") as scratch:
        scratch.write_bytes(b"half")
        print("ready", flush=True)
        time.sleep(60)

command = click.Command("probe", callback=body)
plugins.names = lambda *_: ("probe",)
plugins.load = lambda *_: command
main(["probe"])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_unwinds_so_that_nothing_half_written_stays(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, number)
        assert process.wait(timeout=60) == code
    assert list(tmp_path.iterdir()) == []


LEFT = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
try:
    time.sleep(60)
except KeyboardInterrupt:
    raise AttributeError("half of it is there") from None
"""


def test_ctrl_c_that_left_an_import_is_130_whatever_fails_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeml.signals._IMPORT_S", 0.2)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "imported_and_left.py").write_text(LEFT)
    result = run_command(monkeypatch, lambda: importlib.import_module("imported_and_left"))
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_ctrl_c_while_a_string_is_executed_is_130(tmp_path: Path) -> None:
    registered = tmp_path / "probe-1.dist-info"
    registered.mkdir()
    (registered / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
    (registered / "entry_points.txt").write_text("[edgeml.commands]\nprobe = probe:probe\n")
    interrupting = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    (tmp_path / "probe.py").write_text(
        f"import click\n\n@click.command()\ndef probe():\n    exec({interrupting!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "edgeml", "probe"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("convert model.onnx --target rasp", "raspberry-pi-5"),
        ("convert model.onnx --runtime li", "litert"),
        ("convert model.onnx --scheme int8", "int8_static"),
        ("plan model.onnx --to litert:int8_s", "litert:int8_static"),
        ("bench model.tflite --runtime on", "onnxruntime"),
        ("targets ho", "host"),
        ("workers install onnx", "onnx2tf"),
        ("workers remove ten", "tensorflow"),
    ],
)
def test_a_shell_completes_names(typed: str, offered: str) -> None:
    words = ["edgeml", *typed.split()]
    environment = {
        "_EDGEML_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }

    result = CliRunner().invoke(main, [], prog_name="edgeml", env=environment)

    assert f"plain,{offered}" in result.output.split()


CONVERTERS = [one.name for one in entry_points(group="edgeml.commands") if "converters" in one.value]


@pytest.mark.parametrize("command", CONVERTERS)
def test_a_device_says_which_install_has_a_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "names", lambda _: ("bench", "doctor"))

    result = CliRunner().invoke(main, [command, "model.onnx"])

    assert result.exit_code == 2
    assert "pip install 'edgeml-core[workstation]'" in result.stderr
