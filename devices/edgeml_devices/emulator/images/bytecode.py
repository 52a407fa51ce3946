"""Python compiled on the host for the guest, whose first imports would compile under emulation otherwise."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgeml_devices.emulator.images.image import PYTHON

_NEVER_IMPORTED: Final = "/tests?/"
"""Of a path: a fifth of the files of the wheels."""


def compile_all(root: Path, folders: Sequence[str]) -> bool:
    """Compile what is below folders of a root; gives whether a Python of the guest's version was there.

    Imports do not look at the source's time: it would not survive in the image.
    """
    python = host_python()
    if python is None:
        return False
    present = [str(root / name) for name in folders if (root / name).is_dir()]
    # what cannot be compiled (templates, files for other versions) is no matter
    options = ("-I", "-m", "compileall", "-q", "-j", "2", "-x", _NEVER_IMPORTED)
    subprocess.run(
        [python, *options, "--invalidation-mode", "unchecked-hash", "-s", str(root), "-p", "/", *present],
        capture_output=True,
        check=False,
    )
    return True


def host_python() -> str | None:
    """Find a Python of the guest's minor version on this machine: bytecode is the same on every CPU."""
    if "{}.{}".format(*sys.version_info[:2]) == PYTHON and sys.implementation.name == "cpython":
        return sys.executable
    return shutil.which(f"python{PYTHON}")
