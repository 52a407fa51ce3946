"""A release onto an emulated board without a network, over a serial line that damages bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeml import plugins
from edgeml.bundle import write_bundle
from edgeml.cli import main
from edgeml.manifest import FileEntry, Manifest, Tolerance, Variant
from edgeml.testing.devices import EmulatedDevice
from edgeml.testing.plugin import MakeSerialCable
from edgeml.testing.serial_lines import BITS_PER_BYTE, SerialCable

pytest.importorskip("ai_edge_litert")
pytestmark = [
    pytest.mark.data,
    pytest.mark.soak,
    pytest.mark.usefixtures("image", "built_cache"),
    pytest.mark.emulated_device(engines=["litert"]),
]
NAME = "vww"
BAUD = 115200
DAMAGED = 1e-4 / 3
"""Of each kind, per byte."""
MOST_S = 60.0
"""That 300 kB may take on the line."""
VARIANT = "litert-int8_static"


def _bundle(folder: Path, model: Path, release: int, *, off: int = 0) -> Path:
    """The real person detector, with a golden sample whose outputs are wrong by ``off``."""
    folder.mkdir()
    with plugins.runtime("litert").load(model) as session:
        inputs, outputs = session.inputs, session.outputs
        sample = {one.name: np.full((1, *one.shape[1:]), 7, one.dtype) for one in inputs}
        answer = session.run(sample)
    np.savez_compressed(folder / "inputs.npz", **sample)
    np.savez_compressed(
        folder / "outputs.npz", **{name: array + np.int8(off) for name, array in answer.items()}
    )
    (folder / "labels.txt").write_text(f"nobody\nsomebody\nrelease {release}\n")
    files = {
        f"variants/{VARIANT}/model.tflite": model,
        f"golden/{VARIANT}.npz": folder / "outputs.npz",
        "golden/inputs.npz": folder / "inputs.npz",
        "labels.txt": folder / "labels.txt",
    }
    variant = Variant(
        VARIANT,
        "litert",
        "int8_static",
        (FileEntry(f"variants/{VARIANT}/model.tflite", 0, ""),),
        ("raspberry-pi-4",),
        golden=FileEntry(f"golden/{VARIANT}.npz", 0, ""),
        tolerance=Tolerance(max_abs=0.0),
    )
    manifest = Manifest(
        NAME,
        release,
        inputs=inputs,
        outputs=outputs,
        variants=(variant,),
        files=(FileEntry("golden/inputs.npz", 0, ""), FileEntry("labels.txt", 0, "")),
        labels="labels.txt",
        golden_inputs="golden/inputs.npz",
    )
    path = folder / f"{NAME}-{release}.edgeml"
    write_bundle(path, manifest, files)
    return path


def _deploy(cable: SerialCable, *words: object) -> tuple[int, dict[str, Any]]:
    argv = ["deploy", *map(str, words), "--to", cable.url, "--json"]
    done = CliRunner().invoke(main, argv)
    assert "devices" in done.stdout, done.output
    return done.exit_code, json.loads(done.stdout)["devices"][0]


def test_a_release_is_sent_tested_switched_to_and_left_again_without_a_network(
    emulated_device: EmulatedDevice, serial_cable: MakeSerialCable, data_dir: Path, tmp_path: Path
) -> None:
    model = data_dir / "vww" / "vww_96_int8.tflite"
    machine = emulated_device.machine
    machine.network(on=False)
    far = ("127.0.0.1", machine.ports.serial)
    cable = serial_cable(baud=BAUD, dropped=DAMAGED, doubled=DAMAGED, flipped=DAMAGED, seed=3, far=far)

    code, first = _deploy(cable, _bundle(tmp_path / "1", model, 1))
    assert (code, first["result"], first["verified"]) == (0, "SUCCESSFUL", "selftest"), first
    assert (first["running"], first["emulated"], "p50_ms" in first["measured"]) == (1, True, False)
    assert first["sent_bytes"] > model.stat().st_size
    on_the_line_s = (cable.sent_bytes + cable.received_bytes) * BITS_PER_BYTE / BAUD
    print(
        f"{first['sent_bytes']} bytes: {on_the_line_s:.1f} s on the line, {first['duration_s']:.1f} s in all"
    )
    assert on_the_line_s * 300_000 / first["sent_bytes"] < MOST_S

    code, wrong = _deploy(cable, _bundle(tmp_path / "2", model, 2, off=5))
    assert (code, wrong["result"], wrong["reason"]) == (3, "FAILED_NO_STATE_CHANGE", "parity")
    code, third = _deploy(cable, _bundle(tmp_path / "3", model, 3))
    assert (code, third["running"], third["previous"]) == (0, 3, 1)
    assert third["sent_bytes"] < model.stat().st_size / 2, "the model was sent again"

    code, back = _deploy(cable, "--rollback", NAME)
    assert (code, back["result"], back["running"]) == (0, "SUCCESSFUL", 1)
