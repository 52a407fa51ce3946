"""What an agent imports of the core stays light."""

from __future__ import annotations

import subprocess
import sys

LIGHT = (
    "atomic bundle choice engines health histogram installed manifest manifest_json processes runtime "
    "selftest settings targets tensors typed_json telemetry.reference "
    "telemetry.alone telemetry.device telemetry.spool_status"
).split()


def test_what_an_agent_imports_loads_no_numpy() -> None:
    names = ", ".join(f"edgeml.{name}" for name in LIGHT)
    code = f"import sys, {names}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "edgeml.manifest" in loaded
    assert not {"numpy", "click", "rich", "importlib.metadata"} & set(loaded)
