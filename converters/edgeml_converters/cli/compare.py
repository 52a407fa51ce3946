"""``edgeml compare``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

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
    from rich.markup import escape

    from edgeml.terminal import open_console

    console = open_console()
    kind = "random samples (give --data for real ones)" if found.random else "samples"
    console.print(
        f"{escape(found.other.name)} against {escape(found.reference.name)}, {found.samples} {kind}"
    )
    _print_outputs(console, found)
    for one in found.outputs:
        if one.nan_samples:
            console.print(
                f"[yellow]{escape(one.name)} is NaN for {one.nan_samples} of {one.samples} samples[/]"
            )
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
        _print_tensors(console, found)


def _print_outputs(console: Console, found: Comparison) -> None:
    from edgeml.terminal import Column, print_table
    from edgeml_converters.report.cells import sqnr

    agrees = [None if one.top1_agreement is None else 100 * one.top1_agreement for one in found.outputs]
    columns = (
        Column("output", [one.name for one in found.outputs], is_name=True),
        Column("max abs", [f"{one.max_abs:.3g}" for one in found.outputs], leaves=1),
        Column("cosine", [f"{one.cosine:.6f}" for one in found.outputs]),
        Column("SQNR dB", [sqnr(one.sqnr_db) for one in found.outputs]),
        Column("top-1 agrees", ["–" if share is None else f"{share:.1f} %" for share in agrees]),
    )
    print_table(console, columns)


def _print_tensors(console: Console, found: Comparison) -> None:
    from edgeml.terminal import Column, print_table
    from edgeml_converters.report.cells import sqnr

    axes = ["" if one.permutation is None else ",".join(map(str, one.permutation)) for one in found.tensors]
    columns = (
        Column("tensor", [one.name for one in found.tensors], is_name=True),
        Column("its like", [one.other for one in found.tensors], is_name=True),
        Column("axes", axes, leaves=2),
        Column("SQNR dB", [sqnr(one.sqnr_db) for one in found.tensors]),
        Column("cosine", [f"{one.cosine:.4f}" for one in found.tensors], leaves=1),
    )
    print_table(console, columns)
