"""Options that several commands share, and how they are read. Light to import: every command line does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeml.data import DataConfig, DataDeclaration
    from edgeml.tensors import Shape

EXISTING = click.Path(exists=True, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

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
    except (ValueError, OverflowError):
        raise UsageError(f"--max-size {text!r}: give bytes, or a number with k, M or G") from None


def data_config(path: Path | None) -> DataConfig:
    """Read the file that ``--config`` names; raises as ``read_data_config``."""
    from edgeml.data import DataConfig, read_data_config

    return DataConfig() if path is None else read_data_config(path)


def declared_data(
    given: str | None, declared: DataDeclaration | None, **changed: Any
) -> DataDeclaration | None:
    """Take the option's source; what the file declares besides (keys, labels) stays but for ``changed``.

    Raises:
        UsageError: an option changes the data, and there are none.
    """
    from dataclasses import replace

    from edgeml.data import DataDeclaration

    said = {name: value for name, value in changed.items() if value is not None}
    if given is not None:
        said["source"] = given
        declared = declared or DataDeclaration(given)
    if declared is None:
        if said:
            option = next(iter(said))
            raise UsageError(f"--{option} is for data that were not given; see edgeml convert --help")
        return None
    return replace(declared, **said)


def input_shapes(texts: Sequence[str]) -> dict[str, Shape]:
    """Read ``name=1,3,224,224`` or, for the only input, ``1,3,224,224``."""
    shapes: dict[str, Shape] = {}
    for text in texts:
        name, _, sides = text.rpartition("=")
        try:
            shapes[name] = tuple(int(side) for side in sides.replace("x", ",").split(","))
        except ValueError:
            raise UsageError(f"--input-shape {text!r}: give it as INPUT=1,3,224,224") from None
    return shapes
