"""Quantization inside TFLite without TensorFlow: LiteRT's own calibration, AI Edge Quantizer's recipes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeml.converter import ConversionStep, StepRequest, StepResult
from edgeml.findings import Finding
from edgeml.tensors import TensorSpec
from edgeml.words import ARTIFACT_FILE, IoDtype, Scheme
from edgeml_converters.coral.draft import content as rewritten_content
from edgeml_converters.coral.draft import parsed
from edgeml_converters.coral.rewrites.ports import integer_ports
from edgeml_converters.formats import tflite_file
from edgeml_converters.quantize import (
    aeq,
    choice,
    tflite_bias,
    tflite_equalize,
    tflite_model,
    tflite_prune,
)
from edgeml_converters.quantize.equalization import note as equalization_note
from edgeml_converters.quantize.ranges import (
    CANDIDATES_LITERT,
    MINMAX,
    PERCENTILE,
    Percentile,
    Rule,
)
from edgeml_converters.quantize.step import CheckedSamples, judge_coverage, quantization_step
from edgeml_converters.quantize.tflite_sparse import sparsely_stored

WRAPPER_VERSIONS: Final = ((2, 3), (2, 4))
"""ai-edge-litert versions, from the first to before the second, whose calibration module was tried here.
It is private: outside these, or where it does not import, AI Edge Quantizer takes its place."""
_ACTIVATIONS: Final = {"int8_static": (np.int8, np.int32), "int16x8": (np.int16, np.int64)}
"""dtype of activations and of biases."""
_TOOLS: Final = ("ai-edge-litert", "ai-edge-quantizer")
_WEIGHTS: Final = {
    "float16": frozenset({"float16"}),
    "int4_weights": frozenset({"int4"}),
}
"""What the weights are held in; int8 unless listed."""


def wrapper() -> Any | None:
    """Give LiteRT's calibration class, or ``None`` where it is missing or of a version not known."""
    version = tuple(int(part) for part in metadata.version("ai-edge-litert").split(".")[:2])
    if not WRAPPER_VERSIONS[0] <= version < WRAPPER_VERSIONS[1]:
        return None
    try:
        from ai_edge_litert import _pywrap_tensorflow_lite_calibration_wrapper as module
    except ImportError:
        return None
    found = getattr(module, "CalibrationWrapper", None)
    return found if all(hasattr(found, name) for name in ("Prepare", "FeedTensor", "QuantizeModel")) else None


def _static(scheme: Scheme) -> Callable[[StepRequest, str], StepResult]:
    def run(request: StepRequest, step: str) -> StepResult:
        content, parsed, notes = _prepared(request)
        moved = tflite_model.fuse_activations(parsed)
        if moved:
            content = tflite_model.content(parsed)
            notes = (*notes, f"{moved} activation functions moved into the operators before them")
        if request.settings.equalize:
            notes = (*notes, equalization_note(tflite_equalize.equalized(parsed)))
            content = tflite_model.content(parsed)
        inputs = tflite_model.inputs(parsed)
        samples = CheckedSamples(step, request.calibration, inputs)
        if request.settings.sparsity:
            notes = (*notes, tflite_prune.pruned(parsed, request.settings.sparsity, samples))
            content = tflite_model.content(parsed)
        mend = _bias_correction(parsed, samples) if request.settings.bias_correction else None
        tool = wrapper()
        if tool is not None and _for_wrapper(scheme, request):
            quantized, findings = _by_wrapper(tool, request, scheme, content, inputs, samples)
            quantized = mend(quantized) if mend is not None else quantized
            chosen = "ranges: min/max by ai-edge-litert"
            used: tuple[str, ...] = ("ai-edge-litert",)
        else:
            quantized, chosen = _by_ranges(request, scheme, content, parsed, samples, mend)
            findings, used = _kept_in_float(request, quantized), _TOOLS
            if request.settings.io_dtype != "float32":
                quantized = _with_integer_ports(quantized, request.settings.io_dtype, request.source)
        return _result(request, step, scheme, quantized, (*notes, chosen), findings, used)

    return run


def _for_wrapper(scheme: Scheme, request: StepRequest) -> bool:
    """Say whether the calibration module does it, which knows the extremes only."""
    settings = request.settings
    if settings.float_tensors:
        return False
    simple = settings.method == "minmax" or (settings.method == "default" and scheme == "int16x8")
    return simple or not settings.per_channel


def _bias_correction(model: Any, samples: CheckedSamples) -> Callable[[bytes], bytes]:
    """Give a function that corrects the biases of what is made from the parsed float model."""
    means = tflite_bias.input_means(model, samples)

    def mend(quantized: bytes) -> bytes:
        made = tflite_model.parse(quantized)
        tflite_bias.correct(model, made, means)
        return tflite_model.content(made)

    return mend


def _by_ranges(
    request: StepRequest,
    scheme: Scheme,
    content: bytes,
    parsed: Any,
    samples: CheckedSamples,
    mend: Callable[[bytes], bytes] | None,
) -> tuple[bytes, str]:
    """Give the model by ranges of our own, and a sentence on how they were set."""
    inputs = tflite_model.inputs(parsed)
    rules: tuple[Rule, ...] = MINMAX
    if request.settings.method == "percentile":
        rules = (Percentile(PERCENTILE),)
    elif request.settings.method == "default" and scheme == "int8_static":
        rules = CANDIDATES_LITERT
    activations = tflite_model.activations(parsed)
    found = aeq.activation_histograms(content, activations, inputs, samples, binned=rules != MINMAX)
    in_float = tflite_model.touching(parsed, request.settings.float_tensors)
    made = [
        aeq.by_recipe(content, scheme, {name: rule(item) for name, item in found.items()}, in_float)
        for rule in rules
    ]
    if mend is not None:
        made = [mend(one) for one in made]
    if len(made) == 1:
        return made[0], f"ranges: {rules[0]} by {_TOOLS[1]}"
    runs = [aeq.runner(item, inputs) for item in made]
    place, decibel = choice.closest(aeq.runner(content, inputs), runs, samples)
    how = f"the best of {len(made)} on the calibration data ({decibel:.1f} dB)"
    return made[place], f"ranges: {rules[place]} by {_TOOLS[1]}, {how}"


