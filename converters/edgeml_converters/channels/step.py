"""The steps that take dead channels out of a float model; its format stays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from edgeml.converter import State, StepRequest, StepResult
from edgeml.errors import ConversionError, EdgemlError
from edgeml.words import ARTIFACT_FILE, Format
from edgeml_converters.channels.removal import Removal
from edgeml_converters.steps import openvino_ir
from edgeml_converters.steps.step import FormatStep, distributions, state, tool_errors

COST: Final = 0.5


def dead_channels(path: Path, format_: Format) -> Removal | None:
    """Say what could be taken out of a model; ``None``: nothing, or it cannot be read that way."""
    try:
        found = _TRIMMED[format_](path)[1] if format_ in _TRIMMED else None
    except (EdgemlError, MemoryError, OSError):
        return None
    return found if found is not None and found.layers else None


def _tflite(path: Path) -> tuple[Callable[[Path], object], Removal]:
    with tool_errors("tflite-trimmed", path):
        from edgeml_converters.channels import tflite_channels
        from edgeml_converters.quantize import tflite_model

        model = tflite_model.parse(path.read_bytes())
        found = tflite_channels.removed(model)
    return lambda target: target.write_bytes(tflite_model.content(model)), found


def _onnx(path: Path) -> tuple[Callable[[Path], object], Removal]:
    with tool_errors("onnx-trimmed", path):
        import onnx

        from edgeml_converters.channels import onnx_channels
        from edgeml_converters.formats import onnx_file

        model = onnx_file.read(path)
        found = onnx_channels.removed(model)
    return lambda target: onnx.save_model(model, str(target)), found


def _openvino(path: Path) -> tuple[Callable[[Path], object], Removal]:
    with tool_errors("openvino-trimmed", path):
        import openvino

        from edgeml_converters.channels import openvino_channels

        model = openvino.Core().read_model(str(path))
        found = openvino_channels.removed(model)
    return lambda target: openvino_ir.save(model, target), found


_TRIMMED: Final[Mapping[Format, Callable[[Path], tuple[Callable[[Path], object], Removal]]]] = {
    "onnx": _onnx,
    "tflite": _tflite,
    "openvino": _openvino,
}


def _action(format_: Format) -> Callable[[StepRequest], StepResult]:
    def run(request: StepRequest) -> StepResult:
        step = f"{format_}-trimmed"
        write, found = _TRIMMED[format_](request.source)
        if not found.layers:
            raise ConversionError(f"{step}: {request.source.name} has no dead channels; convert it without")
        artifact = request.output_dir / ARTIFACT_FILE[format_]
        with tool_errors(step, request.source):
            write(artifact)
        return StepResult(artifact, notes=(found.note,))

    return run


def _step(format_: Format, *requires: str) -> FormatStep:
    own: State = state(format_)
    return FormatStep(f"{format_}-trimmed", own, own, distributions(*requires), COST, _action(format_))


STEPS: Final[Mapping[Format, FormatStep]] = {
    "onnx": _step("onnx", "onnx"),
    "tflite": _step("tflite", "ai-edge-litert"),
    "openvino": _step("openvino", "openvino"),
}
"""By the format that they keep. They stand in no graph of steps: a search puts them into its paths."""
