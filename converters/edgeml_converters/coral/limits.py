"""The tests that the rules consist of; each looks at one operator and gives an objection or none.

Where they come from is said in ``rules``. Numbers are of elements or bytes of 8-bit tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Final

from edgeml.figures import shorten
from edgeml_converters.coral.graph import Graph, Operator, Tensor
from edgeml_converters.coral.reasons import CONST, DTYPE, LIMIT, RANK, UNKNOWN, UNSUPPORTED, Objection

TILE_BYTES: Final = 192 * 1024
"""Memory of one tile for activations: compiled models reach it and never exceed it."""
TILE_ROWS: Final = 4
"""Tiles stand in 4 rows of 4; y is spread over the rows."""
SOFTMAX_MOST: Final = 16_384
MEAN_SEEN: Final = 8_192
MEAN_REFUSED: Final = 32_768
RESIZE_SEEN: Final = 2.0
RESIZE_REFUSED: Final = 15.5
_NAME_CHARACTERS: Final = 60
"""Converters glue the names of all that they fused together."""
_IMAGE_RANK: Final = 4
"""Batch, y, x, channels."""
_EIGHT_BITS: Final = frozenset({"int8", "uint8"})
_DATA: Final = _EIGHT_BITS | {"int16", "float32"}
_SMALLER: Final = "make the model's input smaller, or cut the model before this operator"
_CUT: Final = "cut the model before this operator and do the rest on the CPU"
REWRITE: Final = " (edgeml coral rewrite)"
_SHAPES: Final = frozenset({"int32", "int64", "bool"})
_STATIC: Final = (
    "fix the model's shapes (a batch of 1), so that nothing computes them (edgeml coral rewrite), "
    "or leave it outside"
)
_QUANTIZE: Final = "quantize the whole model to int8, or leave this operator outside it"


@dataclass(frozen=True, slots=True)
class Node:
    """An operator with the tensors around it."""

    graph: Graph
    operator: Operator

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs that are there."""
        return tuple(self.graph.tensors[one] for one in self.operator.inputs if one >= 0)

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What it computes."""
        return tuple(self.graph.tensors[one] for one in self.operator.outputs)

    @property
    def computed(self) -> tuple[Tensor, ...]:
        """The inputs that are no constants."""
        return tuple(one for one in self.inputs if not one.is_constant)

    @property
    def data(self) -> tuple[Tensor, ...]:
        """What has to lie in the Edge TPU's memory: inputs that are numbers of the model, and outputs."""
        return (*(one for one in self.computed if one.dtype in _DATA), *self.outputs)

    def input(self, place: int) -> Tensor | None:
        """Give an input by its place; ``None`` if it is left out."""
        found = self.operator.inputs[place] if place < len(self.operator.inputs) else -1
        return self.graph.tensors[found] if found >= 0 else None

    def option(self, name: str) -> int:
        """Give an option that ``graph`` reads for this kind of operator."""
        return self.operator.options[name]

    def axes(self, place: int, rank: int) -> frozenset[int] | None:
        """Give the axes in a constant input, none of them negative; ``None`` if they are not known."""
        found = self.input(place)
        if found is None or not found.values or not rank:
            return None
        return frozenset(axis % rank for axis in found.values)


SHAPE_INPUTS: Final[Mapping[str, tuple[int, ...]]] = {
    "BROADCAST_TO": (1,),
    "FILL": (0,),
    "PAD": (1,),
    "RESHAPE": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
    "TILE": (1,),
    "TRANSPOSE_CONV": (0,),
}
"""Inputs that say how large the result is."""
Test = Callable[[Node], Objection | None]


def described(tensor: Tensor) -> str:
    """Name a tensor with its type and shape."""
    return f"{tensor.dtype} tensor {shorten(tensor.name, _NAME_CHARACTERS)!r} {list(tensor.shape)}"


def computes_shape(node: Node) -> bool:
    """Say whether the shape of a result is only known while the model runs."""
    given = [node.input(place) for place in SHAPE_INPUTS.get(node.operator.kind, ())]
    return any(one is not None and not one.is_constant for one in given)


