"""The engines' own quantizers, by their defaults and by their best settings: what ours are measured against.

``python -m tests.benchmarks.stock_quantizers LABEL SOURCE INPUT CALIBRATION.npy TARGET`` makes one artifact
in a process of its own, so that one that crashes or hangs takes nothing with it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from edgeml_converters.formats import tflite_file
from edgeml_converters.workers import catalogue

from edgeml.arrays import Array
from edgeml.offline import silence_openvino

Make = Callable[[Path, Path, str, Sequence[Array]], None]
"""Makes the target (second) of a float source (first), calibrated by arrays for the named input."""


def onnxruntime(
    source: Path,
    target: Path,
    name: str,
    arrays: Sequence[Array],
    *,
    prepare: bool = True,
    **options: Any,
) -> None:
    """ONNX Runtime's ``quantize_static``, after its own preparation unless told otherwise."""
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx" if prepare else source
        if prepare:
            quant_pre_process(str(source), str(prepared))
        quantize_static(str(prepared), str(target), _onnxruntime_reader(name, arrays), **options)


def _onnxruntime_reader(name: str, arrays: Sequence[Array]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # untyped base
        def __init__(self) -> None:
            self._left = iter(arrays)

        def get_next(self) -> dict[str, Array] | None:
            array = next(self._left, None)
            return None if array is None else {name: array}

    return Reader()


def _per_channel(activations: str, method: str = "MinMax", layout: str = "QDQ") -> Make:
    """Give ONNX Runtime's quantizer with one scale per output channel."""

    def make(source: Path, target: Path, name: str, arrays: Sequence[Array]) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType

        onnxruntime(
            source,
            target,
            name,
            arrays,
            per_channel=True,
            activation_type=QuantType[activations],
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
            quant_format=QuantFormat[layout],
        )

    return make


def _nncf_options(words: Sequence[str]) -> dict[str, Any]:
    import nncf

    options: dict[str, Any] = {}
    if "mixed" in words:
        options["preset"] = nncf.QuantizationPreset.MIXED
    if "accurate" in words:
        options["fast_bias_correction"] = False
    return options


def nncf_openvino(source: Path, target: Path, name: str, arrays: Sequence[Array], *words: str) -> None:
    """NNCF on an OpenVINO model."""
    silence_openvino()
    import nncf
    import openvino as engine

    nncf.set_log_level(logging.ERROR)
    model = engine.Core().read_model(str(source))
    data = nncf.Dataset([{name: array} for array in arrays])
    quantized = nncf.quantize(model, data, subset_size=len(arrays), **_nncf_options(words))
    engine.save_model(quantized, str(target), compress_to_fp16=False)


def nncf_onnx(source: Path, target: Path, name: str, arrays: Sequence[Array], *words: str) -> None:
    """NNCF on an ONNX model."""
    silence_openvino()
    import nncf
    import onnx

    nncf.set_log_level(logging.ERROR)
    data = nncf.Dataset([{name: array} for array in arrays])
    quantized = nncf.quantize(onnx.load(str(source)), data, subset_size=len(arrays), **_nncf_options(words))
    onnx.save(quantized, str(target))


def aeq(
    source: Path,
    target: Path,
    name: str,
    arrays: Sequence[Array],
    *,
    extremes: bool = False,
    algorithm: str = "MIN_MAX_UNIFORM_QUANT",
) -> None:
    """AI Edge Quantizer, its ranges by moving average or by the extremes of all samples."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import calibrator, quantizer, recipe
    from ai_edge_quantizer.utils import qsv_utils

    with tempfile.TemporaryDirectory() as folder:  # it needs a signature, which older files have not
        signed = Path(folder) / "signed.tflite"
        tflite_file.prepare(source, signed, {})
        content = signed.read_bytes()
    (key,) = Interpreter(model_content=content).get_signature_list()
    samples = {key: [{name: array} for array in arrays]}
    chosen = recipe.static_wi8_ai8(recipe.AlgorithmName[algorithm])
    tool = quantizer.Quantizer(content, chosen)
    if extremes:
        tally = calibrator.Calibrator(content, num_threads=1, qsv_update_func=qsv_utils.min_max_update)
        tally.calibrate(samples, tool._recipe_manager)
        ranges = tally.get_model_qsvs()
    else:
        ranges = tool.calibrate(samples, num_threads=1)
    target.write_bytes(tool.quantize(ranges).quantized_model)


def litert_calibration(source: Path, target: Path, name: str, arrays: Sequence[Array]) -> None:
    """Calibrate with the module of LiteRT's wheel that TFLiteConverter calibrates with."""
    from ai_edge_litert import _pywrap_tensorflow_lite_calibration_wrapper as module

    content = source.read_bytes()  # the wrapper reads it as long as it lives
    wrapper = module.CalibrationWrapper(content, [], [])
    wrapper.Prepare()
    for array in arrays:
        wrapper.FeedTensor([array])
    float32, int8, int32 = (np.dtype(kind).num for kind in ("float32", "int8", "int32"))
    target.write_bytes(wrapper.QuantizeModel(float32, float32, False, int8, int32, False, False))


def tensorflow_worker() -> Path | None:
    """Give the interpreter that has TensorFlow, where its worker is installed."""
    return catalogue.interpreter("tensorflow") if catalogue.status("tensorflow").usable else None


CONVERTER: Final = """
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

QUANTIZERS: Final[Mapping[str, Mapping[str, Make]]] = {
    "litert": {
        "AEQ, defaults": aeq,
        "AEQ, extremes": partial(aeq, extremes=True),
        "AEQ, extremes, OCTAV": partial(aeq, extremes=True, algorithm="OCTAV"),
        "LiteRT calibration": litert_calibration,
    },
    "onnxruntime": {
        "ORT, defaults": partial(onnxruntime, prepare=False),
        "ORT, per channel, u8": _per_channel("QUInt8"),
        "ORT, per channel, s8": _per_channel("QInt8"),
        "ORT, per channel, u8, QOperator": _per_channel("QUInt8", layout="QOperator"),
        "ORT, per channel, u8, percentile": _per_channel("QUInt8", "Percentile"),
        "ORT, per channel, s8, percentile": _per_channel("QInt8", "Percentile"),
        "ORT, per channel, u8, entropy": _per_channel("QUInt8", "Entropy"),
        "NNCF, defaults": nncf_onnx,
        "NNCF, mixed, full bias correction": lambda *given: nncf_onnx(*given, "mixed", "accurate"),
    },
    "openvino": {
        "NNCF, defaults": nncf_openvino,
        "NNCF, mixed": lambda *given: nncf_openvino(*given, "mixed"),
        "NNCF, full bias correction": lambda *given: nncf_openvino(*given, "accurate"),
        "NNCF, mixed, full bias correction": lambda *given: nncf_openvino(*given, "mixed", "accurate"),
    },
}
"""By runtime and by what the tables call them."""
SUFFIXES: Final = {"litert": ".tflite", "onnxruntime": ".onnx", "openvino": ".xml"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the tools log and warn of."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def main() -> None:
    """Make one artifact."""
    label, source, name, calibration, target = sys.argv[1:]
    (runtime,) = (key for key, suffix in SUFFIXES.items() if suffix == Path(target).suffix)
    arrays = [item[None] for item in np.load(calibration, mmap_mode="r")]
    with quiet():
        QUANTIZERS[runtime][label](Path(source), Path(target), name, arrays)


if __name__ == "__main__":
    main()
