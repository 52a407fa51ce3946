"""The product's closed vocabularies: formats, runtimes and schemes."""

from __future__ import annotations

from typing import Final, Literal, get_args

Format = Literal["onnx", "tflite", "openvino", "savedmodel", "keras", "pt2"]
RuntimeName = Literal["litert", "onnxruntime", "openvino"]
Scheme = Literal[
    "float32", "float16", "int8_dynamic", "int8_static", "int16x8", "int8_weights", "int4_weights"
]
IoDtype = Literal["float32", "int8", "uint8"]
SampleDtype = Literal[
    "float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"
]
"""What a declaration may bring samples to, as numpy calls it."""

RUNTIMES: Final[tuple[RuntimeName, ...]] = get_args(RuntimeName)
SCHEMES: Final[tuple[Scheme, ...]] = get_args(Scheme)
FLOATS: Final[frozenset[Scheme]] = frozenset({"float32", "float16"})
"""Schemes that quantize nothing."""

FORMAT_OF_RUNTIME: Final[dict[RuntimeName, Format]] = {
    "litert": "tflite",
    "onnxruntime": "onnx",
    "openvino": "openvino",
}
"""The one format that each runtime reads."""
RUNTIME_OF_FORMAT: Final[dict[Format, RuntimeName]] = {
    format_: runtime for runtime, format_ in FORMAT_OF_RUNTIME.items()
}
"""The runtime that reads a format; the formats that are converted only have none."""

ARTIFACT_FILE: Final[dict[Format, str]] = {
    "onnx": "model.onnx",
    "tflite": "model.tflite",
    "openvino": "model.xml",
    "savedmodel": "saved_model",
    "keras": "model.keras",
    "pt2": "model.pt2",
}
"""The name an artifact of each format gets; ``model.bin`` stands beside OpenVINO's ``model.xml``."""