# --- of every operator


def float_quantize(node: Node) -> Objection | None:
    """Refuse what turns the floats of a caller into integers."""
    if not any(one.dtype == "float32" for one in node.inputs):
        return None
    cause = "it turns the float32 of the caller into integers, which the CPU does"
    return Objection(LIMIT, cause, f"give the model an int8 or uint8 input{REWRITE}", "inferred")


def eight_bits(node: Node) -> Objection | None:
    """Refuse tensors that are not held in 8 bits."""
    return _types(node, _EIGHT_BITS)


def eight_bits_and_states(node: Node) -> Objection | None:
    """Refuse tensors that are not held in 8 bits, or 16 as an LSTM's states are."""
    return _types(node, _EIGHT_BITS | {"int16"})


def _types(node: Node, taken: frozenset[str]) -> Objection | None:
    wrong = next((one for one in (*node.computed, *node.outputs) if one.dtype not in taken), None)
    if wrong is None:
        return None
    remedy = _STATIC if wrong.dtype in _SHAPES else _QUANTIZE
    return Objection(DTYPE, f"{described(wrong)} is not held in 8 bits", remedy)


def leading_dimensions(node: Node) -> Objection | None:
    """Refuse tensors that have more than three dimensions other than 1."""
    wrong = next((one for one in node.data if one.leading > 1), None)
    if wrong is None:
        return None
    remedy = "make the batch 1" if len(wrong.shape) == _IMAGE_RANK else "use at most 4 dimensions, batch 1"
    return Objection(RANK, f"{described(wrong)} has more than its three last dimensions", remedy)


def one_row(node: Node) -> Objection | None:
    """Refuse a tensor of one row that one tile cannot hold: only y is spread over the tiles."""
    wrong = next((one for one in node.data if one.yxz[0] == 1 and one.elements > TILE_BYTES), None)
    if wrong is None:
        return None
    cause = f"{described(wrong)} is a single row of {wrong.elements} values; a tile holds {TILE_BYTES}"
    return Objection(LIMIT, cause, _SMALLER, "inferred")


# --- of single operators


def constant_parameters(node: Node) -> Objection | None:
    """Refuse weights and biases that are computed."""
    return _constants(node, range(1, len(node.operator.inputs)))


def constant_shape_and_weights(node: Node) -> Objection | None:
    """Refuse a transposed convolution whose weights or output shape are computed."""
    return _constants(node, range(2))


def _constants(node: Node, places: range) -> Objection | None:
    for place in places:
        found = node.input(place)
        if found is not None and not found.is_constant:
            return Objection(
                CONST, f"{described(found)} is computed", "make weights, biases and shapes constants", "weak"
            )
    return None


def no_fused_activation(node: Node) -> Objection | None:
    """Refuse an activation inside the operator."""
    if not node.option("fused_activation"):
        return None
    return Objection(
        LIMIT, "an activation is fused into it", f"make the activation an operator of its own{REWRITE}"
    )


def constant_inputs(node: Node) -> Objection | None:
    """Refuse a concatenation of more than two inputs one of which is a constant."""
    if len(node.computed) == len(node.inputs):
        return None
    remedy = "concatenate without the constant, or pad"
    if len(node.inputs) > 2:  # noqa: PLR2004 - the documented limit
        return Objection(LIMIT, "it has a constant among more than two inputs", remedy)
    return Objection(UNKNOWN, "it has a constant input, which has to be all zero", remedy, "unknown")


def dilation(node: Node) -> Objection | None:
    """Refuse a kernel of two dimensions that is dilated differently in each."""
    x, y = node.option("dilation_x"), node.option("dilation_y")
    weights = node.input(1)
    if x == y or weights is None or min((1, 1, *weights.shape)[-3:-1]) <= 1:
        return None
    cause = f"its kernel is dilated by {y} in y and {x} in x"
    return Objection(LIMIT, cause, "use the same dilation in both", "inferred")


