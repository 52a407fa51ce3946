"""A clone and a Python are enough: what is missing is named, with the command that brings it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from edgeml_devices.emulator.tools import TO_BOOT, TO_BUILD, TO_RUN_IN_USER_MODE

from tests.conftest import REPOSITORY, require

MAKE_VENV = REPOSITORY / "scripts" / "make-venv"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder that stands first in PATH; its programs stand in for the machine's."""
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


def _program(folder: Path, name: str, text: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/bash\n{text}\n")
    program.chmod(0o755)
    return program


def _python_without_venv(folder: Path) -> Path:
    return _program(
        folder, "bare-python", f'[[ "$*" == *"import venv"* ]] && exit 1\nexec {sys.executable} "$@"'
    )


def _make_venv(target: Path, tools: Path, python: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": python, "PATH": f"{tools}:{os.environ['PATH']}"}
    return subprocess.run(
        [MAKE_VENV, target], capture_output=True, text=True, check=False, env=environment, cwd=target.parent
    )


def test_an_environment_is_made_and_kept(tmp_path: Path, tools: Path) -> None:
    target = tmp_path / "venv"
    assert _make_venv(target, tools, sys.executable).returncode == 0
    made = (target / "pyvenv.cfg").stat().st_mtime_ns
    assert _make_venv(target, tools, sys.executable).returncode == 0
    assert (target / "pyvenv.cfg").stat().st_mtime_ns == made


def test_a_python_without_venv_says_which_package_to_install(tmp_path: Path, tools: Path) -> None:
    _program(tools, "id", "echo 1000")
    done = _make_venv(tmp_path / "venv", tools, str(_python_without_venv(tools)))
    assert done.returncode == 1
    assert f"apt-get install python3.{sys.version_info.minor}-venv" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_root_on_debian_gets_the_missing_package(tmp_path: Path, tools: Path) -> None:
    log = tmp_path / "apt.log"
    _program(tools, "id", "echo 0")
    _program(tools, "apt-get", f'echo "$*" >> {log}')
    done = _make_venv(tmp_path / "venv", tools, str(_python_without_venv(tools)))
    assert done.returncode == 0, done.stderr
    assert f"python3.{sys.version_info.minor}-venv" in log.read_text().splitlines()[-1]


def test_root_on_debian_gets_every_program_that_the_emulator_needs(tmp_path: Path, tools: Path) -> None:
    log = tmp_path / "apt.log"
    _program(tools, "id", "echo 0")
    _program(tools, "apt-get", f'echo "$*" >> {log}')
    script = REPOSITORY / "scripts" / "install-test-tools"
    subprocess.run(["/bin/bash", script], env={"PATH": str(tools)}, check=True)  # nothing else is there
    needed = {tool.package for tool in (*TO_BUILD, *TO_BOOT, *TO_RUN_IN_USER_MODE)}
    of_every_debian = {"apt", "dpkg", "e2fsprogs", "tar"}
    assert needed - of_every_debian <= set(log.read_text().split())


def test_an_old_python_is_not_taken(tmp_path: Path, tools: Path) -> None:
    old = _program(tools, "old-python", "exit 1")
    for name in ("python3.11", "python3", "python3.12", "python3.13"):
        _program(tools, name, "exit 1")
    done = _make_venv(tmp_path / "venv", tools, str(old))
    assert done.returncode == 1
    assert "Python 3.11 or newer" in done.stderr


def test_nothing_of_a_machine_or_a_package_host_is_written_down() -> None:
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    require(listed.returncode == 0, "not a git working tree")
    texts = (REPOSITORY / name for name in listed.stdout.split() if name.endswith((".txt", ".toml", ".lock")))
    assert [
        str(path) for path in texts if "https://pypi" in path.read_text() or "index-url" in path.read_text()
    ] == []
