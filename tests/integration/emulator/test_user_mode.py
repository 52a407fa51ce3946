"""User mode beyond the contract of transports: which processor, whose files, and a wrong emulator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from click.testing import CliRunner
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.address import emulator_address
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.user import launcher
from edgeml_devices.emulator.user.transport import UserTransport

from edgeml import plugins
from edgeml.cli import main
from edgeml.errors import TransportError, UsageError
from edgeml.testing.models import make_double
from edgeml.words import RUNTIMES, RuntimeName
from tests.conftest import require
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("full_image", "built_cache")
URL = "emulator:raspberry-pi-4?mode=user"
OWNER = """
import sys
from edgeml import plugins
with plugins.transport(sys.argv[1]) as board:
    board.run(["sh", "-c", 'setsid sleep "$1" & sleep "$1" & true', "sh", sys.argv[2]], 60)
    print("started", flush=True)
    board.run(["sleep", sys.argv[2]], 600)
"""
KINDS: Mapping[str, Callable[[list[str]], bool]] = {
    "launcher": lambda words: launcher.__file__ in words,
    "proot": lambda words: words[0] == str(tools.find(tools.PROOT)),
    "program": lambda words: words[-3] == "/usr/bin/sleep",
}
PROGRAMS = 3
"""Those that the owner starts: one left its session, one is in the background."""


def _programs(mark: str, kind: str) -> list[int]:
    """Give the processes of a kind among those that have the mark as an argument."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = file.read_text(errors="replace").split("\0")
            if mark in words and KINDS[kind](words):
                found.append(int(file.parent.name))
    return found


def test_children_without_an_environment_see_the_board_too() -> None:
    script = 'env -i /bin/sh -c \'uname -m; grep -c -e 0xd08 /proc/cpuinfo; /usr/bin/python3 -c "$0"\' "$1"'
    code = "import os, platform; print(platform.machine(), os.cpu_count())"
    with plugins.transport(URL) as board:
        done = board.run(["sh", "-c", script, "sh", code], 60)
    assert done.stdout.decode().split() == ["aarch64", "4", "aarch64", "4"]


def test_a_command_that_ends_takes_nothing_from_another_that_runs(tmp_path: Path) -> None:
    """Whoever comes first made the mount points that the image lacked, and took them along."""
    waits = 'touch "/tmp/$1-began"; while [ ! -e "/tmp/$1-ends" ]; do sleep 0.1; done; shift; "$@"'
    folder = tmp_path / "board"
    ended: list[int] = []

    def run(name: str, *argv: str) -> Thread:
        def body() -> None:
            with plugins.transport(f"{URL}&folder={folder}") as board:
                ended.append(board.run(["sh", "-c", waits, "sh", name, *argv], 120).exit_code)

        thread = Thread(target=body)
        thread.start()
        eventually((folder / "tmp" / f"{name}-began").exists, f"{name} began", 60)
        return thread

    first = run("first", "true")
    second = run("second", "python3", "-P", "-c", "import numpy")
    for name, thread in (("first", first), ("second", second)):
        (folder / "tmp" / f"{name}-ends").touch()
        thread.join()
    assert ended == [0, 0]


@pytest.mark.parametrize("name", ["raspberry-pi-zero-2w", "raspberry-pi-4", "raspberry-pi-5"])
def test_edgeml_there_sees_board_and_engines(name: str) -> None:
    with plugins.transport(f"emulator:{name}?mode=user") as board:
        said = board.run(["edgeml", "targets", "host"], 120).stdout.decode()
    assert f"target:        {name}" in said
    assert "litert onnxruntime openvino" in said


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_each_engine_runs_a_model_there(tmp_path: Path, runtime: RuntimeName) -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 16)
    np.save(tmp_path / "x.npy", x)
    model = make_double(tmp_path, runtime)
    done = CliRunner().invoke(main, ["run", str(model), f"{tmp_path}/x.npy", "--on", URL, "--json"])
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert result["outputs"]["y"] == (2 * x).tolist()


def test_a_wrong_emulator_is_found_before_anything_counts() -> None:
    address = emulator_address(URL)
    wrong = UserTransport(replace(address, board=replace(address.board, cpu="max")))
    with pytest.raises(TransportError, match="the emulated max is not sound: an int8 layer gives"):
        wrong.connect()
    with pytest.raises(TransportError, match="not connected"):
        wrong.run(["true"], 20)


