"""Targets: the shipped profiles, the user's own, this machine's, and how each wants its integers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeml import targets as module
from edgeml.cli import main
from edgeml.cpu import parse_cpuinfo
from edgeml.edgetpu import EdgeTpu
from edgeml.errors import MessageError, UsageError
from edgeml.targets import Target, describe, host, target, targets
from edgeml.targets.quantizer import quantizer_settings
from edgeml.words import RUNTIMES

SHIPPED = (
    "coral-dev-board",
    "coral-usb",
    "raspberry-pi-3b-plus",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "raspberry-pi-zero-2w",
    "x86-64-amx",
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-vnni",
)
STORED = Path(__file__).parent / "cpuinfo"
OWN = """
title = "My gateway"
architecture = "aarch64"
cores = 2
cpu_features = ["fp", "asimd"]
memory_bytes = 268_435_456
runtimes = ["litert"]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEML_HOME", str(tmp_path))
    monkeypatch.delenv("EDGEML_TARGET", raising=False)
    (tmp_path / "targets").mkdir()
    return tmp_path


def test_the_shipped_targets_are_those_of_the_reference() -> None:
    assert tuple(one.name for one in targets()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_each_shipped_target_is_complete(name: str) -> None:
    one = target(name)

    assert one.architecture in {"aarch64", "x86_64"}
    assert one.word_bits == 64
    assert one.cpu_features
    assert set(one.runtimes) <= set(RUNTIMES)
    assert one.memory_bytes >= 512 << 20


def test_boards_with_a_cortex_a53_or_a72_have_no_dot_product_and_raspberry_pis_no_aes() -> None:
    for name in ("raspberry-pi-zero-2w", "raspberry-pi-3b-plus", "raspberry-pi-4"):
        assert not target(name).cpu_features & {"asimddp", "fphp", "aes"}
    assert {"asimddp", "asimdhp", "fphp"} <= target("raspberry-pi-5").cpu_features
    assert "aes" in target("coral-dev-board").cpu_features


def test_an_unknown_target_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="no target 'raspberry-pi-9'; known: host, coral-dev-board"):
        target("raspberry-pi-9")


class TestOwnTargets:
    def test_a_file_is_a_target_by_its_path(self, tmp_path: Path) -> None:
        path = tmp_path / "gateway.toml"
        path.write_text(OWN)

        one = target(str(path))

        assert (one.name, one.cores, one.memory_bytes) == ("gateway", 2, 256 << 20)

    def test_a_file_in_the_home_folder_is_a_target_by_its_name_and_listed(self, home: Path) -> None:
        (home / "targets" / "gateway.toml").write_text(OWN)

        assert target("gateway").title == "My gateway"
        assert "gateway" in [one.name for one in targets()]

    def test_the_users_own_wins_over_the_shipped_one(self, home: Path) -> None:
        (home / "targets" / "raspberry-pi-4.toml").write_text(OWN)

        assert target("raspberry-pi-4").title == "My gateway"
        assert [one.title for one in targets() if one.name == "raspberry-pi-4"] == ["My gateway"]

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("title = ", "not TOML"),
            (OWN + "speed = 1", "unknown key 'speed'; known: title, architecture"),
            (OWN.replace("cores = 2", ""), "needs cores"),
            (OWN.replace("cores = 2", "cores = 0"), "cores needs a whole number above 0, got 0"),
            (OWN.replace("cores = 2", "cores = true"), "cores needs a whole number above 0, got True"),
            (OWN.replace('["fp", "asimd"]', '"fp asimd"'), "cpu_features needs a list of texts"),
            (OWN.replace("My gateway", "x").replace('"x"', "3"), "title needs a text, got 3"),
            (OWN.replace('"litert"', '"tensorrt"'), "unknown runtime 'tensorrt'; known: litert"),
        ],
    )
    def test_a_wrong_file_says_which_and_what(self, tmp_path: Path, text: str, says: str) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(text)

        with pytest.raises(UsageError) as caught:
            target(str(path))

        assert says in str(caught.value)
        assert str(path) in str(caught.value)

    def test_a_missing_file_is_named(self) -> None:
        with pytest.raises(UsageError, match=r"nowhere\.toml: cannot be read"):
            target("nowhere.toml")


def described(stored: str, architecture: str, board: str = "", declared: str = "") -> Target:
    text = (STORED / f"{stored}.txt").read_text()
    return describe(parse_cpuinfo(text, architecture, 4), board, 1 << 30, declared)


