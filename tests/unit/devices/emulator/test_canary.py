"""The canary's answer is right, by integer arithmetic and by LiteRT; a wrong answer is a fault."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from edgeml_devices.emulator.user import canary

litert = pytest.importorskip("ai_edge_litert.interpreter")


def test_the_expected_outputs_are_those_of_integer_arithmetic() -> None:
    engine = litert.Interpreter(model_path=str(canary.MODEL))
    engine.allocate_tensors()
    weights, bias = (engine.get_tensor(index) for index in (1, 2))
    values = (np.arange(64) * 37 + 11) % 256 - 128
    exact = (weights.astype(np.int64) @ (values - 3) + bias) / 1024 - 5
    assert tuple(np.round(exact).astype(int)) == canary.EXPECTED
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 0.02, "rounding is in doubt"
    assert np.abs(exact).max() < 127, "saturated"


def test_the_script_gives_the_expected_outputs_here() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", canary.SCRIPT, canary.MODEL], capture_output=True, check=False
    )
    assert canary.fault(done.returncode, done.stdout, done.stderr) is None


def test_wrong_outputs_are_a_fault_and_a_crash_is_one() -> None:
    assert "no result of it can be trusted" in (canary.fault(0, b"-37 -4 10 -4", b"") or "")
    assert "exit code 139): Segmentation fault" in (canary.fault(139, b"", b"x\nSegmentation fault\n") or "")
