"""What of a compiler is not believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgeml_converters.coral import compile as coral_compiler

from edgeml.testing.coral.compiled import write_compiled
from edgeml.testing.models import make_double
from tests.fake_edgetpu_compiler import Run, operator_log, success
from tests.integration.coral_compile.calling import answer, call, fails, files, is_running, own_compiler
from tests.waiting import eventually


def test_nothing_mapped_is_a_failure_whatever_the_compiler_says(install, model, tmp_path) -> None:
    log = operator_log(
        ("RELU", 1, "Operation is working on an unsupported data type"), ("ADD", 3, "Operation not supported")
    )
    install(Run(success(4, 0), compiled=str(model), log=log))
    said = fails(model)
    assert (
        "the compiler mapped nothing to the Edge TPU: 3 × Operation not supported; 1 × Operation is" in said
    )
    assert "edgeml coral check" in said
    assert files(model.parent) == ["model.tflite"]


def test_success_without_a_file_is_a_failure_and_an_older_file_is_not_taken_for_it(install, model) -> None:
    install(Run(success(1, 1)))
    old = model.parent / "model_edgetpu.tflite"
    old.write_bytes(b"of yesterday")
    assert "it ended with exit code 0 and wrote nothing (Compilation succeeded!)" in fails(model)
    assert old.read_bytes() == b"of yesterday"


def test_a_compiler_that_says_only_its_version_failed(install, model) -> None:
    """As 15.0 did with what it could not segment."""
    install(Run(), version="15.0.340273435")
    assert "wrote nothing (Edge TPU Compiler version 15.0.340273435)" in fails(model)


@pytest.mark.parametrize("content", ["00" * 64, "1c00000054464c33" + "ff" * 99])
def test_a_file_that_is_no_compiled_model_is_a_failure(install, model, content) -> None:
    install(Run(success(1, 1), content=content))
    assert "is no compiled model that can be read" in fails(model)
    assert files(model.parent) == ["model.tflite"]


def test_a_cut_file_is_a_failure(install, good, model) -> None:
    content = Path(good.compiled).read_bytes()
    install(Run(success(1, 1), content=content[: len(content) // 2].hex()))
    assert "is no compiled model that can be read" in fails(model)


@pytest.mark.parametrize(
    ("does", "exit_code"),
    [
        ("cp {good} $out/x; ln -s x $made", 0),
        ("ln -s {good} $made", 0),
        ("cp {good} $made; mkdir $log", 0),
        ("cp {good} $made; mkfifo $log", 0),
        ("mkdir $made; cp {good} $made", 1),
        ("ln -s $made $made", 1),
        ("ln -s /dev/zero $made", 1),
        ("mkfifo $made", 1),
    ],
)
def test_what_is_no_plain_file_is_read_through_or_not_taken(good, model, tmp_path, does, exit_code) -> None:
    compiler = own_compiler(tmp_path, does.format(good=good.compiled))
    done = call(model, "--compiler", compiler)
    assert done.exit_code == exit_code, done.output
    made = model.parent / "model_edgetpu.tflite"
    assert made.is_file() is (exit_code == 0)
    assert not made.is_symlink()
    assert Path(good.compiled).is_file()
    assert "bug" not in done.stderr
    assert exit_code == 0 or "it ended with exit code" in done.stderr


@pytest.mark.parametrize("stream", [1, 2])
def test_a_compiler_that_prints_without_end_is_stopped(good, model, tmp_path, monkeypatch, stream) -> None:
    monkeypatch.setattr(coral_compiler, "_MOST_BYTES", 4 << 20)
    text = fails(model, "--compiler", own_compiler(tmp_path, f"exec cat /dev/zero >&{stream}"))
    assert "signal 25 ended it" in text
    assert "it wrote a file, or printed, more than 4.2 MB" in text


def test_only_the_end_of_what_a_compiler_prints_is_read(good, model, tmp_path) -> None:
    compiler = own_compiler(
        tmp_path,
        f"yes x | head -c 3000000; echo; cp {good.compiled} $made; truncate -s 100M $log; echo last words",
    )
    found = answer(model, "--compiler", compiler)
    assert found["mapped"] == 1
    assert (model.parent / "model_edgetpu.log").stat().st_size <= 1 << 20


def test_what_a_compiler_leaves_running_is_ended(good, model, tmp_path) -> None:
    pid = tmp_path / "pid"
    own = own_compiler(tmp_path, f"sleep 600 & echo $! >{pid}; cp {good.compiled} $made")
    answer(model, "--compiler", own)
    eventually(lambda: not is_running(int(pid.read_text())))


def test_the_compiled_file_of_another_model_is_a_failure(install, model, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    other = write_compiled(make_double(tmp_path / "other", "litert"), tmp_path / "other.tflite")
    install(Run(success(1, 1), compiled=str(other)))
    assert "other inputs or outputs: it is another model's" in fails(model)


def test_a_sound_file_counts_though_the_exit_code_is_not_zero(install, good, model) -> None:
    install(replace(good, exit_code=1))
    done = call(model)
    assert done.exit_code == 0
    assert "ended with exit code 1; its file is sound" in done.stdout
