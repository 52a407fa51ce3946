"""CPU features, read from what each class of board says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml.cpu import Cpu, cpu, memory_bytes, parse_cpuinfo, parse_sysctl

STORED = Path(__file__).parent / "cpuinfo"
"""``/proc/cpuinfo`` of each class of machine, written by hand after what the boards say."""


def stored(name: str) -> str:
    return (STORED / f"{name}.txt").read_text()


@pytest.mark.parametrize(
    ("machine", "model", "has", "lacks"),
    [
        ("raspberry-pi-3", "Cortex-A53", {"asimd", "crc32"}, {"aes", "asimddp", "fphp"}),
        ("raspberry-pi-4", "Cortex-A72", {"asimd", "crc32"}, {"aes", "asimddp", "fphp"}),
        ("raspberry-pi-5", "Cortex-A76", {"asimddp", "asimdhp", "fphp", "aes"}, {"i8mm", "sve"}),
        ("coral-dev-board", "Cortex-A53", {"aes", "sha2"}, {"asimddp"}),
    ],
)
def test_arm_boards_say_what_they_can(machine: str, model: str, has: set[str], lacks: set[str]) -> None:
    found = parse_cpuinfo(stored(machine), "aarch64", 4)

    assert found.model == model
    assert has <= found.features
    assert not lacks & found.features


@pytest.mark.parametrize(
    ("machine", "vnni"),
    [
        ("nehalem", False),
        ("haswell", False),
        ("alder-lake", True),
        ("cascade-lake", True),
        ("sapphire-rapids", True),
    ],
)
def test_either_vnni_instruction_set_counts_as_vnni(machine: str, vnni: bool) -> None:
    assert ("vnni" in parse_cpuinfo(stored(machine), "x86_64", 2).features) is vnni


def test_of_two_kinds_of_core_only_what_both_can_do_counts() -> None:
    found = parse_cpuinfo(stored("two-kinds-of-core"), "aarch64", 4)

    assert found.features == {"fp", "asimd"}
    assert found.model == "Cortex-A53 + Cortex-A76"


@pytest.mark.parametrize("text", ["", "\n\n\n", "processor\t: 0\n", "nonsense without colons", ": :\n"])
def test_a_text_that_says_nothing_gives_no_features(text: str) -> None:
    assert parse_cpuinfo(text, "riscv64", 1) == Cpu("riscv64", "", 1, frozenset())


def test_a_mac_with_apple_silicon_speaks_of_its_features_in_linux_words() -> None:
    said = {
        "hw.optional.arm.FEAT_DotProd": "1",
        "hw.optional.arm.FEAT_I8MM": "1",
        "hw.optional.arm.FEAT_SME": "0",
        "hw.optional.arm.FEAT_BF16": "0",
        "machdep.cpu.brand_string": "Apple M2",
    }

    found = parse_sysctl(said, "aarch64", 8)

    assert found.model == "Apple M2"
    assert {"asimd", "asimddp", "i8mm"} <= found.features
    assert "bf16" not in found.features


def test_a_mac_with_intel_speaks_of_its_features_in_linux_words() -> None:
    said = {"machdep.cpu.features": "FPU SSE4.2 AVX1.0 FMA", "machdep.cpu.leaf7_features": "AVX2 BMI2"}

    assert {"sse4_2", "avx", "fma", "avx2", "bmi2"} <= parse_sysctl(said, "x86_64", 4).features


def test_this_machine_is_known() -> None:
    found = cpu()

    assert found.cores >= 1
    assert found.architecture in {"x86_64", "aarch64"}
    assert found.features
    assert (memory_bytes() or 0) > 1 << 28
