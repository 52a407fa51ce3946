"""Runs an ONNX model on calibration samples and collects the range of each activation, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from edgeml_converters.quantize.bias import ChannelMeans
from edgeml_converters.quantize.choice import Run
from edgeml_converters.quantize.ranges import Histogram
from edgeml_converters.quantize.step import CheckedSamples

_FLOAT: Final = 1
"""``TensorProto.FLOAT``."""


def activations(
    model: Any, samples: CheckedSamples, *, binned: bool, means: Mapping[str, ChannelMeans] | None = None
) -> dict[str, Histogram]:
    """Give a histogram of every float32 activation of a ``ModelProto``, by tensor name.

    ``means`` of the tensors named there are filled on the way. Without ``binned`` only the extremes are
    kept, which is quicker. One sample's activations are held at a time.

    Raises:
        QuantizationError: an activation is NaN or infinite.
    """
    import onnx

    inputs, inside = _activations(model)
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    present = {port.name for port in tapped.graph.output}
    tapped.graph.output.extend(item for name, item in inside.items() if name not in present)
    engine = _session(tapped.SerializeToString())
    del tapped
    names = list(inside)
    found = {name: Histogram(binned=binned) for name in [*inputs, *names]}
    means = means or {}
    for index, sample in enumerate(samples):
        # asked for none, the engine gives all
        made = zip(names, engine.run(names, dict(sample)) if names else (), strict=True)
        for name, values in [*((name, sample[name]) for name in inputs), *made]:
            found[name].add(values)
            found[name].require_finite(name, index)
            if name in means:
                means[name].add(values)
    return {name: histogram for name, histogram in found.items() if histogram.count}


def runner(model: Any) -> Run:
    """Give a function that runs a ``ModelProto`` on one sample."""
    engine = _session(model.SerializeToString())
    return lambda sample: list(engine.run(None, dict(sample)))


def _session(model: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _activations(model: Any) -> tuple[list[str], dict[str, Any]]:
    """Give the names of the float32 inputs, and of every float32 tensor that a node makes its description."""
    weights = {item.name for item in model.graph.initializer}
    inputs = [
        port.name
        for port in model.graph.input
        if port.name not in weights and port.type.tensor_type.elem_type == _FLOAT
    ]
    described = {item.name: item for item in [*model.graph.value_info, *model.graph.output]}
    made = [name for node in model.graph.node for name in node.output if name in described]
    return inputs, {
        name: described[name] for name in made if described[name].type.tensor_type.elem_type == _FLOAT
    }
