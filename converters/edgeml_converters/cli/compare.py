"""``edgeml compare``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeml_converters.compare.models import Comparison

EXISTING = click.Path(exists=True, path_type=Path)


@click.command()
@click.argument("reference", type=EXISTING)
@click.argument("other", type=EXISTING)
@click.option("--data", metavar="DATA", help="Samples to run both on. Default: 16 random ones.")
@click.option(
    "--config", type=EXISTING, help="TOML file that declares the evaluation data and pre-processing."
)
@click.option("--preprocess", multiple=True, metavar="KEY=VALUE", help="Pre-processing, over the file's.")
@click.option(
    "--input-shape", "shapes", multiple=True, metavar="[INPUT=]N,N,…", help="Size of free dimensions."
)
@click.option("--tensors", "all_tensors", is_flag=True, help="Show every tensor that could be paired.")
@json_option
def compare(
    reference: Path,
    other: Path,
    data: str | None,
    config: Path | None,
    preprocess: Sequence[str],
    shapes: Sequence[str],
    all_tensors: bool,
    as_json: bool,
) -> None:
    """Compare two models of any format, tensor by tensor.

    Shows how far their outputs are apart, and the first tensor that diverges.

    \b
    Examples:
      edgeml compare model.onnx model.tflite --data test.npz:x
      edgeml compare model.onnx model.int8.xml --config data.toml --tensors
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from dataclasses import replace

    from edgeml.data import DataConfig, DataDeclaration, parse_preprocess, read_data_config
    from edgeml_converters.cli.convert import input_shapes
    from edgeml_converters.compare.models import compare_models

    declared = read_data_config(config) if config is not None else DataConfig()
    chosen = declared.evaluation
    if data is not None:
        chosen = replace(chosen, source=data) if chosen is not None else DataDeclaration(data)
    found = compare_models(
        reference,
        other,
        data=chosen,
        preprocess=parse_preprocess(preprocess, declared.preprocess),
        input_shapes=input_shapes(shapes),
    )
    if as_json:
        print_json(found.to_json())
    else:
        _print(found, all_tensors)


def _print(found: Comparison, all_tensors: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from edgeml_converters.cli.inspect import short_name
    from edgeml_converters.report.cells import sqnr

    console = Console(highlight=False)
    kind = "random samples (give --data for real ones)" if found.random else "samples"
    console.print(
        f"{escape(found.other.name)} against {escape(found.reference.name)}, {found.samples} {kind}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("output", no_wrap=True)
    for name in ("max abs", "cosine", "SQNR dB", "top-1 agrees"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found.outputs:
        agrees = "–" if one.top1_agreement is None else f"{100 * one.top1_agreement:.1f} %"
        table.add_row(escape(one.name), f"{one.max_abs:.3g}", f"{one.cosine:.6f}", sqnr(one.sqnr_db), agrees)
    console.print(table)
    if not found.tensors:
        console.print("intermediate tensors could not be compared: a runtime does not show them")
    elif found.diverges is None:
        console.print(f"none of {len(found.tensors)} intermediate tensors diverges")
    else:
        first = found.diverges
        where = first.name if first.name == first.other else f"{first.name} ({first.other})"
        console.print(
            f"[yellow]the first tensor that diverges is {escape(where)}[/]: "
            f"SQNR {first.sqnr_db:.1f} dB, cosine {first.cosine:.4f}"
        )
    if all_tensors:
        tensors = Table(box=None, pad_edge=False, header_style="bold")
        tensors.add_column("tensor", no_wrap=True)
        tensors.add_column("its like", no_wrap=True)
        for name in ("axes", "SQNR dB", "cosine"):
            tensors.add_column(name, justify="right", no_wrap=True)
        for pair in found.tensors:
            axes = "" if pair.permutation is None else ",".join(map(str, pair.permutation))
            names = (escape(short_name(pair.name)), escape(short_name(pair.other)))
            tensors.add_row(*names, axes, sqnr(pair.sqnr_db), f"{pair.cosine:.4f}")
        console.print(tensors)
