"""Options of the commands that convert a model, on the way or for good."""

from __future__ import annotations

import click

from edgeml.errors import UsageError

limit = click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Calibrate with so many samples, evenly spread over the data.",
)
method = click.option(
    "--method",
    type=click.Choice(["default", "minmax", "percentile"]),
    default="default",
    show_default=True,
    help="How static quantization finds its ranges.",
)
input_shape = click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar="[INPUT=]N,N,…",
    help="Size of an input with free dimensions.",
)
trust_code = click.option("--trust-code", is_flag=True, help="Let the file run the code that it carries.")
no_cache = click.option("--no-cache", is_flag=True, help="Do every step again.")
preprocess = click.option(
    "--preprocess", multiple=True, metavar="KEY=VALUE", help="Pre-processing, over the file's."
)
accuracy_gate = click.option(
    "--max-drop", type=float, metavar="POINTS", help="Gate: points of accuracy a variant may lose."
)
slice_gate = click.option(
    "--max-slice-drop",
    type=float,
    metavar="POINTS",
    help="Gate: points that the worst class or slice may lose, of those with 10 samples or more.",
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
