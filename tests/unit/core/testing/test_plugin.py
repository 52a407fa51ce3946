"""The pytest plugin as a project of somebody else uses it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from edgeml.testing.devices import cut_moments

PLUGIN = ("-p", "edgeml.testing.plugin", "-p", "no:cacheprovider")


def test_pytest_finds_the_plugin_by_an_entry_point(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN[1]: PLUGIN[1]}


def test_serial_cables_and_bad_networks_are_gone_after_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os, socket
        seen = []

        def test_use(serial_cable, bad_network):
            cable, network = serial_cable(baud=None), bad_network("127.0.0.1:9")
            seen.extend([cable.port, cable.far_port, network.port])
            os.close(os.open(cable.port, os.O_RDWR | os.O_NOCTTY))

        def test_after():
            assert not seen[0].exists() and not seen[1].exists()
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", seen[2])) != 0
        """
    )
    pytester.runpytest(*PLUGIN).assert_outcomes(passed=2)


def test_what_the_system_lacks_is_a_skip_with_the_reason(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        import sys
        for name in ("pty", "edgeml.testing.serial_lines"):
            sys.modules.pop(name, None)
        sys.modules["pty"] = None

        def test_use(serial_cable):
            pass
        """
    )
    monkeypatch.delenv("EDGEML_REQUIRE_ALL", raising=False)
    done = pytester.runpytest_subprocess(*PLUGIN, "-rs")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*serial_cable needs 'pty', which this system does not have*"])
    monkeypatch.setenv("EDGEML_REQUIRE_ALL", "1")
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(errors=1)


def test_without_an_emulator_a_test_is_skipped_with_what_to_install(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.emulated_device(board="raspberry-pi-5", engines=["litert"])
        def test_use(emulated_device, power_cut):
            pass
        """
    )
    monkeypatch.setenv("PATH", str(pytester.path))
    monkeypatch.delenv("EDGEML_REQUIRE_ALL", raising=False)
    done = pytester.runpytest_inprocess(*PLUGIN, "-rs", "--strict-markers")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines(["*qemu-system-aarch64 (package qemu-system-arm)*apt-get install*"])


def test_a_board_that_does_not_exist_is_an_error_not_a_skip(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("emulated_device", ["raspberry-pi-1"], indirect=True)
        def test_use(emulated_device):
            pass
        """
    )
    done = pytester.runpytest_inprocess(*PLUGIN)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*no board 'raspberry-pi-1' to emulate*"])


def test_tests_with_an_emulated_device_can_be_left_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_emulated(emulated_device):
            pass

        def test_plain():
            pass
        """
    )
    done = pytester.runpytest_inprocess(*PLUGIN, "-m", "not emulated", "--strict-markers")
    done.assert_outcomes(passed=1, deselected=1)


def test_moments_are_the_same_each_time() -> None:
    assert cut_moments(3, within_s=2, seed=4) == cut_moments(3, within_s=2, seed=4)
    assert all(0 <= moment <= 2 for moment in cut_moments(50, within_s=2))


def test_the_plugin_imports_next_to_nothing_until_it_is_used(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_use():
            loaded = {name for name in sys.modules if name.startswith("edgeml")}
            assert loaded == {"edgeml", "edgeml.testing", "edgeml.testing.plugin"}
            assert "numpy" not in sys.modules
        """
    )
    pytester.runpytest_subprocess(*PLUGIN).assert_outcomes(passed=1)
