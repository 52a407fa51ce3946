"""What a device says of itself, with edgeml there or not, and which variant that makes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from edgeml_devices.install.device import Device
from edgeml_devices.install.facts import DeviceFacts, ask_facts, choose_variant
from edgeml_devices.install.words import StepError
from edgeml_devices.messages import Reason
from edgeml_devices.transports.local import LocalTransport

from edgeml.errors import UsageError
from edgeml.manifest import FileEntry, Latency, Manifest, Measured, Variant
from edgeml.targets import target, target_to_json
from edgeml.tensors import TensorSpec
from edgeml.transport import CommandResult

CPUINFO = Path(__file__).parents[2] / "core" / "cpuinfo"


class ToldTransport(LocalTransport):
    """A device that answers from a text."""

    def __init__(self, facts: str, edgeml: dict[str, object] | None = None) -> None:
        super().__init__()
        self._facts = facts
        self._edgeml = edgeml or {}

    def run(self, argv: Sequence[str], timeout_s: float) -> CommandResult:  # noqa: ARG002 - the contract's
        if argv[-1] == "facts":
            return CommandResult(0, f"motd\n{self._facts}ok:\n".encode(), b"")
        return CommandResult(0, json.dumps(self._edgeml.get(argv[1])).encode(), b"")


def _ask(facts: str, edgeml: dict[str, object] | None = None) -> DeviceFacts:
    return ask_facts(Device(ToldTransport(facts, edgeml), "/home", "/root", "me", "/device.sh"))


def _pi_4() -> str:
    lines = (CPUINFO / "raspberry-pi-4.txt").read_text().splitlines()
    return (
        "machine:aarch64\nsystem:Linux 6.6.20+rpt-rpi-v8\nuid:1000\nboard:Raspberry Pi 4 Model B Rev 1.4\n"
        "memory_kib:3884000\ndistribution:Debian GNU/Linux 12 (bookworm)\n"
        + "".join(f"cpuinfo:{line}\n" for line in lines)
        + "cores:4\nsystemd:yes\nfree_kib:1000\n"
    )


def test_a_bare_board_is_known_by_its_device_tree_and_cpuinfo():
    facts = _ask(_pi_4())
    assert (facts.target.name, facts.target.architecture, facts.target.cores) == (
        "raspberry-pi-4",
        "aarch64",
        4,
    )
    assert facts.target.cpu == "Cortex-A72"
    assert facts.target.cpu_features == {"fp", "asimd", "evtstrm", "crc32", "cpuid"}
    assert facts.target.memory_bytes == 3884000 * 1024
    assert (facts.engines, facts.edgeml, facts.is_root, facts.has_systemd) == (None, None, False, True)
    assert facts.free_bytes == 1_024_000
    assert facts.system == "Debian GNU/Linux 12 (bookworm) · Linux 6.6.20+rpt-rpi-v8"


def _with_edgeml(*engines: str) -> DeviceFacts:
    checks = [
        {
            "group": "runtime",
            "name": name,
            "status": "ok" if name != "onnxruntime" else "broken",
            "detail": "2.1.0",
        }
        for name in engines
    ]
    answers = {
        "targets": {"targets": [target_to_json(target("raspberry-pi-5"))]},
        "doctor": {"checks": checks},
    }
    return _ask(_pi_4() + "edgeml:/opt/edgeml/bin/edgeml\n", answers)


def test_edgeml_on_the_device_knows_best():
    facts = _with_edgeml("litert", "onnxruntime")
    assert facts.target == target("raspberry-pi-5")
    assert facts.engines == {"litert": "2.1.0"}


def test_an_edgeml_that_does_not_work_is_done_without():
    facts = _ask(_pi_4() + "edgeml:/opt/edgeml/bin/edgeml\n", {})
    assert facts.target.name == "raspberry-pi-4"
    assert facts.engines is None


def _manifest() -> Manifest:
    def variant(name: str, p50: float, runtime_version: str = "") -> Variant:
        runtime, _, scheme = name.partition("-")
        return Variant(
            name,
            runtime,
            scheme,
            (FileEntry(f"variants/{name}/model", 1, "0" * 64),),
            ("raspberry-pi-4", "raspberry-pi-5"),
            runtime_version,
            measured=Measured(latency_ms=Latency(p50, p50, p50)),
        )

    spec = (TensorSpec("x", (1, 1), "float32"),)
    variants = (
        variant("onnxruntime-float32", 1.0),
        variant("litert-float32", 3.0),
        variant("litert-int8_static", 2.0),
    )
    return Manifest("kws", 1, spec, spec, variants, ())


def test_the_quickest_variant_that_has_its_engine_is_chosen():
    assert choose_variant(_manifest(), _with_edgeml("litert"), None).variant.name == "litert-int8_static"
    assert choose_variant(_manifest(), _ask(_pi_4()), None).variant.name == "onnxruntime-float32"


def test_a_variant_that_is_asked_for_is_taken():
    chosen = choose_variant(_manifest(), _with_edgeml("litert"), "litert-float32")
    assert chosen.variant.name == "litert-float32"


def test_a_variant_without_its_engine_is_refused_with_the_reason():
    with pytest.raises(StepError, match="not installed there") as caught:
        choose_variant(_manifest(), _with_edgeml("litert"), "onnxruntime-float32")
    assert caught.value.reason is Reason.INCOMPATIBLE
    with pytest.raises(StepError, match="is not installed"):
        choose_variant(_manifest(), _with_edgeml(), None)
    with pytest.raises(UsageError, match="its variants are"):
        choose_variant(_manifest(), _with_edgeml("litert"), "none")
