"""Everything that ends in OpenVINO IR: OpenVINO's own readers, static shapes, the source's names, float32 kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.converter import StepRequest, StepResult
from edgeml.errors import ConversionError
from edgeml.tensors import Shape
from edgeml.words import ARTIFACT_FILE
from edgeml_converters.steps.step import check_shape_names, fixed_shape, tool_errors


def convert(
    request: StepRequest,
    step: str,
    *,
    source: Path | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    notes: tuple[str, ...] = (),
) -> StepResult:
    """Read ``source`` (default: the request's) with OpenVINO and write IR with float32 weights kept.

    ``inputs`` and ``outputs`` name the tensors in the model's order where the reader's names differ
    from what the source's runtime calls them.
    """
    with tool_errors(step, request.source):
        import openvino

        model = openvino.convert_model(str(source or request.source))
        _rename(model.inputs, inputs, step)
        _rename(model.outputs, outputs, step)
        notes = (*notes, *freeze(model, request.input_shapes))
        artifact = request.output_dir / ARTIFACT_FILE["openvino"]
        openvino.save_model(model, str(artifact), compress_to_fp16=False)
    return StepResult(artifact, notes=notes, versions={"openvino": version()})


def freeze(model: Any, input_shapes: Mapping[str, Shape]) -> tuple[str, ...]:
    """Make every input of an ``openvino.Model`` static; gives a note for each that was not."""
    names = [port.get_any_name() for port in model.inputs]
    check_shape_names(dict(input_shapes), names)
    notes: list[str] = []
    shapes: dict[Any, list[int]] = {}
    for port, name in zip(model.inputs, names, strict=True):
        partial = port.get_partial_shape()
        if partial.rank.is_dynamic:
            own: Shape = tuple(input_shapes.get(name) or input_shapes.get("") or ())
            if not own:
                raise ConversionError(
                    f"input {name!r} has no known rank; give its shape, for example: "
                    f"--input-shape {name}=1,3,224,224"
                )
        else:
            own = tuple(None if side.is_dynamic else side.get_length() for side in partial)
        fixed = fixed_shape(name, own, dict(input_shapes), only=len(names) == 1)
        shapes[port] = list(fixed)
        if partial.is_dynamic:
            notes.append(f"input {name}: shape fixed to {list(fixed)}")
    if notes:
        model.reshape(shapes)
    return tuple(notes)


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
