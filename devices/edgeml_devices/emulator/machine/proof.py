"""The canary in a machine that booted: one that goes on from a snapshot computes it as it wakes."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgeml.errors import EngineError
from edgeml_devices.emulator.user import canary

if TYPE_CHECKING:
    from edgeml_devices.emulator.machine.launch import Setup
    from edgeml_devices.emulator.machine.machine import Machine

_WITHIN_S: Final = 300.0
_PROVEN: Final = "proven"
"""In an image's folder: a file for each processor and QEMU that computed rightly with it."""


def prove(machine: Machine) -> None:
    """See that a machine computes rightly, where it has the engine that has shown an emulator wrong.

    Done once for an image, a processor and a QEMU: the same instructions give the same again.

    Raises:
        EngineError: it does not.
        TransportError: it is not reached.
    """
    note = _note(machine.setup)
    if "litert" not in machine.setup.image.engines or note.exists():
        return
    place = f"/run/edgeml-canary-{secrets.token_hex(4)}.tflite"  # others may be at it, too
    try:
        machine.put(canary.MODEL, place)
        done = machine.run(["python3", "-P", "-c", canary.SCRIPT, place], _WITHIN_S)
    finally:
        machine.hang_up()
    if done.exit_code:  # too little memory, say: nothing was computed, wrongly or rightly
        return
    fault = canary.fault(0, done.stdout, done.stderr)
    if fault is not None:
        raise EngineError(
            f"{machine.name}: the emulated {machine.setup.board.cpu} is not sound: {fault}; "
            "QEMU is wrong here: install another version of it"
        )
    note.parent.mkdir(exist_ok=True)
    note.touch()


def _note(setup: Setup) -> Path:
    subject = f"{setup.board.cpu}\0{setup.qemu.version}\0{setup.qemu.machine}"
    return setup.image.folder / _PROVEN / hashlib.sha256(subject.encode()).hexdigest()
