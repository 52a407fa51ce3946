"""A machine that goes on from a snapshot: loaded, let go, and made one of its own before it is reached."""

from __future__ import annotations

import json
import secrets
import shlex
import time
import uuid
from pathlib import Path
from typing import Final

from edgeml.errors import EngineError
from edgeml_devices.emulator.images.image import Image
from edgeml_devices.emulator.machine.guest import ASLEEP, AWAKE
from edgeml_devices.emulator.machine.line import Line
from edgeml_devices.emulator.machine.qmp import Qmp, open_qmp
from edgeml_devices.emulator.user import canary

WAKE_WITHIN_S: Final = 60.0
"""From the snapshot's end to a machine of its own: 0.1 s on a quiet machine."""
ASLEEP_WITHIN_S: Final = 300.0
"""For every engine to be imported once."""
_SEED_BYTES: Final = 64
_POLL_S: Final = 0.005
_ONLY_THE_REST: Final = {"capabilities": [{"capability": "x-ignore-shared", "state": True}]}
"""The memory is a file that QEMU shares: nothing of it goes into the state."""


def put_to_sleep(port: int, image: Image, where: str) -> None:
    """Start, on a serial line, the program that waits for the snapshot; everything is warm then.

    Raises:
        EngineError: it does not say that it waits; holds what came.
    """
    program = f"python3 -P -m edgeml_devices.emulator.machine.guest {shlex.join(image.engines)}"
    with Line(port, where) as line:
        line.wait_for_shell(ASLEEP_WITHIN_S)
        line.send(f"stty -echo; {program}; stty echo")
        line.wait_for(f"\n{ASLEEP}", ASLEEP_WITHIN_S)


def save_state(folder: Path, state_file: Path) -> None:
    """Stop a machine, write its state but for its memory, and end it.

    Raises:
        EngineError: QEMU cannot.
    """
    with open_qmp(folder) as qmp:
        qmp.execute("stop")
        qmp.execute("migrate-set-capabilities", _ONLY_THE_REST)
        qmp.execute("migrate", {"uri": f"exec:cat >{shlex.quote(str(state_file))}"})
        while (state := qmp.execute("query-migrate"))["status"] != "completed":
            if state["status"] == "failed":
                raise EngineError(f"{folder.name}: QEMU does not write its state: {state.get('error-desc')}")
            time.sleep(_POLL_S)
        qmp.execute("quit")


def load_state(folder: Path, state_file: Path) -> None:
    """Load the state of a machine that waits for it, and let it go on.

    Raises:
        EngineError: QEMU refuses the state, and ends.
    """
    with open_qmp(folder) as qmp:
        qmp.execute("migrate-set-capabilities", _ONLY_THE_REST)
        qmp.execute("migrate-incoming", {"uri": f"exec:cat {shlex.quote(str(state_file))}"})
        _wait_loaded(qmp)
        qmp.execute("cont")


def wake(port: int, image: Image, where: str) -> None:
    """Tell a machine the time, and give it randomness and a boot id of its own; see what it computes.

    Raises:
        EngineError: it does not answer, or computes wrongly.
    """
    with Line(port, where) as line:
        told = {
            "time_s": time.time(),
            "seed": secrets.token_hex(_SEED_BYTES),
            "boot_id": str(uuid.uuid4()),
        }
        line.send(json.dumps(told))
        line.wait_for(AWAKE, WAKE_WITHIN_S)
        computed = line.wait_for(AWAKE, WAKE_WITHIN_S).strip()
    if "litert" in image.engines:
        fault = canary.fault(0, computed.encode(), b"")
        if fault is not None:
            raise EngineError(f"{where}: {fault}")


def _wait_loaded(qmp: Qmp) -> None:
    while qmp.execute("query-status")["status"] == "inmigrate":
        time.sleep(_POLL_S)
