"""Spools that are older than the rings: removed, restored, damaged, or two. No inference counts twice."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeml.telemetry import Recorder, recorder
from edgeml.telemetry.device import TelemetryPlan, run_telemetry
from edgeml.telemetry.posting import Poster
from edgeml.telemetry.settings import TelemetrySettings
from tests.faults.tiny_collector import TOKEN, Collector, CollectorServer
from tests.waiting import eventually

WINDOW_S = 0.1


@pytest.fixture
def rings() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
def collector() -> Collector:
    return Collector()


@pytest.fixture
def url(collector: Collector) -> Iterator[str]:
    with CollectorServer(collector) as server:
        yield server.url


@pytest.fixture
def one(rings: Path) -> Iterator[Recorder]:
    with recorder("kws", release=7, settings=TelemetrySettings(folder=str(rings))) as one:
        yield one


@contextmanager
def device(home: Path, rings: Path, url: str) -> Iterator[None]:
    """Keep and send what is recorded."""
    stop, post = threading.Event(), Poster(url, TOKEN)
    plan = TelemetryPlan(home, rings, window_s=WINDOW_S, tick_s=WINDOW_S / 2)
    thread = threading.Thread(target=run_telemetry, args=(plan, post, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        post.close()


def record(one: Recorder, count: int) -> None:
    for _ in range(count):
        one.record(0.01)


def windows_after(collector: Collector, count: int = 3) -> None:
    """Wait for some more windows."""
    before = len(collector.stored)
    eventually(lambda: len(collector.stored) >= before + count)


def remove(home: Path, _backup: Path) -> None:
    shutil.rmtree(home / "spool")


def restore(home: Path, backup: Path) -> None:
    shutil.rmtree(home / "spool")
    shutil.copytree(backup, home / "spool")


def lose_state(home: Path, _backup: Path) -> None:
    (home / "spool" / "state.json").unlink()


def damage(home: Path, _backup: Path) -> None:
    segment = max((home / "spool").glob("*.seg"))
    with segment.open("r+b") as file:
        file.seek(-min(6000, segment.stat().st_size), os.SEEK_END)
        file.write(b"\xff" * 6000)


@pytest.mark.parametrize("ruin", [remove, restore, lose_state, damage])
def test_what_was_read_for_a_spool_that_is_gone_is_not_read_again(
    tmp_path: Path,
    rings: Path,
    url: str,
    collector: Collector,
    one: Recorder,
    ruin: Callable[[Path, Path], None],
) -> None:
    home = tmp_path / "home"
    record(one, 10)
    with device(home, rings, url):
        eventually(lambda: collector.calls() == 10)
    shutil.copytree(home / "spool", tmp_path / "backup")
    record(one, 20)
    with device(home, rings, url):
        eventually(lambda: collector.calls() == 30)
    ruin(home, tmp_path / "backup")
    record(one, 5)
    with device(home, rings, url):
        eventually(lambda: collector.calls() >= 35)
        windows_after(collector)
    assert collector.calls() == 35


def test_two_homes_do_not_count_the_same_rings_and_one_follows_the_other(
    tmp_path: Path, rings: Path, url: str, collector: Collector, one: Recorder
) -> None:
    with device(tmp_path / "first", rings, url):
        record(one, 10)
        eventually(lambda: collector.calls() == 10)
        with device(tmp_path / "second", rings, url):
            record(one, 20)
            eventually(lambda: len(collector.streams) == 2)
            windows_after(collector, 6)
            assert collector.calls() == 30
    with device(tmp_path / "second", rings, url):
        record(one, 5)
        eventually(lambda: collector.calls() >= 35)
        windows_after(collector)
    assert collector.calls() == 35


def test_rings_that_are_removed_under_a_living_process_are_read_to_its_end(
    tmp_path: Path, rings: Path, url: str, collector: Collector
) -> None:
    folder = rings / "theirs"
    with device(tmp_path / "home", folder, url):
        with recorder("kws", release=7, settings=TelemetrySettings(folder=str(folder))) as one:
            record(one, 10)
            eventually(lambda: collector.calls() == 10)
            shutil.rmtree(folder)
            record(one, 20)
            eventually(lambda: collector.calls() == 30)
            with recorder("kws", release=7, settings=TelemetrySettings(folder=str(folder))) as another:
                record(another, 5)
            record(one, 7)
        eventually(lambda: collector.calls() >= 42)
        windows_after(collector)
    assert collector.calls() == 42


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "nonsense"])
def test_something_else_in_the_marks_place_does_no_harm(
    tmp_path: Path, rings: Path, url: str, collector: Collector, one: Recorder, kind: str
) -> None:
    place = rings / f"read-{os.geteuid()}"
    match kind:
        case "folder":
            place.mkdir()
        case "link":
            (tmp_path / "secret").write_text("secret")
            place.symlink_to(tmp_path / "secret")
        case "pipe":
            os.mkfifo(place)
        case _:
            place.write_bytes(b'{"x": [[[\n\xff' * 1000)
    record(one, 10)
    with device(tmp_path / "home", rings, url):
        eventually(lambda: collector.calls() == 10)
        windows_after(collector)
    assert collector.calls() == 10
    if kind == "link":
        assert (tmp_path / "secret").read_text() == "secret"
