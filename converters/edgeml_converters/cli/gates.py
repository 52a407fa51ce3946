"""Options that say what a variant must hold, for the commands that have gates."""

from __future__ import annotations

import click

from edgeml.errors import UsageError

accuracy_gate = click.option(
    "--max-drop", type=float, metavar="POINTS", help="Gate: points of accuracy a variant may lose."
)
latency_gate = click.option("--max-latency-ms", type=float, metavar="MS", help="Gate: median latency.")
size_gate = click.option("--max-size", metavar="BYTES", help="Gate: size of a variant, such as 500k or 4M.")


def size_bytes(text: str | None) -> int | None:
    """Read a size such as ``500k`` or ``4M``: powers of 1000, as files are listed.

    Raises:
        UsageError: no size.
    """
    if text is None:
        return None
    factor = {"k": 1_000, "m": 1_000_000, "g": 1_000_000_000}.get(text[-1:].lower())
    try:
        return int(float(text[:-1]) * factor) if factor else int(text)
    except ValueError:
        raise UsageError(f"--max-size {text!r}: give bytes, or a number with k, M or G") from None
