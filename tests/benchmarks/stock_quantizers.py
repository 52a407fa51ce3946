"""The engines' own quantizers as their documentation calls them: what ours are measured against."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert import _pywrap_tensorflow_lite_calibration_wrapper as module
from edgeml_converters.workers import catalogue

from edgeml.arrays import Array
from edgeml.offline import silence_openvino


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
    kinds = {"U8": QuantType.QUInt8, "S8": QuantType.QInt8}
    ways = [("MinMax", kind, True) for kind in kinds]
    ways += [(method, kind, True) for method in ("Entropy", "Percentile") for kind in kinds]
    for method, kind, per_channel in [*ways, ("MinMax", "S8", False)]:
        label = f"ORT {method} {kind}" if per_channel else "ORT default"
        made[label] = folder / f"{label.replace(' ', '_')}.onnx"
        quantize_static(
            str(source),
            str(made[label]),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=kinds[kind],
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
        )
    return made


def litert(source: Path, folder: Path, name: str, arrays: Sequence[Array]) -> dict[str, Path]:
    """AI Edge Quantizer by its moving average and by extremes, LiteRT's calibration, TFLiteConverter."""
    from ai_edge_quantizer import calibrator, quantizer, recipe
    from ai_edge_quantizer.utils import qsv_utils

    made: dict[str, bytes] = {}
    samples = {"serving_default": [{name: array} for array in arrays]}
    tool = quantizer.Quantizer(str(source), recipe.static_wi8_ai8())
    made["AEQ default"] = tool.quantize(tool.calibrate(samples, num_threads=1)).quantized_model
    extremes = calibrator.Calibrator(
        source.read_bytes(), num_threads=1, qsv_update_func=qsv_utils.min_max_update
    )
    extremes.calibrate(samples, tool._recipe_manager)
    made["AEQ min/max"] = tool.quantize(extremes.get_model_qsvs()).quantized_model
    content = source.read_bytes()  # the wrapper reads it as long as it lives
    wrapper = module.CalibrationWrapper(content, [], [])
    wrapper.Prepare()
    for array in arrays:
        wrapper.FeedTensor([array])
    float32, int8, int32 = (np.dtype(kind).num for kind in ("float32", "int8", "int32"))
    made["LiteRT calibration"] = wrapper.QuantizeModel(float32, float32, False, int8, int32, False, False)
    paths: dict[str, Path] = {}
    for label, content in made.items():
        paths[label] = folder / f"{label.replace(' ', '_').replace('/', '_')}.tflite"
        paths[label].write_bytes(content)
    worker = tensorflow_worker()
    if worker is not None:
        np.save(folder / "calibration.npy", np.concatenate(arrays))
        paths["TFLiteConverter"] = folder / "converter.tflite"
        arguments = [source.parent / "kws_ref_model", folder / "calibration.npy", paths["TFLiteConverter"]]
        command = [str(worker), "-c", CONVERTER, *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    return paths


def tensorflow_worker() -> Path | None:
    """Give the interpreter that has TensorFlow, where its worker is installed."""
    return catalogue.interpreter("tensorflow") if catalogue.status("tensorflow").usable else None


CONVERTER = """
import sys
import numpy as np
import tensorflow as tf
model, data, target = sys.argv[1:]
converter = tf.lite.TFLiteConverter.from_saved_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([item[None]] for item in np.load(data))
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
open(target, "wb").write(converter.convert())
"""
"""TFLiteConverter as its documentation has it for integers, with float32 inputs and outputs."""


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
