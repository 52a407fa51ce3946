"""Golden samples: inputs, what each variant gave for them, and how far another machine may be off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edgeml.arrays import Array
from edgeml.manifest import Tolerance
from edgeml.words import Scheme
from edgeml_converters.compare.outputs import compared

FLOAT_SHARE: Final[Mapping[Scheme, float]] = {"float32": 1e-3, "float16": 1e-2}
"""Difference between float kernels of two CPUs, as a share of the output's largest value."""
STEP_MULTIPLE: Final = 3.0
"""Requantization that rounds the other way moves an int8 output by a step or two."""
ERROR_MULTIPLE: Final = 4.0
"""Another CPU's int8 kernels err about as much as this one's do against float, in another direction: that is
twice. The golden samples are few and not the worst: 3.5 times was measured (docs/reference/parity.md)."""


def save_golden(path: Path, samples: Sequence[Mapping[str, Array]]) -> Path:
    """Write samples or outputs, stacked along the first axis."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **stacked(samples))
    return path


def read_golden(path: Path) -> list[dict[str, Array]]:
    """Read what ``save_golden`` wrote, one mapping a sample.

    Raises:
        OSError, or one of ``archive.READ_ERRORS``: it cannot be read, or is no such file.
    """
    with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    count = min((len(array) for array in arrays.values()), default=0)
    return [{name: array[at : at + 1] for name, array in arrays.items()} for at in range(count)]


def stacked(samples: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Join samples along the first axis; scalars become one value a sample. Without samples: nothing."""
    names = samples[0] if samples else ()
    return {name: np.concatenate([np.atleast_1d(one[name]) for one in samples]) for name in names}


def tolerance(
    scheme: Scheme,
    source: Sequence[Mapping[str, Array]],
    made: Sequence[Mapping[str, Array]],
    output_step: float | None,
) -> Tolerance:
    """Derive how far the golden outputs of a variant may be off on another machine.

    For float: a share of the largest output. For integers: four times what the variant already differs from
    its float source, and at least three steps of the output's own quantization. Top-1 is only asked to hold
    where the lead of the largest value is more than twice that.

    Args:
        scheme: the variant's.
        source: the source's outputs for the golden samples; may be empty.
        made: the variant's own.
        output_step: scale of a quantized output.
    """
    reach = max(largest(array) for one in made for array in one.values())
    allowed = FLOAT_SHARE.get(scheme, FLOAT_SHARE["float16"]) * reach
    cosine = 0.999
    if scheme not in FLOAT_SHARE:
        if source:
            outputs = compared(source, made)
            worst = max(output.max_abs for output in outputs)
            allowed = max(allowed, ERROR_MULTIPLE * worst if math.isfinite(worst) else 0.0)
            # 1 - cos(a) goes with the square of a small angle
            apart = max(1 - output.cosine_min for output in outputs)
            cosine = min(0.99, 1 - ERROR_MULTIPLE**2 * apart)
        allowed = max(allowed, STEP_MULTIPLE * (output_step or reach / 255))
    return Tolerance(
        max_abs=float(f"{max(allowed, 1e-6):.4g}"),
        cosine_min=float(f"{max(cosine, 0.0):.4g}"),
        top1_agreement_min=_sure_share(made, allowed),
    )


def largest(values: Array) -> float:
    """Give the largest size of finite values; others have to be the same elsewhere, whatever is allowed."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _sure_share(made: Sequence[Mapping[str, Array]], allowed: float) -> float:
    """Give the share of samples, rounded down, whose top-1 no tolerated difference can change."""
    worst = 1.0
    for name in made[0]:
        leads = []
        for one in made:
            flat = np.sort(one[name].reshape(-1).astype(np.float64))
            if flat.size > 1:
                leads.append(flat[-1] - flat[-2] if np.isfinite(flat[-2:]).all() else 0.0)
        if leads:
            worst = min(worst, sum(lead > 2 * allowed for lead in leads) / len(leads))
    return math.floor(100 * worst) / 100
