"""What this device is, for the server and for the choice of a variant."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import edgeml
from edgeml import plugins
from edgeml.engines import engine
from edgeml.targets import host, target_to_json
from edgeml_devices.messages import Facts

_TIMEOUT_S: Final = 60.0
_ENGINES_THERE: Final = (
    "import json; from edgeml_devices.agent.facts import engines_here; print(json.dumps(engines_here()))"
)


def engines_here() -> dict[str, str]:
    """Give the runtimes whose engine is installed for this interpreter, each with the engine's version."""
    found = ((name, engine(name)) for name in plugins.names(plugins.RUNTIME_GROUP))
    return {
        name: one.version for name, one in found if one is not None and one.version and one.lacking is None
    }


def engines(python: str) -> dict[str, str]:
    """Give the runtimes that self-tests can use: those of the interpreter that runs them."""
    if python in {"", sys.executable}:
        return engines_here()
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(
            [python, "-P", "-c", _ENGINES_THERE], capture_output=True, timeout=_TIMEOUT_S, check=True
        )
        found = json.loads(done.stdout)
        return {str(name): str(version) for name, version in found.items()}
    return {}


def gather(home: Path, engine_versions: dict[str, str]) -> Facts:
    """Look at the device."""
    free = total = None
    with suppress(OSError):
        usage = shutil.disk_usage(home)
        free, total = usage.free, usage.total
    return Facts(
        target=target_to_json(host()),
        engines=engine_versions,
        edgeml=edgeml.__version__,
        python=platform.python_version(),
        system=_system(),
        disk_free_bytes=free,
        disk_total_bytes=total,
    )


def _system() -> str:
    kernel = f"{platform.system()} {platform.release()}"
    with suppress(OSError):
        return f"{kernel}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    return kernel
