"""``edgeml coral cut`` and ``join``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_converters.cli import options as shared

if TYPE_CHECKING:
    from edgeml_converters.coral.cut import Cut

BODY, TAIL = "body", "tail"


@click.command()
@click.argument("model", type=shared.EXISTING_FILE)
@click.option(
    "--output",
    "-o",
    default=Path(),
    show_default="this folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of both parts.",
)
@json_option
def cut(model: Path, output: Path, as_json: bool) -> None:
    """Cut MODEL where the compiler would stop: a body for it, and a tail.

    The compiler leaves operators that it does not take to the CPU, in the same file, and needs no cut for
    that. It maps nothing of a model with one that it cannot even read: such an operator goes into the tail.
    Compile the body, then join it with the tail to one file.

    \b
    Examples:
      edgeml coral cut ssd.tflite
      edgeml coral compile ssd-body.tflite
      edgeml coral join ssd-body_edgetpu.tflite ssd-tail.tflite -o ssd_edgetpu.tflite
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml.atomic import replacing_file
    from edgeml_converters.coral import cut as cutting

    made = cutting.cut(model)
    output.mkdir(parents=True, exist_ok=True)
    paths = {part: output / f"{model.stem}-{part}.tflite" for part in (BODY, TAIL)}
    for part, content in ((BODY, made.body), (TAIL, made.tail)):
        with replacing_file(paths[part]) as scratch:
            scratch.write_bytes(content)
    if as_json:
        print_json(
            {
                "body": str(paths[BODY]),
                "tail": str(paths[TAIL]),
                **made.to_json(),
                "unchecked": made.unchecked or None,
            }
        )
    else:
        _print(made, paths)


def _print(made: Cut, paths: dict[str, Path]) -> None:
    from rich.markup import escape

    from edgeml.terminal import open_console

    console = open_console()
    for one in made.stops:
        console.print(f"the compiler would stop at {escape(one)}")
    if not made.stops:
        console.print(
            "the compiler would not stop: it leaves the tail to the CPU by itself; this cut gains nothing",
            style="yellow",
        )
    if made.unchecked:
        console.print(f"not compared with the whole: {escape(made.unchecked)}", style="yellow")
    console.print(
        f"body [bold]{escape(str(paths[BODY]))}[/]: "
        f"{made.mapped} of {made.total} operators run on the Edge TPU"
    )
    console.print(f"tail [bold]{escape(str(paths[TAIL]))}[/]: {made.tail_total} operators run on the CPU")


@click.command()
@click.argument("compiled", type=shared.EXISTING_FILE)
@click.argument("tail", type=shared.EXISTING_FILE)
@click.option(
    "--output",
    "-o",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The joined file.",
)
def join(compiled: Path, tail: Path, output: Path) -> None:
    """Join a COMPILED body and the TAIL that was cut off it to one file.

    It has the inputs and outputs of the model that was cut, and runs like any compiled file.

    \b
    Examples:
      edgeml coral join ssd-body_edgetpu.tflite ssd-tail.tflite -o ssd_edgetpu.tflite
    """  # noqa: D301 - as above
    from rich.markup import escape

    from edgeml.atomic import replacing_file
    from edgeml.terminal import open_console
    from edgeml_converters.coral.join import join as join_files

    content = join_files(compiled, tail)
    with replacing_file(output) as scratch:
        scratch.write_bytes(content)
    open_console().print(f"written: {escape(str(output))}")
