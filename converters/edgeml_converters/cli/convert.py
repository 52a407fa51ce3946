"""``edgeml convert``. Light to import: every command line imports this."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgeml import completion
from edgeml.commands.json_output import json_option, print_json
from edgeml.commands.threads import thread_counts
from edgeml.errors import UsageError
from edgeml_converters.cli import options as shared


@click.command()
@click.argument("model", type=shared.EXISTING)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME|FILE",
    shell_complete=completion.targets,
    help="Make variants for this kind of machine (repeat). Default: host, this machine.",
)
@click.option(
    "--scheme",
    "schemes",
    multiple=True,
    metavar="NAME|auto|all",
    shell_complete=completion.schemes,
    help="Make this scheme (repeat); auto: those that may be best. Default: float32, and int8_static "
    "with --calibration.",
)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="NAME",
    shell_complete=completion.runtimes,
    help="Make variants for this runtime (repeat). Default: all that the targets have.",
)
@click.option(
    "--calibration",
    metavar="DATA",
    help="Data to calibrate with: .npz[:key], .npy, .csv, a folder of images, module:function.",
)
@click.option(
    "--evaluate",
    "evaluation",
    metavar="DATA",
    help="Labelled data to measure accuracy on: .npz:x,y, a folder of class folders, …",
)
@click.option(
    "--labels",
    metavar="FILE|KEY",
    help="Labels of the --evaluate data: a .csv of file and label for images, .npy, .txt, a key or column.",
)
@click.option(
    "--slices",
    metavar="FILE|KEY",
    help="What parts the --evaluate data (a night and a day, say), as for --labels. Default: the classes.",
)
@shared.limit
@click.option(
    "--metric",
    metavar="NAME",
    help="top1, top5, auc, mse, mae or module:function. Default: top1 for class labels.",
)
@click.option(
    "--config", type=shared.EXISTING, help="TOML file that declares data, pre- and post-processing."
)
@shared.preprocess
@click.option("--postprocess", multiple=True, metavar="KEY=VALUE", help="Post-processing, the same way.")
@click.option(
    "--golden", type=click.IntRange(min=0), default=8, show_default=True, help="Golden samples in the bundle."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=Path(),
    show_default="this folder",
    metavar="DIR|FILE",
    help="A folder, or the bundle as NAME.edgeml.",
)
@click.option("--name", default="", help="The bundle's name. Default: the model file's.")
@click.option(
    "--release",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="The bundle's release counter.",
)
@click.option(
    "--objective",
    type=click.Choice(["latency", "size", "memory"]),
    default="latency",
    show_default=True,
    help="What the variant chosen for a target has least of.",
)
@shared.accuracy_gate
@shared.slice_gate
@shared.latency_gate
@shared.size_gate
@click.option(
    "--io-dtype",
    type=click.Choice(["float32", "int8", "uint8"]),
    show_default="float32; int8 for the Edge TPU",
    help="Inputs and outputs of int8_static variants.",
)
@shared.method
@click.option(
    "--prune",
    "sparsity",
    metavar="SHARE",
    help="Also make int8_static variants with this share of weights at 0 (0.3, say), where a runtime gains "
    "by it. --scheme auto finds the share by itself for --objective size and for --max-size.",
)
@shared.input_shape
@click.option(
    "--compiler-via",
    metavar="URL",
    help="For a Coral target: the machine that has the Edge TPU compiler. By default this one.",
)
@click.option("--no-compile", is_flag=True, help="Compile nothing for the Edge TPU.")
@shared.trust_code
@click.option(
    "--measure",
    "measure_on",
    metavar="URL",
    help="Where to take latency, load time and memory: ssh://user@host, emulator:NAME. Default: host, this "
    "machine.",
)
@click.option(
    "--threads",
    metavar="N,N",
    default="1",
    show_default=True,
    help="Engine threads to measure with; of several a variant takes the fewest within 5 % of the quickest.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with an interrupted run of this command: also take the latencies that it measured. What it "
    "made and judged comes from the cache in any case.",
)
@click.option(
    "--no-accuracy-control",
    is_flag=True,
    help="Do not keep parts in float where static int8 loses more than allowed.",
)
@click.option(
    "--budget-s",
    type=click.FloatRange(min=0),
    default=180.0,
    show_default=True,
    metavar="SECONDS",
    help="Time in which accuracy control may begin trials.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    show_default="the number of cores",
    metavar="N",
    help="Runtimes that --scheme auto makes variants for at once, a process each.",
)
@click.option("--no-measure", is_flag=True, help="Do not take latency, load time and memory.")
@click.option(
    "--no-drift-reference",
    is_flag=True,
    help="Leave out of the bundle what the data look like, by which devices tell drift.",
)
@shared.no_cache
@json_option
def convert(model: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Convert MODEL for targets into a bundle of measured variants.

    A report beside the bundle says which variant each target gets, and why.

    \b
    Examples:
      edgeml convert model.onnx --calibration data/ --evaluate test.npz:x,y
      edgeml convert model.onnx --config data.toml --target raspberry-pi-5 --target x86-64-v3
      edgeml convert model.tflite --scheme auto --calibration c.npz --evaluate t.npz --max-drop 0.5 -o out/
    """  # noqa: D301 - \b is click's mark for text that keeps its lines
    from edgeml.cli import INTERRUPTED
    from edgeml.terminal import showing
    from edgeml_converters.convert import convert as convert_model

    arguments = _arguments(options)
    with showing(piped=True) as progress:
        result = convert_model(model, output=output, progress=progress, **arguments)
    if as_json:
        print_json(result.to_json())
    else:
        from edgeml_converters.cli.tables import print_result

        print_result(result)
    if result.outcome.interrupted:
        click.get_current_context().exit(INTERRUPTED)
    result.require_variants()


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Make the command's options the function's arguments."""
    from edgeml.data import parse_postprocess, parse_preprocess

    config = shared.data_config(options["config"])
    return {
        "targets": options["targets"] or ("host",),
        "schemes": options["schemes"],
        "runtimes": options["runtimes"] or None,
        "calibration": shared.declared_data(
            options["calibration"], config.calibration, limit=options["limit"]
        ),
        "evaluation": shared.declared_data(
            options["evaluation"],
            config.evaluation,
            labels=options["labels"],
            slices=options["slices"],
        ),
        "metric": options["metric"] or (config.evaluation.metric if config.evaluation else None),
        "preprocess": parse_preprocess(options["preprocess"], config.preprocess),
        "postprocess": parse_postprocess(options["postprocess"], config.postprocess),
        "label_names": config.label_names,
        "health": config.health,
        "golden": options["golden"],
        "name": options["name"],
        "release": options["release"],
        "objective": options["objective"],
        "max_drop": options["max_drop"],
        "max_slice_drop": options["max_slice_drop"],
        "max_latency_ms": options["max_latency_ms"],
        "max_size_bytes": shared.size_bytes(options["max_size"]),
        "io_dtype": options["io_dtype"],
        "method": options["method"],
        "sparsity": _sparsity(options["sparsity"]),
        "input_shapes": shared.input_shapes(options["shapes"]),
        "trust_code": options["trust_code"],
        "compile_edgetpu": _where(
            "--compiler-via or --no-compile", options["compiler_via"], off=options["no_compile"]
        ),
        "measure": _where("--measure or --no-measure", options["measure_on"], off=options["no_measure"]),
        "threads": thread_counts(options["threads"]),
        "resume": options["resume"],
        "budget_s": options["budget_s"],
        "jobs": options["jobs"],
        "accuracy_control": not options["no_accuracy_control"],
        "drift_reference": not options["no_drift_reference"],
        "use_cache": not options["no_cache"],
    }


def _sparsity(text: str | None) -> float | None:
    """Read the share of weights at 0.

    Raises:
        UsageError: no share, or a pattern such as ``2:4``.
    """
    from edgeml_converters.quantize.sparsity import PATTERNS

    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        said = PATTERNS if ":" in text else "give the share of weights to be 0, between 0 and 1"
        raise UsageError(f"--prune {text}: {said}") from None


def _where(option: str, url: str | None, *, off: bool) -> bool | str:
    """Say whether to compile or to measure, and where.

    Raises:
        UsageError: ``--no-…`` and a place were said, both.
    """
    if url is None:
        return not off
    if off:
        raise UsageError(f"{option}, not both")
    return url
