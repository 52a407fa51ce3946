"""``edgeml inspect``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgeml_converters.formats.inspection import Inspection

LARGEST = 12
SHOWN_CHARACTERS = 32


@click.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--layers", "all_layers", is_flag=True, help="Show every layer, not the largest only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
def inspect(model: Path, all_layers: bool, as_json: bool) -> None:
    """Show what a model file holds: signature, operators, parameters, MACs, size by layer, runtimes.

    \b
    Examples:
      edgeml inspect model.tflite
      edgeml inspect model.onnx --json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    import json

    from edgeml_converters.formats.inspection import inspect_model

    found = inspect_model(model)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        _print(found, all_layers)


def _print(found: Inspection, all_layers: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{escape(found.path.name)}[/]  {found.state}, {found.size_bytes / 1000:,.1f} kB")
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
        largest = sorted(found.layers, key=lambda layer: -layer.size_bytes)[:LARGEST]
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("layer", no_wrap=True)
        table.add_column("kind", no_wrap=True)
        for name in ("parameters", "bytes", "MACs"):
            table.add_column(name, justify="right", no_wrap=True)
        for layer in found.layers if all_layers else largest:
            cells = (layer.parameters, layer.size_bytes, layer.macs)
            shown = ("?" if cell is None else f"{cell:,}" for cell in cells)
            table.add_row(escape(short_name(layer.name)), layer.kind, *shown)
        console.print(table)
    for runtime, answer in found.runtimes.items():
        console.print(f"{runtime:12} {escape(answer)}")
    for note in found.notes:
        console.print(f"note: {escape(note)}", style="dim")


def short_name(name: str) -> str:
    """Keep the end of a long name: converters put what they share in front."""
    return name if len(name) <= SHOWN_CHARACTERS else f"…{name[1 - SHOWN_CHARACTERS :]}"
