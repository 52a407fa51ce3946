"""Quantization inside ONNX: QDQ for static int8, and weights held small."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any, Final

from edgeml.converter import ConversionStep, QuantizerSettings, StepRequest, StepResult
from edgeml.findings import Finding
from edgeml.words import ARTIFACT_FILE
from edgeml_converters.quantize import bias, calibration, choice, onnx_equalize, onnx_model, onnx_weights, qdq
from edgeml_converters.quantize.equalization import note as equalization_note
from edgeml_converters.quantize.ranges import CANDIDATES, MINMAX, PERCENTILE, Percentile, Range, Rule
from edgeml_converters.quantize.step import CheckedSamples, judge_coverage, quantization_step

_TOOLS: Final = ("onnx", "onnxruntime")


def _int8_static(request: StepRequest, step: str) -> StepResult:
    model, notes = onnx_model.prepared(request)
    if request.settings.equalize:
        notes = (*notes, equalization_note(onnx_equalize.equalized(model)))
    samples = CheckedSamples(step, request.calibration, onnx_model.inputs(model))
    made, ranges, chosen = _quantized(model, samples, request.settings)
    covered = onnx_model.coverage(model, made)
    asked = bool(request.settings.float_tensors)
    findings = judge_coverage(step, request.source, covered, asked=asked)
    if request.settings.io_dtype != "float32":
        qdq.integer_ports(made, request.settings.io_dtype, ranges)
    notes = (*notes, chosen, f"{covered.quantized} of {covered.total} operators with weights quantized")
    return _result(request, made, notes, findings, ranges)


def _weights(made_small: Callable[[Any, str], Any]) -> Callable[[StepRequest, str], StepResult]:
    def run(request: StepRequest, step: str) -> StepResult:
        model, notes = onnx_model.prepared(request)
        made = made_small(_copy(model), step)
        covered = onnx_model.coverage(model, made)
        findings = judge_coverage(step, request.source, covered)
        notes = (*notes, f"{covered.quantized} of {covered.total} operators with weights made smaller")
        return _result(request, made, notes, findings, {})

    return run


def _copy(model: Any) -> Any:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _quantized(
    model: Any, samples: CheckedSamples, settings: QuantizerSettings
) -> tuple[Any, dict[str, Range], str]:
    """Give the QDQ model, the ranges in it, and a sentence on how they were set."""
    means = (
        {name: bias.ChannelMeans(axis=axis) for name, axis in bias.inputs(model).items()}
        if settings.corrects_biases
        else {}
    )
    found = calibration.activations(model, samples, binned=settings.method != "minmax", means=means)
    rules: tuple[Rule, ...] = {
        "minmax": MINMAX, "percentile": (Percentile(PERCENTILE),), "default": CANDIDATES,
    }[settings.method]  # fmt: skip
    sets = [{name: rule(item) for name, item in found.items()} for rule in rules]
    corrected = model
    if means:  # weights do not hang on the ranges: any set shows them
        corrected = _copy(model)
        bias.correct(corrected, qdq.insert(model, sets[0], settings), means)
    made = [qdq.insert(corrected, ranges, settings) for ranges in sets]
    if len(made) == 1:
        return made[0], sets[0], f"ranges: {rules[0]}"
    runs = [calibration.runner(item) for item in made]
    place, decibel = choice.closest(calibration.runner(model), runs, samples)
    text = f"ranges: {rules[place]}, the best of {len(made)} on the calibration data ({decibel:.1f} dB)"
    return made[place], sets[place], text


def _result(
    request: StepRequest,
    model: Any,
    notes: tuple[str, ...],
    findings: tuple[Finding, ...],
    ranges: dict[str, Range],
) -> StepResult:
    import onnx

    artifact = request.output_dir / ARTIFACT_FILE["onnx"]
    onnx.save_model(model, str(artifact))
    return StepResult(
        artifact,
        findings=findings,
        notes=notes,
        ranges=ranges,
        versions={name: metadata.version(name) for name in _TOOLS},
    )


STEPS: tuple[ConversionStep, ...] = (
    quantization_step("onnxruntime", "onnx", "int8_static", _TOOLS, 5.0, _int8_static),
    quantization_step(
        "onnxruntime", "onnx", "int8_dynamic", _TOOLS, 3.0, _weights(onnx_weights.dynamic_int8)
    ),
    quantization_step("onnxruntime", "onnx", "int8_weights", _TOOLS, 2.0, _weights(onnx_weights.int8)),
    quantization_step("onnxruntime", "onnx", "int4_weights", _TOOLS, 3.0, _weights(onnx_weights.int4)),
    quantization_step("onnxruntime", "onnx", "float16", _TOOLS, 2.0, _weights(onnx_weights.float16)),
)
