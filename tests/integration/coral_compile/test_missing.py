"""What is not there, or is not what it should be."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from edgeml.testing.models import make_double
from tests.fake_edgetpu_compiler import Run, fake_compiler
from tests.integration.coral_compile.calling import answer, call, fails


def only_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str = "") -> None:
    """Leave the usual tools in PATH, and let the machine be of another kind."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "uname", "test", "mkdir", "df", "mktemp", "rm"):
        (tools / name).symlink_to(str(shutil.which(name)))
    if platform:
        system, machine = platform.split()
        (tools / "uname").unlink()
        (tools / "uname").write_text(f'#!/bin/sh\n[ "$1" = -s ] && echo {system} || echo {machine}\n')
        (tools / "uname").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))


def test_a_machine_without_the_compiler_says_where_it_comes_from(model, tmp_path, monkeypatch) -> None:
    only_tools(tmp_path, monkeypatch)
    text = fails(model)
    assert "this machine has no program edgetpu_compiler (not in PATH, /usr/bin, /usr/local/bin)" in text
    assert "install Coral's package edgetpu-compiler" in text
    assert "--compiler-via ssh://USER@HOST" in text


@pytest.mark.parametrize("platform", ["Linux aarch64", "Darwin arm64"])
def test_a_machine_on_which_it_does_not_run_says_so(model, tmp_path, monkeypatch, platform) -> None:
    only_tools(tmp_path, monkeypatch, platform)
    text = fails(model)
    assert f"Coral's compiler runs on x86-64 Linux alone, and this is {platform}" in text
    assert "--compiler-via ssh://USER@HOST" in text
    assert "install" not in text


def test_a_machine_of_another_kind_may_have_one_all_the_same(good, model, tmp_path, monkeypatch) -> None:
    """In an emulator, or a script that starts a container."""
    fake = fake_compiler(tmp_path / "mine", good)
    only_tools(tmp_path, monkeypatch, "Darwin arm64")
    assert answer(model, "--compiler", fake.path)["mapped"] == 1


def test_the_compiler_may_be_named_by_a_variable(good, model, tmp_path, monkeypatch) -> None:
    fake = fake_compiler(tmp_path / "mine", good)
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", str(fake.path))
    assert answer(model)["compiler"]["path"] == str(fake.path)
    monkeypatch.setenv("EDGEML_EDGETPU_COMPILER", "yours")
    assert "this machine has no program yours: " in fails(model)


def test_the_compiler_may_be_named_by_a_relative_path(good, model, tmp_path, monkeypatch) -> None:
    fake = fake_compiler(tmp_path / "mine", good)
    monkeypatch.chdir(tmp_path)
    assert answer(model, "--compiler", "mine/edgetpu_compiler")["compiler"]["path"] == str(fake.path)
    assert "this machine has no" in fails(model, "--compiler", "yours/edgetpu_compiler")


def test_what_it_prints_does_not_write_to_the_terminal(install, model) -> None:
    install(Run("\x1b]0;owned\x07Internal compiler error \x1b[2J", exit_code=1))
    assert "\x1b" not in fails(model)


def test_another_program_is_not_taken_for_it(model) -> None:
    text = fails(model, "--compiler", shutil.which("true"))
    assert "is no Edge TPU compiler that can be run: with --version it should say" in text


def test_a_program_of_another_machine_says_so(model, tmp_path) -> None:
    foreign = tmp_path / "edgetpu_compiler"
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(200))
    foreign.chmod(0o755)
    assert "is no Edge TPU compiler that can be run" in fails(model, "--compiler", foreign)


def test_what_is_compiled_already_or_no_tflite_is_not_compiled(install, good, model, tmp_path) -> None:
    fake = install(good)
    assert "compiled for the Edge TPU already" in fails(good.compiled)
    assert "edgeml convert" in fails(make_double(tmp_path, "onnxruntime"))
    assert fake.calls == []


def test_machines_are_told_of_errors(install, model) -> None:
    install(Run(signal=signal.SIGSEGV))
    done = call(model, "--json")
    found = json.loads(done.stdout)
    assert found["error"]["type"] == "ConversionError"
    assert "signal 11" in found["error"]["message"]
