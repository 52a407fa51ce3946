"""Quantization inside OpenVINO IR with NNCF, quiet and offline."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import metadata
from typing import Any, Final

from edgeml.converter import CalibrationMethod, ConversionStep, StepRequest, StepResult
from edgeml.errors import QuantizationError
from edgeml.findings import Finding
from edgeml.offline import silence_openvino
from edgeml.words import ARTIFACT_FILE
from edgeml_converters.quantize import openvino_bias, openvino_equalize, openvino_model
from edgeml_converters.quantize.equalization import note as equalization_note
from edgeml_converters.quantize.step import CheckedSamples, Coverage, judge_coverage, quantization_step
from edgeml_converters.steps import openvino_ir

_TOOLS: Final = ("nncf", "openvino")
_INT8: Final = frozenset({"i8", "u8"})
_INT4: Final = frozenset({"i4", "u4"})
"""NNCF leaves convolutions in int8 when it is asked for 4 bits."""
_TAIL: Final = 1e-4
"""Share of a sample's values that ``percentile`` cuts at each end; NNCF's own default."""


def _int8_static(request: StepRequest, step: str) -> StepResult:
    if request.settings.io_dtype != "float32":
        raise QuantizationError(
            f"{step}: OpenVINO quantizes inputs and outputs inside the model; "
            f"{request.settings.io_dtype} inputs are not offered, use float32"
        )
    with _nncf() as nncf:
        model, notes = _prepared(request)
        samples = CheckedSamples(step, request.calibration, openvino_model.inputs(model))
        if request.settings.equalize:
            notes = (*notes, equalization_note(openvino_equalize.equalized(model)))
        kept = openvino_model.touching(model, request.settings.float_tensors)
        means = openvino_bias.input_means(model, samples) if request.settings.corrects_biases else {}
        made = nncf.quantize(
            model,
            nncf.Dataset(samples, dict),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=list(kept), validate=False) if kept else None,
            advanced_parameters=_parameters(nncf, request.settings.method, request.settings.reduce_range),
        )
        openvino_bias.correct(model, made, means)
    return _result(request, step, made, notes, openvino_model.coverage(made))


def _weights(mode: str, kinds: frozenset[str]) -> Callable[[StepRequest, str], StepResult]:
    def run(request: StepRequest, step: str) -> StepResult:
        with _nncf() as nncf:
            model, notes = _prepared(request)
            options = {} if mode == "INT8_ASYM" else {"ratio": 1.0, "group_size": -1, "all_layers": True}
            made = nncf.compress_weights(model, mode=getattr(nncf.CompressWeightsMode, mode), **options)
        return _result(request, step, made, notes, openvino_model.coverage(made, kinds=kinds))

    return run


def _float16(request: StepRequest, step: str) -> StepResult:
    import openvino

    model, notes = _prepared(request)
    artifact = request.output_dir / ARTIFACT_FILE["openvino"]
    openvino_ir.save(model, artifact, float16=True)
    covered = openvino_model.coverage(openvino.Core().read_model(str(artifact)), kinds=frozenset({"f16"}))
    return StepResult(
        artifact,
        findings=judge_coverage(step, request.source, covered),
        notes=(*notes, f"{covered.quantized} of {covered.total} operators with weights made float16"),
        versions={"openvino": metadata.version("openvino")},
    )


def _parameters(nncf: Any, method: CalibrationMethod, reduce_range: bool) -> Any:
    """Give what differs from NNCF's defaults.

    Its defaults average each sample's extremes, take symmetric activations, and quantize activations of
    depthwise convolutions per channel: 7 dB less on the keyword-spotting model, 5 dB less on MobileNetV2.
    Bias correction changed neither and makes the result depend on the order of the samples.
    """
    from nncf.quantization.advanced_parameters import QuantizationParameters
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    cut = method == "percentile"
    low = StatisticsCollectorParameters(
        statistics_type=StatisticsType.QUANTILE if cut else StatisticsType.MIN,
        aggregator_type=AggregatorType.MIN,
        quantile_outlier_prob=_TAIL,
    )
    high = StatisticsCollectorParameters(
        statistics_type=StatisticsType.QUANTILE if cut else StatisticsType.MAX,
        aggregator_type=AggregatorType.MAX,
        quantile_outlier_prob=_TAIL,
    )
    return nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.OverflowFix.ENABLE if reduce_range else nncf.OverflowFix.DISABLE,
        disable_bias_correction=True,
        activations_quantization_params=QuantizationParameters(per_channel=False),
        activations_range_estimator_params=RangeEstimatorParameters(min=low, max=high),
    )


@contextmanager
def _nncf() -> Iterator[Any]:
    """Import NNCF with its usage statistics off, and keep its progress bars and its log from the user."""
    silence_openvino()
    with redirect_stdout(io.StringIO()):
        import nncf

        nncf.set_log_level(logging.ERROR)
        yield nncf


def _prepared(request: StepRequest) -> tuple[Any, tuple[str, ...]]:
    import openvino

    model = openvino.Core().read_model(str(request.source))
    openvino_model.refuse_if_quantized(model, request.source)
    return model, openvino_ir.freeze(model, request.input_shapes)


def _result(
    request: StepRequest, step: str, model: Any, notes: tuple[str, ...], covered: Coverage
) -> StepResult:
    asked = bool(request.settings.float_tensors)
    findings: tuple[Finding, ...] = judge_coverage(step, request.source, covered, asked=asked)
    openvino_ir.name_by_place(model)
    artifact = request.output_dir / ARTIFACT_FILE["openvino"]
    openvino_ir.save(model, artifact)
    return StepResult(
        artifact,
        findings=findings,
        notes=(*notes, f"{covered.quantized} of {covered.total} operators with weights quantized"),
        ranges=openvino_model.ranges(model),
        versions={name: metadata.version(name) for name in _TOOLS},
    )


STEPS: tuple[ConversionStep, ...] = (
    quantization_step("openvino", "openvino", "int8_static", _TOOLS, 10.0, _int8_static),
    quantization_step("openvino", "openvino", "int8_weights", _TOOLS, 3.0, _weights("INT8_ASYM", _INT8)),
    quantization_step("openvino", "openvino", "int4_weights", _TOOLS, 3.0, _weights("INT4_SYM", _INT4)),
    quantization_step("openvino", "openvino", "float16", ("openvino",), 1.0, _float16),
)