class TestHost:
    @pytest.mark.parametrize(
        ("stored", "name"),
        [
            ("nehalem", "x86-64-v2"),
            ("haswell", "x86-64-v3"),
            ("alder-lake", "x86-64-vnni"),
            ("cascade-lake", "x86-64-vnni"),
            ("sapphire-rapids", "x86-64-amx"),
        ],
    )
    def test_an_x86_machine_is_named_by_the_best_class_it_holds(self, stored: str, name: str) -> None:
        assert described(stored, "x86_64").name == name

    @pytest.mark.parametrize(
        ("stored", "board", "name"),
        [
            ("raspberry-pi-3", "Raspberry Pi Zero 2 W Rev 1.0", "raspberry-pi-zero-2w"),
            ("raspberry-pi-3", "Raspberry Pi 3 Model B Plus Rev 1.3", "raspberry-pi-3b-plus"),
            ("raspberry-pi-4", "Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4"),
            ("raspberry-pi-4", "Raspberry Pi 400 Rev 1.0", "raspberry-pi-4"),
            ("raspberry-pi-5", "Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5"),
            ("raspberry-pi-5", "linux,dummy-virt", "aarch64"),
        ],
    )
    def test_a_board_is_known_by_its_device_tree(self, stored: str, board: str, name: str) -> None:
        one = described(stored, "aarch64", board)

        assert one.name == name
        assert one.title == board

    def test_an_emulated_board_is_what_it_is_declared_to_be_with_the_features_it_has(self) -> None:
        one = described("raspberry-pi-4", "aarch64", "linux,dummy-virt", declared="raspberry-pi-4")

        assert one.name == "raspberry-pi-4"
        assert one.cpu_features == frozenset("fp asimd evtstrm crc32 cpuid".split())

    def test_this_machine_can_be_declared_by_a_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EDGEML_TARGET", "raspberry-pi-5")

        assert host().name == "raspberry-pi-5"

    def test_host_stands_for_this_machine(self) -> None:
        assert target("host") == host()
        assert host().cores >= 1

    def test_what_is_made_for_a_class_runs_on_it_and_above_not_below(self) -> None:
        v3, vnni = described("haswell", "x86_64"), described("cascade-lake", "x86_64")

        assert target("x86-64-v3").runs_on(v3)
        assert target("x86-64-v3").runs_on(vnni)
        assert not target("x86-64-vnni").runs_on(v3)
        assert target("x86-64-vnni").lacking(v3) == {"vnni"}
        assert not target("raspberry-pi-4").runs_on(v3)

    def test_an_accelerator_must_be_there_too(self) -> None:
        pi = described("raspberry-pi-5", "aarch64", "Raspberry Pi 5 Model B Rev 1.0")

        assert not target("coral-usb").runs_on(pi)

    def test_figures_of_another_class_do_not_speak_for_a_target(self) -> None:
        pi_5 = described("raspberry-pi-5", "aarch64", "Raspberry Pi 5 Model B Rev 1.0")

        assert target("raspberry-pi-5").is_like(pi_5)
        assert not target("raspberry-pi-4").is_like(pi_5)


class TestQuantizerSettings:
    @pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3"])
    @pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
    def test_x86_without_vnni_gets_seven_bit_weights(self, name: str, runtime: str) -> None:
        assert quantizer_settings(target(name), runtime).reduce_range

    @pytest.mark.parametrize("name", [name for name in SHIPPED if name not in {"x86-64-v2", "x86-64-v3"}])
    @pytest.mark.parametrize("runtime", RUNTIMES)
    def test_others_get_all_eight_bits(self, name: str, runtime: str) -> None:
        assert not quantizer_settings(target(name), runtime).reduce_range

    def test_litert_needs_no_seven_bits_and_takes_signed_activations(self) -> None:
        made = quantizer_settings(target("x86-64-v3"), "litert")

        assert not made.reduce_range
        assert made.activations == "int8"

    @pytest.mark.parametrize("name", SHIPPED)
    def test_onnx_activations_are_unsigned_and_weights_per_channel_everywhere(self, name: str) -> None:
        made = quantizer_settings(target(name), "onnxruntime")

        assert made.activations == "uint8"
        assert made.per_channel


class TestCommand:
    def test_the_table_names_every_target_and_the_host(self) -> None:
        result = CliRunner().invoke(main, ["targets"])

        assert result.exit_code == 0
        assert all(name in result.output for name in (*SHIPPED, host().name))

    def test_json_holds_what_the_profile_holds(self) -> None:
        result = CliRunner().invoke(main, ["targets", "raspberry-pi-5", "--json"])

        shape = json.loads(result.output)
        assert (shape["schema"], shape["host"]) == (1, host().name)
        (one,) = shape["targets"]
        assert one["name"] == "raspberry-pi-5"
        assert one["cpu_features"] == sorted(target("raspberry-pi-5").cpu_features)
        assert one["memory_bytes"] == 2 << 30

    def test_an_unknown_name_is_wrong_usage(self) -> None:
        result = CliRunner().invoke(main, ["targets", "nothing"])

        assert result.exit_code == 2
        assert "known: host" in result.output


def test_the_module_needs_neither_numpy_nor_an_engine() -> None:
    import subprocess
    import sys

    code = "import sys, edgeml.targets; edgeml.targets.host(); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
    assert module.HOST == "host"


def test_the_file_in_the_reference_is_a_target(repository: Path, tmp_path: Path) -> None:
    text = (repository / "docs" / "reference" / "targets.md").read_text()
    path = tmp_path / "gateway.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0])

    assert target(str(path)).title == "Gateway in the hall"


def test_a_machine_tells_another_what_it_is() -> None:
    said = json.loads(json.dumps(module.target_to_json(host())))
    assert module.target_from_json(said, "facts") == host()
    assert module.target_from_json(said | {"of_tomorrow": 1}, "facts") == host()
    for wrong in ({"cpu_features": "avx"}, {"cpu_features": [1]}, {"cores": "2"}, {"name": None}):
        with pytest.raises(MessageError, match=f"facts: {next(iter(wrong))}"):
            module.target_from_json(said | wrong, "facts")


def test_an_edge_tpu_that_is_attached_is_an_accelerator_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attached = (EdgeTpu("usb", Path("/dev/bus/usb/001/004"), is_writable=True),)
    monkeypatch.setattr(module, "edge_tpus", lambda: attached)
    monkeypatch.delenv("EDGEML_TARGET", raising=False)
    assert host().accelerators == ("edgetpu",)
    monkeypatch.setenv("EDGEML_TARGET", "coral-usb")
    assert host().accelerators == ("edgetpu",)
    monkeypatch.setattr(module, "edge_tpus", lambda: ())
    assert host().accelerators == ("edgetpu",), "declared"
    monkeypatch.delenv("EDGEML_TARGET")
    assert host().accelerators == ()
