"""Bias correction for an OpenVINO model; see ``bias`` for what it does.

NNCF's own is left off: its results hang on the order of the samples. Its fast form took MobileNetV2 with
weights of 7 bits only half of the way back; its full form comes as near to float as this one and takes three
times as long.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgeml_converters.quantize.bias import ChannelMeans
from edgeml_converters.quantize.step import CheckedSamples

_CORRECTED: Final = frozenset({"Convolution", "GroupConvolution", "MatMul"})


def input_means(model: Any, samples: CheckedSamples) -> dict[str, NDArray[np.float64]]:
    """Run the float model and give the mean of each input channel, by the operator's name."""
    import openvino
    from openvino import opset13

    tapped = model.clone()
    places: dict[str, int] = {}
    wanted: list[Any] = []
    for node in tapped.get_ordered_ops():
        if node.get_type_name() in _CORRECTED and _bias(node) is not None:
            places[node.get_friendly_name()] = len(wanted)
            entering = node.input_value(0)
            rank = len(entering.get_partial_shape())
            channels = rank - 1 if node.get_type_name() == "MatMul" else 1
            axes = [axis for axis in range(rank) if axis != channels]
            wanted.append(opset13.result(opset13.reduce_mean(entering, axes)))
    if not wanted:
        return {}
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    engine = openvino.Core().compile_model(
        openvino.Model(wanted, tapped.get_parameters(), "means"), "CPU", hints
    )
    means = [ChannelMeans(axis=0) for _ in wanted]
    request = engine.create_infer_request()
    for sample in samples:
        request.infer(dict(sample))
        for place, counted in enumerate(means):
            counted.add(request.get_output_tensor(place).data)
    return {name: means[place].value() for name, place in places.items()}


def correct(model: Any, quantized: Any, means: dict[str, NDArray[np.float64]]) -> None:
    """Correct the biases of ``quantized``, made from the float ``model``."""
    from openvino import opset13

    real = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    for node in quantized.get_ordered_ops():
        name = node.get_friendly_name()
        port = _bias(node) if node.get_type_name() in _CORRECTED and name in means else None
        if port is None or name not in real:
            continue
        held, weights = (_numbers(item.input_value(1).get_node()) for item in (node, real[name]))
        if held is None or weights is None:
            continue
        shift = _shift(node, held - weights, means[name])
        if shift is None:
            continue
        old = np.asarray(port.get_source_output().get_node().get_data(), np.float32)
        if old.size != shift.size:
            continue
        corrected = opset13.constant((old - shift.reshape(old.shape)).astype(np.float32))
        port.replace_source_output(corrected.output(0))


def _shift(node: Any, error: NDArray[np.float64], means: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Give what the weights' ``error`` adds to each output channel; ``None`` where it cannot be told."""
    if node.get_type_name() == "MatMul":
        transposed = node.get_attributes()
        if error.ndim != 2 or transposed["transpose_a"]:  # noqa: PLR2004 - a matrix
            return None
        return np.asarray((error if transposed["transpose_b"] else error.T) @ means)
    kernel = len(node.input_value(0).get_partial_shape()) - 2
    summed = error.reshape(*error.shape[: error.ndim - kernel], -1).sum(axis=-1)
    if node.get_type_name() == "GroupConvolution":  # [groups, outputs, inputs]
        entering = means.reshape(summed.shape[0], summed.shape[2])
        return np.asarray(np.einsum("goi,gi->go", summed, entering).reshape(-1))
    return np.asarray(summed @ means)


def _bias(node: Any) -> Any | None:
    """Give the input of the Add behind an operator that takes its bias, a constant."""
    takers = list(node.output(0).get_target_inputs())
    if len(takers) != 1 or takers[0].get_node().get_type_name() != "Add":
        return None
    add = takers[0].get_node()
    port = add.input(1 - takers[0].get_index())
    return port if port.get_source_output().get_node().get_type_name() == "Constant" else None


def _numbers(node: Any) -> NDArray[np.float64] | None:
    """Give the numbers that stored weights stand for; ``None`` where they are held in a way not known."""
    kind = node.get_type_name()
    if kind == "Constant":
        return np.asarray(node.get_data(), np.float64)
    parts: list[NDArray[np.float64]] = []
    for place in range(node.get_input_size()):
        part = _numbers(node.input_value(place).get_node())
        if part is None:
            return None
        parts.append(part)
    match kind:
        case "Convert":
            made = parts[0]
        case "Reshape":
            made = parts[0].reshape(list(node.get_output_shape(0)))
        case "Multiply":
            made = np.asarray(parts[0] * parts[1])
        case "Subtract":
            made = np.asarray(parts[0] - parts[1])
        case _:
            return None
    return made
