"""Ends a machine whose owner was killed: ``python -P -m edgeml_devices.emulator.machine.keeper FOLDER``.

A process beside the owner's waits for the lock that the owner holds. It is nobody's child, and costs nothing
until it gets the lock; then it is a Python, which ends the machine unless that was detached. Where it is
killed, too, the next who looks ends the machine.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgeml_devices.emulator.machine import state

_UNLESS_REMOVED: Final = '[ -e "$0" ] && exec "$@"'
"""A machine that was ended has no folder any more."""


def watch(folder: Path) -> None:
    """Start the keeper of a machine's folder, whose owner's lock is taken."""
    python = (sys.executable, "-P", "-m", "edgeml_devices.emulator.machine.keeper", str(folder))
    argv = ("setsid", "--fork", "flock", "--shared", state.OWNER)
    with suppress(OSError):  # without util-linux there is none
        subprocess.run(
            [*argv, "/bin/sh", "-c", _UNLESS_REMOVED, state.RUNNING, *python],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )


if __name__ == "__main__":
    state.end_left_over(Path(sys.argv[1]))
