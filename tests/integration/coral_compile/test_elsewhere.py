"""Another machine compiles."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from edgeml_converters.coral import compile as coral_compiler

from edgeml.bundle import open_bundle
from tests.fake_edgetpu_compiler import FAILED, V16, Run, fake_compiler, success
from tests.integration.coral_compile.calling import (
    LOG,
    answer,
    fails,
    files,
    interrupted,
    is_running,
    own_compiler,
)
from tests.integration.transports.ssh_server import ssh_server
from tests.waiting import eventually


def test_another_machine_compiles(url, there, good, model, scratch) -> None:
    fake = there(good)
    found = answer(model, "--via", url)
    assert found["compiler"] == {"path": str(fake.path), "version": V16, "on": url}
    assert (model.parent / "model_edgetpu.tflite").read_bytes() == Path(good.compiled).read_bytes()
    assert (model.parent / "model_edgetpu.log").read_text() == LOG
    (asked,) = fake.calls
    assert asked["folder"].startswith(f"{scratch}/edgeml.")
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (Run(FAILED.format(said=""), exit_code=1), "failed (2 attempts)"),
        (Run(signal=signal.SIGSEGV), "signal 11"),
        (Run(success(1, 1)), "wrote nothing"),
        (Run(success(1, 1), content="00" * 64), "no compiled model"),
    ],
    ids=["internal", "crash", "nothing", "garbage"],
)
def test_what_fails_there_fails_as_here_and_leaves_nothing(url, there, model, scratch, does, says) -> None:
    there(does)
    assert says in fails(model, "--via", url)
    assert files(model.parent) == ["model.tflite"]
    assert list(scratch.iterdir()) == []


def test_a_compiler_that_hangs_there_is_killed(url, there, good, model, scratch) -> None:
    fake = there(replace(good, hangs=True))
    assert "did not end within 4 s and was killed" in fails(model, "--via", url, "--timeout-s", 4)
    eventually(lambda: not is_running(int(fake.calls[0]["pid"])))
    assert list(scratch.iterdir()) == []


def test_ctrl_c_kills_it_there_too(url, there, good, model, scratch) -> None:
    fake = there(replace(good, hangs=True))
    interrupted(model, fake, "--via", url)
    assert list(scratch.iterdir()) == []


def test_what_it_leaves_running_there_is_ended(url, good, model, tmp_path, scratch) -> None:
    pid = tmp_path / "pid"
    own = own_compiler(tmp_path, f"sleep 600 & echo $! >{pid}; ln -s {good.compiled} $made")
    answer(model, "--via", url, "--compiler", own)
    eventually(lambda: not is_running(int(pid.read_text())))
    assert not (model.parent / "model_edgetpu.tflite").is_symlink()
    assert list(scratch.iterdir()) == []


def test_printing_there_without_end_is_stopped(url, good, model, tmp_path, monkeypatch, scratch) -> None:
    monkeypatch.setattr(coral_compiler, "_MOST_BYTES", 4 << 20)
    own = own_compiler(tmp_path, "exec cat /dev/zero")
    assert "signal 25 ended it" in fails(model, "--via", url, "--compiler", own)
    assert list(scratch.iterdir()) == []


def test_two_compilations_there_at_once_do_not_meet(url, good, model, tmp_path, scratch) -> None:
    own = own_compiler(tmp_path, f"sleep 1; [ -e model.tflite ] && cp {good.compiled} $made")
    argv = [sys.executable, "-m", "edgeml", "coral", "compile", str(model), "--via", url]
    programs = [
        subprocess.Popen([*argv, "--compiler", str(own), "-o", str(tmp_path / name)], stderr=subprocess.PIPE)
        for name in ("first", "second.edgeml", "first")
    ]
    for program in programs:
        assert program.communicate(timeout=180)[1].count(b"error") == 0
        assert program.returncode == 0
    assert files(tmp_path / "first") == ["model.tflite", "model_edgetpu.log", "model_edgetpu.tflite"]
    assert open_bundle(tmp_path / "second.edgeml").manifest.variants[0].needs.accelerator == "edgetpu"
    assert list(scratch.iterdir()) == []


def test_a_machine_that_is_lost_is_an_error_and_its_compiler_is_killed(
    good, model, scratch, tmp_path
) -> None:
    fake = fake_compiler(tmp_path / "there", replace(good, hangs=True))
    (tmp_path / "sshd").mkdir()
    with ssh_server(tmp_path / "sshd", f"SetEnv TMPDIR={scratch}") as server:
        argv = [sys.executable, "-m", "edgeml", "coral", "compile", str(model), "--via", server.url]
        argv += ["--compiler", str(fake.path)]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as program:
            eventually(lambda: fake.calls)
            server.cut()
            _, said = program.communicate(timeout=120)
        assert program.returncode == 1
        assert "the connection was lost" in said
        eventually(lambda: not is_running(int(fake.calls[0]["pid"])))
    assert files(model.parent) == ["model.tflite"]
    shutil.rmtree(next(scratch.glob("edgeml.*")))  # nobody is left to remove it


def test_a_machine_without_the_compiler_is_named(url, model) -> None:
    text = fails(model, "--via", url, "--compiler", "no_such_compiler")
    assert f"{url} has no program no_such_compiler" in text


def test_a_machine_that_cannot_be_reached_is_named(model, tmp_path) -> None:
    text = fails(model, "--via", "ssh://127.0.0.1:1")
    assert "ssh://127.0.0.1:1" in text
