"""Ranks a model's activations by what 8 bits take from them, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from edgeml import plugins
from edgeml.converter import ConversionStep, Sample
from edgeml.errors import ConversionError
from edgeml.runtime import TensorTap
from edgeml_converters.sensitivity.noise import ChannelNoise, Sensitivity
from edgeml_converters.variants.artifact import Artifact
from edgeml_converters.variants.make import Maker
from edgeml_converters.variants.rows import Row

RANKING_SAMPLES: Final = 64
"""Samples whose activations are looked at: the mean over so many moves the ranking no more."""


def rank(
    model: Artifact, ranges: Mapping[str, tuple[float, float]], samples: Iterable[Sample]
) -> tuple[Sensitivity, ...]:
    """Run a float model and rank its activations by the ranges that a quantizer gave them, worst first.

    Args:
        model: the float model that was quantized, in the runtime's own format.
        ranges: calibrated range by tensor, as ``StepResult.ranges`` tells them.
        samples: under the source's names; the first ``RANKING_SAMPLES`` are run, one in memory at a time.

    Raises:
        ConversionError: the runtime cannot show activations, or shows none that has a range.
    """
    driver = plugins.runtime(model.runtime) if model.runtime is not None else None
    if driver is None or not isinstance(driver, TensorTap):
        raise ConversionError(f"{model.path.name}: no runtime here shows the activations of {model.state}")
    found: dict[str, ChannelNoise] = {}
    with driver.load_tapped(model.path) as session:
        for sample, _ in zip(samples, range(RANKING_SAMPLES), strict=False):
            taken = model.naming.fed(sample)
            for name, values in {**taken, **session.run(taken)}.items():
                if name in ranges and values.dtype == np.float32:
                    found.setdefault(name, ChannelNoise(*ranges[name])).add(values)
    if not found:
        raise ConversionError(
            f"{model.path.name}: none of its activations has a calibrated range; "
            f"only what static int8 quantizes can be ranked"
        )
    ranked = [Sensitivity(name, noise.sqnr_db(), *ranges[name]) for name, noise in found.items()]
    return tuple(sorted(ranked, key=lambda one: one.sqnr_db))


def ranked_row(row: Row, steps: Sequence[ConversionStep], maker: Maker) -> tuple[Sensitivity, ...]:
    """Make a row of a calibrated scheme, even if its results are lost, and rank the float model behind it.

    Raises:
        ConversionError: it cannot be made, or nothing shows its activations.
    """
    made = maker.executor.make(steps, row.settings, maker.calibration_spool, lost=True)
    made.release()
    maker.executor.tell("rank activations")
    for one in reversed(made.lineage()):
        if one.parent is not None and one.trace is not None and one.trace.ranges:
            return rank(one.parent, one.trace.ranges, maker.calibration_spool or ())
    raise ConversionError(f"{row.name}: its quantizer tells no ranges, so nothing can be ranked")
