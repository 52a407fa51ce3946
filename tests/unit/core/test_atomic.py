"""Files and folders that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from edgeml.atomic import new_file, replacing_file, replacing_folder


def put(place: Path | BinaryIO, content: bytes) -> None:
    """Write to what one of the three gives."""
    if not isinstance(place, Path):
        place.write(content)
    elif place.is_dir():
        (place / "inner").write_bytes(content)
    else:
        place.write_bytes(content)


def got(path: Path) -> bytes:
    return (path / "inner" if path.is_dir() else path).read_bytes()


Maker = Callable[[Path], AbstractContextManager[Any]]
MAKERS = pytest.mark.parametrize("make", [replacing_file, new_file, replacing_folder])


@MAKERS
def test_a_pipe_or_device_is_not_replaced(tmp_path: Path, make: Maker) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(FileExistsError, match="a pipe or device, not a place for a file"), make(path):
            pass
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


@MAKERS
def test_it_appears_when_it_is_whole_and_replaces_what_was_there(tmp_path: Path, make: Maker) -> None:
    path = tmp_path / "out"
    for content in (b"first", b"second"):
        with make(path) as place:
            put(place, content)
            assert not path.exists() or got(path) == b"first"
        assert got(path) == content
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@MAKERS
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, make: Maker, error: type[BaseException]
) -> None:
    path = tmp_path / "out"
    with make(path) as place:
        put(place, b"old")

    def interrupted() -> None:
        with make(path) as place:
            put(place, b"new")
            raise error

    with pytest.raises(error):
        interrupted()
    assert got(path) == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


@MAKERS
def test_permissions_follow_the_umask(tmp_path: Path, make: Maker) -> None:
    before = os.umask(0o027)
    try:
        with make(tmp_path / "out") as place:
            put(place, b"")
    finally:
        os.umask(before)
    wanted = 0o750 if (tmp_path / "out").is_dir() else 0o640
    assert (tmp_path / "out").stat().st_mode & 0o777 == wanted


@MAKERS
def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path, make: Maker) -> None:
    path = tmp_path / "missing" / "out"
    with pytest.raises(FileNotFoundError) as caught, make(path):
        pass
    assert caught.value.filename == str(path)


FULL = """
import sys
from pathlib import Path
from edgeml import atomic
try:
    with getattr(atomic, sys.argv[1])(Path(sys.argv[2])) as place:
        content = bytes(1_000_000)
        place.write_bytes(content) if isinstance(place, Path) else place.write(content)
except OSError as error:
    print(error.filename)
"""


@pytest.mark.parametrize("name", ["replacing_file", "new_file"])
def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, name, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)),
    )
    assert done.stdout == f"{tmp_path / 'out'}\n"
    assert list(tmp_path.iterdir()) == []


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing_file(tmp_path / "out"):
        (tmp_path / "source").read_bytes()
    assert caught.value.filename == str(tmp_path / "source")


def test_where_nameless_files_cannot_be_made_a_scratch_file_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    with new_file(tmp_path / "out") as file:
        file.write(b"content")
    assert (tmp_path / "out").read_bytes() == b"content"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
