from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from edgeml_devices.emulator.images import build
from edgeml_devices.emulator.images.cache import IN_USE, Cache, hold, note_found, open_cache
from edgeml_devices.emulator.images.choice import request_as_before
from edgeml_devices.emulator.images.clean import KEPT_OF_A_KIND, clean, retire
from edgeml_devices.emulator.images.image import Flavour, Image, ImageRequest
from edgeml_devices.emulator.images.kept import DISK, Kept, kept_images, read_image, write_image
from edgeml_devices.emulator.images.plan import Keys
from edgeml_devices.emulator.machine import state

from edgeml.cli import main
from edgeml.errors import EdgemlError
from edgeml.words import RuntimeName
from tests.unit.devices.emulator.conftest import RECORD


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cache:
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path))
    return open_cache()


def _image(
    cache: Cache, number: int, flavour: Flavour = "minimal", engines: tuple[RuntimeName, ...] = ("litert",)
) -> Image:
    """Make an image of its own site, and of a root and a kernel that all of its flavour share."""
    key = f"{number:02x}"
    keys = Keys(f"root-{flavour}", f"kernel-{flavour}", "engines", f"site-{key}", key)
    for kind, name, file in (
        ("roots", keys.root, "etc/passwd"),
        ("kernels", keys.kernel, "vmlinuz.gz"),
        ("kernels", keys.kernel, "initrd.gz"),
        ("engines", keys.engines, "numpy.py"),
        ("sites", keys.site, "edgeml.py"),
        ("images", key, DISK),
        ("images", key, IN_USE),
    ):
        path = cache.place(kind, name) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 100)
    os.utime(cache.place("images", key) / IN_USE, (0, 0))
    write_image(cache.place("images", key), Kept(engines, flavour, keys, (), 1, float(number)))
    found = read_image(cache, key)
    assert found is not None
    return found


@pytest.mark.parametrize(("kind", "file"), [("images", "image.json"), ("kernels", "initrd.gz")])
def test_an_image_with_a_damaged_part_says_how_to_mend_it(cache: Cache, kind: str, file: str) -> None:
    _image(cache, 1)
    (part,) = (cache.folder / kind).glob(f"*/{file}")
    part.unlink()
    with pytest.raises(EdgemlError, match=r"images/01 is damaged.* edgeml emulate clean"):
        build.whole_image(cache, "01")


def _left(cache: Cache) -> set[str]:
    kinds = ("roots", "kernels", "engines", "sites", "images", "debs")
    return {f"{kind}/{path.name}" for kind in kinds for path in (cache.folder / kind).glob("*")}


def test_clean_removes_images_and_their_parts_but_no_downloads(cache: Cache) -> None:
    _image(cache, 1)
    (cache.folder / "debs").mkdir()
    (cache.folder / "debs/bash.deb").touch()
    done = clean()
    assert done.removed == ("01",)
    assert done.freed_bytes > 0
    assert _left(cache) == {"debs/bash.deb"}
    clean(downloads=True)
    assert _left(cache) == set()


def test_clean_leaves_an_image_in_use_with_all_of_its_parts(cache: Cache) -> None:
    used = _image(cache, 1)
    _image(cache, 2, flavour="systemd")
    with hold(used):
        done = clean()
    assert (done.removed, done.in_use) == (("02",), ("01",))
    assert _left(cache) == {
        *("images/01", "roots/root-minimal", "kernels/kernel-minimal", "engines/engines", "sites/site-01")
    }
    assert read_image(cache, "01") == used


def test_clean_removes_what_killed_builds_left(cache: Cache) -> None:
    for left in ("images/.0a.xyz", "roots/.0b.xyz"):
        (cache.folder / left).mkdir(parents=True)
    done = clean()
    assert done.removed == ()
    assert _left(cache) == set()


def test_clean_refuses_while_an_image_is_built(cache: Cache) -> None:
    with cache.building(), pytest.raises(EdgemlError, match="being built"):
        clean()


def test_images_are_listed_the_newest_first(cache: Cache) -> None:
    for number in (2, 3, 1):
        _image(cache, number)
    assert [image.key for image in kept_images(cache)] == ["03", "02", "01"]


def test_an_image_without_its_kernel_is_none(cache: Cache) -> None:
    image = _image(cache, 1)
    image.kernel.unlink()
    assert read_image(cache, "01") is None
    assert kept_images(cache) == ()


def test_old_images_of_a_kind_retire_and_others_stay(cache: Cache) -> None:
    _image(cache, 1, flavour="systemd")
    used = _image(cache, 2)
    made = [_image(cache, number) for number in range(3, 5 + KEPT_OF_A_KIND)]
    with hold(used):
        retire(made[-1])
    keys = {image.key for image in kept_images(cache)}
    assert keys == {"01", "02", *(image.key for image in made[-KEPT_OF_A_KIND:])}
    assert not cache.place("sites", "site-03").exists()
    assert cache.place("sites", "site-02").is_dir()


def test_an_image_that_was_just_found_does_not_retire(cache: Cache) -> None:
    made = [_image(cache, number) for number in range(1, 3 + KEPT_OF_A_KIND)]
    note_found(made[0])
    retire(made[-1])
    assert {image.key for image in kept_images(cache)} == {
        *("01", *(image.key for image in made[-KEPT_OF_A_KIND:]))
    }


def test_what_is_built_after_a_change_of_edgeml_has_the_engines_that_were_chosen_before(cache: Cache) -> None:
    assert request_as_before() == ImageRequest(("litert",))
    _image(cache, 1, engines=("litert", "openvino"))
    _image(cache, 2, flavour="systemd", engines=("litert", "openvino"))
    _image(cache, 3)
    assert request_as_before() == ImageRequest(("litert", "openvino"))


def test_the_image_of_a_machine_that_is_off_neither_retires_nor_is_cleaned(cache: Cache) -> None:
    made = [_image(cache, number) for number in range(1, 3 + KEPT_OF_A_KIND)]
    folder, owner = state.new_folder("raspberry-pi-4")
    state.write_record(folder, replace(RECORD, image="01", detached=True))
    owner.close()
    retire(made[-1])
    assert "01" in {image.key for image in kept_images(cache)}
    assert clean().in_use == ("01",)
    assert read_image(cache, "01") is not None
    state.end(folder)
    assert clean().removed == ("01",)


def test_the_list_says_which_images_hold_edgeml_as_it_is_now(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    _image(cache, 1)
    now = _image(cache, 2, engines=("litert", "openvino"))
    asked = {("litert", "openvino"): now}
    monkeypatch.setattr(build, "find_image", lambda request: asked.get(request.engines))
    done = CliRunner().invoke(main, ["emulate", "list"])
    newest, oldest = done.stdout.splitlines()[1:]
    assert "  now  " in newest
    assert "  before  " in oldest
    shown = json.loads(CliRunner().invoke(main, ["emulate", "list", "--json"]).stdout)["images"]
    assert [(image["key"], image["current"]) for image in shown] == [("02", True), ("01", False)]
