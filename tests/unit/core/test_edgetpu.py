"""What keeps an Edge TPU from being used, each lack told from the others and with its own remedy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edgeml import edgetpu
from edgeml.edgetpu import Lack, delegate_options, device_lack, edge_tpus, library_lack, use_lack
from tests.conftest import require


def usb(root: Path, vendor: str, product: str, number: int = 4) -> Path:
    """Lay out a USB device; give its device file."""
    place = root / f"sys/bus/usb/devices/1-{number}"
    place.mkdir(parents=True)
    texts = {"idVendor": vendor, "idProduct": product, "busnum": "1", "devnum": str(number)}
    for name, text in texts.items():
        (place / name).write_text(f"{text}\n")
    node = root / f"dev/bus/usb/001/{number:03}"
    node.parent.mkdir(parents=True, exist_ok=True)
    node.touch()
    return node


def pci(root: Path, *, driver: bool) -> None:
    place = root / "proc/bus/pci/devices"
    place.parent.mkdir(parents=True)
    place.write_text("0008\t1af41045\t0\t 4000000004\n0100\t1ac1089a\t27\t 1800000000c\n")
    (root / "dev").mkdir(exist_ok=True)
    if driver:
        (root / "dev/apex_0").touch()


def test_a_machine_without_one_has_none(tmp_path: Path) -> None:
    usb(tmp_path, "1d6b", "0002")
    (tmp_path / "sys/bus/usb/devices/usb1").mkdir()  # a hub's, without ids
    assert edge_tpus(tmp_path) == ()
    assert edge_tpus(tmp_path / "nowhere") == ()


@pytest.mark.parametrize("ids", [("1a6e", "089a"), ("18d1", "9302")], ids=["before its first use", "after"])
def test_a_usb_accelerator_is_found_under_both_its_names(ids: tuple[str, str], tmp_path: Path) -> None:
    node = usb(tmp_path, *ids)
    (found,) = edge_tpus(tmp_path)
    assert (found.kind, found.node, found.is_writable) == ("usb", node, True)
    assert device_lack("", (found,)) is None
    assert device_lack("usb:0", (found,)) is None


def test_a_board_is_found_by_its_driver(tmp_path: Path) -> None:
    pci(tmp_path, driver=True)
    (found,) = edge_tpus(tmp_path)
    assert (found.kind, found.node) == ("pci", tmp_path / "dev/apex_0")


def test_a_board_without_a_driver_says_which(tmp_path: Path) -> None:
    pci(tmp_path, driver=False)
    lack = device_lack("pci", edge_tpus(tmp_path))
    assert lack is not None
    assert lack.what == "driver"
    assert "no /dev/apex_0" in lack.text
    assert "gasket-dkms" in lack.remedy


def test_no_device_is_to_be_plugged_in(tmp_path: Path) -> None:
    lack = device_lack("", edge_tpus(tmp_path))
    assert lack is not None
    assert (lack.what, lack.text) == ("device", "no Edge TPU is attached")
    assert "plug it in" in lack.remedy


def test_a_device_of_another_kind_is_named(tmp_path: Path) -> None:
    usb(tmp_path, "18d1", "9302")
    assert str(device_lack("pci:0", edge_tpus(tmp_path))) == (
        "no Edge TPU on pci is attached, only on usb: change option device"
    )


def test_a_device_that_may_not_be_written_to_is_a_matter_of_udev(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = usb(tmp_path, "18d1", "9302")
    monkeypatch.setattr(os, "access", lambda path, _: path != node)  # root may write to everything
    lack = device_lack("", edge_tpus(tmp_path))
    assert lack is not None
    assert lack.what == "permission"
    assert str(node) in lack.text
    assert "udev rule" in lack.remedy
    assert use_lack("", edge_tpus(tmp_path)) == lack


def test_a_device_that_is_there_and_not_given_is_in_use(tmp_path: Path) -> None:
    usb(tmp_path, "18d1", "9302")
    lack = use_lack("usb:0", edge_tpus(tmp_path))
    assert lack.what == "use"
    assert "the process that uses it" in lack.remedy
    assert "option device says usb:0" in lack.remedy


class TestLibrary:
    @pytest.fixture
    def compiler(self) -> str:
        from edgeml.testing.coral import compiler

        found = compiler()
        require(found is not None, "no C compiler")
        return str(found)

    def lack(self, library: object) -> Lack:
        found = library_lack(str(library))
        assert found is not None
        return found

    def test_one_that_serves_lacks_nothing(self, coral_standin: Path) -> None:
        assert library_lack(str(coral_standin)) is None

    def test_one_that_is_not_there_is_to_be_installed(self, tmp_path: Path) -> None:
        for name in ("libedgetpu-not-here.so.1", str(tmp_path / "libedgetpu.so.1")):
            found = self.lack(name)
            assert found.what == "library"
            assert f"{name} is not on this machine" in found.text
            assert "libedgetpu1-std" in found.remedy

    def test_one_that_is_no_library_is_of_another_machine(self, tmp_path: Path) -> None:
        library = tmp_path / "libedgetpu.so.1"
        library.write_bytes(b"\x7fELF and nothing behind it" * 8)
        found = self.lack(library)
        assert found.what == "loading"
        assert "cannot be loaded" in found.text
        assert "this machine's architecture" in found.remedy

    def test_one_that_needs_another_names_it(self, compiler: str, tmp_path: Path) -> None:
        needed, library = tmp_path / "libusb-x.so.0", tmp_path / "libedgetpu.so.1"
        (tmp_path / "a.c").write_text("int usb(void) { return 1; }")
        (tmp_path / "b.c").write_text("int usb(void); int tpu(void) { return usb(); }")
        subprocess.run([compiler, "-shared", "-o", needed, tmp_path / "a.c"], check=True)
        subprocess.run(
            [compiler, "-shared", "-o", library, tmp_path / "b.c", f"-L{tmp_path}", "-l:libusb-x.so.0"],
            check=True,
        )
        needed.unlink()
        found = self.lack(library)
        assert found.what == "loading"
        assert found.remedy == "install what it needs, libusb-x.so.0"

    def test_one_without_the_entry_is_no_delegate(self, compiler: str, tmp_path: Path) -> None:
        library = tmp_path / "libother.so"
        (tmp_path / "a.c").write_text("int other(void) { return 1; }")
        subprocess.run([compiler, "-shared", "-o", library, tmp_path / "a.c"], check=True)
        assert "is no delegate of LiteRT" in self.lack(library).text

    def test_a_variable_names_another(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(edgetpu.VARIABLE, "/opt/libedgetpu.so")
        assert edgetpu.library_name() == "/opt/libedgetpu.so"


@pytest.mark.parametrize(
    ("device", "performance", "expected"),
    [
        ("", "", {}),
        ("usb", "", {"device": "usb"}),
        ("", "max", {"device": ":0", "Performance": "Max"}),
        ("usb", "low", {"device": "usb:0", "Performance": "Low"}),
        ("pci:1", "high", {"device": "pci:1", "Performance": "High"}),
    ],
)
def test_a_performance_is_asked_of_a_device_with_a_number(
    device: str, performance: str, expected: dict[str, str]
) -> None:
    assert delegate_options(device, performance) == expected
