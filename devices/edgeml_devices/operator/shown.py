"""What several commands show alike: labels and points in time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from edgeml.terminal import printable

NOTHING: Final = "–"
_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def ago(at: float | None, now: float) -> str:
    """Render how long ago something was: ``5 s ago``, ``3 min ago``, ``2 d ago``; ``never``."""
    if at is None:
        return "never"
    return f"{span(now - at)} ago" if now - at >= 1 else "now"


def span(seconds: float) -> str:
    """Render a span of time in its largest unit, rounded down."""
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return f"{seconds // unit_s:.0f} {name}"
    return "0 s"


def moment(at: float | None) -> str:
    """Render a point in time, local."""
    return NOTHING if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def show_labels(labels: Mapping[str, str]) -> str:
    """Render labels as a selector would have them."""
    return printable(",".join(f"{key}={value}" for key, value in sorted(labels.items())))
