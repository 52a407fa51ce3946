"""The canary in a machine that booted, with a stand-in for the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from edgeml_devices.emulator.boards import board_named
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.machine.launch import Setup
from edgeml_devices.emulator.machine.machine import Machine
from edgeml_devices.emulator.machine.proof import prove
from edgeml_devices.emulator.qemu import Qemu
from edgeml_devices.emulator.user.canary import EXPECTED

from edgeml.errors import EngineError
from edgeml.transport import CommandResult

RIGHT = " ".join(str(value) for value in EXPECTED).encode()


@dataclass
class StandIn:
    """A machine that answers so; how often it was asked."""

    setup: Setup
    answer: CommandResult
    name: str = "mine"
    asked: list[str] = field(default_factory=list)

    def put(self, local: Path, remote: str) -> None:
        assert local.is_file()
        self.asked.append(remote)

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:
        assert timeout_s > 0
        assert argv[-1] == self.asked[-1]
        return self.answer

    def hang_up(self) -> None:
        pass


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    nothing = tmp_path / "nothing"
    paths = dict.fromkeys(("kernel", "initrd", "disk", "root", "site", "ssh_key"), nothing)
    image = Image("a1", tmp_path, ("litert",), "minimal", **paths, packages=(), size_bytes=1, used_bytes=1)
    return Setup.of(Qemu(Path("qemu"), "7.2.22", "virt-7.2"), board_named("raspberry-pi-4"), image)


def _asked(setup: Setup, answer: CommandResult) -> int:
    machine = StandIn(setup, answer)
    prove(cast("Machine", machine))
    return len(machine.asked)


def test_a_processor_is_proven_once_for_an_image_and_a_qemu(setup: Setup) -> None:
    right = CommandResult(0, RIGHT, b"")
    assert [_asked(setup, right), _asked(setup, right)] == [1, 0]
    assert _asked(replace(setup, board=board_named("raspberry-pi-5")), right) == 1
    assert _asked(replace(setup, qemu=replace(setup.qemu, version="10.0")), right) == 1


def test_a_machine_that_computes_wrongly_is_refused_each_time(setup: Setup) -> None:
    wrong = CommandResult(0, RIGHT.replace(b"116", b"117"), b"")
    for _ in range(2):
        with pytest.raises(EngineError, match="mine: the emulated cortex-a72 is not sound"):
            _asked(setup, wrong)


def test_an_engine_that_did_not_run_proves_nothing(setup: Setup) -> None:
    killed = CommandResult(137, b"", b"Killed")
    assert [_asked(setup, killed), _asked(setup, killed)] == [1, 1]


def test_an_image_without_the_engine_needs_no_proof(setup: Setup) -> None:
    without = replace(setup, image=replace(setup.image, engines=("openvino",)))
    assert _asked(without, CommandResult(0, b"", b"")) == 0
