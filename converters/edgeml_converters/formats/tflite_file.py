"""TFLite files read and edited with the flatbuffer tools that ship with LiteRT; no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from edgeml.errors import ConversionError, ModelFileError
from edgeml.tensors import Quantization, Shape
from edgeml_converters.formats.shapes import fixed_shapes

SIGNATURE_KEY: Final = "serving_default"
"""The key a model without a signature gets; what TensorFlow calls its only signature."""
_OLD_CODE_MAX: Final = 127
"""PLACEHOLDER_FOR_GREATER_OP_CODES in TFLite's schema: the kind stands in the new field alone."""


class HasShape(Protocol):
    """A named tensor of the source."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Shape: ...


@dataclass(frozen=True, slots=True)
class Names:
    """Input and output names in the order of the model's tensors."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def names(path: Path) -> Names:
    """Give the names that callers use: the only signature's if it covers the model, else the tensors'."""
    return _names(_read(path))


def stored(path: Path) -> dict[str, Quantization]:
    """Give the 8-bit inputs and outputs by name, with what their integers stand for."""
    from ai_edge_litert import schema_py_generated as schema

    model = _read(path)
    graph, found = model.subgraphs[0], _names(model)
    result: dict[str, Quantization] = {}
    for side, indices in ((found.inputs, graph.inputs), (found.outputs, graph.outputs)):
        for name, index in zip(side, indices, strict=True):
            tensor = graph.tensors[index]
            given = tensor.quantization
            eight_bits = tensor.type in {schema.TensorType.INT8, schema.TensorType.UINT8}
            if eight_bits and given is not None and given.scale is not None and len(given.scale) == 1:
                result[name] = Quantization((float(given.scale[0]),), (int(given.zeroPoint[0]),))
    return result


def with_old_codes(source: Path, target: Path) -> Path:
    """Give a file in which old readers find the operators' kinds: ``source``, or a copy at ``target``.

    The format keeps each kind in two fields, the old one of a byte. AI Edge Quantizer leaves that at 0
    where it adds an operator, and OpenVINO, which looks at it first, takes that operator for an ADD.
    """
    model = _read(source)
    lacking = [code for code in model.operatorCodes if code.deprecatedBuiltinCode == 0 != code.builtinCode]
    if not lacking:
        return source
    from ai_edge_litert.tools import flatbuffer_utils

    for code in lacking:
        code.deprecatedBuiltinCode = min(code.builtinCode, _OLD_CODE_MAX)
    flatbuffer_utils.write_model(model, str(target))
    return target


