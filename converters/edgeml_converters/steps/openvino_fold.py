"""IR as Keras writes it, made what OpenVINO's own readers give: constant weights, no needless transposes.

Keras keeps its weights in its own layout behind operators that turn them, and every convolution between
two transposes. Quantizers look for weights that are constants, and OpenVINO fuses a batch norm only into
a convolution that stands right before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

_ELEMENTWISE: Final = frozenset(
    {
        *("Abs", "Clamp", "Convert", "Elu", "Exp", "Gelu", "HSigmoid", "HSwish", "Mish", "Negative", "Relu"),
        *("Sigmoid", "SoftPlus", "SoftSign", "Sqrt", "Swish", "Tanh"),
        *("Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract"),
    }
)


def fold(model: Any) -> None:
    """Simplify an ``openvino.Model`` with static shapes in its place; what it computes stays."""
    # what `openvino.convert_model` runs; it has no public name for a model that is read already
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(model, cf=True)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Transpose":
            _merge(node)
        elif not _ends(node):
            _sink(node)
    model.validate_nodes_and_infer_types()
    apply_moc_transformations(model, cf=True)


def _merge(node: Any) -> None:
    """Let a transpose that follows another one do the work of both, or go if they cancel."""
    before, order = _transposed(node.input_value(0)), _order(node)
    if before is None or order is None:
        return
    source, first = before
    both = [first[axis] for axis in order]
    node.input(0).replace_source_output(source)
    node.input(1).replace_source_output(_constant(both))
    if both == sorted(both) and not _ends(node):
        for port in node.output(0).get_target_inputs():
            port.replace_source_output(source)


def _sink(node: Any) -> None:
    """Move the transposes before an operator behind it, where it does the same on the turned tensor."""
    kind = node.get_type_name()
    found = [_transposed(value) for value in node.input_values()]
    orders = [one[1] for one in found if one is not None]
    if not orders or any(order != orders[0] for order in orders):
        return
    order = orders[0]
    if kind in _ELEMENTWISE:
        values = [
            one[0] if one is not None else _turned(value, order)
            for one, value in zip(found, node.input_values(), strict=True)
        ]
    elif kind == "Concat" and all(found):
        values = [one[0] for one in found if one is not None]
        axis = node.get_attributes()["axis"]
        node.set_attribute("axis", order[axis])
    elif kind == "Pad" and found[0] is not None:
        begin, end = (_turned_list(node.input_value(port), order) for port in (1, 2))
        values = [found[0][0], begin, end, *node.input_values()[3:]]
    else:
        return
    if any(value is None for value in values):
        return
    for port, value in zip(node.inputs(), values, strict=True):
        port.replace_source_output(value)
    _put_behind(node, order)


def _put_behind(node: Any, order: Sequence[int]) -> None:
    from openvino import opset13

    followers = list(node.output(0).get_target_inputs())
    node.validate_and_infer_types()
    turned = opset13.transpose(node.output(0), _constant(order)).output(0)
    for port in followers:
        port.replace_source_output(turned)


def _ends(node: Any) -> bool:
    """Say whether an output of the model is taken here: its name and layout stay where they are."""
    return any(
        port.get_node().get_type_name() == "Result"
        for output in node.outputs()
        for port in output.get_target_inputs()
    )


def _transposed(value: Any) -> tuple[Any, list[int]] | None:
    """Give what is transposed and how, if the value comes from a transpose with constant axes."""
    node = value.get_node()
    order = _order(node) if node.get_type_name() == "Transpose" else None
    return None if order is None else (node.input_value(0), order)


def _order(node: Any) -> list[int] | None:
    axes = node.input_value(1).get_node()
    found = [int(axis) for axis in axes.data.flatten()] if axes.get_type_name() == "Constant" else []
    return found or None


def _turned(value: Any, order: Sequence[int]) -> Any:
    """Give a constant as it has to be before a transpose; None if it is none."""
    from openvino import opset13

    node = value.get_node()
    if node.get_type_name() != "Constant" or node.data.ndim > len(order):
        return None
    if node.data.size == 1:
        return value
    full = node.data.reshape((1,) * (len(order) - node.data.ndim) + node.data.shape)
    back = sorted(range(len(order)), key=lambda position: order[position])
    return opset13.constant(full.transpose(back).copy()).output(0)


def _turned_list(value: Any, order: Sequence[int]) -> Any:
    """Give a constant with one number per axis in the order before a transpose; None if it is none."""
    node = value.get_node()
    if node.get_type_name() != "Constant" or node.data.size != len(order):
        return None
    before = [0] * len(order)
    for position, axis in enumerate(order):
        before[axis] = int(node.data[position])
    return _constant(before)


def _constant(values: Sequence[int]) -> Any:
    import numpy as np
    from openvino import opset13

    return opset13.constant(np.array(values, np.int64)).output(0)
