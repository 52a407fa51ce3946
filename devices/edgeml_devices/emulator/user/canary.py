"""A product whose result is known: whether an emulator computes int8 as the processor that it is told to be.

QEMU's ``max``, which is also what it emulates unless told otherwise, gives wrong results in LiteRT's int8
kernels, without an error. So nothing counts before the canary has: one fully connected layer, made for the
purpose, whose outputs are neither saturated nor near to a half, so that no rounding is in doubt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

MODEL: Final = Path(__file__).with_name("canary.tflite")
"""``y = (w · (x − 3) + b) / 1024 − 5``, rounded: int8 [1, 64] to [1, 16], weights −127 to 127, seed 0."""
INPUT: Final = tuple((place * 37 + 11) % 256 - 128 for place in range(64))
EXPECTED: Final = (-37, -1, 10, 116, -15, -77, -17, 43, -22, -11, 25, 56, -53, 26, -6, 47)
SCRIPT: Final = f"""
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
engine = Interpreter(model_path=sys.argv[1], num_threads=1)
engine.allocate_tensors()
given, wanted = engine.get_input_details()[0], engine.get_output_details()[0]
engine.set_tensor(given["index"], np.array([{INPUT}], np.int8))
engine.invoke()
print(*engine.get_tensor(wanted["index"])[0].tolist())
"""
"""Takes the model's path; prints its outputs."""


def fault(exit_code: int, stdout: bytes, stderr: bytes) -> str | None:
    """Say what is wrong with an emulator on which the script ran so; ``None`` if nothing is."""
    if exit_code:
        lines = stderr.decode(errors="replace").strip().splitlines()
        return f"LiteRT did not run (exit code {exit_code}): {lines[-1] if lines else 'it says nothing'}"
    got = stdout.decode(errors="replace").split()
    if got == [str(value) for value in EXPECTED]:
        return None
    return (
        f"an int8 layer gives {' '.join(got[:4])} … where {' '.join(map(str, EXPECTED[:4]))} … is right: "
        "no result of it can be trusted"
    )
