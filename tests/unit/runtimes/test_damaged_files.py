"""Files with bytes changed at random: an error of ours or a model that runs, never a crash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.testing.models import SMALL_MODELS, make_crossed, make_quantized

ROUNDS = 60
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from edgeml import plugins
from edgeml.errors import EdgemlError
runtime, model, rounds = plugins.runtime(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
content, random = model.read_bytes(), np.random.default_rng(0)
for _ in range(rounds):
    damaged = bytearray(content)
    for place in random.integers(0, len(damaged), 4):
        damaged[place] = random.integers(256)
    model.write_bytes(damaged)
    try:
        with runtime.load(model) as session:
            session.run({
                spec.name: np.zeros([1 if side is None else side for side in spec.shape], spec.dtype)
                for spec in session.inputs
                if np.prod([side or 1 for side in spec.shape]) < 1 << 20
            })
    except EdgemlError:
        pass
print("survived", end="")
"""


@pytest.mark.parametrize("make", [make_crossed, make_quantized])
@pytest.mark.parametrize("name", SMALL_MODELS)
def test_damage_is_an_error_and_never_a_crash(name: str, make: object, tmp_path: Path) -> None:
    model = make(tmp_path, name)  # type: ignore[operator]  # one of two functions
    argv = [sys.executable, "-c", PROGRAM, name, str(model), str(ROUNDS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "survived"
