from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
from edgeml_devices.emulator import programs
from edgeml_devices.emulator.images import wheels
from edgeml_devices.emulator.images.wheels import Wheel

from edgeml.errors import EdgemlError
from tests.conftest import REPOSITORY


def test_every_platform_tag_from_the_guest_s_glibc_down_is_named() -> None:
    options = wheels.platform_options()
    platforms = [value for option, value in itertools.pairwise(options) if option == "--platform"]
    assert platforms[0] == "manylinux_2_36_aarch64"
    assert {"manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"} <= set(platforms)
    assert "--only-binary=:all:" in options


def test_a_wheel_is_named_by_its_file() -> None:
    wheel = Wheel("ai_edge_litert-2.3.0-cp311-cp311-manylinux_2_27_aarch64.whl", "0" * 64)
    assert (wheel.name, wheel.version) == ("ai-edge-litert", "2.3.0")


def test_edgeml_comes_from_this_checkout() -> None:
    assert wheels.checkout() == REPOSITORY


def test_without_a_checkout_the_same_versions_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "checkout", lambda: None)
    monkeypatch.setattr("edgeml.__version__", "1.2.3")
    assert wheels.requirements(("litert", "openvino"), ()) == (
        "edgeml-core[images]==1.2.3",
        "edgeml-runtimes[litert,openvino]==1.2.3",
        "edgeml-devices[agent]==1.2.3",
    )
    assert wheels.own_key() == "release-1.2.3"
    engines = [line.partition("==")[0] for line in wheels.pins(("litert",)).splitlines()]
    assert engines == ["ai-edge-litert"]


def test_in_a_checkout_the_constraints_hold() -> None:
    assert wheels.pins(("litert",)) == (REPOSITORY / "constraints.txt").read_text()


def test_a_failed_program_is_named_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(EdgemlError) as caught:
        programs.run(["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do echo line $i; done; exit 7"], "counting")
    message = str(caught.value)
    assert message.startswith("counting failed: sh ended with exit code 7\n")
    assert "line 9" in message
    assert "line 1\n" not in message


def test_what_a_program_left_among_temporary_files_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        programs.run(["sh", "-c", "mktemp -d; sleep 60"], "waiting", on_line=interrupt)
    assert list(tmp_path.iterdir()) == []
