"""ONNX Runtime's QDQ quantizer, fed with our own ranges; and integer inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from edgeml.converter import QuantizerSettings
from edgeml.errors import EngineVersionError
from edgeml.words import IoDtype
from edgeml_converters.quantize import onnx_model
from edgeml_converters.quantize.ranges import Range

VERSIONS: Final = ((1, 22), (2, 0))
"""onnxruntime versions, from the first to before the second, whose quantizer takes ranges as used here."""
METADATA_KEY: Final = "edgeml.quantization"
"""Where scale and zero point of integer inputs and outputs stand in the file, as JSON by tensor name."""


def insert(model: Any, ranges: Mapping[str, Range], settings: QuantizerSettings) -> Any:
    """Give the model with QuantizeLinear and DequantizeLinear at every tensor; the given one stays as it is.

    Raises:
        EngineVersionError: an ONNX Runtime that this was not written for.
    """
    import onnx
    import onnxruntime as ort

    version = tuple(int(part) for part in ort.__version__.split(".")[:2])
    if not VERSIONS[0] <= version < VERSIONS[1]:
        raise EngineVersionError(
            f"onnxruntime {ort.__version__} is installed; int8_static needs one from "
            f"{'.'.join(map(str, VERSIONS[0]))} to before {'.'.join(map(str, VERSIONS[1]))}"
        )
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        copy,
        settings.per_channel,
        settings.reduce_range,
        QuantType.QInt8,
        QuantType.QUInt8 if settings.activations == "uint8" else QuantType.QInt8,
        TensorsData(CalibrationMethod.MinMax, data),
        [],
        list(onnx_model.touching(copy, settings.float_tensors)),
        sorted({*QDQRegistry, *QLinearOpsRegistry}),
        {"ActivationSymmetric": False, "WeightSymmetric": True},
    )
    quantizer.quantize_model()
    return quantizer.model.model


def integer_ports(model: Any, io_dtype: IoDtype, ranges: Mapping[str, Range]) -> None:
    """Make the model's float32 inputs and outputs integers; changes the model.

    A port that the model quantizes itself keeps its scale; where it does so in another dtype, the zero
    point is shifted by 128, so that each value stands for the same number. Any other port is quantized
    by its range.
    """
    import onnx
    from onnx import helper

    wanted = np.dtype(io_dtype)
    kind = helper.np_dtype_to_tensor_dtype(wanted)
    table: dict[str, dict[str, float | int]] = {}
    constants = {item.name: item for item in model.graph.initializer}
    for port in [*model.graph.input, *model.graph.output]:
        if port.type.tensor_type.elem_type != onnx.TensorProto.FLOAT or port.name not in ranges:
            continue
        takers = [node for node in model.graph.node if port.name in node.input]
        maker = next((node for node in model.graph.node if port.name in node.output), None)
        if maker is None and len(takers) == 1 and takers[0].op_type == "QuantizeLinear":
            table[port.name] = _take_integers(model, port, takers[0], constants, wanted)
        elif maker is not None and maker.op_type == "DequantizeLinear":
            table[port.name] = _give_integers(model, port, maker, constants, wanted)
        else:
            table[port.name] = _by_range(model, port, ranges[port.name], wanted, entering=maker is None)
        port.type.tensor_type.elem_type = kind
    entry = onnx.StringStringEntryProto(key=METADATA_KEY, value=json.dumps(table, sort_keys=True))
    model.metadata_props.append(entry)


def _by_range(
    model: Any, port: Any, found: Range, wanted: np.dtype[Any], *, entering: bool
) -> dict[str, float | int]:
    """Put a conversion between a port and a model that takes or makes float there."""
    from onnx import numpy_helper

    limits = np.iinfo(wanted)
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    scale = np.float32((high - low) / (limits.max - limits.min) or 1.0)
    zero = int(np.clip(np.rint(limits.min - low / scale), limits.min, limits.max))
    names = [f"{port.name}_port_scale", f"{port.name}_port_zero_point"]
    for name, value in zip(names, (scale, np.array(zero, wanted)), strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    real = f"{port.name}_real"
    for node in model.graph.node:
        _rename(node.input, port.name, real)
        _rename(node.output, port.name, real)
    if entering:
        _insert(model, model.graph.node[0], "DequantizeLinear", [port.name, *names], real)
    else:
        _insert(model, None, "QuantizeLinear", [real, *names], port.name)
    return {"scale": float(scale), "zero_point": zero}


def _take_integers(
    model: Any, port: Any, taker: Any, constants: Mapping[str, Any], wanted: np.dtype[Any]
) -> dict[str, float | int]:
    """Feed integers to what came behind an input's QuantizeLinear ``taker``; gives scale and zero point."""
    scale, zero, stored = _parameters(taker, constants)
    if stored == wanted:
        for node in model.graph.node:
            _rename(node.input, taker.output[0], port.name)
        model.graph.node.remove(taker)
        return {"scale": scale, "zero_point": zero}
    shifted, name = _shifted(model, port.name, zero, stored, wanted)
    real = f"{port.name}_real"
    _rename(taker.input, port.name, real)
    _insert(model, taker, "DequantizeLinear", [port.name, taker.input[1], name], real)
    return {"scale": scale, "zero_point": shifted}


def _give_integers(
    model: Any, port: Any, maker: Any, constants: Mapping[str, Any], wanted: np.dtype[Any]
) -> dict[str, float | int]:
    """Give an output's integers as they were in front of its DequantizeLinear ``maker``."""
    scale, zero, stored = _parameters(maker, constants)
    takers = [node for node in model.graph.node if port.name in node.input]
    if stored == wanted and not takers:
        inside = str(maker.input[0])
        model.graph.node.remove(maker)
        for node in model.graph.node:
            _rename(node.input, inside, port.name)
            _rename(node.output, inside, port.name)
        return {"scale": scale, "zero_point": zero}
    shifted, name = (
        (zero, maker.input[2]) if stored == wanted else _shifted(model, port.name, zero, stored, wanted)
    )
    real = f"{port.name}_real"
    for node in model.graph.node:
        _rename(node.input, port.name, real)
    _rename(maker.output, port.name, real)
    _insert(model, None, "QuantizeLinear", [real, maker.input[1], name], port.name)
    return {"scale": scale, "zero_point": shifted}


def _parameters(node: Any, constants: Mapping[str, Any]) -> tuple[float, int, np.dtype[Any]]:
    from onnx import numpy_helper

    zero = numpy_helper.to_array(constants[node.input[2]])
    return float(numpy_helper.to_array(constants[node.input[1]])), int(zero), zero.dtype


def _shifted(
    model: Any, port: str, zero: int, stored: np.dtype[Any], wanted: np.dtype[Any]
) -> tuple[int, str]:
    """Add the zero point that stands for the same number in the other dtype of 8 bits."""
    from onnx import numpy_helper

    value = zero - np.iinfo(stored).min + np.iinfo(wanted).min
    name = f"{port}_{wanted.name}_zero_point"
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, wanted), name))
    return int(value), name


def _rename(names: Any, old: str, new: str) -> None:
    for place, name in enumerate(names):
        if name == old:
            names[place] = new


def _insert(model: Any, before: Any, kind: str, taken: list[str], made: str) -> None:
    from onnx import helper

    node = helper.make_node(kind, taken, [made], name=f"{made}_port_{kind}")
    place = len(model.graph.node) if before is None else list(model.graph.node).index(before)
    model.graph.node.insert(place, node)
