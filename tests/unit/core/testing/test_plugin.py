"""The pytest plugin as a project of somebody else uses it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

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