def _kept_in_float(request: StepRequest, quantized: bytes) -> tuple[Finding, ...]:
    """Tell which operators compute in float32 still."""
    kept = tflite_model.in_float(tflite_model.parse(quantized))
    if not kept or request.settings.float_tensors:
        return ()
    return (
        Finding(
            "operators-kept-in-float",
            "warning",
            request.source.name,
            f"some operators have no integer form here and stay in float: {', '.join(kept)}",
            "look at the latency before this variant is used; an accelerator for integers only needs "
            "the method minmax",
        ),
    )


def _recipe(scheme: Scheme) -> Callable[[StepRequest, str], StepResult]:
    def run(request: StepRequest, step: str) -> StepResult:
        content, _, notes = _prepared(request)
        quantized = aeq.by_recipe(content, scheme)
        return _result(request, step, scheme, quantized, notes, (), _TOOLS)

    return run


def _prepared(request: StepRequest) -> tuple[bytes, Any, tuple[str, ...]]:
    """Give the model with a signature and static shapes, as bytes and parsed, and what was changed."""
    with tempfile.TemporaryDirectory(dir=request.output_dir) as folder:
        path = Path(folder) / ARTIFACT_FILE["tflite"]
        notes = tflite_file.prepare(request.source, path, request.input_shapes)
        content = path.read_bytes()
    parsed = tflite_model.parse(content)
    tflite_model.refuse_if_quantized(parsed, request.source)
    return content, parsed, notes


def _by_wrapper(
    tool: Any,
    request: StepRequest,
    scheme: Scheme,
    content: bytes,
    inputs: tuple[TensorSpec, ...],
    samples: CheckedSamples,
) -> tuple[bytes, tuple[Finding, ...]]:
    engine = tool(content, [], [])
    engine.Prepare()
    for sample in samples:
        engine.FeedTensor([sample[spec.name] for spec in inputs])
    ports = np.dtype(request.settings.io_dtype).num
    activations, biases = (np.dtype(kind).num for kind in _ACTIVATIONS[scheme])
    per_tensor = not request.settings.per_channel

    def quantize(*, allow_float: bool) -> bytes:
        return bytes(
            engine.QuantizeModel(ports, ports, allow_float, activations, biases, per_tensor, per_tensor)
        )

    try:
        return quantize(allow_float=False), ()
    except (RuntimeError, ValueError) as error:
        strict = str(error).strip()
    # the tool's own way out: operators it has no integer kernel for stay in float
    made = quantize(allow_float=True)
    finding = Finding(
        "operators-kept-in-float",
        "warning",
        request.source.name,
        f"some operators have no integer kernel and stay in float: {strict[:200]}",
        "look at the latency before this variant is used",
    )
    return made, (finding,)


def _with_integer_ports(model: bytes, io_dtype: IoDtype, source: Path) -> bytes:
    """Drop the conversions at the model's ends; a float operator there keeps its own."""
    draft = parsed(source, model)
    integer_ports(draft, io_dtype)
    draft.tidy()
    return rewritten_content(draft)


def _result(
    request: StepRequest,
    step: str,
    scheme: Scheme,
    quantized: bytes,
    notes: tuple[str, ...],
    findings: tuple[Finding, ...],
    tools: tuple[str, ...],
) -> StepResult:
    parsed = tflite_model.parse(quantized)
    covered = tflite_model.coverage(parsed, _WEIGHTS.get(scheme, frozenset({"int8"})))
    asked = bool(request.settings.float_tensors)
    findings = (*findings, *judge_coverage(step, request.source, covered, asked=asked))
    notes = (*notes, f"{covered.quantized} of {covered.total} operators with weights quantized")
    if request.settings.sparsity:
        quantized, stored = sparsely_stored(quantized)
        notes = (*notes, f"weights of {stored} operators stored sparsely")
    artifact = request.output_dir / ARTIFACT_FILE["tflite"]
    artifact.write_bytes(quantized)
    return StepResult(
        artifact,
        findings=findings,
        notes=notes,
        ranges=tflite_model.ranges(parsed),
        versions={name: metadata.version(name) for name in tools},
    )


STEPS: tuple[ConversionStep, ...] = (
    quantization_step("litert", "tflite", "int8_static", _TOOLS, 2.0, _static("int8_static")),
    quantization_step("litert", "tflite", "int16x8", _TOOLS, 2.0, _static("int16x8")),
    quantization_step("litert", "tflite", "int8_dynamic", _TOOLS, 1.0, _recipe("int8_dynamic")),
    quantization_step("litert", "tflite", "int8_weights", _TOOLS, 1.0, _recipe("int8_weights")),
    quantization_step("litert", "tflite", "int4_weights", _TOOLS, 1.0, _recipe("int4_weights")),
    quantization_step("litert", "tflite", "float16", _TOOLS, 1.0, _recipe("float16")),
)
