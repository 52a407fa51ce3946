"""The command as the tests of this room call it, and what several of them stand on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

import edgeml
from edgeml.bundle import write_bundle
from edgeml.cli import main
from edgeml.manifest import FileEntry, Manifest, Variant
from edgeml.testing.models import make_double
from tests.fake_edgetpu_compiler import V16, FakeCompiler, operator_log
from tests.waiting import eventually

LOG = operator_log(("RELU", 1, "Mapped to Edge TPU"))
X = np.arange(16, dtype=np.float32).reshape(1, 16) - 8


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["coral", "compile", *map(str, arguments)])


def answer(*arguments: object) -> dict[str, Any]:
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fails(*arguments: object, exit_code: int = 1) -> str:
    done = call(*arguments)
    assert done.exit_code == exit_code, done.output
    return " ".join(done.stderr.split())


def files(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def make_bundle(model: Path, folder: Path) -> Path:
    """Write a bundle with a float and an int8 variant, golden samples and a field of a later version."""
    double = make_double(folder, "onnxruntime")
    with edgeml.load(model) as loaded:
        spec = loaded.spec
        np.savez(folder / "golden.npz", y=loaded(X))
    np.savez(folder / "inputs.npz", x=X)
    variants = (
        Variant(
            "onnxruntime-float32", "onnxruntime", "float32", (FileEntry("variants/o/model.onnx", 0, ""),), ()
        ),
        Variant(
            "litert-int8_static",
            "litert",
            "int8_static",
            (FileEntry("variants/l/model.tflite", 0, ""),),
            ("coral-usb", "raspberry-pi-4"),
            golden=FileEntry("golden/litert-int8_static.npz", 0, ""),
            inputs=spec.inputs,
            outputs=spec.outputs,
        ),
    )
    manifest = Manifest(
        "kws",
        3,
        spec.inputs,
        spec.outputs,
        variants,
        (),
        golden_inputs="golden/inputs.npz",
        extra={"later": 1},
    )
    bundle = folder / "kws.edgeml"
    write_bundle(
        bundle,
        manifest,
        {
            "variants/o/model.onnx": double,
            "variants/l/model.tflite": model,
            "golden/litert-int8_static.npz": folder / "golden.npz",
            "golden/inputs.npz": folder / "inputs.npz",
        },
    )
    return bundle


def own_compiler(folder: Path, does: str) -> Path:
    """A compiler in shell, which puts its file where $made says, of what $good says."""
    path = folder / "own" / "edgetpu_compiler"
    path.parent.mkdir()
    path.write_text(
        f"""#!/bin/sh
echo "Edge TPU Compiler version {V16}"
[ "$1" = --version ] && exit 0
while [ $# -gt 1 ]; do [ "$1" = --out_dir ] && out=$2; shift; done
made=$out/model_edgetpu.tflite log=$out/model_edgetpu.log
{does}
"""
    )
    path.chmod(0o755)
    return path


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def interrupted(
    model: Path, fake: FakeCompiler, *more: str, sent: signal.Signals = signal.SIGINT, code: int = 130
) -> None:
    argv = [sys.executable, "-m", "edgeml", "coral", "compile", str(model), *more]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as program:
        eventually(lambda: fake.calls)
        program.send_signal(sent)
        assert program.wait(60) == code
    eventually(lambda: not is_running(int(fake.calls[0]["pid"])))
