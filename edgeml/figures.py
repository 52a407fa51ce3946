"""Sizes, times and names as a person reads them, the same in every table and on every page."""

from __future__ import annotations

from typing import Final

THOUSAND: Final = 1000
TEN: Final = 9.995
"""From here on a time rounds to two digits before the point."""
GLUED_NAME: Final = 48
"""What is kept of several names in one; TFLite's fused operators have up to 300 characters."""
UNITS: Final = ("kB", "MB", "GB")
DECIMAL_BELOW: Final = 99.95
"""From here on a size needs no decimal; below it one still rounds to two digits before the point."""


def readable_size(size_bytes: int | None) -> str:
    """Render ``812 B``, ``96.7 kB``, ``237 kB``, ``14.1 MB``; powers of 1000, as files are listed."""
    if size_bytes is None:
        return "–"
    if size_bytes < THOUSAND:
        return f"{size_bytes} B"
    value, place = size_bytes / THOUSAND, 0
    while round(value) >= THOUSAND and place < len(UNITS) - 1:
        value, place = value / THOUSAND, place + 1
    return f"{value:,.{1 if value < DECIMAL_BELOW else 0}f} {UNITS[place]}"


def milliseconds(value: float) -> str:
    """Render a time: three digits that mean something, no more than three decimals."""
    if value < 1:
        return f"{value:.3f}"
    return f"{value:.2f}" if value < TEN else f"{value:,.{1 if value < DECIMAL_BELOW else 0}f}"


def shorten(text: str, longest: int) -> str:
    """Cut a long name in its middle: what tells names apart stands at their ends more often than not."""
    if len(text) <= longest:
        return text
    head = max(0, (longest - 1) // 3)
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def shorten_glued(text: str) -> str:
    """Cut the names in a text that a converter glued together of many by semicolons."""
    return " ".join(
        shorten(word, GLUED_NAME) if ";" in word.rstrip(";") else word for word in text.split(" ")
    )
