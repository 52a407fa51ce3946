"""``edgeml check``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml.commands.json_output import json_option, print_json
from edgeml_converters.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeml_converters.recheck import Verdict


@click.command()
@click.argument("bundle", type=shared.EXISTING)
@shared.accuracy_gate
@shared.slice_gate
@shared.latency_gate
@shared.size_gate
@click.option(
    "--variant",
    "names",
    multiple=True,
    metavar="NAME",
    help="Hold this variant (repeat). Default: those chosen for a target.",
)
@click.option(
    "--measure",
    "measure_on",
    metavar="URL",
    help="Measure latency anew there: host, this machine; ssh://user@host.",
)
@json_option
def check(
    bundle: Path,
    max_drop: float | None,
    max_slice_drop: float | None,
    max_latency_ms: float | None,
    max_size: str | None,
    names: tuple[str, ...],
    measure_on: str | None,
    as_json: bool,
) -> None:
    """Hold a finished BUNDLE against gates: for CI.

    Exit code 3 if a variant breaks one. Figures are those in the bundle unless
    --measure takes latency anew.

    \b
    Examples:
      edgeml check kws-1.edgeml --max-drop 0.5 --max-size 100k
      edgeml check kws-1.edgeml --max-latency-ms 20 --measure ssh://pi@raspberrypi.local
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml.errors import GateError, UsageError
    from edgeml.terminal import showing
    from edgeml_converters.arguments import read_place
    from edgeml_converters.recheck import recheck
    from edgeml_converters.variants.gates import Gates

    gates = Gates(max_drop, max_latency_ms, shared.size_bytes(max_size), max_slice_drop)
    if gates == Gates():
        raise UsageError(
            "nothing to hold it against: give --max-drop, --max-slice-drop, --max-latency-ms or --max-size"
        )
    place = None if measure_on is None else read_place(measure_on)
    with showing(piped=True) as progress:
        verdicts = recheck(bundle, gates, names=names, measure_on=place, progress=progress)
    if as_json:
        print_json({"bundle": str(bundle), "variants": [_document(one) for one in verdicts]})
    else:
        _print(verdicts)
    broken = [f"{one.row.name}: {one.broken}" for one in verdicts if one.broken is not None]
    if broken:
        raise GateError("\n".join(broken))


def _document(verdict: Verdict) -> dict[str, Any]:
    from edgeml_converters.evaluate.slices import worst
    from edgeml_converters.report.plain import finite, plain
    from edgeml_converters.report.record import slice_document

    row = verdict.row
    latency, lost = row.measured.latency_ms, worst(row.slices)
    return {
        "variant": row.name,
        "drop_points": finite(row.drop_points),
        "worst_slice": None if lost is None else slice_document(lost),
        "latency_ms": plain(latency),
        "size_bytes": row.size_bytes,
        "measured_on": row.measured.machine,
        "broken": verdict.broken,
    }


def _print(verdicts: Sequence[Verdict]) -> None:
    from edgeml.terminal import Column, open_console, print_table
    from edgeml_converters.report.cells import row_cells

    cells = [row_cells(one.row, None) for one in verdicts]
    columns = [
        Column("variant", [one.name for one in cells], is_name=True),
        Column("drop", [one.drop for one in cells]),
        Column("p50 ms", [one.p50 for one in cells]),
        Column("size", [one.size for one in cells]),
        Column("holds", ["no" if one.broken else "yes" for one in verdicts], is_word=True),
    ]
    print_table(open_console(), columns, ["red" if one.broken else "" for one in verdicts])
