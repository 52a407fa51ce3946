"""``edgeml coral rewrite``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_converters.cli import options as shared

if TYPE_CHECKING:
    from edgeml.words import IoDtype


@click.command()
@click.argument("model", type=shared.EXISTING_FILE)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The rewritten file.",
)
@click.option(
    "--io-dtype",
    type=click.Choice(["int8", "uint8", "float32"]),
    default="int8",
    show_default=True,
    help="What float inputs and outputs become; float32 leaves them.",
)
@json_option
def rewrite(model: Path, output: Path, io_dtype: IoDtype, as_json: bool) -> None:
    """Rewrite a quantized MODEL so that more of it runs on the Edge TPU.

    MODEL is a TFLite file. It runs before and after each rewrite, on drawn samples: what it gives stays the
    same. edgeml convert --target coral-usb rewrites by itself.

    \b
    Examples:
      edgeml coral rewrite model.tflite -o rewritten.tflite
      edgeml coral rewrite model.tflite -o rewritten.tflite --io-dtype uint8
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml.atomic import replacing_file
    from edgeml_converters.coral.check import check_file
    from edgeml_converters.coral.rewrites.rewriting import rewritten

    before, made = check_file(model), rewritten(model, io_dtype)
    with replacing_file(output) as scratch:
        scratch.write_bytes(made.content)
    after = check_file(output)
    if as_json:
        print_json(
            {
                "output": str(output),
                "rewrites": [one.to_json() for one in made.changes],
                "left_out": list(made.left_out),
                "before": {"mapped": before.placements.mapped, "total": before.total},
                "after": {"mapped": after.placements.mapped, "total": after.total},
            }
        )
        return
    from rich.markup import escape

    from edgeml.terminal import open_console

    console = open_console()
    for one in made.changes:
        console.print(f"[bold]{one.rewrite.name}[/] {escape(one.text)} ({one.rewrite.why})")
    for reason in made.left_out:
        console.print(f"left out, as results would change: {escape(reason)}", style="yellow")
    if not made.changes:
        console.print("nothing to rewrite; the file was copied", style="yellow")
    console.print(
        f"{before.placements.mapped} of {before.total} operators run on the Edge TPU before, "
        f"[bold]{after.placements.mapped} of {after.total}[/] after: {escape(str(output))}"
    )
