"""Free dimensions fixed, and what computes shapes out of them replaced by the numbers that it gives.

TensorFlow Lite hands a graph with a computed shape to no delegate, and the Edge TPU compiler stops at one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml_converters.coral.draft import TYPES, Draft, content, inputs_of, outputs_of
from edgeml_converters.coral.guarded import guarded
from edgeml_converters.coral.limits import SHAPE_INPUTS

MOST_VALUES: Final = 4096
"""Of a folded constant; shapes are far shorter."""
MOST_ROUNDS: Final = 32
"""Each folds what reads constants alone, and runs the model; shapes are computed in a few operators."""
_FOLDED: Final = """
ADD BROADCAST_ARGS BROADCAST_TO CAST CONCATENATION DIV EQUAL EXPAND_DIMS FILL FLOOR_DIV FLOOR_MOD GATHER
GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_OR MAXIMUM MINIMUM MUL NOT_EQUAL PACK RANGE RANK
REDUCE_MAX REDUCE_MIN REDUCE_PROD RESHAPE SELECT SELECT_V2 SLICE SPLIT SQUEEZE STRIDED_SLICE SUB SUM TILE
TRANSPOSE UNPACK
"""
"""Operators that models compute shapes with: deterministic, and of what they read alone."""
_STEP: Final = "shapes"
_TYPES: Final = frozenset({"int32", "int64", "float32", "bool"})
_UNSURE: Final = frozenset(
    {"CUSTOM", "IF", "NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "RANGE", "UNIQUE", "WHERE", "WHILE"}
)
"""Operators the shape of whose results depends on values."""


def fix_shapes(draft: Draft) -> tuple[str, ...]:
    """Give free dimensions the size that the file is laid out for, and fold what is computed of shapes."""
    changed = [one for index in draft.graph.inputs if (one := _freed(draft, index))]
    if changed:
        for tensor in draft.graph.tensors:
            tensor.shapeSignature = None
    before = len(draft.graph.operators)
    for _ in range(MOST_ROUNDS):
        if not _fold(draft):
            break
    folded = before - len(draft.graph.operators)
    if folded:
        _store(draft, _shapes(draft))
        changed.append(f"{folded} operators that compute shapes → the numbers that they give")
    return tuple(changed)


def _freed(draft: Draft, index: int) -> str:
    signature = draft.tensor(index).shapeSignature
    if signature is None or all(side >= 0 for side in signature):
        return ""
    return f"input {draft.told(index)}: {list(map(int, signature))} → {list(draft.shape(index))}"


def _fold(draft: Draft) -> bool:
    """Fold what can be folded at once; says whether there may be more."""
    operators = draft.graph.operators
    if not any(draft.kind(one) in {"SHAPE", "RANK"} or _is_constant(draft, one) for one in operators):
        return False
    shapes = _shapes(draft)
    if shapes is None:
        return False
    unsure = _unsure(draft)
    known: dict[int, Array] = {}
    for one in operators:
        if draft.kind(one) == "SHAPE" and not unsure & {*inputs_of(one)}:
            (target,) = outputs_of(one)
            known[target] = np.array(shapes[inputs_of(one)[0]], draft.dtype(target))
    constant = [one for one in operators if _is_constant(draft, one)]
    known |= _evaluated(draft, constant)
    known = {index: values for index, values in known.items() if index not in draft.graph.outputs}
    if not known:
        return False
    _store(draft, shapes)
    for index, values in known.items():
        draft.set_values(index, values)
    # one without results, such as ASSIGN_VARIABLE, is there for what it does
    draft.graph.operators = [
        one for one in operators if not outputs_of(one) or not {*outputs_of(one)} <= known.keys()
    ]
    return len(draft.graph.operators) < len(operators)


def _is_constant(draft: Draft, operator: Any) -> bool:
    """Say whether an operator gives the same few numbers whatever the model's inputs are."""
    inputs, outputs = inputs_of(operator), outputs_of(operator)
    return (
        draft.kind(operator) in _FOLDED.split()
        and bool(inputs)
        and all(draft.is_constant(index) for index in inputs)
        and all(draft.dtype(index) in _TYPES for index in (*inputs, *outputs))
        and all(int(np.prod(draft.shape(index), dtype=np.int64)) <= MOST_VALUES for index in outputs)
        and not {*outputs} & {*draft.graph.outputs}
    )


def _unsure(draft: Draft) -> set[int]:
    """Give the tensors whose shape depends on a computed one."""
    found: set[int] = set()
    for one in draft.graph.operators:
        kind, inputs = draft.kind(one), list(one.inputs)
        places = SHAPE_INPUTS.get(kind, ())
        sizes = [inputs[place] for place in places if place < len(inputs) and inputs[place] >= 0]
        if kind in _UNSURE or any(not draft.is_constant(index) for index in sizes) or found & {*inputs}:
            found.update(outputs_of(one))
    return found


def _shapes(draft: Draft) -> list[tuple[int, ...]] | None:
    """Give every tensor's shape as LiteRT lays the model out; ``None``: it cannot."""
    model = content(draft)
    shapes = [draft.shape(index) for index in range(len(draft.graph.tensors))]
    return guarded(_STEP, lambda: _laid_out(model, shapes))


def _laid_out(model: bytes, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]] | None:
    engine = _engine(model)
    if engine is None:
        return None
    for item in engine.get_tensor_details():
        if item["index"] < len(shapes):
            shapes[item["index"]] = tuple(int(side) for side in item["shape"])
    return shapes


def _store(draft: Draft, shapes: Sequence[tuple[int, ...]] | None) -> None:
    """Write down shapes that are sure: a file says 1 where it does not know."""
    unsure = _unsure(draft)
    for index, shape in enumerate(shapes or ()):
        if index not in unsure and not draft.is_constant(index):
            draft.tensor(index).shape = list(shape)


def _evaluated(draft: Draft, operators: Sequence[Any]) -> dict[int, Array]:
    """Give what operators compute that read nothing but constants, by running them alone."""
    wanted = [index for one in operators for index in outputs_of(one)]
    if not wanted:
        return {}
    model = content(draft.part(operators, [], wanted))
    return guarded(_STEP, lambda: _computed(model, wanted))


def _computed(model: bytes, wanted: Sequence[int]) -> dict[int, Array]:
    engine = _engine(model)
    if engine is None:
        return {}
    try:
        engine.invoke()
    except RuntimeError:  # a division by zero, say: left to the model
        return {}
    values = [engine.get_tensor(port["index"]) for port in engine.get_output_details()]
    return {
        index: value.copy()
        for index, value in zip(wanted, values, strict=True)
        if value.size <= MOST_VALUES and str(value.dtype) in TYPES
    }


def _engine(model: bytes) -> Any | None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        engine = Interpreter(
            model_content=model,
            num_threads=1,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        engine.allocate_tensors()
    except (RuntimeError, ValueError):
        return None
    return engine
