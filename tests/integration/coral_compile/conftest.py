"""A program in the compiler's place, here and behind a connection; nothing may be left."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeml.testing.coral.compiled import write_compiled
from edgeml.testing.models import make_quantized
from tests.conftest import require
from tests.fake_edgetpu_compiler import V16, FakeCompiler, Run, fake_compiler, success
from tests.integration.coral_compile.calling import LOG
from tests.integration.transports.ssh_server import ssh_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, of this machine and of others; empty afterwards, whatever happened."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture(autouse=True)
def nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEML_EDGETPU_COMPILER", raising=False)


@pytest.fixture(autouse=True)
def nothing_is_left(scratch: Path) -> Iterator[None]:
    yield
    assert list(scratch.glob("edgeml*")) == []


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return make_quantized(tmp_path / "models", "litert")


@pytest.fixture
def good(model: Path, tmp_path: Path) -> Run:
    """The compiler has compiled the model."""
    compiled = write_compiled(model, tmp_path / "good.tflite")
    return Run(success(1, 1), compiled=str(compiled), log=LOG)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCompiler]:
    """Put a compiler into PATH."""

    def make(*runs: Run, version: str = V16) -> FakeCompiler:
        fake = fake_compiler(tmp_path / "coral tools", *runs, version=version)
        monkeypatch.setenv("PATH", f"{fake.path.parent}:{os.environ['PATH']}")
        return fake

    return make


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, scratch: Path) -> Iterator[None]:
    """The temporary folder is a disk of so many KiB."""
    size = getattr(request, "param", 256)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(scratch)]
    done = subprocess.run(mount, check=False, capture_output=True)
    require(done.returncode == 0, "mounting a tmpfs takes root")
    yield
    subprocess.run(["umount", str(scratch)], check=True)


@pytest.fixture(params=["local", "ssh"])
def url(request: pytest.FixtureRequest, scratch: Path, tmp_path: Path) -> Iterator[str]:
    """Another machine, whose PATH has the compiler; this one's has it too, and fails."""
    if request.param == "local":
        yield "local:"
        return
    (tmp_path / "sshd").mkdir()
    there = tmp_path / "there"
    with ssh_server(
        tmp_path / "sshd", f"SetEnv PATH={there}:{os.environ['PATH']} TMPDIR={scratch}"
    ) as server:
        yield server.url


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCompiler]:
    def make(*runs: Run) -> FakeCompiler:
        fake = fake_compiler(tmp_path / "there", *runs)
        monkeypatch.setenv("PATH", f"{fake.path.parent}:{os.environ['PATH']}")
        return fake

    return make
