"""``edgeml reproduce``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_converters.cli import options as shared

if TYPE_CHECKING:
    from edgeml_converters.reproduce import Reproduction


@click.command()
@click.argument("recorded", metavar="RECORD", type=shared.EXISTING)
@click.option(
    "--model", type=shared.EXISTING, help="The model that was converted. Default: its name, beside RECORD."
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME|FILE",
    help="The profile of a target of your own that the record names (repeat).",
)
@click.option("--calibration", metavar="DATA", help="Where the calibration data are now.")
@click.option("--evaluate", "evaluation", metavar="DATA", help="Where the evaluation data are now.")
@click.option(
    "--labels", metavar="FILE|KEY", help="Where their labels are now, if those had a place of their own."
)
@click.option("--slices", metavar="FILE|KEY", help="Where what parts them is now.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIR|FILE",
    help="Write the new bundle there. Default: nowhere.",
)
@shared.trust_code
@click.option(
    "--compiler-via", metavar="URL", help="The machine that has the Edge TPU compiler. By default this one."
)
@shared.no_cache
@json_option
def reproduce(
    recorded: Path,
    model: Path | None,
    targets: tuple[str, ...],
    calibration: str | None,
    evaluation: str | None,
    labels: str | None,
    slices: str | None,
    output: Path | None,
    trust_code: bool,
    compiler_via: str | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Convert again as RECORD says, and compare byte for byte.

    RECORD is a bundle, or the record.json out of one. Exit code 3 if a variant
    came out otherwise; latency is not measured.

    \b
    Examples:
      edgeml reproduce kws-1.edgeml --model kws.onnx
      edgeml reproduce record.json --model kws.onnx --calibration data.npz:x --no-cache
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml.errors import GateError
    from edgeml.terminal import showing
    from edgeml_converters.reproduce import reproduce as reproduce_record

    with showing(piped=True) as progress:
        found = reproduce_record(
            recorded,
            source=model,
            targets=targets,
            calibration=calibration,
            evaluation=evaluation,
            labels=labels,
            slices=slices,
            output=output,
            trust_code=trust_code,
            compiler_via=compiler_via,
            use_cache=not no_cache,
            progress=progress,
        )
    if as_json:
        print_json(_document(recorded, found))
    else:
        _print(found)
    if not found.same:
        raise GateError(f"{recorded}: not all variants came out as they were")


def _document(recorded: Path, found: Reproduction) -> dict[str, Any]:
    return {
        "record": str(recorded),
        "same": found.same,
        "variants": [{"variant": one.name, "differences": list(one.differences)} for one in found.variants],
        "circumstances": list(found.circumstances),
        "bundle": str(found.result.bundle) if found.result.bundle is not None else None,
    }


def _print(found: Reproduction) -> None:
    from edgeml.terminal import Column, open_console, print_table

    console = open_console()
    columns = [
        Column("variant", [one.name for one in found.variants], is_name=True),
        Column("now", ["; ".join(one.differences) or "the same" for one in found.variants], is_word=True),
    ]
    print_table(console, columns, ["red" if one.differences else "" for one in found.variants])
    for text in found.circumstances:
        console.print(text, markup=False)