def groups(node: Node) -> Objection | None:
    """Say that grouped convolutions are not known: the compiler is older than they are."""
    source, weights = node.input(0), node.input(1)
    if source is None or weights is None or source.yxz[2] == weights.yxz[2]:
        return None
    cause = f"its filters see {weights.yxz[2]} of {source.yxz[2]} channels"
    return Objection(UNKNOWN, cause, f"make each group a convolution of its own{REWRITE}", "unknown")


def fully_connected(node: Node) -> Objection | None:
    """Refuse other weight formats than the default, and more than one row of output."""
    if node.option("weights_format"):
        return Objection(LIMIT, "its weights are stored in a shuffled format", "convert the model again")
    rows = prod(node.outputs[0].shape[:-1]) if node.outputs else 1
    if rows <= 1:
        return None
    cause = f"it computes {rows} rows, {described(node.outputs[0])}"
    return Objection(LIMIT, cause, "make the batch 1, or say it as a 1×1 convolution")


def mean(node: Node) -> Objection | None:
    """Refuse a mean over the batch, over channels that are no multiple of 4, or over too many values."""
    source = node.input(0)
    axes = node.axes(1, len(source.shape)) if source is not None else None
    if source is not None and axes and len(source.shape) - 1 in axes and source.yxz[2] % 4:
        cause = f"it reduces {source.yxz[2]} channels"
        return Objection(LIMIT, cause, "make their number a multiple of 4")
    return reduction(node)


def reduction(node: Node) -> Objection | None:
    """Refuse a reduction over the batch or over too many values; between two limits it is not known."""
    source = node.input(0)
    if source is None:
        return None
    rank = len(source.shape)
    axes = node.axes(1, rank)
    if axes is None:
        return Objection(UNKNOWN, "its axes are not constant", "make them constants", "unknown")
    if rank == _IMAGE_RANK and 0 in axes:
        return Objection(LIMIT, "it reduces the batch", "reduce the other axes only")
    values = prod(source.shape[axis] for axis in axes)
    if values <= MEAN_SEEN:
        return None
    cause = f"it reduces {values} values to one"
    if values >= MEAN_REFUSED:
        return Objection(LIMIT, cause, "pool first, so that it is 8192 at most", "weak")
    return Objection(UNKNOWN, cause, "pool first, so that it is 8192 at most", "unknown")


def pack(node: Node) -> Objection | None:
    """Refuse what makes a tensor of five dimensions, or stacks along the first."""
    rank = len(node.outputs[0].shape) if node.outputs else 0
    axis = node.option("axis") % rank if rank else 0
    if rank > _IMAGE_RANK or (rank == _IMAGE_RANK and axis == 0):
        cause = f"it makes {rank} dimensions along axis {axis}"
        return Objection(LIMIT, cause, "concatenate instead", "weak")
    return None


def padding(node: Node) -> Objection | None:
    """Refuse to pad the batch."""
    source, given = node.input(0), node.input(1)
    if source is None or given is None or len(source.shape) != _IMAGE_RANK or not any(given.values[:2]):
        return None
    return Objection(LIMIT, "it pads the batch", "pad the other dimensions only")


def slope(node: Node) -> Objection | None:
    """Refuse slopes that differ by more than the channel."""
    found = node.input(1)
    if found is None or prod(found.shape[:-1]) <= 1:
        return None
    return Objection(LIMIT, f"its slopes are {list(found.shape)}", "share them over y and x", "weak")


def reshape(node: Node) -> Objection | None:
    """Refuse what a tile cannot hold while only y is spread over the rows of tiles."""
    for one in (*node.computed, *node.outputs):
        y, x, z = one.yxz
        needs = ceil(y / TILE_ROWS) * x * z
        if needs > TILE_BYTES:
            cause = f"{described(one)} needs {needs} bytes of a tile's {TILE_BYTES}"
            return Objection(LIMIT, cause, _SMALLER, "inferred")
    return None


