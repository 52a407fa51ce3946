"""Runs an ONNX model on calibration samples and collects the range of each activation, sample by sample."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from math import fsum, log10
from statistics import fmean
from typing import Any, Final

import numpy as np

from edgeml.converter import Sample
from edgeml.errors import QuantizationError
from edgeml_converters.quantize.ranges import Histogram
from edgeml_converters.quantize.step import CheckedSamples

_FLOAT: Final = 1
"""``TensorProto.FLOAT``."""
CHOICE_SAMPLES: Final = 100
"""Enough to tell candidates apart by tenths of a dB; keeps the choice as quick with 10,000 samples."""
DECIBEL_MAX: Final = 120.0
"""About what float32 itself holds."""


def activations(model: Any, samples: CheckedSamples, *, binned: bool) -> dict[str, Histogram]:
    """Give a histogram of every float32 activation of a ``ModelProto``, by tensor name.

    Without ``binned`` only the extremes are kept, which is quicker.
    One sample's activations are held at a time.

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
    for index, sample in enumerate(samples):
        for name in inputs:
            found[name].add(sample[name])
        for name, values in zip(names, engine.run(names, dict(sample)), strict=True):
            found[name].add(values)
            if found[name].not_finite:
                raise QuantizationError(
                    f"calibration sample {index} makes the tensor {name!r} NaN or infinite; "
                    f"look at the sample, and at the model on it"
                )
    return {name: histogram for name, histogram in found.items() if histogram.count}


def closest(reference: Any, candidates: Sequence[Any], samples: CheckedSamples) -> tuple[int, float]:
    """Give the place and the SQNR in dB of the candidate whose outputs come closest to the reference's.

    All are ``ModelProto``. At most ``CHOICE_SAMPLES`` samples are run, chosen by the hash of what they
    hold, and sums are exact, so that the order of the samples cannot change the choice.
    """
    engines = [_session(model.SerializeToString()) for model in candidates]
    original = _session(reference.SerializeToString())
    chosen = set(heapq.nsmallest(CHOICE_SAMPLES, {_digest(sample) for sample in samples}))
    outputs = len(original.get_outputs())
    signal: list[list[float]] = [[] for _ in range(outputs)]
    noise: list[list[list[float]]] = [[[] for _ in range(outputs)] for _ in engines]
    for sample in samples:
        digest = _digest(sample)
        if digest not in chosen:
            continue
        chosen.remove(digest)  # a sample that occurs again is not run again
        wanted = [np.asarray(value, np.float64) for value in original.run(None, dict(sample))]
        for place, value in enumerate(wanted):
            signal[place].append(float((value**2).sum()))
        for engine, sums in zip(engines, noise, strict=True):
            for place, value in enumerate(engine.run(None, dict(sample))):
                sums[place].append(float(((wanted[place] - value) ** 2).sum()))
    scores = [
        fmean(_decibel(fsum(one), fsum(other)) for one, other in zip(signal, sums, strict=True))
        for sums in noise
    ]
    best = max(range(len(scores)), key=lambda place: scores[place])
    return best, scores[best]


def _digest(sample: Sample) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(sample):
        digest.update(np.ascontiguousarray(sample[name]).data)
    return digest.digest()


def _decibel(signal: float, noise: float) -> float:
    """Give the ratio in dB; capped, so that one exact output does not outweigh all others."""
    if noise <= 0.0:
        return DECIBEL_MAX
    return min(DECIBEL_MAX, 10.0 * log10(signal / noise)) if signal > 0.0 else 0.0


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
