"""The doctor: what it finds here, and what it says of things that are missing or broken."""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeml import cpu, doctor, plugins
from edgeml.cli import main
from edgeml.doctor import Check, Package, package_check


def test_an_installed_engine_is_ok_with_its_version() -> None:
    numpy = Package("numpy", "numpy", "numpy", "arrays", "numpy")

    assert package_check("runtime", numpy) == Check("runtime", "numpy", "ok", metadata.version("numpy"))


def test_a_missing_engine_comes_with_the_command_that_brings_it() -> None:
    package = Package("litert", "edgeml-no-such-engine", "x", "TFLite", "edgeml-runtimes[litert]")

    found = package_check("runtime", package)

    assert found.status == "missing"
    assert found.remedy == "pip install 'edgeml-runtimes[litert]'"
    assert "no TFLite" in found.detail


def test_an_emulated_board_gets_a_missing_engine_with_another_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert plugins.install_command("edgeml-runtimes", "openvino") == "pip install 'edgeml-runtimes[openvino]'"
    mark = tmp_path / "edgeml-image"
    mark.touch()
    monkeypatch.setattr(cpu, "EMULATOR_IMAGE", mark)
    install = plugins.install_command("edgeml-runtimes", "openvino")
    assert install.startswith("edgeml emulate build --engine litert --engine onnxruntime --engine openvino")
    assert plugins.install_command("edgeml-core", "images") == "pip install 'edgeml-core[images]'"


def test_a_package_that_cannot_be_imported_is_broken_and_says_why() -> None:
    package = Package("numpy", "numpy", "numpy.no_such_module", "arrays", "numpy")

    found = package_check("tool", package)

    assert found.status == "broken"
    assert "ModuleNotFoundError" in found.detail
    assert found.remedy == f"pip install --force-reinstall 'numpy=={metadata.version('numpy')}'"


def test_a_tool_of_a_version_that_does_not_serve_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package("numpy", "numpy", "numpy", "arrays", "edgeml-converters[all]")
    monkeypatch.setattr(
        metadata, "requires", lambda _: ["click>=8", "numpy-financial>=1", "numpy>=999.1; extra == 'all'"]
    )

    found = package_check("tool", package)

    assert found.status == "broken"
    assert found.detail == f"{metadata.version('numpy')}, but >=999.1 is needed"
    assert found.remedy == "pip install 'edgeml-converters[all]'"


