"""``edgeml sensitivity``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml import completion
from edgeml.commands.json_output import json_option, print_json
from edgeml.errors import UsageError
from edgeml_converters.cli import options as shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeml_converters.sensitivity.models import Ranking

BAR = 24
SOUND_DB = 40.0
"""A full bar: at 40 dB an activation is off by a hundredth of its size."""


@click.command()
@click.argument("model", type=shared.EXISTING)
@click.option("--calibration", metavar="DATA", help="Data to calibrate with, as for edgeml convert.")
@shared.limit
@click.option(
    "--target",
    default="host",
    show_default=True,
    metavar="NAME|FILE",
    shell_complete=completion.targets,
    help="The machine whose CPU the quantizers follow.",
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.runtimes,
    help="Rank for this runtime (repeat). Default: all that the target has.",
)
@click.option("--config", type=shared.EXISTING, help="TOML file that declares data and pre-processing.")
@shared.preprocess
@shared.method
@shared.input_shape
@shared.trust_code
@shared.no_cache
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="So many of each runtime; --json has all.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="Also draw the whole ranking, as a page that stands alone.",
)
@json_option
def sensitivity(model: Path, top: int, plot: Path | None, as_json: bool, **options: Any) -> None:
    """Rank what 8 bits take from each activation of MODEL.

    The worst stands first. A low number of dB says that one range cannot hold
    the channels of an activation: keep it in float, or repair what makes it.

    \b
    Examples:
      edgeml sensitivity model.onnx --calibration data/ --runtime openvino
      edgeml sensitivity model.tflite --calibration c.npz:x --top 20 --plot ranking.html
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    if plot is not None and plot.suffix not in {".html", ".htm"}:
        raise UsageError(f"--plot {plot}: a page is written, so name it *.html")
    rankings = _rankings(model, options)
    if plot is not None:
        from edgeml_converters.report.bundle import write_text
        from edgeml_converters.report.rankings import sensitivity_page

        write_text(plot, sensitivity_page(model, rankings))
    if as_json:
        print_json(_document(model, rankings))
    else:
        for one in rankings:
            _print(one, top)
        if plot is not None:
            click.echo(f"page  {plot}")
    if not any(one.activations for one in rankings):
        from edgeml.errors import ConversionError

        raise ConversionError(f"{model}: no runtime could be ranked; the reason stands with each")


def _rankings(model: Path, options: dict[str, Any]) -> tuple[Ranking, ...]:
    from edgeml.data import parse_preprocess
    from edgeml.terminal import showing
    from edgeml_converters.sensitivity.models import sensitivities

    config = shared.data_config(options["config"])
    data = shared.declared_data(options["calibration"], config.calibration, limit=options["limit"])
    if data is None:
        raise UsageError("what 8 bits take is seen on data: give --calibration, about 100 samples")
    with showing(piped=True) as progress:
        return sensitivities(
            model,
            calibration=data,
            target=options["target"],
            runtimes=options["runtimes"],
            preprocess=parse_preprocess(options["preprocess"], config.preprocess),
            method=options["method"],
            input_shapes=shared.input_shapes(options["shapes"]),
            trust_code=options["trust_code"],
            use_cache=not options["no_cache"],
            progress=progress,
        )


def _print(ranking: Ranking, top: int) -> None:
    from rich.markup import escape

    from edgeml.terminal import Column, open_console, print_table, printable_lines

    console = open_console()
    if not ranking.activations:
        console.print(f"[bold]{ranking.runtime}[/]: [red]failed[/] {escape(printable_lines(ranking.reason))}")
        return
    shown = ranking.activations[:top]
    columns = [
        Column("activation", [one.tensor for one in shown], is_name=True),
        Column("SQNR dB", [f"{one.sqnr_db:.1f}" for one in shown]),
        Column("", [_bar(one.sqnr_db) for one in shown], leaves=1, is_word=True),
        Column("range", [f"{one.low:.3g} … {one.high:.3g}" for one in shown], leaves=2),
    ]
    console.print(f"[bold]{ranking.runtime}[/]: {len(shown)} of {len(ranking.activations)} activations")
    print_table(console, columns)


def _bar(decibel: float) -> str:
    return "▇" * max(1, round(BAR * min(1.0, max(0.0, decibel) / SOUND_DB)))


def _document(model: Path, rankings: Sequence[Ranking]) -> dict[str, Any]:
    from edgeml_converters.report.rankings import ranking_document

    return {
        "model": str(model),
        "runtimes": [
            {
                "runtime": one.runtime,
                "reason": one.reason or None,
                "activations": ranking_document(one.activations),
            }
            for one in rankings
        ],
    }
