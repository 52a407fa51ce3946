"""What a person should know of a finished conversion: findings drawn from its rows, data and targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edgeml.arrays import Array
from edgeml.errors import ConversionError, DataError
from edgeml.findings import Finding
from edgeml.pipeline import IMAGE_RANK
from edgeml.tensors import TensorSpec
from edgeml_converters.coral.cut import cut_unchecked, stops
from edgeml_converters.coral.graph import read_graph
from edgeml_converters.evaluate.lints import check_label_names
from edgeml_converters.evaluate.metrics import Metric
from edgeml_converters.search.choose import SQNR_FLOOR_DB
from edgeml_converters.variants.make import HOW_LABELS
from edgeml_converters.variants.request import Request
from edgeml_converters.variants.rows import INTERRUPTED, Row, lacking

CHANCE_FACTOR: Final = 3.0
CHANCE_SHARE: Final = 0.2
"""A source that is right less than 3 times as often as a guess, or, of fewer than 11 classes, that goes less
than a fifth of the way from a guess to perfect, is being fed something else than it was trained on."""
PROBABILITY_ERROR: Final = 0.02
"""Softmax outputs of int8 sources sum to 1 within some of their steps of 1/256."""
NOISY_RATIO: Final = 3.0
"""On an idle machine p95 is 1.05 to 1.5 times p50; beyond this other work took the CPU while measuring."""


def near_chance(metric: Metric | None, accuracy: float | None, labels: Array | None) -> tuple[Finding, ...]:
    """Report a source whose own top-1 is about that of a guess among the classes in the data."""
    if metric is None or metric.name != "top1" or accuracy is None or labels is None:
        return ()
    classes = np.unique(labels).size
    if classes < 2:  # noqa: PLR2004 - of one class there is nothing to guess
        return ()
    chance = 1.0 / classes
    if accuracy >= min(CHANCE_FACTOR * chance, chance + CHANCE_SHARE * (1.0 - chance)):
        return ()
    return (
        Finding(
            "accuracy-near-chance",
            "warning",
            "evaluation data",
            f"the source model itself is right for {100 * accuracy:.1f} % of the samples, a guess among "
            f"their {classes} classes for {100 * chance:.1f} %: drops measured on these data mean nothing",
            "check scale, zero_point, mean and std, color and layout of the pre-processing, and label_offset",
        ),
    )


def class_names_of_data(
    request: Request, names: Sequence[str], outputs: Sequence[TensorSpec]
) -> tuple[Finding, ...]:
    """Report class names that only the evaluation data tell, by their folders say, and that do not fit."""
    post = request.postprocess
    if request.label_names:
        return ()
    try:
        check_label_names(names, outputs, post.output, post.label_offset)
    except DataError as error:
        return (
            Finding(
                "label-count",
                "warning",
                "evaluation data",
                f"their class names are numbered in sorted order, not in the model's, and stay out of the "
                f"bundle: {error}",
                "give the model's own names in its order: labels = … at the top of --config",
            ),
        )
    return ()


def softmax_twice(request: Request, outputs: Sequence[Mapping[str, Array]]) -> tuple[Finding, ...]:
    """Report a declared softmax on an output that holds probabilities already.

    Args:
        request: only its post-processing matters here.
        outputs: of the source or the first float variant, for a few samples.
    """
    if not request.postprocess.softmax or not outputs:
        return ()
    name = request.postprocess.output or next(iter(outputs[0]))
    rows = [one[name] for one in outputs if name in one]
    if not rows or any(row.shape[-1:] in {(), (1,)} or row.min() < 0 for row in rows):
        return ()
    if any(np.abs(row.sum(axis=-1) - 1.0).max() > PROBABILITY_ERROR for row in rows):
        return ()
    return (
        Finding(
            "softmax-twice",
            "warning",
            f"output {name}",
            "it sums to 1 already, and post-processing declares softmax: scores would come out nearly equal",
            "leave softmax out",
        ),
    )


def nan_outputs(rows: Sequence[Row], outputs: Sequence[Mapping[str, Array]]) -> tuple[Finding, ...]:
    """Report outputs that hold NaN.

    Args:
        rows: as they were compared with the source.
        outputs: of the source, for a few samples.
    """
    found: dict[str, tuple[int, int]] = {}
    for name in outputs[0] if outputs else ():
        lost = sum(bool(np.isnan(one[name]).any()) for one in outputs if one[name].dtype.kind == "f")
        found[name] = (lost, len(outputs))
    for one in (one for row in rows for one in row.outputs_compared):
        found[one.name] = max(found.get(one.name, (0, 0)), (one.nan_samples, one.samples))
    return tuple(
        Finding(
            "nan-outputs",
            "warning",
            f"output {name}",
            f"NaN for {lost} of {count} samples; they count as misses and are not compared",
            "look whether the samples are what the model takes, and for a division by 0 or a root in it",
        )
        for name, (lost, count) in found.items()
        if lost
    )


def layout_without_channels(request: Request, inputs: Sequence[TensorSpec]) -> tuple[Finding, ...]:
    """Report a declared layout where no input is an image."""
    if (
        request.preprocess.layout is None
        or not inputs
        or any(len(spec.shape) == IMAGE_RANK + 1 for spec in inputs)
    ):
        return ()
    return (
        Finding(
            "layout-without-channels",
            "warning",
            ", ".join(f"input {spec.name}" for spec in inputs),
            f"layout={request.preprocess.layout} is declared, and no input is an image with channels",
            "leave layout out",
        ),
    )


def accuracy_unknown(request: Request, metric: Metric | None) -> tuple[Finding, ...]:
    """Report that variants were judged by their outputs alone."""
    if metric is not None:
        return ()
    if request.evaluation is not None:
        seen, remedy = "the evaluation data have no labels", HOW_LABELS
    elif request.calibration is not None:
        seen, remedy = "no evaluation data", "give --evaluate (labelled samples)"
    else:
        seen = "no calibration or evaluation data: steps were compared on random samples"
        remedy = "give --evaluate (labelled samples)"
    return (
        Finding(
            "no-data",
            "warning",
            "data",
            f"{seen}; accuracy was not evaluated, and a quantized variant is only chosen from "
            f"{SQNR_FLOOR_DB:g} dB SQNR on",
            f"{remedy}, to have variants judged by what matters",
        ),
    )


def not_calibrated(request: Request) -> tuple[Finding, ...]:
    """Say that the default left static int8 out."""
    if request.calibration is not None or request.schemes:
        return ()
    return (
        Finding(
            "no-calibration",
            "info",
            "int8_static",
            "int8_static was not made: it needs calibration data",
            "give --calibration (100 or more samples of what the model will see)",
        ),
    )


def runtimes_left_out(request: Request, rows: Sequence[Row]) -> tuple[Finding, ...]:
    """Name each runtime of a target that ended up without any variant, and why."""
    found: dict[tuple[str, str], list[str]] = {}
    for target in request.targets:
        for runtime in target.runtimes:
            own = [row for row in rows if row.runtime == runtime and target.name in row.targets]
            if own and all(row.status in {"unavailable", "failed"} for row in own):
                why = "; ".join(one.reason for one in lacking(own))
                found.setdefault((runtime, why), []).append(target.name)
    return tuple(
        Finding(
            "runtime-left-out",
            "warning",
            ", ".join(targets),
            f"there is no {runtime} variant: {why}",
            f"mend that and convert again, or leave {runtime} out with --runtime",
        )
        for (runtime, why), targets in found.items()
    )


def accelerators_left_out(request: Request, rows: Sequence[Row]) -> tuple[Finding, ...]:
    """Say that the variants run on the CPU of a target that has an accelerator."""
    compiled = [row for row in rows if row.accelerator is not None]
    used = {name for row in compiled if row.status == "ok" for name in row.targets}
    lost = ", ".join(row.name for row in compiled if row.status != "ok")
    return tuple(
        Finding(
            "accelerator-not-used",
            "warning",
            target.name,
            f"no variant uses its {', '.join(target.accelerators)}: all of them run on the CPU",
            f"do what {lost} says"
            if lost
            else "have an int8_static variant for LiteRT made, with --calibration, and compiled: it takes "
            "nothing else",
        )
        for target in request.targets
        if target.accelerators and target.name not in used
    )


def interrupted(rows: Sequence[Row]) -> tuple[Finding, ...]:
    """Name what a search that was told to stop did not come to; trials and measurements have no names yet."""
    left = [row.name for row in rows if row.reason == INTERRUPTED] or ["trials and measurements to come"]
    return (
        Finding(
            "search-interrupted",
            "warning",
            ", ".join(left),
            "not made before the search was interrupted; the best may be among them",
            "run the same command again: what was made and judged comes from the cache",
        ),
    )


def edge_tpu_stops(rows: Sequence[Row]) -> tuple[Finding, ...]:
    """Name what the Edge TPU compiler would stop at where nothing was compiled, and what a cut would gain."""
    if any(row.accelerator is not None and row.status == "ok" for row in rows):
        return ()
    return tuple(
        found
        for row in rows
        if row.edge_tpu and row.accelerator is None and row.status == "ok" and row.artifact is not None
        for found in _stops(row.name, row.artifact)
    )


def _stops(name: str, path: Path) -> Iterator[Finding]:
    reasons = stops(read_graph(path))
    if not reasons:
        return
    try:
        made = cut_unchecked(path, path.read_bytes())
    except ConversionError as error:
        message, remedy = str(error), "edgeml coral check says what stands in the way"
    else:
        message = (
            f"the Edge TPU compiler stops at {made.stops[0]}, and maps nothing; "
            f"{made.mapped} of the {made.total} operators before it would be mapped"
        )
        remedy = (
            "convert where the compiler is: it is cut by itself there; or by hand: edgeml bundle extract, "
            "edgeml coral cut, compile the body, edgeml coral join"
        )
    yield Finding("edge-tpu-stops", "warning", name, message, remedy)


def noisy(row: Row) -> tuple[Finding, ...]:
    """Report latencies of one variant that lie too far apart to rank by."""
    latency = row.measured.latency_ms
    if latency is None or latency.p95 <= NOISY_RATIO * latency.p50:
        return ()
    return (
        Finding(
            "noisy-measurement",
            "warning",
            row.name,
            f"p95 is {latency.p95 / latency.p50:.1f} times p50 ({latency.p95:.3g} and {latency.p50:.3g} ms): "
            "something else used the CPU",
            "stop other programs and convert again (finished steps come from the cache)",
        ),
    )
