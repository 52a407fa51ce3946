"""Fused activations that the Edge TPU compiler does not take: dropped or made operators of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from edgeml_converters.coral.draft import Draft, outputs_of

_KINDS: Final = frozenset({"AVERAGE_POOL_2D", "CONCATENATION", "MAX_POOL_2D", "TRANSPOSE_CONV"})
"""Where an activation keeps the operator off the Edge TPU, or stops the compiler."""
_ACTIVATIONS: Final = {
    1: ("RELU", 0.0, None),
    2: ("RELU_N1_TO_1", -1.0, 1.0),
    3: ("RELU6", 0.0, 6.0),
}
"""ActivationFunctionType of TFLite's schema: the operator, and what it clamps to."""
_EIGHT_BITS: Final = frozenset({"int8", "uint8"})


def unfuse_activations(draft: Draft) -> tuple[str, ...]:
    """Take activations out of pools, concatenations and transposed convolutions."""
    return tuple(_unfused(draft))


def _unfused(draft: Draft) -> Iterator[str]:
    for operator in list(draft.graph.operators):
        kind = draft.kind(operator)
        found = _ACTIVATIONS.get(getattr(operator.builtinOptions, "fusedActivationFunction", 0))
        targets = outputs_of(operator)
        if kind not in _KINDS or found is None or len(targets) != 1:
            continue
        name, low, high = found
        target = targets[0]
        clamps = _clamps(draft, target, low, high)
        if clamps is None:
            continue
        operator.builtinOptions.fusedActivationFunction = 0
        if not clamps:
            yield f"{draft.told(target)}: {kind} without its {name}, which clamps none of its numbers"
            continue
        before = draft.add(target, f"{draft.name(target)}/before", draft.shape(target))
        operator.outputs = [before]
        after = draft.operator(name, [before], [target], _version(draft, target, name))
        draft.replace(operator, [operator, after])
        yield f"{draft.told(target)}: the {name} of a {kind} → an operator of its own"


def _clamps(draft: Draft, target: int, low: float, high: float | None) -> bool | None:
    """Say whether a clamp changes anything that a tensor can hold; ``None``: it is not held in 8 bits."""
    scale, dtype = draft.scale(target), draft.dtype(target)
    if scale is None or dtype not in _EIGHT_BITS or scale[0] <= 0:
        return None
    limits: Any = np.iinfo(dtype)
    lowest = scale[1] + round(low / scale[0])
    highest = limits.max if high is None else scale[1] + round(high / scale[0])
    return bool(lowest > limits.min or highest < limits.max)


def _version(draft: Draft, target: int, name: str) -> int:
    if name == "RELU_N1_TO_1":
        return 1
    return 2 if draft.dtype(target) == "int8" or name == "RELU" else 1
