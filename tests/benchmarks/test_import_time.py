"""`import edgeml` takes at most 60 ms more than `import numpy`, and `edgeml --help` at most 250 ms.

The public names are imported when they are first used, so that using them is part of what is measured.
Medians of interleaved rounds count.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 11
IMPORT_BUDGET_MS = 60
HELP_BUDGET_MS = 250


def _wall_ms(*argv: str) -> float:
    start = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return (time.perf_counter() - start) * 1e3


def test_importing_the_public_api_costs_little_over_numpy() -> None:
    rounds: dict[str, list[float]] = {"numpy": [], "edgeml": []}
    programs = {"numpy": "import numpy", "edgeml": "import numpy, edgeml; edgeml.load; edgeml.Model"}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            rounds[name].append(_wall_ms(sys.executable, "-c", program))
    numpy_ms, edgeml_ms = (statistics.median(rounds[name]) for name in programs)
    print(f"import numpy {numpy_ms:.0f} ms, and edgeml {edgeml_ms:.0f} ms")
    assert edgeml_ms - numpy_ms <= IMPORT_BUDGET_MS


def test_help_appears_at_once() -> None:
    edgeml = Path(sys.executable).parent / "edgeml"
    found_ms = statistics.median(_wall_ms(str(edgeml), "--help") for _ in range(ROUNDS))
    print(f"edgeml --help {found_ms:.0f} ms")
    assert found_ms <= HELP_BUDGET_MS
