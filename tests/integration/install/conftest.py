"""What deploys need: the command as it is called, devices without edgeml, and their homes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgeml.cli import main

Deploy = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine as a device without edgeml: only the system's tools, and an empty home folder."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))


DEVICE_COMMAND = f"""#!{sys.executable}
import sys
from edgeml import doctor
from edgeml.cli import main
doctor.GROUP = "none: a device has no tools of a workstation to look at"
sys.exit(main())
"""


@pytest.fixture
def provisioned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This machine as a device with edgeml."""
    command = tmp_path / "bin" / "edgeml"
    command.parent.mkdir()
    command.write_text(DEVICE_COMMAND)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "device home"


@pytest.fixture
def run() -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments)])

    return call


@pytest.fixture
def deploy(run: Callable[..., Result], home: Path) -> Deploy:
    """``edgeml deploy … --to local: --json``: its exit code, and what it says of the one device."""

    def call(*arguments: object) -> tuple[int, dict[str, Any]]:
        result = run("deploy", *arguments, "--to", "local:", "--home", home, "--json")
        assert result.stdout, result.stderr
        said = json.loads(result.stdout)
        return result.exit_code, said["devices"][0] if "devices" in said else said

    return call
