"""ONNX files made ready for any tool: one file, opset 13 or newer, static shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgeml.errors import ConversionError, ModelFileError
from edgeml.tensors import Shape
from edgeml_converters.steps.step import check_shape_names, first_line, fixed_shape

OPSET_MIN: Final = 13
"""The first opset whose QuantizeLinear has an axis: quantizers write unloadable files below it."""
OPSET_RAISED: Final = 17
"""What an older model is raised to: read by every engine we pin, and before operators changed again."""


def prepare(source: Path, target: Path, input_shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Write ``source`` to ``target`` as one file of opset ≥ 13 with static inputs; gives what was changed.

    Raises:
        ModelFileError: not an ONNX model, or a part of it is missing.
        ConversionError: a free dimension without a size, or an opset that cannot be raised.
    """
    import onnx

    model = read(source)
    model, raised = _raise_opset(model, source)
    notes = [*raised, *_freeze(model, input_shapes)]
    onnx.save_model(model, str(target))
    return tuple(notes)


def read(path: Path) -> Any:
    """Give the ``ModelProto`` with its external data inside.

    Raises:
        ModelFileError: not an ONNX model, or a part of it is missing.
    """
    import onnx

    try:
        model = onnx.load_model(str(path))
    except FileNotFoundError as error:
        raise ModelFileError(
            f"{path}: a file with its weights is missing: {error.filename or error}"
        ) from error
    except Exception as error:
        raise ModelFileError(f"{path} is damaged: {first_line(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise ModelFileError(f"{path} is not an ONNX model, or an empty one")
    return model


def input_ports(model: Any) -> list[Any]:
    """Give the real inputs: old files list their weights among them."""
    weights = {item.name for item in model.graph.initializer}
    return [item for item in model.graph.input if item.name not in weights]


def shape_of(port: Any) -> Shape:
    """Give a port's shape, ``None`` for a free dimension (0 is how some exporters write one)."""
    sides = port.type.tensor_type.shape.dim
    return tuple(side.dim_value if side.dim_value > 0 else None for side in sides)


def _raise_opset(model: Any, source: Path) -> tuple[Any, list[str]]:
    from onnx import version_converter

    opset = next((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), OPSET_MIN)
    if opset >= OPSET_MIN:
        return model, []
    try:
        return (
            version_converter.convert_version(model, OPSET_RAISED),
            [f"opset {opset}: upgraded to {OPSET_RAISED}"],
        )
    except Exception as error:
        raise ConversionError(
            f"{source.name} has opset {opset}, which cannot be raised to {OPSET_RAISED}: {first_line(error)}; "
            f"export the model again with opset {OPSET_MIN} or newer"
        ) from error


def _freeze(model: Any, input_shapes: Mapping[str, Shape]) -> list[str]:
    import onnx

    ports = input_ports(model)
    check_shape_names(dict(input_shapes), [port.name for port in ports])
    notes: list[str] = []
    for port in ports:
        own = shape_of(port)
        fixed = fixed_shape(port.name, own, dict(input_shapes), only=len(ports) == 1)
        if None in own:
            for side, size in zip(port.type.tensor_type.shape.dim, fixed, strict=True):
                side.dim_value = size
            notes.append(f"input {port.name}: shape fixed to {list(fixed)}")
    if notes:
        # what was inferred for the free shape would contradict the fixed one
        del model.graph.value_info[:]
        for port in model.graph.output:
            port.type.tensor_type.ClearField("shape")
        model.CopyFrom(onnx.shape_inference.infer_shapes(model))
    return notes
