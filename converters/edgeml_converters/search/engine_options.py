"""Engine options besides the defaults, tried in a search on the quickest variant of each runtime.

They choose other kernels for the same file, which are quicker on some processors and slower on most. They may
round in another way: what differs by more than the variant's tolerance is not taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from edgeml import plugins
from edgeml.arrays import Array
from edgeml.errors import EdgemlError
from edgeml.figures import milliseconds
from edgeml.findings import Finding
from edgeml.stopwatch import drawn
from edgeml.words import RuntimeName
from edgeml_converters.search.objective import EQUAL_LATENCY, latency
from edgeml_converters.variants.rows import Row

ALTERNATIVES: Final[Mapping[RuntimeName, Mapping[str, str]]] = {
    "litert": {"xnnpack": "false"},
    "onnxruntime": {"graph_optimization": "extended"},
}
"""LiteRT's own kernels, not XNNPACK's; ONNX Runtime without blocked layouts, which copy at both ends."""
SAMPLES: Final = 4
SEED: Final = 0


def alternatives(rows: Sequence[Row]) -> list[Row]:
    """Give, for each runtime, the quickest usable row with the other options, as a row to be measured."""
    found = []
    for runtime, options in ALTERNATIVES.items():
        known = [row for row in rows if row.runtime == runtime and row.status == "ok"]
        quickest = min((row for row in known if row.measured.latency_ms), key=latency, default=None)
        if quickest is not None and quickest.accelerator is None:
            found.append(replace(quickest, options={**quickest.options, **options}))
    return found


def taken(rows: Sequence[Row], tried: Sequence[Row]) -> list[Row]:
    """Put rows with other options in the places of those that they are clearly quicker than, and equal to.

    What was not taken, the one or the other, stands in ``other_options`` with the reason.
    """
    others = {other.name: other for other in tried}
    return [_better(row, others[row.name]) if row.name in others else row for row in rows]


def _better(row: Row, other: Row) -> Row:
    times = f"{milliseconds(latency(other))} ms", f"{milliseconds(latency(row))} ms"
    if latency(other) * EQUAL_LATENCY >= latency(row):
        return replace(
            row, other_options=(replace(other, reason="{} against {}: not quicker".format(*times)),)
        )
    if not _agree(row, other):
        reason = "its outputs differ from those with the engine's default by more than they may"
        return replace(row, other_options=(replace(other, reason=reason),))
    said = ", ".join(f"{name}={value}" for name, value in ALTERNATIVES[row.runtime].items())
    what = f"{said} takes {latency(other):.3g} ms, the engine's default {latency(row):.3g} ms"
    told = Finding("engine-option", "info", row.name, what, "the bundle says so to whoever loads it")
    slower = replace(row, reason=f"slower than {said}: {times[1]} against {times[0]}")
    return replace(other, findings=(*other.findings, told), other_options=(slower,))


def _agree(row: Row, other: Row) -> bool:
    """Say whether two sets of options give the same outputs for drawn inputs, within the row's tolerance."""
    if row.artifact is None or row.tolerance is None:
        return False
    driver, generator = plugins.runtime(row.runtime), np.random.default_rng(SEED)
    try:
        with (
            driver.load(row.artifact, driver.options(row.options)) as left,
            driver.load(row.artifact, driver.options(other.options)) as right,
        ):
            for _ in range(SAMPLES):
                sample: dict[str, Array] = {
                    spec.name: drawn(spec, [side or 1 for side in spec.shape], generator)
                    for spec in left.inputs
                }
                expected, found = left.run(sample), right.run(sample)
                if not all(_apart(expected[name], found[name]) <= row.tolerance.max_abs for name in expected):
                    return False
    except EdgemlError:
        return False
    return True


def _apart(left: Array, right: Array) -> float:
    """Give the largest difference; NaN where either is NaN or infinite and the other is not the same."""
    left, right = left.astype(np.float64), right.astype(np.float64)
    other = (left != right) & ~(np.isnan(left) & np.isnan(right))
    apart = np.abs(left[other] - right[other])
    return float(np.where(np.isfinite(apart), apart, np.nan).max(initial=0.0))
