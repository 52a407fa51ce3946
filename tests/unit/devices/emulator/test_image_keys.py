from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from edgeml_devices.emulator.images.apt import Deb
from edgeml_devices.emulator.images.cache import Cache
from edgeml_devices.emulator.images.image import ImageRequest
from edgeml_devices.emulator.images.plan import Keys, Plan, keys_of, read_plan, request_key, write_plan
from edgeml_devices.emulator.images.wheels import Wheel

from edgeml.errors import UsageError

PLAN = Plan(
    debs=(Deb("bash_5_arm64.deb", "1" * 64, 10), Deb("busybox-static_1%3a1_arm64.deb", "2" * 64, 10)),
    kernel=Deb("linux-image-6.1.0-56-cloud-arm64_6.1_arm64.deb", "3" * 64, 10),
    wheels=(Wheel("numpy-2.4.6-cp311-cp311-manylinux_2_28_aarch64.whl", "4" * 64),),
)


def _keys(plan: Plan = PLAN, *, flavour: str = "minimal", own: str = "own", ssh: str = "ssh") -> Keys:
    return keys_of(plan, ImageRequest(flavour=flavour), own, ssh)


def _changed(keys: Keys) -> set[str]:
    before = _keys()
    return {part for part in Keys.__slots__ if getattr(keys, part) != getattr(before, part)}


def test_the_same_plan_has_the_same_keys() -> None:
    assert _keys() == _keys()


def test_edgeml_s_own_code_changes_site_and_image_only() -> None:
    assert _changed(_keys(own="edited")) == {"site", "image"}


def test_a_package_changes_root_and_image() -> None:
    newer = replace(PLAN, debs=(replace(PLAN.debs[0], sha256="f" * 64), PLAN.debs[1]))
    assert _changed(_keys(newer)) == {"root", "image"}


def test_busybox_changes_the_kernel_s_first_root_too() -> None:
    newer = replace(PLAN, debs=(PLAN.debs[0], replace(PLAN.debs[1], sha256="f" * 64)))
    assert _changed(_keys(newer)) == {"root", "kernel", "image"}


def test_the_kernel_changes_kernel_and_image() -> None:
    newer = replace(PLAN, kernel=replace(PLAN.kernel, sha256="f" * 64))
    assert _changed(_keys(newer)) == {"kernel", "image"}


def test_a_wheel_changes_engines_site_and_image() -> None:
    newer = replace(PLAN, wheels=(replace(PLAN.wheels[0], sha256="f" * 64),))
    assert _changed(_keys(newer)) == {"engines", "site", "image"}


def test_the_flavour_and_the_ssh_key_change_the_image() -> None:
    assert _changed(_keys(flavour="systemd")) == {"root", "image"}
    assert _changed(_keys(ssh="another")) == {"image"}


def test_a_request_is_known_by_what_it_asks_for_not_by_its_mirror() -> None:
    plain = request_key(ImageRequest())
    assert request_key(ImageRequest(mirror="http://one.example/debian")) == plain
    assert request_key(ImageRequest(flavour="systemd")) != plain
    assert request_key(ImageRequest(engines=("litert", "openvino"))) != plain


def test_engines_have_one_order() -> None:
    assert ImageRequest(engines=("openvino", "litert", "openvino")).engines == ("litert", "openvino")


def test_an_unknown_engine_or_flavour_is_refused() -> None:
    with pytest.raises(UsageError, match="tensorrt"):
        ImageRequest(engines=("tensorrt",))
    with pytest.raises(UsageError, match="busy"):
        ImageRequest(flavour="busy")


def test_a_plan_is_kept_and_read(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert read_plan(cache, "key") is None
    write_plan(cache, "key", PLAN)
    assert read_plan(cache, "key") == PLAN


def test_a_damaged_plan_is_none(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans/key.json").write_text('{"debs": 5')
    assert read_plan(Cache(tmp_path), "key") is None
