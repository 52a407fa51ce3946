from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.emulator import tools
from edgeml_devices.emulator.doctor import emulation_checks

from edgeml import cpu
from edgeml.errors import EngineMissingError


def test_one_error_names_every_missing_program_its_package_and_the_line_that_installs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", ())
    with pytest.raises(EngineMissingError) as caught:
        tools.require(tools.QEMU_SYSTEM, tools.QEMU_IMG, tools.SSH, tools.SSH_KEYGEN)
    message = str(caught.value)
    for part in (
        "qemu-system-aarch64 (package qemu-system-arm)",
        "qemu-img (package qemu-utils)",
        "ssh-keygen",
    ):
        assert part in message
    assert "sudo apt-get install --no-install-recommends openssh-client qemu-system-arm qemu-utils" in message


def test_a_program_in_sbin_is_found_whatever_the_path_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "sbin" / "mke2fs"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", (str(program.parent),))
    assert tools.find(tools.MKE2FS) == program


def test_nothing_is_missing_where_everything_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "proot").write_text("")
    (tmp_path / "proot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.missing([tools.PROOT]) == ()


def test_the_doctor_says_what_each_mode_lacks_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tool in tools.TO_RUN_IN_USER_MODE:
        (tmp_path / tool.program).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEML_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tools, "_SYSTEM_FOLDERS", ())
    machines, user_mode = emulation_checks()
    assert (machines.status, user_mode.status) == ("missing", "ok")
    assert machines.detail.startswith("no emulated boards: qemu-system-aarch64, ")
    assert machines.remedy.startswith("sudo apt-get install --no-install-recommends apt ")
    assert user_mode.detail == "0 images built"


def test_the_doctor_of_a_board_says_nothing_of_emulation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"Raspberry Pi 4 Model B Rev 1.1\0")
    monkeypatch.setattr(cpu, "BOARD", model)
    assert emulation_checks() == ()
