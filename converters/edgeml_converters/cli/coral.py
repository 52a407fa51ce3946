"""``edgeml coral``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_converters.cli import options as shared
from edgeml_converters.cli.coral_compile import compile_
from edgeml_converters.cli.coral_cut import cut, join
from edgeml_converters.cli.coral_rewrite import rewrite

if TYPE_CHECKING:
    from rich.console import Console

    from edgeml_converters.coral.check import Check
    from edgeml_converters.coral.inspect import Compiled
    from edgeml_converters.coral.placement import Placements
    from edgeml_converters.coral.rewrites.prediction import Prediction

MOST_SENTENCES = 24
STYLE = {"tpu": "green", "cpu": "", "unknown": "yellow"}
WHERE = {"tpu": "Edge TPU", "cpu": "CPU", "unknown": "unknown"}
ROOM = {
    "fits": "they stay on the chip",
    "borderline": "they may or may not stay on the chip, which has room for 6 to 8 MiB",
    "streams": "what does not stay on the chip is sent at every inference",
}


@click.group()
def coral() -> None:
    """See what a Coral Edge TPU runs of a model, and compile it.

    \b
    Examples:
      edgeml coral check model.tflite
      edgeml coral rewrite model.tflite -o rewritten.tflite
      edgeml coral compile model.tflite
      edgeml coral inspect model_edgetpu.tflite
    """  # noqa: D301 - \b is click's mark for text that keeps its lines


for command in (rewrite, cut, join):
    coral.add_command(command)
coral.add_command(compile_)


@coral.command()
@click.argument("model", type=shared.EXISTING)
@click.option(
    "--calibration",
    metavar="DATA",
    help="Data to make MODEL int8 with, as for edgeml convert. Default: a TFLite file is checked as it is, "
    "another format is calibrated with drawn samples.",
)
@click.option(
    "--input-shape",
    "shapes",
    multiple=True,
    metavar="[INPUT=]N,N,…",
    help="Size of an input with free dimensions, where MODEL has to be converted.",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the graph, coloured by where each operator runs, as SVG to this file.",
)
@json_option
def check(
    model: Path, calibration: str | None, shapes: tuple[str, ...], picture: Path | None, as_json: bool
) -> None:
    """Say what the Edge TPU compiler will map of MODEL, without it.

    Operator by operator, with the compiler's reason and what to change. What no compiled model shows is
    unknown. A model of another format than TFLite is brought to int8 TFLite first.

    \b
    Examples:
      edgeml coral check model.tflite --picture model.svg
      edgeml coral check model.onnx --calibration data.npz:x --json
    """  # noqa: D301 - as above
    from edgeml.formats import identify

    converts = calibration is not None or identify(model) != "tflite"
    found = _check(model, calibration, shapes, converts=converts)
    if picture is not None:
        _draw(found, picture)
    better = None if converts else _predict(found)
    if as_json:
        print_json(found.to_json() | (better.to_json() if better else {"rewritten": None, "cut": None}))
        return
    _print_check(found)
    if better is not None:
        _print_prediction(found, better)


def _check(model: Path, calibration: str | None, shapes: tuple[str, ...], *, converts: bool) -> Check:
    from edgeml_converters.coral.check import check_file

    if not converts:
        return check_file(model)
    import tempfile

    from edgeml.terminal import showing
    from edgeml_converters.coral.source import int8_tflite

    with tempfile.TemporaryDirectory(prefix="edgeml-coral-") as folder, showing(piped=True) as progress:
        return check_file(
            int8_tflite(model, calibration, shared.input_shapes(shapes), Path(folder), progress)
        )


def _predict(found: Check) -> Prediction | None:
    if found.placements.mapped == found.total:
        return None
    from edgeml_converters.coral.rewrites.prediction import predict

    return predict(found)


def _print_prediction(found: Check, better: Prediction) -> None:
    from rich.markup import escape

    from edgeml.terminal import open_console

    console, name = open_console(), escape(found.path.name)
    if better.changes:
        changes = "; ".join(f"[bold]{one.rewrite.name}[/] {escape(one.text)}" for one in better.changes)
        console.print(
            f"edgeml coral rewrite {name}: {changes}. [bold]{better.mapped} of {better.total}[/] would be "
            f"mapped then, {found.placements.mapped} of {found.total} are now"
        )
    if better.cut is not None:
        console.print(
            f"edgeml coral cut {'the rewritten file' if better.changes else name}: the compiler would stop "
            f"at {escape(better.cut.stops[0])}. Without that and what hangs on it, "
            f"{better.cut.tail_total} operators, [bold]{better.cut.mapped} of {better.cut.total}[/] "
            "would be mapped"
        )


def _draw(found: Check, path: Path) -> None:
    from edgeml.atomic import replacing_file
    from edgeml.errors import UsageError
    from edgeml_converters.coral import picture

    drawn = picture.picture(found)
    if drawn is None:
        raise UsageError(f"{found.path.name} has {found.total} operators; {picture.MOST_DRAWN} can be drawn")
    with replacing_file(path) as scratch:
        scratch.write_text(picture.svg(drawn), encoding="utf-8")


def _print_check(found: Check) -> None:
    from rich.markup import escape

    from edgeml.terminal import Column, open_console, print_table

    console, operators = open_console(), found.placements.operators
    columns = [
        Column("index", [str(one.index) for one in operators]),
        Column("operator", [one.kind for one in operators], is_word=True),
        Column("runs on", [WHERE[one.placement] for one in operators], is_word=True),
        Column("the compiler's reason", [one.reason for one in operators], leaves=1, is_word=True),
    ]
    print_table(console, columns, [STYLE[one.placement] for one in operators])
    sentences = _remedies(found.placements)
    for why, indices in list(sentences.items())[:MOST_SENTENCES]:
        console.print(f"[bold]{_ranges(indices)}[/] {escape(why)}")
    if len(sentences) > MOST_SENTENCES:
        console.print(f"… {len(sentences) - MOST_SENTENCES} more; --json has all", style="dim")
    _print_summary(console, found)


def _remedies(found: Placements) -> dict[str, list[int]]:
    """Give each sentence once, with the operators that it is about."""
    grouped: dict[str, list[int]] = {}
    for one in found.operators:
        if one.remedy is not None:
            grouped.setdefault(one.remedy, []).append(one.index)
    return grouped


def _ranges(indices: list[int]) -> str:
    """Write rising numbers, neighbours as a range."""
    parts: list[list[int]] = []
    for index in indices:
        if parts and parts[-1][-1] == index - 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    return ", ".join("–".join(map(str, part)) for part in parts)


def _print_summary(console: Console, found: Check) -> None:
    from rich.markup import escape

    from edgeml.figures import readable_size

    placements, sizes = found.placements, found.parameters
    unknown = placements.count("unknown")
    rest = f", {unknown} of which nothing is known" if unknown else ""
    parts = f" in {found.subgraphs} subgraph" if found.subgraphs else ""
    console.print(
        f"[bold]{placements.mapped} of {found.total}[/] operators run on the Edge TPU{parts}, "
        f"{placements.count('cpu')} on the CPU{rest}"
    )
    for message in placements.fatal:
        console.print(f"[red]the compiler stops[/]: {escape(message)}")
    computed = found.computed_shape
    if computed is not None:
        console.print(
            f"[yellow]the compiler may stop[/] at dynamic-sized tensors: operator {computed.index} "
            f"({computed.kind}) computes a shape; edgeml coral rewrite fixes the shapes of the inputs"
        )
    if found.is_float:
        console.print("the model is not quantized: give --calibration to see what becomes of it as int8")
    split = placements.split
    if split is not None:
        console.print(
            f"first split: operator {split.index} ({split.kind}): {escape(str(split.objection))}; "
            f"without it {split.mapped_without} of {found.total} would be mapped"
        )
    if placements.mapped:
        console.print(
            f"parameters {readable_size(sizes.total_bytes)}: {readable_size(sizes.on_chip_bytes)} on chip, "
            f"{readable_size(sizes.streamed_bytes)} streamed ({sizes.verdict}: {ROOM[sizes.verdict]})"
        )


@coral.command()
@click.argument("models", nargs=-1, required=True, type=shared.EXISTING, metavar="COMPILED…")
@json_option
def inspect(models: tuple[Path, ...], as_json: bool) -> None:
    """Show what compiled models say of themselves.

    Executables, parameters on and off the chip, runtime, inputs and outputs; of several files, whether they
    were compiled together.

    \b
    Examples:
      edgeml coral inspect model_edgetpu.tflite
      edgeml coral inspect first_edgetpu.tflite second_edgetpu.tflite --json
    """  # noqa: D301 - as above
    from edgeml_converters.coral.inspect import are_co_compiled, inspect_file

    found = [inspect_file(path) for path in models]
    together = are_co_compiled(found)
    if as_json:
        print_json({"files": [one.to_json() for one in found], "co_compiled": together})
        return
    from edgeml.terminal import open_console

    console = open_console()
    for one in found:
        _print_compiled(console, one)
    if len(found) > 1:
        answer = {True: "compiled together", False: "not compiled together", None: "not known"}[together]
        console.print(
            f"[bold]{answer}[/]: models with one caching token share the chip's room for parameters"
        )


def _print_compiled(console: Console, found: Compiled) -> None:
    from rich.markup import escape

    from edgeml.figures import readable_size
    from edgeml.terminal import Column, print_table, printable

    console.print(f"[bold]{escape(found.path.name)}[/]  {readable_size(found.size_bytes)}")
    if not found.packages:
        console.print(
            "nothing in it runs on the Edge TPU: not compiled, or nothing was mapped", style="yellow"
        )
        return
    tokens = ", ".join(map(str, sorted(found.caching_tokens))) or "none"
    console.print(
        f"parameters {readable_size(found.on_chip_bytes)} on chip, "
        f"{readable_size(found.streamed_bytes)} streamed; caching token {tokens}; "
        f"runtime {found.min_runtime} or later"
    )
    rows = found.executables
    columns = [
        Column("executable", [one.kind for one in rows], is_word=True),
        Column("parameters", [readable_size(one.parameter_bytes) for one in rows]),
        Column("instructions", [readable_size(one.instruction_bytes) for one in rows], leaves=2),
        Column("of a tile", [readable_size(one.tile_bytes) for one in rows], leaves=1),
        Column("cycles ≥", [f"{one.estimated_cycles:,}" if one.estimated_cycles else "–" for one in rows]),
    ]
    print_table(console, columns)
    for one in rows:
        for what, layers in (("input", one.inputs), ("output", one.outputs)):
            for layer in layers:
                shape = "×".join(map(str, layer.shape))
                name = escape(printable(layer.name))
                console.print(f"{what:7} {name}  {layer.dtype} {shape}  scale {layer.scale:.6g}")
    kinds = [f"{one.index} {one.kind}" for one in found.on_cpu]
    console.print(f"on the CPU: {', '.join(kinds) or 'nothing'}")
