"""``edgeml coral compile``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_converters.cli import options as shared
from edgeml_converters.coral.compilation import TIMEOUT_S

if TYPE_CHECKING:
    from edgeml.bundle import Bundle
    from edgeml.manifest import Variant
    from edgeml_converters.coral.compilation import Compilation


@click.command("compile")
@click.argument("model", type=shared.EXISTING)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="A bundle, NAME.edgeml, with the compiled file and its source in one variant; or a folder for both, "
    "with the log. Default: the folder of MODEL. Where MODEL is a bundle, a bundle; it may be the same.",
)
@click.option("--variant", metavar="NAME", help="Which one of a bundle. Default: int8_static for LiteRT.")
@click.option(
    "--via",
    "--compiler-via",
    "via",
    metavar="URL",
    help="Compile on another machine, an x86-64 Linux that has the compiler: ssh://USER@HOST.",
)
@click.option(
    "--compiler",
    metavar="PROGRAM",
    help="Name or path of the compiler, where it runs. Default: EDGEML_EDGETPU_COMPILER, else "
    "edgetpu_compiler in PATH or /usr/bin.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=TIMEOUT_S,
    show_default=True,
    help="Seconds for all attempts together; then the compiler is killed.",
)
@json_option
def compile_(
    model: Path,
    output: Path | None,
    variant: str | None,
    via: str | None,
    compiler: str | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Compile MODEL for the Edge TPU with your own compiler.

    MODEL is int8 TFLite, or a bundle with such a variant. The compiler is Coral's edgetpu_compiler, which
    edgeml neither ships nor fetches. What it wrote is read: a file in which nothing is mapped is a failure,
    whatever the compiler says. A compiled file does not run on the CPU: its source is kept with it.

    \b
    Examples:
      edgeml coral compile model.tflite
      edgeml coral compile model.tflite --output model.edgeml --via ssh://user@workstation
      edgeml coral compile kws-1.edgeml --output kws-1.edgeml --json
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    import tempfile

    from edgeml.terminal import showing
    from edgeml_converters.coral.compile import compile_file

    place = _place(model, output)
    with tempfile.TemporaryDirectory(prefix="edgeml-coral-") as scratch, showing(piped=True) as progress:
        bundle, chosen, source = _source(model, variant, Path(scratch))
        made = compile_file(
            source,
            Path(scratch),
            title=str(model) if chosen is None else f"{model}, {chosen.name}",
            via=via,
            compiler=compiler,
            timeout_s=timeout_s,
            progress=progress,
        )
        written = _write(made, bundle, chosen, place)
    if as_json:
        print_json({"source": str(model)} | written | made.to_json())
    else:
        _print(made, written)


def _place(model: Path, output: Path | None) -> Path:
    """Say where the result goes: a bundle, or a folder.

    Raises:
        UsageError: it can be neither.
    """
    from edgeml.bundle import SUFFIX, is_bundle
    from edgeml.errors import UsageError

    if is_bundle(model) and (output is None or output.suffix != SUFFIX):
        raise UsageError(
            f"{model} is a bundle: say with --output NAME{SUFFIX} where the new one goes; "
            f"--output {model} replaces it"
        )
    place = output if output is not None else model.parent
    if place.suffix != SUFFIX and (place.suffix == ".tflite" or place.is_file()):
        raise UsageError(f"--output {place}: name a bundle, NAME{SUFFIX}, or a folder")
    return place


def _source(model: Path, wanted: str | None, scratch: Path) -> tuple[Bundle | None, Variant | None, Path]:
    """Give the TFLite file to compile, and the bundle and variant that it comes from."""
    from edgeml.bundle import is_bundle, open_bundle
    from edgeml.errors import UsageError

    if not is_bundle(model):
        if wanted is not None:
            raise UsageError(f"{model} is a model file, not a bundle: it has no variant {wanted!r}")
        return None, None, model
    from edgeml_converters.coral.compiled_bundle import compilable

    bundle = open_bundle(model)
    variant = compilable(bundle, wanted)
    path = scratch / "source" / "model.tflite"
    path.parent.mkdir()
    path.write_bytes(bundle.read(variant.files[0].path))
    return bundle, variant, path


def _write(
    made: Compilation, bundle: Bundle | None, variant: Variant | None, place: Path
) -> dict[str, str | None]:
    """Write what was made; gives the paths of what was written."""
    from edgeml.bundle import SUFFIX
    from edgeml_converters.coral import compiled_bundle

    if place.suffix != SUFFIX:
        compiled, log = compiled_bundle.write_files(made, place)
        return {"compiled": str(compiled), "log": str(log), "bundle": None, "variant": None}
    if bundle is None or variant is None:
        manifest = compiled_bundle.write_new(made, place)
    else:
        manifest = compiled_bundle.write_added(bundle, variant, made, place)
    return {"compiled": None, "log": None, "bundle": str(place), "variant": manifest.variants[0].name}


def _print(made: Compilation, written: dict[str, str | None]) -> None:
    from rich.markup import escape

    from edgeml.figures import readable_size
    from edgeml.terminal import Column, open_console, print_table, printable
    from edgeml_converters.coral.reasons import MAPPED

    console, rows = open_console(), made.said.rows
    columns = [
        Column("operator", [row.name for row in rows], is_word=True),
        Column("count", [str(row.count) for row in rows]),
        Column("the compiler's reason", [printable(row.reason) for row in rows], leaves=1, is_word=True),
    ]
    if rows:
        print_table(console, columns, ["green" if row.reason == MAPPED else "" for row in rows])
    for attempt in made.attempts[:-1]:
        console.print(f"tried before: {escape(attempt.message)}", style="dim")
    if made.attempts[-1].searched:
        console.print("compiled in part: it could not compile all that it would map (--search_delegate)")
    if made.attempts[-1].exit_code:
        console.print(
            f"[yellow]the compiler ended with exit code {made.attempts[-1].exit_code}[/]; its file is sound"
        )
    for one in made.disagreements:
        console.print(f"[yellow]they do not agree[/]: {escape(str(one))}")
    on_chip, streamed = made.compiled.on_chip_bytes, made.compiled.streamed_bytes
    console.print(
        f"[bold]{made.mapped} of {made.total}[/] operators run on the Edge TPU; parameters "
        f"{readable_size(on_chip)} on chip, {readable_size(streamed)} streamed; "
        f"runtime {made.compiled.min_runtime} or later"
    )
    console.print(f"written: {escape(str(written['bundle'] or written['compiled']))}")
