"""ONNX files made ready for any tool: one file, opset 13 or newer, static shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeml.engine_text import engine_text
from edgeml.errors import ConversionError, ModelFileError
from edgeml.tensors import Shape
from edgeml_converters.formats.shapes import fixed_shapes

STANDARD_DOMAIN: Final = "ai.onnx"
ML_DOMAIN: Final = "ai.onnx.ml"
"""Operators of classical machine learning; ONNX Runtime alone of our engines has them."""
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
        raise ModelFileError(f"{path} is damaged: {engine_text(error)}") from error
    if not model.graph.node and not model.graph.output:
        raise ModelFileError(f"{path} is not an ONNX model, or an empty one")
    return model


def unknown_operators(path: Path) -> dict[str, str]:
    """Give the operators that are not ONNX's own, each with its domain and the first node that uses it.

    Empty as well where the file cannot be read: this is asked for after an engine refused the model.
    """
    try:
        import onnx

        model = onnx.load_model(str(path), load_external_data=False)
    except Exception:  # noqa: BLE001 - the engine's own words have to do
        return {}
    opsets = {item.domain or STANDARD_DOMAIN: item.version for item in model.opset_import}
    functions = {(item.domain, item.name) for item in model.functions}
    found: dict[str, str] = {}
    for node in model.graph.node:
        domain = node.domain or STANDARD_DOMAIN
        inside = "" if domain == STANDARD_DOMAIN else domain
        if (node.domain, node.op_type) in functions or onnx.defs.has(
            node.op_type, opsets.get(domain, 1), inside
        ):
            continue
        place = repr(node.name) if node.name else f"that gives {', '.join(node.output)}"
        version = f", opset {opsets[domain]}" if domain in opsets else ""
        found.setdefault(node.op_type, f"{node.op_type} (domain {domain}{version}, node {place})")
    return found


def operators(path: Path, domain: str) -> frozenset[str]:
    """Give the operators of a domain that a model uses; none where the file cannot be read."""
    try:
        import onnx

        model = onnx.load_model(str(path), load_external_data=False)
    except Exception:  # noqa: BLE001 - the engine that gets the file next says what it is
        return frozenset()
    return frozenset(node.op_type for node in model.graph.node if node.domain == domain)


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: its name and its shape."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Ports:
    """A model's signature."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def simplify(path: Path) -> Ports:
    """Fold what is constant once the shapes are static, in place; gives the signature.

    Graphs that compute their shapes at run time lose them in other formats otherwise.
    """
    import onnx
    import onnxslim

    model = onnxslim.slim(onnx.load_model(str(path)))
    onnx.save_model(model, str(path))
    return Ports(
        tuple(Port(item.name, shape_of(item)) for item in input_ports(model)),
        tuple(Port(item.name, shape_of(item)) for item in model.graph.output),
    )


def rename(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give a model's inputs and outputs, in order, these names; in place.

    Raises:
        ConversionError: the model has another number of inputs or outputs.
    """
    import onnx

    model = onnx.load_model(str(path))
    ports = [item.name for item in input_ports(model)], [item.name for item in model.graph.output]
    if (len(ports[0]), len(ports[1])) != (len(inputs), len(outputs)):
        raise ConversionError(
            f"{path.name} has {len(ports[0])} inputs and {len(ports[1])} outputs, "
            f"its source has {len(inputs)} and {len(outputs)}"
        )
    new = dict(zip(ports[0] + ports[1], [*inputs, *outputs], strict=True))
    for item in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        item.name = new.get(item.name, item.name)
    for node in model.graph.node:
        for side in (node.input, node.output):
            side[:] = [new.get(name, name) for name in side]
    onnx.save_model(model, str(path))


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
            f"{source.name} has opset {opset}, which cannot be raised to {OPSET_RAISED}: "
            f"{engine_text(error)}; "
            f"export the model again with opset {OPSET_MIN} or newer"
        ) from error


def _freeze(model: Any, input_shapes: Mapping[str, Shape]) -> list[str]:
    import onnx

    ports = input_ports(model)
    if len(ports) < len(model.graph.input):
        # weights listed as inputs could be replaced by a caller, so engines do not fold them
        kept = [type(port).FromString(port.SerializeToString()) for port in ports]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        ports = list(model.graph.input)
    shapes = fixed_shapes({port.name: shape_of(port) for port in ports}, input_shapes)
    notes: list[str] = []
    for port in ports:
        fixed = shapes[port.name]
        if None in shape_of(port):
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
