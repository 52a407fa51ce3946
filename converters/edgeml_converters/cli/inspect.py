"""``edgeml inspect``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_converters.cli import options as shared

if TYPE_CHECKING:
    from rich.console import Console

    from edgeml_converters.formats.inspection import Inspection

LARGEST = 12


@click.command()
@click.argument("model", type=shared.EXISTING)
@click.option("--layers", "all_layers", is_flag=True, help="Show every layer, not the largest only.")
@json_option
def inspect(model: Path, all_layers: bool, as_json: bool) -> None:
    """Show what a model file holds, and what can run it.

    Signature, operators, parameters, multiply-adds, size by layer, and the runtimes that read it.

    \b
    Examples:
      edgeml inspect model.tflite
      edgeml inspect model.onnx --json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml_converters.formats.inspection import inspect_model

    found = inspect_model(model)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found, all_layers)


def _print(found: Inspection, all_layers: bool) -> None:
    from rich.markup import escape

    from edgeml.figures import readable_size
    from edgeml.terminal import open_console

    console = open_console()
    console.print(f"[bold]{escape(found.path.name)}[/]  {found.state}, {readable_size(found.size_bytes)}")
    for what, specs in (("input", found.inputs), ("output", found.outputs)):
        for spec in specs:
            scale = ""
            if spec.quantization is not None:
                scale = (
                    f"  scale {spec.quantization.scale[0]:.6g}, zero point {spec.quantization.zero_point[0]}"
                )
            console.print(f"{what:7} {escape(str(spec))}{scale}")
    if found.layers:
        macs = "unknown" if found.macs is None else f"{found.macs / 1e6:,.2f} M"
        console.print(f"parameters {found.parameters:,}   MACs {macs}   operators {len(found.layers)}")
        console.print("  ".join(f"{kind} ×{count}" for kind, count in found.operators.items()))
        _print_layers(console, found, all_layers)
    for runtime, answer in found.runtimes.items():
        console.print(f"{runtime:12} {escape(answer)}")
    for note in found.notes:
        console.print(f"note: {escape(note)}", style="dim")


def _print_layers(console: Console, found: Inspection, all_layers: bool) -> None:
    """Print all layers in their order, or the largest and how many are left out."""
    from edgeml.figures import readable_size
    from edgeml.terminal import Column, print_table

    layers = list(found.layers)
    if not all_layers:
        layers = sorted(layers, key=lambda layer: -layer.size_bytes)[:LARGEST]
    columns = [
        Column("layer", [layer.name for layer in layers], is_name=True),
        Column("kind", [layer.kind for layer in layers], is_word=True),
        Column("parameters", [f"{layer.parameters:,}" for layer in layers], leaves=1),
        Column("size", [readable_size(layer.size_bytes) for layer in layers]),
        Column("MACs", ["?" if layer.macs is None else f"{layer.macs:,}" for layer in layers], leaves=2),
    ]
    print_table(console, columns)
    more = len(found.layers) - len(layers)
    if more:
        console.print(f"… {more} more, none of them larger; --layers shows all", style="dim")
