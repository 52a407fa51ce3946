"""Whether the server still knows this device: one that was retired goes on with what it runs, and says so."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from edgeml import typed_json
from edgeml.errors import MessageError
from edgeml_devices.agent.disk import clear, read_file, write_file
from edgeml_devices.agent.home import Home

REFUSES_DEVICE: Final = frozenset({401, 410})
"""HTTP's: of a device that was retired, or whose token the server does not know."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """``refused.json``."""

    at: float
    """When the server refused first, by the device's clock."""
    detail: str
    """What it said."""
    schema: int = 1


def note_refusal(home: Home, at: float, detail: str) -> None:
    """Keep that the server refuses this device; the first refusal stays."""
    if read_refusal(home) is None:
        text = json.dumps(typed_json.write(Refusal(at, detail)))
        with suppress(OSError):
            write_file(home.refused, text.encode("utf-8", "replace") + b"\n")


def forget_refusal(home: Home) -> None:
    """Forget it: the server knows the device."""
    with suppress(OSError):
        clear(home.refused)


def read_refusal(home: Home) -> Refusal | None:
    """Read what was kept; ``None``: the server knows the device, as far as is known here."""
    try:
        content = read_file(home.refused)
        return typed_json.read(Refusal, typed_json.parse(content, str(home.refused)), str(home.refused))
    except (OSError, MessageError):
        return None
