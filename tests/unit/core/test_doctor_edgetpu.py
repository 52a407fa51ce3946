"""What the doctor says of the Edge TPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml import edgetpu
from edgeml.doctor import checks, edge_tpu_check
from edgeml.edgetpu import EdgeTpu

NODE = Path("/dev/bus/usb/001/004")
USB, DENIED = EdgeTpu("usb", NODE, is_writable=True), EdgeTpu("usb", NODE, is_writable=False)
BARE = EdgeTpu("pci", None, is_writable=False)


@pytest.fixture
def no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(edgetpu.VARIABLE, str(tmp_path / "libedgetpu.so.1"))


@pytest.fixture
def library(coral_standin: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(edgetpu.VARIABLE, str(coral_standin))
    return coral_standin


def test_a_machine_that_has_nothing_of_it_is_not_told_to_buy_one(no_library: None) -> None:
    found = edge_tpu_check(())
    assert (found.group, found.name, found.status, found.remedy) == ("accelerator", "edgetpu", "missing", "")
    assert "none is attached, and" in found.detail


def test_a_device_without_its_library_comes_with_the_package(no_library: None) -> None:
    found = edge_tpu_check((USB,))
    assert found.status == "missing"
    assert f"is not on this machine; attached: usb ({NODE})" in found.detail
    assert "libedgetpu1-std" in found.remedy


def test_a_library_that_cannot_be_loaded_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "libedgetpu.so.1"
    library.write_bytes(b"\x7fELF of another machine")
    monkeypatch.setenv(edgetpu.VARIABLE, str(library))
    found = edge_tpu_check((USB,))
    assert found.status == "broken"
    assert "cannot be loaded" in found.detail
    assert "this machine's architecture" in found.remedy


def test_a_library_without_a_device_is_no_fault(library: Path) -> None:
    found = edge_tpu_check(())
    assert (found.status, found.detail) == ("missing", f"{library}, but no Edge TPU is attached")
    assert "plug it in" in found.remedy


@pytest.mark.parametrize(
    ("device", "detail", "remedy"), [(DENIED, "may not write", "udev"), (BARE, "no driver", "gasket-dkms")]
)
def test_a_device_that_cannot_be_used_is_a_fault(
    device: EdgeTpu, detail: str, remedy: str, library: Path
) -> None:
    found = edge_tpu_check((device,))
    assert found.status == "broken"
    assert detail in found.detail
    assert remedy in found.remedy


def test_library_and_device_are_well(library: Path) -> None:
    found = edge_tpu_check((USB,))
    assert (found.status, found.detail, found.remedy) == ("ok", f"{library}, usb ({NODE})", "")


def test_the_doctor_looks_at_it() -> None:
    assert [check.name for check in checks() if check.group == "accelerator"] == ["edgetpu"]
