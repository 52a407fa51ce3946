"""What an ``emulator:`` URL says."""

from __future__ import annotations

from pathlib import Path

import pytest
from edgeml_devices.emulator.address import emulator_address

from edgeml.errors import UsageError


def test_a_board_is_a_full_machine_by_default() -> None:
    address = emulator_address("emulator:raspberry-pi-5")
    assert (address.board.name, address.mode, address.folder) == ("raspberry-pi-5", "machine", None)


def test_user_mode_may_name_a_folder() -> None:
    address = emulator_address("emulator:raspberry-pi-4?mode=user&folder=/srv/a%20b")
    assert (address.mode, address.folder) == ("user", Path("/srv/a b"))


def test_a_machine_may_be_one_that_runs() -> None:
    assert emulator_address("emulator:raspberry-pi-4?machine=mine").machine == "mine"


def test_a_machine_that_is_started_may_have_engines_and_be_booted() -> None:
    address = emulator_address("emulator:raspberry-pi-4?engines=litert,openvino&fresh=yes")
    assert (address.engines, address.fresh) == (("litert", "openvino"), True)
    assert (emulator_address("emulator:raspberry-pi-4").engines, address.machine) == ((), None)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("emulator:raspberry-pi-1", "no board 'raspberry-pi-1' to emulate; there are: raspberry-pi-zero-2w"),
        ("emulator:raspberry-pi-4?mode=fast", "no mode 'fast'; there are: machine, user"),
        ("emulator:raspberry-pi-4?cpu=max", "write it as emulator:raspberry-pi-4"),
        ("emulator:raspberry-pi-4?mode=user&mode=user", "write it as emulator:raspberry-pi-4"),
        ("emulator:raspberry-pi-4?mode", "write it as emulator:raspberry-pi-4"),
        ("emulator:raspberry-pi-4?folder=/tmp/a", "folder=FOLDER goes with mode=user"),
        ("emulator:raspberry-pi-4?mode=user&folder=", "folder=FOLDER goes with mode=user"),
        ("emulator:raspberry-pi-4?mode=user&machine=mine", "machine=MACHINE goes with mode=machine"),
        ("emulator:raspberry-pi-4?machine=mine&engines=litert", "mine runs already"),
        ("emulator:raspberry-pi-4?engines=litert,tensorrt", "no engine 'tensorrt'; there are: litert"),
        ("emulator:raspberry-pi-4?fresh=no", "write fresh=yes, or nothing"),
    ],
)
def test_another_way_to_write_it_is_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        emulator_address(url)