def transpose(node: Node) -> Objection | None:
    """Refuse what does not fit a tile twice, as source and as result."""
    for one in node.outputs:
        if 2 * one.elements > TILE_BYTES:
            cause = f"{described(one)} has {one.elements} values; {TILE_BYTES // 2} are transposed at most"
            return Objection(LIMIT, cause, f"export in the other layout, or {_CUT}", "inferred")
    return None


def resize(node: Node) -> Objection | None:
    """Refuse to enlarge much; doubling is known to map, between that and 15.5 nothing is known."""
    if not node.inputs or not node.outputs:
        return None
    pairs = zip(node.outputs[0].yxz[:2], node.inputs[0].yxz[:2], strict=True)
    scale = [after / before if before > 0 else 0.0 for after, before in pairs]
    if all(1 <= one <= RESIZE_SEEN for one in scale):
        return None
    cause = f"it resizes by {scale[0]:.3g} in y and {scale[1]:.3g} in x"
    remedy = "resize in steps of 2, or after the model"
    if max(scale) >= RESIZE_REFUSED:
        return Objection(LIMIT, cause, remedy, "weak")
    return Objection(UNKNOWN, cause, remedy, "unknown")


def softmax(node: Node) -> Objection | None:
    """Refuse long vectors."""
    length = max((one.yxz[2] for one in node.data), default=0)
    if length <= SOFTMAX_MOST:
        return None
    return Objection(LIMIT, f"it is over {length} values; {SOFTMAX_MOST} at most", _CUT, "inferred")


def split(node: Node) -> Objection | None:
    """Refuse to split the outermost dimension."""
    source = node.input(1)
    axes = node.axes(0, len(source.shape)) if source is not None else None
    if source is None or len(node.outputs) <= 1 or len(source.shape) <= 1:
        return None
    if axes is None:
        return Objection(UNKNOWN, "its axis is not constant", "make it a constant", "unknown")
    if 0 not in axes:
        return None
    cause = f"it splits {described(source)} along axis 0"
    return Objection(LIMIT, cause, "put the batch of 1 first", "weak")


def strided_slice(node: Node) -> Objection | None:
    """Refuse strides other than 1, and masks that change the rank."""
    strides = node.input(3)
    if strides is not None and any(one != 1 for one in strides.values):
        return Objection(LIMIT, f"its strides are {list(strides.values)}", "use strides of 1")
    if node.option("ellipsis_mask") or node.option("new_axis_mask"):
        return Objection(LIMIT, "it has an ellipsis or a new axis", "name all dimensions and reshape")
    return None


def not_seen(_: Node) -> Objection | None:
    """Say that Coral documents the operator, and that no compiled model shows it."""
    cause = "Coral lists it as supported, and no compiled model shows it"
    return Objection(UNKNOWN, cause, "compile the model, and look at it with edgeml coral inspect", "unknown")


REPLACEMENTS: Final[Mapping[str, str]] = {
    "LEAKY_RELU": "use RELU or RELU6",
    "HARD_SWISH": "use RELU6",
    "ARG_MAX": "leave it outside the model, the CPU does it with the result",
    "DIV": "multiply by the inverse",
    "UNPACK": "use SPLIT along another axis than the first, and RESHAPE",
    "BATCH_MATMUL": "use FULLY_CONNECTED or CONV_2D with constant weights",
    "SQRT": "leave it outside the model",
}


def unsupported(node: Node) -> Objection:
    """Give the objection to an operator that the Edge TPU does not have."""
    kind = node.operator.kind
    if kind == "CUSTOM":
        name = shorten(node.operator.custom_code, _NAME_CHARACTERS)
        cause = f"{name!r} is a custom operator"
        return Objection(DTYPE, cause, "leave it at the model's end, where the CPU runs it", "inferred")
    if kind == "DEQUANTIZE":
        return Objection(
            DTYPE,
            "it turns integers into float32",
            f"give the model int8 or uint8 outputs{REWRITE}",
            "inferred",
        )
    cause = f"the Edge TPU has no {kind}"
    return Objection(UNSUPPORTED, cause, REPLACEMENTS.get(kind, f"replace it, or {_CUT}"))
