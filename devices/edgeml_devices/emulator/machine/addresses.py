"""Where a machine can be reached, as QEMU says it: the system chose the ports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgeml.errors import EngineError
from edgeml_devices.emulator.images.image import HTTP_PORT, SSH_PORT
from edgeml_devices.emulator.machine.command import CONSOLE, SERIAL

_SOCKET: Final = re.compile(r"tcp:127\.0\.0\.1:(\d+)")
_FORWARD: Final = re.compile(
    r"^\s*TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)\s", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Addresses:
    """TCP ports on loopback."""

    ssh: int
    http: int
    console: int
    """The first serial line, for one client at a time."""
    serial: int
    """The second one, as ``serial:socket://127.0.0.1:PORT``."""


def read_addresses(chardevs: Sequence[Mapping[str, Any]], user_network: str) -> Addresses:
    """Read the ports from QEMU's answers.

    Args:
        chardevs: what ``query-chardev`` returns.
        user_network: what the monitor's ``info usernet`` prints.

    Raises:
        EngineError: one is missing; this QEMU says it in another way.
    """
    lines = {}
    for device in chardevs:
        found = _SOCKET.search(str(device.get("filename", "")))
        if found:
            lines[device.get("label")] = int(found[1])
    forwards = {int(guest): int(here) for here, guest in _FORWARD.findall(user_network)}
    try:
        return Addresses(forwards[SSH_PORT], forwards[HTTP_PORT], lines[CONSOLE], lines[SERIAL])
    except KeyError as error:
        raise EngineError(
            f"QEMU does not say which port it opened for {error.args[0]}: "
            f"it said {user_network.strip()!r:.400} and {list(lines)}"
        ) from error
