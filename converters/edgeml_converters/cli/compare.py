"""``edgeml compare``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import UsageError
from edgeml_converters.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgeml_converters.compare.models import Comparison


@click.command()
@click.argument("reference", metavar="REFERENCE", type=shared.EXISTING)
@click.argument("other", metavar="[OTHER]", required=False, type=shared.EXISTING)
@click.option("--data", metavar="DATA", help="Samples to run on. Default: 16 random ones, or golden ones.")
@click.option(
    "--config", type=shared.EXISTING, help="TOML file that declares the evaluation data and pre-processing."
)
@shared.preprocess
@shared.input_shape
@click.option("--tensors", "all_tensors", is_flag=True, help="Show every tensor that could be paired.")
@click.option(
    "--on",
    "url",
    metavar="URL",
    help="Compare a bundle here with itself there: ssh://user@host, emulator:BOARD.",
)
@click.option("--mode", metavar="MODE", help="Of an emulated board: user or machine.")
@click.option("--variant", "variants", multiple=True, help="With --on, compare this variant only (repeat).")
@click.option(
    "--limit", type=click.IntRange(min=1), help="With --on, so many samples of --data.  [default: 32]"
)
@json_option
def compare(
    reference: Path,
    other: Path | None,
    data: str | None,
    config: Path | None,
    preprocess: Sequence[str],
    shapes: Sequence[str],
    all_tensors: bool,
    url: str | None,
    mode: str | None,
    variants: Sequence[str],
    limit: int | None,
    as_json: bool,
) -> None:
    """Compare two models, or one bundle on two machines.

    Shows how far the outputs of two models of any format are apart, and the first tensor that diverges.

    With --on: runs each variant of a bundle on its golden samples here and there, and holds the outputs
    against the tolerance: one step for int8 on LiteRT. Exit code 3 if one is beyond.

    \b
    Examples:
      edgeml compare model.onnx model.tflite --data test.npz:x
      edgeml compare model.onnx model.int8.xml --config data.toml --tensors
      edgeml compare kws-1.edgeml --on emulator:raspberry-pi-4 --mode user
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    if url is not None:
        if other is not None or config is not None or shapes or all_tensors:
            raise UsageError("--on takes one bundle, and neither --config, --input-shape nor --tensors")
        from edgeml_converters.cli.compare_on import compare_bundle

        compare_bundle(
            reference,
            addressed(url, mode),
            variants=variants,
            data=data,
            preprocess=preprocess,
            limit=limit,
            as_json=as_json,
        )
        return
    if other is None:
        raise UsageError("give a second model, or another machine: --on URL")
    if mode is not None or variants or limit is not None:
        raise UsageError("--mode, --variant and --limit go with --on")
    from edgeml.data import parse_preprocess
    from edgeml_converters.compare.models import compare_models

    declared = shared.data_config(config)
    samples = shared.declared_data(data, declared.evaluation)
    if samples is None and preprocess:
        raise UsageError("--preprocess is for --data; random samples are fed as they are")
    found = compare_models(
        reference,
        other,
        data=samples,
        preprocess=parse_preprocess(preprocess, declared.preprocess),
        input_shapes=shared.input_shapes(shapes),
    )
    if as_json:
        print_json(found.to_json())
    else:
        _print(found, all_tensors)


def addressed(url: str, mode: str | None) -> str:
    """Give the URL of an emulated board in this mode.

    Raises:
        UsageError: it is no emulated board's, or says its mode itself.
    """
    if mode is None:
        return url
    if not url.startswith("emulator:") or "mode=" in url:
        raise UsageError(f"--mode {mode}: goes with --on emulator:BOARD, got {url}")
    return f"{url}{'&' if '?' in url else '?'}mode={mode}"


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