class TestRuntimes:
    @pytest.fixture
    def third_party(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Gives the folder of an installed distribution with a driver whose engine is numpy."""
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend(str(tmp_path))
        return tmp_path

    @staticmethod
    def install(folder: Path, driver: str, *requires: str) -> None:
        (folder / "fastnet_driver.py").write_text(driver)
        info = folder / "fastnet_driver-1.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", "Name: fastnet-driver", "Version: 1"]
        (info / "METADATA").write_text(
            "\n".join([*lines, *(f"Requires-Dist: {one}" for one in requires), ""])
        )
        (info / "entry_points.txt").write_text("[edgeml.runtimes]\nfastnet = fastnet_driver:FastNet\n")

    @staticmethod
    def check(name: str) -> Check:
        (found,) = [check for check in doctor.runtime_checks() if check.name == name]
        return found

    def test_every_registered_runtime_is_looked_at(self) -> None:
        found = {check.name for check in doctor.runtime_checks()}

        assert found == set(plugins.names(plugins.RUNTIME_GROUP))

    def test_a_runtime_of_another_distribution_shows_with_its_engine(self, third_party: Path) -> None:
        self.install(third_party, "import numpy\nclass FastNet: ...\n", "numpy>=1; extra == 'fastnet'")

        assert self.check("fastnet") == Check("runtime", "fastnet", "ok", metadata.version("numpy"))

    def test_an_engine_out_of_its_drivers_range_is_broken(self, third_party: Path) -> None:
        self.install(third_party, "class FastNet: ...\n", "numpy<1; extra == 'fastnet'")

        found = self.check("fastnet")

        assert found.status == "broken"
        assert found.detail == f"numpy is {metadata.version('numpy')}, needs <1"
        assert found.remedy == "pip install 'fastnet-driver[fastnet]'"

    def test_an_engine_that_is_not_here_is_missing(self, third_party: Path) -> None:
        self.install(third_party, "import edge_no_such\n", "no-such-engine>=3; extra == 'fastnet'")

        found = self.check("fastnet")

        assert (found.status, found.detail) == ("missing", "no-such-engine is not installed")
        assert found.remedy == "pip install 'fastnet-driver[fastnet]'"

    def test_a_driver_that_declares_no_engine_is_loaded_to_find_out(self, third_party: Path) -> None:
        self.install(third_party, "import no_such_engine\nclass FastNet: ...\n")

        found = self.check("fastnet")

        assert found.status == "missing"
        assert "'no_such_engine', which is not installed" in found.detail

    def test_a_driver_that_fails_is_broken(self, third_party: Path) -> None:
        self.install(third_party, "raise OSError('no libfastnet.so')\n", "numpy>=1; extra == 'fastnet'")

        found = self.check("fastnet")

        assert found.status == "broken"
        assert found.detail.endswith("cannot be loaded: OSError: no libfastnet.so")
        assert found.remedy == f"pip install --force-reinstall 'numpy=={metadata.version('numpy')}'"

    def test_without_any_runtime_the_doctor_says_how_to_get_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plugins, "names", lambda _: ())

        (found,) = doctor.runtime_checks()

        assert (found.status, found.remedy) == ("missing", "pip install 'edgeml-core[device]'")


def test_an_engine_that_kills_its_interpreter_does_not_kill_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert doctor.failure_of("import deadly") == "the interpreter ended with -9"


def test_an_import_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    assert doctor.failure_of("import slow", timeout_s=0.5) == "not done after 0 s"


class TestFolders:
    def test_folders_that_are_not_there_yet_are_ok_where_they_can_be_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("EDGEML_HOME", str(tmp_path / "a" / "b"))

        (home, _) = doctor.folder_checks()

        assert home.status == "ok"
        assert not (tmp_path / "a").exists()

    def test_a_file_in_the_way_is_broken(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("EDGEML_HOME", str(tmp_path / "file" / "home"))

        (home, _) = doctor.folder_checks()

        assert (home.status, home.remedy) == ("broken", "set EDGEML_HOME to a folder of yours")

    def test_a_folder_of_someone_else_is_broken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = tmp_path / "theirs"
        folder.mkdir(mode=0o555)
        monkeypatch.setenv("EDGEML_CACHE_DIR", str(folder))
        if os.access(folder, os.W_OK):  # root may write everywhere
            monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != folder)

        (_, cache) = doctor.folder_checks()

        assert cache.status == "broken"
        assert "cannot be written to" in cache.detail


class TestRooms:
    def test_a_room_adds_its_own_checks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        added = Check("worker", "tensorflow", "missing", "not installed", "edgeml workers install tensorflow")
        monkeypatch.setattr(plugins, "names", lambda group: ("workers",) if group == doctor.GROUP else ())
        monkeypatch.setattr(plugins, "load", lambda *_: lambda: (added,))

        assert added in doctor.checks()

    def test_a_room_whose_check_fails_is_broken_and_the_others_go_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise ValueError("no catalogue")

        monkeypatch.setattr(plugins, "names", lambda group: ("workers",) if group == doctor.GROUP else ())
        monkeypatch.setattr(plugins, "load", lambda *_: fail)

        found = doctor.checks()

        (broken,) = [check for check in found if check.group == "room"]
        assert (broken.name, broken.status) == ("workers", "broken")
        assert "ValueError: no catalogue" in broken.detail
        assert "folder" in {check.group for check in found}


class TestCommand:
    def test_json_has_a_row_for_each_check(self) -> None:
        result = CliRunner().invoke(main, ["doctor", "--json"])

        shape = json.loads(result.output)
        assert shape["schema"] == 1
        assert {"machine", "runtime", "tool", "folder"} <= {check["group"] for check in shape["checks"]}
        assert all(set(check) == {"group", "name", "status", "detail", "remedy"} for check in shape["checks"])

    def test_what_is_only_missing_is_no_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        missing = Check(
            "runtime", "litert", "missing", "not installed", "pip install 'edgeml-runtimes[litert]'"
        )
        monkeypatch.setattr(doctor, "checks", lambda: (missing,))

        result = CliRunner().invoke(main, ["doctor"])

        assert result.exit_code == 0
        assert "litert: pip install 'edgeml-runtimes[litert]'" in result.output

    def test_a_remedy_that_several_need_is_shown_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        remedy = "pip install 'edgeml-core[workstation]'"
        found = tuple(Check("tool", name, "missing", "not installed", remedy) for name in ("onnx", "nncf"))
        monkeypatch.setattr(doctor, "checks", lambda: found)

        shown = CliRunner().invoke(main, ["doctor"]).output

        assert shown.count(remedy) == 1
        assert f"onnx, nncf: {remedy}" in shown

    def test_what_is_broken_is_exit_code_1(self, monkeypatch: pytest.MonkeyPatch) -> None:
        broken = Check("runtime", "litert", "broken", "2.3.0, cannot be imported: no libc", "reinstall it")
        monkeypatch.setattr(doctor, "checks", lambda: (broken,))

        result = CliRunner().invoke(main, ["doctor"])

        assert result.exit_code == 1
        assert "no libc" in result.output
