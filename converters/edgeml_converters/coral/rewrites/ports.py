"""Float inputs and outputs made 8-bit ones: the conversion at the edge goes to the caller.

The Edge TPU has no floats, so that a QUANTIZE of floats and a DEQUANTIZE run on the CPU. Whoever passes
floats to ``edgeml`` gets scale and zero point applied anyway.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from edgeml_converters.coral.draft import TYPES, Draft, inputs_of, outputs_of

OFFSET: Final = 128
"""Between the zero points of uint8 and int8."""
_EIGHT_BITS: Final = ("int8", "uint8")


def integer_ports(draft: Draft, dtype: str) -> tuple[str, ...]:
    """Make float inputs that are only quantized, and outputs that are only dequantized, ``dtype``.

    Args:
        draft: is changed in place.
        dtype: ``int8`` or ``uint8``.

    Returns:
        What was changed, a sentence each.
    """
    changed = [_input(draft, index, dtype) for index in draft.graph.inputs]
    changed += [_output(draft, index, dtype) for index in draft.graph.outputs]
    return tuple(one for one in changed if one)


def _input(draft: Draft, index: int, dtype: str) -> str:
    readers = draft.readers().get(index, [])
    outputs = {*draft.graph.outputs}
    if draft.dtype(index) != "float32" or not readers or index in outputs:
        return ""
    made = [place for one in readers for place in outputs_of(one)]
    scales = {(draft.dtype(place), draft.scale(place)) for place in made}
    if any(draft.kind(one) != "QUANTIZE" for one in readers) or len(scales) != 1 or outputs & {*made}:
        return ""
    own, scale = next(iter(scales))
    if own not in _EIGHT_BITS or scale is None:
        return ""
    _hold(draft, index, made[0], dtype)
    if own == dtype:
        for one in readers:
            draft.graph.operators.remove(one)
        _reconnect(draft, {*made}, index)
    return f"input {draft.told(index)}: float32 → {dtype} {_told(draft, index)}"


def _output(draft: Draft, index: int, dtype: str) -> str:
    maker = draft.makers().get(index)
    if maker is None or draft.dtype(index) != "float32" or draft.kind(maker) != "DEQUANTIZE":
        return ""
    if draft.readers().get(index) or list(draft.graph.outputs).count(index) > 1:
        return ""
    (source, *_) = inputs_of(maker) or [-1]
    own = draft.dtype(source) if source >= 0 else ""
    if own not in _EIGHT_BITS or draft.scale(source) is None:
        return ""
    before = draft.makers().get(source)
    if own == dtype and (before is None or source in draft.graph.outputs):
        return ""
    _hold(draft, index, source, dtype)
    if own == dtype and before is not None:
        draft.graph.operators.remove(maker)
        before.outputs = [index if place == source else place for place in outputs_of(before)]
        _reconnect(draft, {source}, index)
    else:
        draft.replace(maker, [draft.operator("QUANTIZE", [source], [index], 1)])
    return f"output {draft.told(index)}: float32 → {dtype} {_told(draft, index)}"


def _hold(draft: Draft, index: int, like: int, dtype: str) -> None:
    """Make a tensor hold ``dtype`` with the scale of another."""
    tensor, own = draft.tensor(index), draft.dtype(like)
    tensor.type = TYPES[dtype]
    tensor.quantization = copy.deepcopy(draft.tensor(like).quantization)
    if own != dtype:
        scale = draft.scale(like)
        zero_point = 0 if scale is None else scale[1]
        tensor.quantization.zeroPoint = [zero_point + (OFFSET if dtype == "uint8" else -OFFSET)]


def _reconnect(draft: Draft, old: set[int], new: int) -> None:
    for operator in draft.graph.operators:
        if old & {*inputs_of(operator)}:
            operator.inputs = [new if int(place) in old else int(place) for place in operator.inputs]


def _told(draft: Draft, index: int) -> str:
    scale: Any = draft.scale(index) or (1.0, 0)
    return f"of scale {scale[0]:.6g} and zero point {scale[1]}"
