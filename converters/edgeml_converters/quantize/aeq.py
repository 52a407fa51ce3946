"""AI Edge Quantizer: weights-only and dynamic recipes, and static ones fed with our own ranges."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array
from edgeml.converter import Sample
from edgeml.tensors import TensorSpec
from edgeml.words import Scheme
from edgeml_converters.quantize.choice import Run
from edgeml_converters.quantize.ranges import Histogram, Range
from edgeml_converters.quantize.step import CheckedSamples

_FLOAT32: Final = np.dtype(np.float32)


def by_recipe(
    model: bytes,
    scheme: Scheme,
    ranges: Mapping[str, Range] | None = None,
    in_float: Sequence[str] = (),
) -> bytes:
    """Quantize a float model with a signature; ``ranges`` by tensor name are needed by static schemes.

    Operators whose first output is named ``in_float`` stay as they are.
    """
    from ai_edge_quantizer import quantizer

    tool = quantizer.Quantizer(model)
    _configure(tool, scheme)
    if in_float:
        _leave(tool, in_float)
    statistics = None
    if ranges is not None:
        statistics = {
            name: {"min": np.array(low, np.float32), "max": np.array(high, np.float32)}
            for name, (low, high) in ranges.items()
        }
    with _quiet():
        result = tool.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _configure(tool: Any, scheme: Scheme) -> None:
    from ai_edge_quantizer import algorithm_manager, qtyping

    every = qtyping.TFLOperationName.ALL_SUPPORTED
    match scheme:
        case "int8_dynamic":
            tool.add_dynamic_config(".*", every, 8)
        case "int8_weights":
            tool.add_weight_only_config(".*", every, 8)
        case "int4_weights":
            tool.add_weight_only_config(".*", every, 4)
        case "float16":
            casting = algorithm_manager.AlgorithmName.FLOAT_CASTING
            tool.add_weight_only_config(".*", every, 16, algorithm_key=casting)
        case _:
            bits = 16 if scheme == "int16x8" else 8
            tool.add_static_config(".*", every, bits, 8)
            # static recipes would make the model's own inputs and outputs integers
            for port in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                tool.update_quantization_recipe(
                    ".*", port, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE
                )


def _leave(tool: Any, in_float: Sequence[str]) -> None:
    """Take operators out; the tool names one by all that it makes, each with a semicolon behind it."""
    from ai_edge_quantizer import algorithm_manager, qtyping

    names = "|".join(map(re.escape, in_float))
    tool.update_quantization_recipe(
        f"^(?:{names});",
        qtyping.TFLOperationName.ALL_SUPPORTED,
        algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE,
    )


def activation_histograms(
    model: bytes,
    activations: frozenset[int],
    inputs: tuple[TensorSpec, ...],
    samples: CheckedSamples,
    *,
    binned: bool,
) -> dict[str, Histogram]:
    """Run the samples through LiteRT and give a histogram of every float32 activation, by tensor name.

    ``activations`` are the indices of the tensors that hold no constants.

    Raises:
        QuantizationError: an activation is NaN or infinite.
    """
    found: dict[int, Histogram] = {}
    names: dict[int, str] = {}
    for number, engine in enumerate(runs(model, inputs, samples)):
        if not found:
            names = _readable(engine, activations)
            found = {index: Histogram(binned=binned) for index in names}
        for index, histogram in found.items():
            histogram.add(engine.get_tensor(index))
            histogram.require_finite(names[index], number)
    return {names[index]: histogram for index, histogram in found.items() if histogram.count}


def runs(model: bytes, inputs: tuple[TensorSpec, ...], samples: CheckedSamples) -> Iterator[Any]:
    """Run the samples through LiteRT and give the interpreter after each, with all its tensors to be read."""
    from ai_edge_litert.interpreter import Interpreter

    with _quiet():
        engine = Interpreter(model_content=model, num_threads=1, experimental_preserve_all_tensors=True)
    engine.allocate_tensors()
    ports = [item["index"] for item in engine.get_input_details()]
    for sample in samples:
        for port, spec in zip(ports, inputs, strict=True):
            engine.set_tensor(port, sample[spec.name])
        engine.invoke()
        yield engine


def runner(model: bytes, inputs: tuple[TensorSpec, ...]) -> Run:
    """Give a function that runs a TFLite model on one sample."""
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(model_content=model, num_threads=1)
    engine.allocate_tensors()
    ports = [item["index"] for item in engine.get_input_details()]
    results = [item["index"] for item in engine.get_output_details()]

    def run(sample: Sample) -> list[Array]:
        for port, spec in zip(ports, inputs, strict=True):
            engine.set_tensor(port, sample[spec.name])
        engine.invoke()
        return [engine.get_tensor(index) for index in results]

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide progress bars, LiteRT's advice on keeping all tensors, and numpy's on channels of zeros."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", UserWarning)
        yield


def _readable(engine: Any, activations: frozenset[int]) -> dict[int, str]:
    names: dict[int, str] = {}
    for item in engine.get_tensor_details():
        if item["dtype"] != _FLOAT32 or item["index"] not in activations:
            continue
        try:
            engine.get_tensor(item["index"])
        except ValueError:  # a tensor that XNNPACK keeps inside
            continue
        names[item["index"]] = item["name"]
    return names
