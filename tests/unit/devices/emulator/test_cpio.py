from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from edgeml_devices.emulator.images.cpio import CpioArchive

from tests.conftest import require


@pytest.fixture(autouse=True)
def busybox() -> None:
    require(shutil.which("busybox"), "busybox is not installed")


def _archive() -> bytes:
    archive = CpioArchive()
    archive.folder("bin")
    archive.file("bin/tool", b"\x7fELF!", 0o755)
    archive.link("bin/sh", "tool")
    archive.file("empty", b"")
    archive.character_device("console", 5, 1)
    return archive.finish()


def test_busybox_unpacks_what_was_added(tmp_path: Path) -> None:
    subprocess.run(
        ["busybox", "cpio", "-i", "bin", "bin/*", "empty"], input=_archive(), cwd=tmp_path, check=True
    )
    assert (tmp_path / "bin/tool").read_bytes() == b"\x7fELF!"
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bin/sh").readlink() == Path("tool")
    assert (tmp_path / "empty").read_bytes() == b""


def test_the_list_is_in_the_order_in_which_it_was_added() -> None:
    listed = subprocess.run(["busybox", "cpio", "-t"], input=_archive(), capture_output=True, check=True)
    assert listed.stdout.split() == [b"bin", b"bin/tool", b"bin/sh", b"empty", b"console"]


def test_a_header_is_as_the_kernel_reads_it() -> None:
    archive = CpioArchive()
    archive.character_device("dev/console", 5, 1)
    content = archive.finish()
    fields = [int(content[6 + 8 * place : 14 + 8 * place], 16) for place in range(13)]
    assert content[:6] == b"070701"
    assert fields == [1, 0o020600, 0, 0, 1, 0, 0, 0, 0, 5, 1, len("dev/console") + 1, 0]
    assert len(content) % 4 == 0


def test_the_same_content_gives_the_same_bytes() -> None:
    assert _archive() == _archive()
