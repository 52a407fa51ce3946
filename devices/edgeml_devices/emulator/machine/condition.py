"""What a machine is at: whether it runs, hangs, has its cable pulled, or waits for room on this disk."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from edgeml.errors import EngineError
from edgeml_devices.emulator.machine import state
from edgeml_devices.emulator.machine.qmp import open_qmp

Condition = Literal["on", "off", "hangs", "unplugged", "disk_full"]
UNPLUGGED: Final = "unplugged"
"""In a machine's folder while its network cable is pulled: QEMU does not say."""
_ANSWERS_WITHIN_S: Final = 5.0
_NOBODY: Final = "disconnected:"
"""How QEMU's word for a line begins that nobody is attached to."""
_OF_STATUS: Final[dict[str, Condition]] = {"paused": "hangs", "io-error": "disk_full"}


def condition(folder: Path) -> Condition:
    """Say what the machine of a folder is at.

    A QEMU that does not say so at once has other work, and is on. ``disk_full``: the guest wrote, this
    machine's disk had no room, and QEMU stopped it there.
    """
    if not state.is_running(folder):
        return "off"
    try:
        with open_qmp(folder, _ANSWERS_WITHIN_S) as qmp:
            status = qmp.execute("query-status")["status"]
    except EngineError:
        return "on"
    found = _OF_STATUS.get(status, "on")
    return UNPLUGGED if found == "on" and (folder / UNPLUGGED).exists() else found


def is_attached(folder: Path, line: str) -> bool:
    """Say whether somebody is attached to a serial line, by its label; not where QEMU does not say."""
    try:
        with open_qmp(folder, _ANSWERS_WITHIN_S) as qmp:
            lines = {one["label"]: one["filename"] for one in qmp.execute("query-chardev")}
    except EngineError:
        return False
    return line in lines and not lines[line].startswith(_NOBODY)


def off_text(name: str) -> str:
    """Say that a machine is off, and how to mend it."""
    return f"{name} is off; boot it on its disk: edgeml emulate restart {name}"


def unreachable(folder: Path, *, by_network: bool = True) -> str | None:
    """Say why nothing answers in the machine of a folder, and how to mend it; ``None`` if it should.

    Args:
        folder: the machine's.
        by_network: whether it is asked over its network; else over a serial line.
    """
    name = folder.name
    go_on = f"edgeml emulate hang {name} --end"
    match condition(folder):
        case "off":
            return off_text(name)
        case "hangs":
            return f"{name} hangs; let it go on: {go_on}"
        case "disk_full":
            return f"{name} stands still, as the disk of this machine is full; make room, then: {go_on}"
        case "unplugged" if by_network:
            return f"{name} has its network cable pulled; put it back: edgeml emulate network {name} on"
        case _:
            return None
