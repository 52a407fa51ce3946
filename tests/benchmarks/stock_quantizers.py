"""The engines' own quantizers as their documentation calls them: what ours are measured against."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edgeml.offline import silence_openvino
from edgeml.tensors import Array


def onnxruntime(source: Path, folder: Path, name: str, arrays: Sequence[Array]) -> dict[str, Path]:
    """ONNX Runtime: per channel, U8 activations, each calibration method."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            self._left = iter(arrays)

        def get_next(self) -> dict[str, Array] | None:
            array = next(self._left, None)
            return None if array is None else {name: array}

    made: dict[str, Path] = {}
    for method in ("MinMax", "Entropy", "Percentile"):
        made[f"ORT {method}"] = folder / f"{method}.onnx"
        quantize_static(
            str(source),
            str(made[f"ORT {method}"]),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )
    return made


def litert(source: Path, folder: Path, name: str, arrays: Sequence[Array]) -> dict[str, Path]:
    """AI Edge Quantizer with its own calibration (moving average)."""
    from ai_edge_quantizer import quantizer, recipe

    tool = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    found = tool.calibrate({"serving_default": [{name: array} for array in arrays]}, num_threads=1)
    path = folder / "aeq.tflite"
    path.write_bytes(tool.quantize(found).quantized_model)
    return {"AEQ static_wi8_ai8": path}


def openvino(source: Path, folder: Path, name: str, arrays: Sequence[Array]) -> dict[str, Path]:
    """NNCF: its defaults, the mixed preset, and full bias correction."""
    silence_openvino()
    import nncf
    import openvino as engine

    nncf.set_log_level(logging.ERROR)
    kinds = {
        "NNCF default": {},
        "NNCF mixed": {"preset": nncf.QuantizationPreset.MIXED},
        "NNCF accurate": {"fast_bias_correction": False},
    }
    made: dict[str, Path] = {}
    for kind, options in kinds.items():
        model = engine.Core().read_model(str(source))
        data = nncf.Dataset([{name: array} for array in arrays])
        quantized = nncf.quantize(model, data, subset_size=len(arrays), **options)
        made[kind] = folder / f"{kind.replace(' ', '_')}.xml"
        engine.save_model(quantized, str(made[kind]), compress_to_fp16=False)
    return made
