"""Grouped convolutions, which are newer than the Edge TPU compiler, as operators that it has."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml_converters.coral.draft import Draft

_VERSIONS: Final = {"int8": (3, 3, 2, 2), "uint8": (1, 1, 1, 1), "float32": (1, 1, 1, 1)}
"""Of CONV_2D, DEPTHWISE_CONV_2D, SPLIT and CONCATENATION, by the dtype of the input."""
MOST_GROUPS: Final = 512
"""Of more than one channel each; networks have 64 at most."""
_CHANNELS: Final = 3
"""The axis of channels, and that of a filter's."""


def expand_groups(draft: Draft) -> tuple[str, ...]:
    """Make each group a convolution of its own, between a SPLIT and a CONCATENATION.

    One channel a group is a DEPTHWISE_CONV_2D. Every result has the scale of the whole, so that all numbers
    stay the same.
    """
    return tuple(_expanded(draft))


def _expanded(draft: Draft) -> Iterator[str]:
    for operator in list(draft.graph.operators):
        groups = _groups(draft, operator)
        if not groups:
            continue
        weights = draft.values(operator.inputs[1])
        bias = draft.values(operator.inputs[2]) if _has_bias(operator) else None
        if weights is None or (bias is None and _has_bias(operator)):
            continue
        name = draft.told(operator.outputs[0])
        if weights.shape[_CHANNELS] == 1:
            draft.replace(operator, [_depthwise(draft, operator, weights)])
            yield f"{name}: a convolution in {groups} groups of one channel → a depthwise one"
        elif groups <= MOST_GROUPS:
            draft.replace(operator, list(_several(draft, operator, weights, bias, groups)))
            yield f"{name}: a convolution in {groups} groups → {groups} convolutions"


def _groups(draft: Draft, operator: Any) -> int:
    """Give the number of groups of a convolution that can be expanded, else 0."""
    if draft.kind(operator) != "CONV_2D" or len(operator.inputs) < 2 or min(operator.inputs[:2]) < 0:  # noqa: PLR2004
        return 0
    source, weights = draft.shape(operator.inputs[0]), draft.shape(operator.inputs[1])
    if len(source) != _CHANNELS + 1 or len(weights) != _CHANNELS + 1 or not weights[_CHANNELS]:
        return 0
    groups, rest = divmod(source[_CHANNELS], weights[_CHANNELS])
    if groups <= 1 or rest or weights[0] % groups or draft.dtype(operator.inputs[0]) not in _VERSIONS:
        return 0
    return groups


def _has_bias(operator: Any) -> bool:
    return len(operator.inputs) > 2 and operator.inputs[2] >= 0  # noqa: PLR2004 - input, weights, bias


def _depthwise(draft: Draft, operator: Any, weights: Array) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    source, old, *rest = operator.inputs
    turned = draft.add(
        old, f"{draft.name(old)}/depthwise", weights.shape[3:] + weights.shape[1:3] + weights.shape[:1],
        np.moveaxis(weights, 0, _CHANNELS),
    )  # fmt: skip
    quantization = draft.tensor(turned).quantization
    if quantization is not None:
        quantization.quantizedDimension = _CHANNELS
    options = schema.DepthwiseConv2DOptionsT()
    for field in ("padding", "strideW", "strideH", "fusedActivationFunction", "dilationWFactor"):
        setattr(options, field, getattr(operator.builtinOptions, field))
    options.dilationHFactor = operator.builtinOptions.dilationHFactor
    options.depthMultiplier = weights.shape[0] // draft.shape(source)[_CHANNELS]
    version = _VERSIONS[draft.dtype(source)][1]
    return draft.operator("DEPTHWISE_CONV_2D", [source, turned, *rest], operator.outputs, version, options)


def _several(draft: Draft, operator: Any, weights: Array, bias: Array | None, groups: int) -> Iterator[Any]:
    from ai_edge_litert import schema_py_generated as schema

    source, (target, *_) = operator.inputs[0], operator.outputs
    convolution, _, split, joined = _VERSIONS[draft.dtype(source)]
    name, filters = draft.name(target), weights.shape[0] // groups
    before, after = draft.shape(source), draft.shape(target)
    parts = [
        draft.add(source, f"{name}/in{group}", (*before[:3], weights.shape[_CHANNELS]))
        for group in range(groups)
    ]
    options = schema.SplitOptionsT()
    options.numSplits = groups
    axis = draft.add_constant(f"{name}/axis", np.array(_CHANNELS, np.int32))
    yield draft.operator("SPLIT", [axis, source], parts, split, options)
    results = []
    for group, part in enumerate(parts):
        span = slice(group * filters, (group + 1) * filters)
        own = [part, _slice(draft, operator.inputs[1], f"{name}/weights{group}", weights, span)]
        if bias is not None:
            own.append(_slice(draft, operator.inputs[2], f"{name}/bias{group}", bias, span))
        results.append(draft.add(target, f"{name}/out{group}", (*after[:3], filters)))
        kept = copy.deepcopy(operator.builtinOptions)
        yield draft.operator("CONV_2D", own, results[-1:], convolution, kept)
    joins = schema.ConcatenationOptionsT()
    joins.axis = _CHANNELS
    yield draft.operator("CONCATENATION", results, [target], joined, joins)


def _slice(draft: Draft, like: int, name: str, values: Array, span: slice) -> int:
    """Add the part of weights or bias that one group has, with the scales of its filters."""
    made = draft.add(like, name, values[span].shape, values[span])
    found = draft.tensor(made).quantization
    for field in ("scale", "zeroPoint", "min", "max"):
        given = getattr(found, field, None)
        if given is not None and len(given) == values.shape[0] > 1:
            setattr(found, field, list(given[span]))
    return made
