from __future__ import annotations

import pytest
from edgeml_devices.emulator.boards import BOARDS, Board, board_named, system_files
from edgeml_devices.emulator.qemu import machine_type

from edgeml.errors import EngineVersionError, UsageError
from edgeml.targets import target

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())


@each_board
def test_a_board_is_the_target_of_its_name(board: Board) -> None:
    its_target = target(board.name)
    assert (board.cores, board.memory_bytes) == (its_target.cores, its_target.memory_bytes)
    assert board.cpu == its_target.cpu.lower()
    assert its_target.cpu_features <= set(board.features)
    assert board.model.startswith(its_target.boards)


@each_board
def test_a_revision_code_says_the_memory_of_its_board(board: Board) -> None:
    code = int(board.revision, 16)
    assert code >> 23 & 1 == 1, "new style"
    assert 256 << (code >> 20 & 7) == board.memory_mib
    assert board.model.endswith(f"Rev 1.{code & 0xF}")


def test_no_board_has_a_cpu_that_gives_wrong_results() -> None:
    assert {board.cpu for board in BOARDS.values()} == {"cortex-a53", "cortex-a72", "cortex-a76"}


def test_cpuinfo_of_a_raspberry_pi_4() -> None:
    lines = board_named("raspberry-pi-4").cpuinfo.splitlines()
    assert lines[:9] == [
        "processor\t: 0",
        "BogoMIPS\t: 108.00",
        "Features\t: fp asimd evtstrm crc32 cpuid",
        "CPU implementer\t: 0x41",
        "CPU architecture: 8",
        "CPU variant\t: 0x0",
        "CPU part\t: 0xd08",
        "CPU revision\t: 3",
        "",
    ]
    assert lines[-1] == "Model\t\t: Raspberry Pi 4 Model B Rev 1.1"
    assert sum(line.startswith("processor") for line in lines) == 4


def test_system_files_of_a_raspberry_pi_5() -> None:
    files = system_files(board_named("raspberry-pi-5"))
    assert files["proc/device-tree/compatible"] == b"raspberrypi,5-model-b\0brcm,bcm2712\0"
    assert files["sys/devices/system/cpu/cpu3/regs/identification/midr_el1"] == b"0x00000000414fd0b1\n"
    assert files["sys/devices/system/cpu/present"] == b"0-3\n"
    topology = "sys/devices/system/cpu/cpu3/topology"
    assert files[f"{topology}/core_siblings"] == b"f\n"
    assert files[f"{topology}/thread_siblings"] == b"8\n"


@each_board
def test_a_board_says_what_is_faithful_and_that_latency_is_not(board: Board) -> None:
    assert board.faithful
    assert any("latency" in sentence for sentence in board.not_faithful)


def test_an_unknown_board_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="raspberry-pi-zero-2w, raspberry-pi-3b-plus, raspberry-pi-4"):
        board_named("raspberry-pi-2")


def test_the_machine_is_the_measured_one_where_it_is_offered() -> None:
    offered = "virt-10.1   QEMU\nvirt-7.2   QEMU\nvirt    QEMU (alias of virt-10.1)\n"
    assert machine_type(offered) == "virt-7.2"


def test_the_machine_is_the_newest_fixed_one_where_the_measured_one_is_gone() -> None:
    assert machine_type("virt  (alias)\nvirt-9.2  QEMU\nvirt-10.1  QEMU\n") == "virt-10.1"


def test_a_qemu_without_a_fixed_machine_is_refused() -> None:
    with pytest.raises(EngineVersionError, match=r"virt-N\.M"):
        machine_type("raspi3b  Raspberry Pi 3B\nvirt   QEMU\n")
