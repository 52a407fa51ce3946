"""Labels and spans of time, as people type them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from edgeml.errors import UsageError

_SPANS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


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
