"""``edgeml coral compile`` sent to an emulated board: an ARM machine, where Coral's compiler does not run."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeml.cli import main
from edgeml.testing.models import make_quantized

pytestmark = pytest.mark.usefixtures("full_image", "built_cache")
URL = "emulator:raspberry-pi-4?mode=user"


def test_a_board_says_that_the_compiler_does_not_run_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEML_EDGETPU_COMPILER", raising=False)
    model = make_quantized(tmp_path, "litert")
    done = CliRunner().invoke(main, ["coral", "compile", str(model), "--via", URL])
    assert done.exit_code == 1
    assert f"{URL} has no program edgetpu_compiler" in done.stderr
    assert "Coral's compiler runs on x86-64 Linux alone, and this is Linux aarch64" in done.stderr
    assert "--compiler-via ssh://USER@HOST" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == [model.name]
