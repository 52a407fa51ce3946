"""Whether the Edge TPU compiler takes an operator, looked at by itself.

Sources: Coral's list of operators (coral.ai, "TensorFlow models on the Edge TPU"), the notes of its
compiler's releases, and what real compiled models and the compiler's own logs show; each objection says
which. The first that is raised is the compiler's reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgeml_converters.coral import limits
from edgeml_converters.coral.graph import CUSTOM, Graph, Operator
from edgeml_converters.coral.limits import Node, Test
from edgeml_converters.coral.reasons import UNKNOWN, VERSION, Objection

RAISES_CODES_FROM: Final = 150
"""Builtin codes from here on stop the compiler: "Op builtin_code out of range"."""
_SEEN_VERSION: Final = 2


@dataclass(frozen=True, slots=True)
class Rule:
    """What is known of a kind of operator that the Edge TPU has."""

    own: tuple[Test, ...] = ()
    """Tests of this operator, after those of all."""
    constants: tuple[Test, ...] = ()
    """What has to be constant: tested before shapes are."""
    first: tuple[Test, ...] = ()
    types: Test = limits.eight_bits
    is_spread: bool = False
    """Its tensors are spread over tiles in x, too: one row may be longer than a tile."""
    seen_version: int = _SEEN_VERSION
    """The highest version in a compiled model."""


_UNSEEN: Final = Rule(own=(limits.not_seen,))
_REDUCTION: Final = Rule(own=(limits.reduction, limits.not_seen))
RULES: Final[Mapping[str, Rule]] = {
    "ADD": Rule(),
    "AVERAGE_POOL_2D": Rule(own=(limits.no_fused_activation,), is_spread=True),
    "CONCATENATION": Rule(own=(limits.no_fused_activation, limits.constant_inputs)),
    "CONV_2D": Rule(
        own=(limits.dilation, limits.groups),
        constants=(limits.constant_parameters,),
        is_spread=True,
        seen_version=3,
    ),
    "DEPTHWISE_CONV_2D": Rule(
        own=(limits.dilation,), constants=(limits.constant_parameters,), is_spread=True, seen_version=3
    ),
    "EXPAND_DIMS": _UNSEEN,
    "FULLY_CONNECTED": Rule(
        own=(limits.fully_connected,),
        constants=(limits.constant_parameters,),
        is_spread=True,
        seen_version=4,
    ),
    "L2_NORMALIZATION": Rule(),
    "LOGISTIC": Rule(),
    "MAXIMUM": Rule(),
    "MAX_POOL_2D": Rule(own=(limits.no_fused_activation,), is_spread=True),
    "MEAN": Rule(own=(limits.mean,)),
    "MINIMUM": _UNSEEN,
    "MUL": Rule(),
    "PACK": Rule(own=(limits.pack, limits.not_seen)),
    "PAD": Rule(own=(limits.padding,), is_spread=True),
    "PRELU": Rule(own=(limits.slope, limits.not_seen)),
    "QUANTIZE": Rule(first=(limits.float_quantize,)),
    "REDUCE_MAX": _REDUCTION,
    "REDUCE_MIN": _REDUCTION,
    "RELU": _UNSEEN,
    "RELU6": _UNSEEN,
    "RELU_N1_TO_1": _UNSEEN,
    "RESHAPE": Rule(own=(limits.reshape,)),
    "RESIZE_BILINEAR": Rule(own=(limits.resize,), seen_version=3),
    "RESIZE_NEAREST_NEIGHBOR": Rule(own=(limits.resize,), seen_version=3),
    "RSQRT": _UNSEEN,
    "SLICE": _UNSEEN,
    "SOFTMAX": Rule(own=(limits.softmax,)),
    "SPACE_TO_DEPTH": _UNSEEN,
    "SPLIT": Rule(own=(limits.split,)),
    "SQUARED_DIFFERENCE": _UNSEEN,
    "SQUEEZE": _UNSEEN,
    "STRIDED_SLICE": Rule(own=(limits.strided_slice,)),
    "SUB": Rule(),
    "SUM": Rule(own=(limits.reduction,)),
    "TANH": Rule(),
    "TILE": Rule(),
    "TRANSPOSE": Rule(own=(limits.transpose,)),
    "TRANSPOSE_CONV": Rule(own=(limits.not_seen,), constants=(limits.constant_shape_and_weights,)),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Rule(types=limits.eight_bits_and_states),
}
"""The operators that the Edge TPU has."""
REFUSED_VERSIONS: Final[Mapping[str, int]] = {
    "CONV_2D": 6,
    "DEPTHWISE_CONV_2D": 7,
    "EXP": 2,
    "FILL": 3,
    "FULLY_CONNECTED": 10,
    "QUANTIZE": 3,
    "TRANSPOSE_CONV": 4,
}
"""From these versions on the compiler cannot read the model: its TensorFlow is of the middle of 2021."""


def objection(graph: Graph, operator: Operator) -> Objection | None:
    """Say why the compiler does not take an operator; ``None``: it does.

    An objection may also say that it is not known: see :attr:`Objection.is_certain`.
    """
    node = Node(graph, operator)
    if fatal(operator) is not None:
        return _refused_version(operator)
    rule = RULES.get(operator.kind)
    if rule is None:
        return limits.unsupported(node)
    tests: tuple[Test, ...] = (*rule.first, rule.types, *rule.constants, limits.leading_dimensions)
    tests += rule.own if rule.is_spread else (limits.one_row, *rule.own)
    for test in tests:
        found = test(node)
        if found is not None:
            return found
    if operator.version > rule.seen_version:
        cause = f"it is of version {operator.version}; compiled models have {rule.seen_version} at most"
        return Objection(
            UNKNOWN, cause, f"export the model for an older TensorFlow Lite{limits.REWRITE}", "unknown"
        )
    return None


def fatal(operator: Operator) -> str | None:
    """Give the compiler's message where this operator keeps it from reading the model at all."""
    if operator.kind != CUSTOM and operator.code >= RAISES_CODES_FROM:
        return f"Op builtin_code out of range: {operator.code}"
    limit = REFUSED_VERSIONS.get(operator.kind)
    if limit is None or operator.version < limit:
        return None
    return f"ERROR: Didn't find op for builtin opcode '{operator.kind}' version '{operator.version}'"


def _refused_version(operator: Operator) -> Objection:
    if operator.code >= RAISES_CODES_FROM:
        cause = f"{operator.kind} is newer than the compiler"
        return Objection(VERSION, cause, "replace it, or cut the model before it", "inferred")
    most = REFUSED_VERSIONS[operator.kind] - 1
    cause = f"it is of version {operator.version}; the compiler reads {most} at most"
    remedy = {
        "CONV_2D": f"make each group a convolution of its own{limits.REWRITE}; no int4 and int16",
        "TRANSPOSE_CONV": f"make the fused activation an operator of its own{limits.REWRITE}",
    }.get(operator.kind, f"export the model for an older TensorFlow Lite{limits.REWRITE}")
    return Objection(VERSION, cause, remedy, "inferred")
