"""Run by a worker's interpreter: job.py WORKER_SCRIPT REQUEST RESULT. Standard library only, no edgeml.

The worker's script has ``convert(request) -> dict``; what it gives, or the error it raised, is written
as JSON beside the result's path and renamed, so that a result is whole or missing. Of edgeml it can import
``shared/edgeml_worker.py`` only.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from pathlib import Path


def main(script: str, request: str, result: str) -> int:
    """Do the job; 0 even if it failed, because the failure is the result."""
    # OpenVINO and Keras's exporter to it would send usage statistics; they do without this module
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # refuses the import
    sys.path.insert(0, str(Path(__file__).with_name("shared")))
    try:
        given = json.loads(Path(request).read_text(encoding="utf-8"))
        found = {"ok": True, **runpy.run_path(script)["convert"](given)}
    except MemoryError:
        found = {"ok": False, "error": "out of memory", "kind": "MemoryError"}
    except Exception as error:  # noqa: BLE001 - the other side decides what to do about it
        traceback.print_exc()
        kind = type(error).__name__
        found = {"ok": False, "error": str(error) or kind, "kind": kind}
    scratch = Path(f"{result}.part")
    scratch.write_text(json.dumps(found), encoding="utf-8")
    os.replace(scratch, result)  # noqa: PTH105 - one call of the standard library, any version
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
