"""All that ends in OpenVINO IR: its own readers, static shapes, the source's names, float32 weights kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final

from edgeml.converter import StepRequest, StepResult
from edgeml.errors import ConversionError
from edgeml.tensors import Quantization, Shape
from edgeml.words import ARTIFACT_FILE
from edgeml_converters.formats.shapes import fixed_shapes
from edgeml_converters.steps.openvino_fold import fold
from edgeml_converters.steps.step import tool_errors

PROBE_BYTES: Final = 1 << 20


def convert(
    request: StepRequest,
    step: str,
    *,
    source: Path | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    notes: tuple[str, ...] = (),
    stored: Mapping[str, Quantization] | None = None,
) -> StepResult:
    """Read ``source`` (default: the request's) with OpenVINO and write IR with float32 weights kept.

    ``inputs`` and ``outputs`` name the tensors in the model's order where the reader's names differ
    from what the source's runtime calls them. ``stored`` are the integer tensors among them: IR
    keeps no scale for its inputs and outputs, so that they become float32.
    """
    with tool_errors(step, request.source):
        import openvino

        path = source or request.source
        read = openvino.Core().read_model if path.suffix == ".xml" else openvino.convert_model
        model = read(str(path))
        _rename(model.inputs, inputs, step)
        _rename(model.outputs, outputs, step)
        if stored:
            model = _float_io(model, stored)
        notes = (*notes, *freeze(model, request.input_shapes))
        if path.suffix == ".xml":  # of an exporter, not of OpenVINO's own readers
            fold(model)
        artifact = request.output_dir / ARTIFACT_FILE["openvino"]
        name_by_place(model)
        save(model, artifact)
    return StepResult(artifact, notes=notes, versions={"openvino": version()})


def save(model: Any, artifact: Path, *, float16: bool = False) -> None:
    """Write an ``openvino.Model`` as IR.

    Raises:
        OSError: the disk is full, which OpenVINO calls an iostream error.
    """
    import openvino

    try:
        openvino.save_model(model, str(artifact), compress_to_fp16=float16)
    except RuntimeError:
        with TemporaryFile(dir=artifact.parent) as probe:
            probe.write(bytes(PROBE_BYTES))
        raise


def freeze(model: Any, input_shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Make every input of an ``openvino.Model`` static; gives a note for each that was not."""
    partial = {port.get_any_name(): port.get_partial_shape() for port in model.inputs}
    shapes = fixed_shapes({name: _own(shape) for name, shape in partial.items()}, input_shapes)
    notes = [
        f"input {name}: shape fixed to {list(fixed)}"
        for name, fixed in shapes.items()
        if partial[name].is_dynamic
    ]
    if notes:
        model.reshape({name: list(fixed) for name, fixed in shapes.items()})
    return tuple(notes)


def _own(partial: Any) -> Shape | None:
    if partial.rank.is_dynamic:
        return None
    return tuple(None if side.is_dynamic else side.get_length() for side in partial)


def name_by_place(model: Any) -> None:
    """Rename what carries OpenVINO's running number, so that the same numbers give the same file.

    A constant that was folded carries the kind and number of what it was folded from, and an operator of
    a TFLite file those of the transpose that was put behind it and moved on.
    """
    for place, node in enumerate(model.get_ordered_ops()):
        kind = node.get_type_name()
        numbered = r"\w+_\d+" if kind == "Constant" else rf"({kind}|Transpose)_\d+"
        if re.fullmatch(numbered, node.get_friendly_name()):
            node.set_friendly_name(f"{kind}_at_{place}")


def _float_io(model: Any, stored: Mapping[str, Quantization]) -> Any:
    """Put the quantization of integer inputs and the dequantization of integer outputs into the graph."""
    from openvino import Type
    from openvino.preprocess import PrePostProcessor

    processor = PrePostProcessor(model)
    for port in model.inputs:
        name = port.get_any_name()
        if name in stored:
            side = processor.input(name)
            side.tensor().set_element_type(Type.f32)
            side.preprocess().custom(_quantize(stored[name], port.get_element_type().to_string()))
    for port in model.outputs:
        name = port.get_any_name()
        if name in stored:
            processor.output(name).postprocess().custom(_dequantize(stored[name]))
    return processor.build()


def _quantize(given: Quantization, dtype: str) -> Callable[[Any], Any]:
    import numpy as np
    from openvino import opset13

    low, high = (-128.0, 127.0) if dtype == "i8" else (0.0, 255.0)

    def node(value: Any) -> Any:
        scaled = opset13.round(opset13.divide(value, np.float32(given.scale[0])), "half_to_even")
        shifted = opset13.add(scaled, np.float32(given.zero_point[0]))
        return opset13.convert(opset13.clamp(shifted, low, high), dtype).output(0)

    return node


def _dequantize(given: Quantization) -> Callable[[Any], Any]:
    import numpy as np
    from openvino import opset13

    def node(value: Any) -> Any:
        shifted = opset13.subtract(opset13.convert(value, "f32"), np.float32(given.zero_point[0]))
        return opset13.multiply(shifted, np.float32(given.scale[0])).output(0)

    return node


def version() -> str:
    """Give OpenVINO's version without importing it."""
    from importlib import metadata

    return metadata.version("openvino")


def _rename(ports: Sequence[Any], names: Sequence[str], step: str) -> None:
    if not names:
        return
    if len(names) != len(ports):
        raise ConversionError(
            f"{step}: the model has {len(names)} inputs or outputs, OpenVINO read {len(ports)} of them; "
            f"the model cannot be converted without losing one"
        )
    for port, name in zip(ports, names, strict=True):
        port.get_tensor().set_names({name})
