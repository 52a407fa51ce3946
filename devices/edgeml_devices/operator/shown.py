"""What several commands show alike: labels, points in time, and words from a device, made harmless."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from edgeml.errors import UsageError

NOTHING: Final = "–"
_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))
_SPANS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


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


def span_s(text: str) -> float:
    """Read a span of time: ``90s``, ``30m``, ``1h``, ``7d``.

    Raises:
        UsageError: it is none.
    """
    number, unit = text[:-1], text[-1:]
    if unit not in _SPANS or not (number.isascii() and number.isdigit()) or not int(number):
        raise UsageError(f"{text!r} is no span of time: write 90s, 30m, 1h or 7d")
    return int(number) * _SPANS[unit]


def read_labels(texts: Sequence[str]) -> dict[str, str]:
    """Read labels as they are typed: ``site=berlin``.

    Raises:
        UsageError: one has no ``=``.
    """
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{text!r} is no label: write KEY=VALUE")
        labels[key] = value
    return labels


def show_labels(labels: Mapping[str, str]) -> str:
    """Render labels as a selector would have them."""
    return printable(",".join(f"{key}={value}" for key, value in sorted(labels.items())))


def printable(text: str) -> str:
    """Replace control characters: what a device sends must not write to the terminal."""
    return "".join(sign if sign.isprintable() else "�" for sign in text)
