"""Operators of a newer version than they need, which the Edge TPU compiler does not read.

A version says which features an operator may use. What it does use is in its tensors and options; the least
version for these is in TensorFlow's ``lite/tools/versioning/op_version.cc``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Any, Final

import numpy as np

from edgeml_converters.coral.draft import Draft, inputs_of, outputs_of
from edgeml_converters.coral.rules import REFUSED_VERSIONS, RULES

_WITH_BIAS: Final = 3
"""Inputs of a FULLY_CONNECTED: without a bias it is of version 6."""
_EIGHT_BITS: Final = frozenset({"int8", "uint8"})
_MOST_RANK: Final = 4


def lower_versions(draft: Draft) -> tuple[str, ...]:
    """Lower versions that no compiled model has, where the operator allows it."""
    return tuple(_lowered(draft))


def _lowered(draft: Draft) -> Iterator[str]:
    for operator in draft.graph.operators:
        kind, declared = draft.kind(operator), draft.version(operator)
        if declared <= _most(kind) or not outputs_of(operator):
            continue
        inputs = operator.inputs
        given = _with_bias(draft, operator) if kind == "FULLY_CONNECTED" else ""
        least = _least(draft, operator)
        if least is not None and least < declared:
            operator.opcodeIndex = draft.code(kind, least)
            name = draft.told(outputs_of(operator)[0])
            yield f"{name}: {kind} of version {declared} → {least}{given}"
        else:
            operator.inputs = inputs


def _most(kind: str) -> float:
    """Give the highest version that compiled models have."""
    seen = RULES[kind].seen_version if kind in RULES else inf
    return min(seen, REFUSED_VERSIONS.get(kind, inf) - 1)


def _with_bias(draft: Draft, operator: Any) -> str:
    """Give a FULLY_CONNECTED a bias of zeros where it has none, and tell so."""
    inputs = [int(index) for index in operator.inputs]
    if len(inputs) >= _WITH_BIAS and inputs[2] >= 0:
        return ""
    source, weights = inputs[:2]
    if draft.dtype(source) not in _EIGHT_BITS or not draft.is_constant(weights):
        return ""
    scale, of_weights = draft.scale(source), draft.tensor(weights).quantization
    if scale is None or of_weights is None or of_weights.scale is None:
        return ""
    name = draft.name(outputs_of(operator)[0])
    made = draft.add_constant(f"{name}/bias", np.zeros(draft.shape(weights)[0], np.int32))
    quantization = copy.deepcopy(of_weights)
    quantization.scale = [float(one) * scale[0] for one in quantization.scale]
    quantization.zeroPoint, quantization.quantizedDimension = [0] * len(quantization.scale), 0
    quantization.min = quantization.max = None
    draft.tensor(made).quantization = quantization
    operator.inputs = [source, weights, made]
    return ", with a bias of zeros"


def _least(draft: Draft, operator: Any) -> int | None:
    """Give the least version that an operator can be of; ``None``: it is not known here."""
    rule = _LEAST.get(draft.kind(operator))
    inputs = inputs_of(operator)
    if rule is None or not inputs:
        return None
    tensors = {draft.dtype(index) for index in inputs} | {draft.dtype(outputs_of(operator)[0])}
    if not tensors <= {"int8", "uint8", "int32", "float32"}:
        return None
    if max(len(draft.shape(index)) for index in inputs) > _MOST_RANK:
        return None
    return rule(draft, operator)


def _plain(draft: Draft, operator: Any) -> int:
    return 2 if "int8" in {draft.dtype(index) for index in inputs_of(operator)} else 1


def _convolution(draft: Draft, operator: Any) -> int | None:
    kinds = {draft.dtype(index) for index in (*inputs_of(operator)[:2], outputs_of(operator)[0])}
    source, weights = (draft.shape(index) for index in inputs_of(operator)[:2])
    grouped = draft.kind(operator) == "CONV_2D" and source[-1] != weights[-1]
    if grouped or len(kinds) != 1:
        return None
    if kinds == {"int8"}:
        return 3
    dilated = operator.builtinOptions.dilationWFactor != 1 or operator.builtinOptions.dilationHFactor != 1
    return 2 if draft.kind(operator) == "DEPTHWISE_CONV_2D" and dilated else 1


def _fully_connected(draft: Draft, operator: Any) -> int | None:
    kinds = {draft.dtype(index) for index in (*inputs_of(operator)[:2], outputs_of(operator)[0])}
    options = operator.builtinOptions
    if len(kinds) != 1 or len(inputs_of(operator)) < _WITH_BIAS or options.weightsFormat:
        return None
    if options.keepNumDims:
        return 5
    return 4 if kinds == {"int8"} else 1


def _quantize(draft: Draft, operator: Any) -> int | None:
    one = draft.scale(outputs_of(operator)[0]) is not None
    return 1 if one else None


def _transpose_convolution(draft: Draft, operator: Any) -> int | None:
    options = operator.builtinOptions
    if options.fusedActivationFunction or options.quantizedBiasType:
        return None
    if len(operator.inputs) > _WITH_BIAS and operator.inputs[3] >= 0:
        return 3
    return _plain(draft, operator)


def _resize(draft: Draft, operator: Any) -> int:
    options = operator.builtinOptions
    aligned = draft.kind(operator) == "RESIZE_NEAREST_NEIGHBOR" and options.alignCorners
    return 3 if options.halfPixelCenters or aligned else _plain(draft, operator)


def _strided_slice(draft: Draft, operator: Any) -> int | None:
    options = operator.builtinOptions
    if options.offset or options.ellipsisMask or options.newAxisMask:
        return None
    return _plain(draft, operator)


def _fill(draft: Draft, operator: Any) -> int | None:
    return None if draft.dtype(inputs_of(operator)[-1]) in _EIGHT_BITS else 1


_PLAIN: Final = """
ADD AVERAGE_POOL_2D CONCATENATION L2_NORMALIZATION LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM PACK PAD
REDUCE_MAX REDUCE_MIN RELU6 SLICE SOFTMAX SPLIT SUB TANH TRANSPOSE
"""
"""Of version 2 where they work on int8, else of 1."""
_LEAST: Final[Mapping[str, Callable[[Draft, Any], int | None]]] = dict.fromkeys(_PLAIN.split(), _plain) | {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "FILL": _fill,
    "FULLY_CONNECTED": _fully_connected,
    "QUANTIZE": _quantize,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "STRIDED_SLICE": _strided_slice,
    "TRANSPOSE_CONV": _transpose_convolution,
}