def test_what_is_written_stays_with_the_connection(full_image: Image, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with plugins.transport(URL) as board:
        board.run(["sh", "-c", "echo mine > /etc/hostname; echo mine > /var/lib/edgeml/note"], 20)
        board.put(tmp_path / "file", "/opt/file")
        assert board.run(["cat", "/etc/hostname", "/opt/file"], 20).stdout == b"mine\nmine"
    assert (full_image.root / "etc/hostname").read_text() == "edgeml\n"
    with plugins.transport(URL) as board:
        assert board.run(["ls", "-A", "/opt", "/var/lib/edgeml"], 20).stdout.split() == [
            *(b"/opt:", b"/var/lib/edgeml:")
        ]


def test_a_named_folder_keeps_what_was_written(tmp_path: Path) -> None:
    url = f"{URL}&folder={tmp_path / 'board'}"
    with plugins.transport(url) as board:
        board.run(["sh", "-c", "echo kept > note"], 20)
    with plugins.transport(url) as board:
        assert board.run(["cat", "note"], 20).stdout == b"kept\n"


def test_the_folder_of_a_killed_process_goes_with_the_next_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    owner = subprocess.Popen([sys.executable, "-c", OWNER, URL, "60"], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        (folder,) = tmp_path.iterdir()
        os.utime(folder, (0, 0))
        with plugins.transport(URL):
            assert folder.exists()
    finally:
        owner.kill()
        owner.communicate()
    os.utime(folder, (0, 0))
    with plugins.transport(URL):
        assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_proot_would_not_bind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="user mode takes no folder with ':' in its name"):
        plugins.transport(f"{URL}&folder={tmp_path / 'a:b'}").connect()
    assert not (tmp_path / "a:b").exists()


def test_files_of_the_image_are_not_replaced(full_image: Image, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("other")
    with (
        plugins.transport(URL) as board,
        pytest.raises(TransportError, match="/usr/bin belongs to the image, which others use"),
    ):
        board.put(tmp_path / "file", "/bin/edgeml-note")
    assert not (full_image.root / "usr/bin/edgeml-note").exists()


def test_files_of_this_machine_are_not_seen() -> None:
    here = Path(__file__)
    with plugins.transport(URL) as board:
        assert board.run(["test", "-e", str(here)], 20).exit_code == 1
        assert board.run(["ls", "-ld", str(here.parent)], 20).exit_code != 0
        assert board.run(["mv", str(here), "/tmp/stolen"], 20).exit_code != 0  # noqa: S108 - there
    assert here.exists()


def test_a_child_left_in_the_background_ends_with_the_connection(tmp_path: Path) -> None:
    url = f"{URL}&folder={tmp_path / 'board'}"
    with plugins.transport(url) as board:
        board.run(["sh", "-c", "(while :; do date > /tmp/seen; sleep 0.2; done) & true"], 20)
        board.run(["sh", "-c", "until [ -e /tmp/seen ]; do sleep 0.1; done"], 60)
    seen = tmp_path / "board/tmp/seen"
    seen.unlink()
    with plugins.transport(url) as board:
        board.run(["sleep", "1"], 20)
    assert not seen.exists()


@pytest.mark.parametrize("killed", ["owner", "launcher", "proot"])
def test_nothing_goes_on_without_the_process_that_started_it(killed: str) -> None:
    mark = f"600.{uuid.uuid4().int}"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, URL, mark], stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        eventually(lambda: len(_programs(mark, "program")) == PROGRAMS, "all programs run")
        for pid in [owner.pid] if killed == "owner" else _programs(mark, killed):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not _programs(mark, "program"), "all programs end", 10)
    finally:
        owner.kill()
        owner.communicate()


def test_a_service_that_left_its_session_ends_with_the_connection() -> None:
    mark = f"600.{uuid.uuid4().int}"
    with plugins.transport(URL) as board:
        board.run(["sh", "-c", 'setsid sleep "$1" & true', "sh", mark], 20)
        eventually(lambda: _programs(mark, "program"), "it runs")
        board.run(["sleep", "1"], 20)
    assert not _programs(mark, "program")


def test_what_a_thread_left_in_the_background_outlives_the_thread() -> None:
    mark = f"600.{uuid.uuid4().int}"
    with plugins.transport(URL) as board:
        thread = Thread(target=board.run, args=(["sh", "-c", 'sleep "$1" & true', "sh", mark], 20))
        thread.start()
        thread.join()
        eventually(lambda: _programs(mark, "program"), "it runs")
        board.run(["sleep", "0.5"], 20)
        assert _programs(mark, "program")
    assert not _programs(mark, "program")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(tmp_path)]
    done = subprocess.run(mount, capture_output=True, check=False)
    require(done.returncode == 0, "mounting a tmpfs takes root")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_disk_too_full_for_the_board_leaves_no_half_of_it(small_disk: Path) -> None:
    count = ["sh", "-c", "find /etc -type f -size +0 | wc -l"]
    with plugins.transport(URL) as board:
        whole = board.run(count, 60).stdout
    url = f"{URL}&folder={small_disk / 'board'}"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(6_100_000))
    with pytest.raises(
        TransportError, match=r"board cannot be filled: \[Errno 28\] No space left on device$"
    ):
        plugins.transport(url).connect()
    filler.unlink()
    with plugins.transport(url) as board:
        assert board.run(count, 60).stdout == whole


def test_what_a_program_says_is_whole_where_this_machines_disk_is_full(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with plugins.transport(URL) as board:
        with suppress(OSError):
            (small_disk / "filler").write_bytes(bytes(7_000_000))
        done = board.run(["sh", "-c", "seq 2000; echo failed >&2"], 60)
    assert len(done.stdout.split()) == 2000
    assert done.stderr == b"failed\n"
