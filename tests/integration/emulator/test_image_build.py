"""What a person at the terminal sees of building: an interruption, a missing program, a wrong name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from edgeml_devices.emulator.images.image import Image

from tests.integration.emulator.built_images import shared_cache
from tests.waiting import eventually

COMMAND = (sys.executable, "-P", "-m", "edgeml", "emulate")


def _emulate(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, env=os.environ | variables
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_build_leaves_nothing_half_and_no_program(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    build = subprocess.Popen(
        [*COMMAND, "build"],
        env=os.environ | {"EDGEML_CACHE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wheels = tmp_path / "emulator/edgeml"
    deadline = time.monotonic() + 180
    while not list(wheels.glob(".*")) and time.monotonic() < deadline:
        assert build.poll() is None, build.communicate()
        time.sleep(0.01)
    build.send_signal(number)
    _, said = build.communicate(timeout=180)
    assert build.returncode == code, said
    assert list(wheels.iterdir()) == []
    eventually(lambda: not _mentioned_by_a_process(str(tmp_path)), "its programs end")


def _mentioned_by_a_process(text: str) -> bool:
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in command.read_bytes():
                return True
        except OSError:
            continue
    return False


def test_every_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    done = _emulate("build", EDGEML_CACHE_DIR=str(tmp_path), PATH="/nowhere")
    assert done.returncode == 1
    assert "fakeroot (package fakeroot), " in done.stderr
    assert "qemu-img (package qemu-utils)" in done.stderr
    assert "apt-get install --no-install-recommends" in done.stderr


def test_an_unknown_board_is_wrong_usage() -> None:
    done = _emulate("build", "raspberry-pi-1")
    assert done.returncode == 2
    assert "raspberry-pi-zero-2w" in done.stderr


def test_a_mirror_that_is_none_is_named_and_nothing_half_is_kept(tmp_path: Path) -> None:
    cache = tmp_path / "emulator"
    cache.mkdir()
    (cache / "wheels").symlink_to(shared_cache() / "emulator/wheels")
    done = _emulate("build", "--mirror", "http://127.0.0.1:9/debian", EDGEML_CACHE_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "asking the Debian mirror failed: apt-get ended with exit code 100" in done.stderr
    assert list(cache.glob("plans/*")) == []


def test_a_built_image_is_listed_and_found_again_without_a_mirror(image: Image) -> None:
    where = {"EDGEML_CACHE_DIR": str(shared_cache())}
    listed = json.loads(_emulate("list", "--json", **where).stdout)
    assert image.key in {one["key"] for one in listed["images"]}
    again = _emulate("build", "--json", "--mirror", "http://127.0.0.1:9/debian", **where)
    assert json.loads(again.stdout)["image"]["key"] == image.key


def test_boards_are_listed_with_what_is_not_faithful() -> None:
    listed = json.loads(_emulate("boards", "--json").stdout)
    assert [one["name"] for one in listed["boards"]][-1] == "raspberry-pi-5"
    assert all("latency" in " ".join(one["not_faithful"]) for one in listed["boards"])
