"""Means behind a transposition, as exporters of NCHW models leave them, computed before it.

The Edge TPU takes a mean over y and x; of the transposed tensor it would be one over x and channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from edgeml_converters.coral.draft import Draft, inputs_of, outputs_of

_KINDS: Final = frozenset({"MEAN", "REDUCE_MAX", "REDUCE_MIN", "SUM"})
_TYPES: Final = frozenset({"int8", "uint8"})
"""Their sums are exact whatever the order."""


def means_before_transpositions(draft: Draft) -> tuple[str, ...]:
    """Reduce before a TRANSPOSE that only the reduction reads; what it leaves is reshaped or transposed."""
    return tuple(_moved(draft))


def _moved(draft: Draft) -> Iterator[str]:
    for operator in list(draft.graph.operators):
        if draft.kind(operator) not in _KINDS or len(inputs_of(operator)) != 2:  # noqa: PLR2004 - and its axes
            continue
        turned, axes_index = inputs_of(operator)
        before = draft.makers().get(turned)
        if before is None or draft.kind(before) != "TRANSPOSE" or turned in draft.graph.outputs:
            continue
        if [id(one) for one in draft.readers()[turned]] != [id(operator)]:
            continue
        source, order_index = inputs_of(before)
        axes, order = draft.values(axes_index), draft.values(order_index)
        if axes is None or order is None or draft.dtype(source) not in _TYPES:
            continue
        rank = len(order)
        if draft.scale(source) != draft.scale(turned) or draft.scale(source) is None:
            continue
        places = [int(order[int(axis) % rank]) for axis in np.ravel(axes)]
        (target,) = outputs_of(operator)
        after = _after(draft, operator, source, [int(one) for one in order], places)
        if after is None:
            continue
        name = draft.name(target)
        operator.inputs = [source, draft.add_constant(f"{name}/axes", np.array(sorted(places), np.int32))]
        draft.graph.operators.remove(before)
        if after:
            draft.replace(operator, [operator, *after])
        kind = draft.kind(operator)
        yield f"{draft.told(target)}: {kind} behind a TRANSPOSE → before it, over the axes {sorted(places)}"


def _after(draft: Draft, operator: Any, source: int, order: list[int], places: list[int]) -> list[Any] | None:
    """Give what has to follow the reduction, whose output changes where something does; ``None``: unknown."""
    (target,) = outputs_of(operator)
    shape = draft.shape(source)
    if sorted(order) != list(range(len(shape))):
        return None
    kept = [axis for axis in order if axis not in places]
    keeps = bool(operator.builtinOptions.keepDims)
    if not keeps:
        return [] if kept == sorted(kept) else None
    reduced = [1 if axis in places else side for axis, side in enumerate(shape)]
    wanted = [reduced[axis] for axis in order]
    if tuple(wanted) != draft.shape(target) or sum(side > 1 for side in reduced) > 1:
        return None
    if reduced == wanted:
        return []
    made = draft.add(target, f"{draft.name(target)}/reduced", reduced)
    operator.outputs = [made]
    sides = draft.add_constant(f"{draft.name(target)}/shape", np.array(wanted, np.int32))
    return [draft.operator("RESHAPE", [made, sides], [target], 1)]
