"""How a compiler fails, and what is said of it."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from edgeml.testing.coral.compiled import write_compiled
from tests.fake_edgetpu_compiler import FAILED, INTERNAL, V2, Run, success
from tests.integration.coral_compile.calling import LOG, answer, call, fails, files, interrupted, is_running
from tests.waiting import eventually


def test_an_internal_error_is_tried_again_with_a_search(install, good, model) -> None:
    said = "libc++abi: terminating with uncaught exception of type std::out_of_range: vector"
    fake = install(Run(FAILED.format(said=said), exit_code=1), good)
    found = answer(model)
    first, second = found["attempts"]
    assert (first["outcome"], first["message"]) == ("internal_error", said)
    assert second["options"][-3:] == ["--search_delegate", "--delegate_search_step", "1"]
    assert [options[-3:] for options in fake.options][1] == second["options"][-3:]
    text = call(model).stdout
    assert "1 of 1 operators" in text


def test_a_search_is_said(install, good, model) -> None:
    install(Run(FAILED.format(said=""), exit_code=1), good)
    text = call(model).stdout
    assert "tried before: Compilation failed!" in text
    assert "compiled in part" in text


def test_an_older_compiler_is_run_once_more_as_it_was(install, good, model) -> None:
    fake = install(Run(INTERNAL, exit_code=1), good, version=V2)
    assert len(answer(model)["attempts"]) == 2
    assert fake.options == [["--show_operations", "--out_dir", f"out{one}"] for one in (1, 2)]


def test_an_internal_error_that_stays_is_told_with_what_to_do(install, model) -> None:
    said = "Compilation failed: Compilation failed due to large activation tensors in model."
    fake = install(Run(FAILED.format(said=said), exit_code=1))
    text = fails(model)
    assert f"the compiler failed (2 attempts): {said}; try a smaller input" in text
    assert len(fake.calls) == 2
    assert files(model.parent) == ["model.tflite"]


def test_a_model_that_is_refused_is_not_tried_again(install, model) -> None:
    said = "ERROR: Didn't find op for builtin opcode 'CONV_2D' version '6'"
    fake = install(Run(FAILED.format(said=said), exit_code=1))
    assert "builtin opcode 'CONV_2D' version '6'; export the model for an older TensorFlow Lite" in fails(
        model
    )
    assert len(fake.calls) == 1


def test_a_crash_names_the_signal(install, model) -> None:
    install(Run(signal=signal.SIGSEGV))
    text = fails(model)
    assert "signal 11 ended it" in text
    assert files(model.parent) == ["model.tflite"]


def test_a_crash_after_the_file_was_begun_is_a_crash(install, good, model) -> None:
    install(replace(good, signal=signal.SIGABRT))
    assert "signal 6 ended it" in fails(model)


def test_a_compiler_that_was_killed_may_have_lacked_memory(install, model) -> None:
    install(Run(signal=signal.SIGKILL))
    assert "signal 9 ended it; the machine may be short of memory" in fails(model)


def test_a_compiler_that_hangs_is_killed_with_what_it_started(install, good, model) -> None:
    fake = install(replace(good, hangs=True))
    text = fails(model, "--timeout-s", 4)
    assert (
        "did not end within 4 s and was killed; give it more time (edgeml coral compile --timeout-s)" in text
    )
    (asked,) = fake.calls
    assert asked["argv"][3:5] == ["--timeout_sec", "4"]
    eventually(lambda: not is_running(int(asked["pid"])))
    assert files(model.parent) == ["model.tflite"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_kills_the_compiler_and_leaves_nothing(install, good, model, sent, code) -> None:
    fake = install(replace(good, hangs=True))
    interrupted(model, fake, sent=sent, code=code)
    assert files(model.parent) == ["model.tflite"]


def test_a_full_disk_is_named_before_anything_is_done(install, good, model, small_disk) -> None:
    fake = install(good)
    text = fails(model)
    assert "the disk is full on this machine: " in text
    assert "set TMPDIR to another place" in text
    assert fake.calls == []
    assert files(model.parent) == ["model.tflite"]


def test_a_full_disk_elsewhere_is_named(url, there, good, model, small_disk) -> None:
    fake = there(good)
    assert f"the disk is full on {url}: " in fails(model, "--via", url)
    assert fake.calls == []


@pytest.mark.parametrize("small_disk", [1500], indirect=True)
def test_a_disk_that_gets_full_is_named(install, model, tmp_path, small_disk) -> None:
    compiled = write_compiled(model, tmp_path / "large.tflite", 2_000_000)
    fake = install(Run(success(1, 1), compiled=str(compiled), log=LOG))
    assert "the disk is full on this machine: " in fails(model)
    assert len(fake.calls) == 1
    assert files(model.parent) == ["model.tflite"]


@pytest.mark.parametrize("output", ["out", "out/model.edgeml"])
def test_a_full_disk_where_the_result_goes_leaves_nothing(install, model, tmp_path, output) -> None:
    compiled = write_compiled(model, tmp_path / "large.tflite", 400_000)
    install(Run(success(1, 1, on_chip="390.63KiB"), compiled=str(compiled), log=LOG))
    (tmp_path / "out").mkdir()
    code = (
        "import resource, sys; from edgeml.cli import main\n"
        "import edgeml_converters.coral.compiled_bundle as b\n"
        "real = b.make_folder\n"
        "def full(folder):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); real(folder)\n"
        "b.make_folder = full; main(sys.argv[1:])"
    )
    argv = [sys.executable, "-c", code, "coral", "compile", str(model), "--output", str(tmp_path / output)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "disk" in done.stderr
    assert "full" in done.stderr
    assert [name for name in files(tmp_path / "out") if "edgetpu.tflite" in name or "edgeml" in name] == []