def prepare(source: Path, target: Path, input_shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Write ``source`` to ``target`` with a signature and with static shapes; gives what was changed.

    Raises:
        ModelFileError: not a TFLite model.
        ConversionError: a free dimension without a size, or a size the file was not made for (TFLite
            keeps the shapes of all its tensors, so that only the free dimensions' own size can be fixed).
    """
    model = _read(source)
    notes = [*_freeze(model, input_shapes), *_add_signature(model)]
    from ai_edge_litert.tools import flatbuffer_utils

    flatbuffer_utils.write_model(model, str(target))
    return tuple(notes)


def rename(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give a file's inputs and outputs, in the order of its tensors, these names; in place.

    Raises:
        ConversionError: the model has another number of inputs or outputs.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = _read(path)
    graph = model.subgraphs[0]
    sides = ((inputs, graph.inputs), (outputs, graph.outputs))
    if any(len(new) != len(indices) for new, indices in sides):
        raise ConversionError(
            f"{path.name} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, "
            f"its source has {len(inputs)} and {len(outputs)}"
        )
    for new, indices in sides:
        for name, index in zip(new, indices, strict=True):
            graph.tensors[index].name = name.encode()
    model.signatureDefs = []
    _add_signature(model)
    flatbuffer_utils.write_model(model, str(path))


def require_signature(path: Path, inputs: Sequence[HasShape], outputs: Sequence[HasShape], step: str) -> None:
    """Refuse a file whose inputs or outputs are not, by name, shaped as the source's.

    Raises:
        ConversionError: a name is missing, or a layout was changed.
    """
    model = _read(path)
    graph, found = model.subgraphs[0], _names(model)
    for ports, own, indices in (
        (inputs, found.inputs, graph.inputs),
        (outputs, found.outputs, graph.outputs),
    ):
        shapes = {
            name: tuple(int(side) for side in graph.tensors[index].shape)
            for name, index in zip(own, indices, strict=True)
        }
        for port in ports:
            if port.name not in shapes:
                raise ConversionError(f"{step}: {port.name!r} is lost; the result has {', '.join(shapes)}")
            if None not in port.shape and shapes[port.name] != tuple(port.shape):
                raise ConversionError(
                    f"{step}: {port.name!r} has the shape {tuple(port.shape)} in the source and "
                    f"{shapes[port.name]} in the result: its layout was changed"
                )


def _read(path: Path) -> Any:
    from ai_edge_litert.tools import flatbuffer_utils

    content = bytearray(path.read_bytes())
    if content[4:8] != b"TFL3":
        raise ModelFileError(f"{path} is not a TFLite model: its bytes 4 to 8 are not 'TFL3'")
    try:
        model = flatbuffer_utils.read_model_from_bytearray(content)
    except Exception as error:
        raise ModelFileError(
            f"{path} is damaged: it does not parse as a TFLite model; copy it again"
        ) from error
    if not model.subgraphs:
        raise ModelFileError(f"{path} holds no graph; convert it again from its source")
    return model


def _names(model: Any) -> Names:
    graph = model.subgraphs[0]
    signatures = model.signatureDefs or []
    signature = signatures[0] if len(signatures) == 1 else None
    return Names(
        _side(graph, graph.inputs, signature.inputs if signature else []),
        _side(graph, graph.outputs, signature.outputs if signature else []),
    )


def _side(graph: Any, indices: Any, maps: Any) -> tuple[str, ...]:
    named = {item.tensorIndex: item.name.decode() for item in maps or []}
    if set(named) != {int(index) for index in indices}:
        return tuple(graph.tensors[index].name.decode() for index in indices)
    return tuple(named[index] for index in indices)


def _add_signature(model: Any) -> list[str]:
    if model.signatureDefs:
        return []
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    found = _names(model)
    signature = schema.SignatureDefT()
    signature.signatureKey = SIGNATURE_KEY.encode()
    signature.subgraphIndex = 0
    for side, indices in ((found.inputs, graph.inputs), (found.outputs, graph.outputs)):
        maps = []
        for name, index in zip(side, indices, strict=True):
            item = schema.TensorMapT()
            item.name, item.tensorIndex = name.encode(), int(index)
            maps.append(item)
        if side is found.inputs:
            signature.inputs = maps
        else:
            signature.outputs = maps
    model.signatureDefs = [signature]
    return [f"signature {SIGNATURE_KEY} added"]


def _freeze(model: Any, input_shapes: Mapping[str, Shape]) -> list[str]:
    graph = model.subgraphs[0]
    found = _names(model)
    tensors = {name: graph.tensors[index] for name, index in zip(found.inputs, graph.inputs, strict=True)}
    shapes = fixed_shapes({name: _own(tensor) for name, tensor in tensors.items()}, input_shapes)
    notes: list[str] = []
    for name, fixed in shapes.items():
        stored = _stored(tensors[name])
        if fixed != stored:
            raise ConversionError(
                f"input {name!r}: this TFLite file is laid out for {stored}, not {fixed}; "
                f"convert it again from its source with --input-shape"
            )
        if None in _own(tensors[name]):
            notes.append(f"input {name}: shape fixed to {list(fixed)}")
    if notes:
        for tensor in graph.tensors:
            tensor.shapeSignature = None
    return notes


def _stored(tensor: Any) -> tuple[int, ...]:
    return tuple(int(side) for side in tensor.shape)


def _own(tensor: Any) -> Shape:
    """Give a shape with its free dimensions."""
    stored, signature = _stored(tensor), tensor.shapeSignature
    if signature is None or len(signature) != len(stored):
        return stored
    return tuple(None if side < 0 else int(side) for side in signature)
