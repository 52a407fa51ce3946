from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from edgeml_devices.emulator.images.cache import IN_USE, Cache, hold, remove_tree, unused
from edgeml_devices.emulator.images.image import Image

from edgeml.errors import EdgemlError


def test_an_artifact_is_made_once(tmp_path: Path) -> None:
    cache, made = Cache(tmp_path), []

    def fill(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("whole")

    first, second = cache.made("roots", "a1", fill), cache.made("roots", "a1", fill)
    assert first == second == tmp_path / "roots/a1"
    assert (first / "file").read_text() == "whole"
    assert len(made) == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_interrupted_artifact_leaves_nothing_half(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    cache = Cache(tmp_path)

    def fill(folder: Path) -> None:
        (folder / "locked").mkdir(mode=0o500)
        (folder / "half").write_text("")
        raise interruption

    with pytest.raises(interruption):
        cache.made("roots", "a1", fill)
    assert list((tmp_path / "roots").iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "roots/.a1.xyz"
    left.mkdir(parents=True)
    Cache(tmp_path).made("roots", "a1", lambda folder: (folder / "file").touch())
    assert [path.name for path in (tmp_path / "roots").iterdir()] == ["a1"]


def _slow_build(folder: Path, log: Path) -> None:
    def fill(scratch: Path) -> None:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        (scratch / "file").touch()

    assert (Cache(folder).made("roots", "a1", fill) / "file").exists()


def test_builders_in_parallel_share_one_build(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    builders = [context.Process(target=_slow_build, args=(tmp_path / "cache", log)) for _ in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(120)
    assert [builder.exitcode for builder in builders] == [0] * 4
    assert log.read_text() == "built\n"


def test_who_waits_for_another_builder_is_told_before(tmp_path: Path) -> None:
    cache, said = Cache(tmp_path), []
    waits = threading.Event()

    def on_wait() -> None:
        said.append("waits")
        waits.set()

    def other() -> None:
        cache.made("roots", "a1", lambda _: said.append("made twice"), on_wait)

    def fill(_: Path) -> None:
        second.start()
        assert waits.wait(60)
        said.append("made")

    second = threading.Thread(target=other)
    cache.made("roots", "a1", fill, lambda: said.append("waits for nobody"))
    second.join(60)
    assert said == ["waits", "made"]


def test_nothing_is_cleaned_while_something_is_built(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.building(), pytest.raises(EdgemlError, match="being built"), cache.cleaning():
        pass
    with cache.cleaning():
        pass


@pytest.fixture
def image(tmp_path: Path) -> Image:
    folder = tmp_path / "images/a1"
    folder.mkdir(parents=True)
    for name in ("disk.qcow2", IN_USE):
        (folder / name).touch()
    nowhere = tmp_path / "nowhere"
    return Image(
        *("a1", folder, ("litert",), "minimal", nowhere, nowhere, folder / "disk.qcow2"),
        *(nowhere, nowhere, nowhere, (), 0, 0),
    )


def test_a_held_image_is_in_use_until_its_last_holder_lets_go(image: Image) -> None:
    with hold(image), hold(image), unused(image.folder) as free:
        assert not free
    with unused(image.folder) as free:
        assert free


def test_a_process_that_got_the_descriptor_holds_the_image_after_us(image: Image) -> None:
    with hold(image) as descriptor:
        machine = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
        )
    try:
        with unused(image.folder) as free:
            assert not free
    finally:
        machine.kill()
        machine.communicate()
    with unused(image.folder) as free:
        assert free


def test_a_removed_image_cannot_be_held(image: Image) -> None:
    remove_tree(image.folder)
    with pytest.raises(EdgemlError, match="edgeml emulate build"), hold(image):
        pass


def test_an_image_without_its_disk_cannot_be_held(image: Image) -> None:
    gone = replace(image, disk=image.folder / "gone.qcow2")
    with pytest.raises(EdgemlError, match="edgeml emulate build"), hold(gone):
        pass


def test_a_folder_that_may_not_be_written_is_removed_too(tmp_path: Path) -> None:
    inside = tmp_path / "tree/private/deep"
    inside.mkdir(parents=True)
    (inside / "file").touch()
    inside.chmod(0o500)
    inside.parent.chmod(0o500)
    remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
