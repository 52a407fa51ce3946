"""Whether a rewritten model gives what it gave before, to the last bit, by running both on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from edgeml.arrays import Array, dequantize
from edgeml.engine_text import engine_text
from edgeml.errors import ConversionError, ParityError
from edgeml.tensors import Quantization
from edgeml_converters.coral.guarded import guarded

SAMPLES: Final = 3
FLOAT_LIMIT: Final = 1e-5
"""Of an output's largest value: float sums may be taken in another order."""
LEAST_DB: Final = 25.0
"""Of an output to its difference, where one operator rounds otherwise: the error of int8 itself is larger."""
_STEPS: Final = 1
"""Where an output was float and is 8-bit now."""
_LONGEST: Final = 300


def require_same(step: str, before: bytes, after: bytes, *, rounds: bool) -> None:
    """Run both on drawn samples that cover the range of their inputs.

    Outputs of the same dtype have to be equal, floats within ``FLOAT_LIMIT``; one that became 8-bit may be
    off by one step. Where an operator ``rounds`` otherwise each has to keep ``LEAST_DB``. LiteRT runs them
    with its own kernels: XNNPACK rounds otherwise in some versions.

    Raises:
        ParityError: they differ.
        ConversionError: one cannot be run here, or crashes the engine, so that nothing is known.
    """
    guarded(step, lambda: _require_same(step, before, after, rounds=rounds))


def _require_same(step: str, before: bytes, after: bytes, *, rounds: bool) -> None:
    left, right = Runner(step, before), Runner(step, after)
    if len(left.inputs) != len(right.inputs) or len(left.outputs) != len(right.outputs):
        raise ParityError(f"{step}: the number of inputs or outputs changed")
    generator = np.random.default_rng(0)
    for _ in range(SAMPLES):
        stored = [drawn(generator, one) for one in right.inputs]
        given = [
            _as(before_, after_, values)
            for before_, after_, values in zip(left.inputs, right.inputs, stored, strict=True)
        ]
        for place, (expected, found) in enumerate(zip(left.run(given), right.run(stored), strict=True)):
            reason = difference(expected, found, right.outputs[place])
            if reason is not None and rounds:
                reason = _far(expected, found)
            if reason is not None:
                raise ParityError(f"{step}: output {left.outputs[place]['name']!r} {reason}")


class Runner:
    """A model on LiteRT's own kernels, its ports in the order of the graph."""

    def __init__(self, step: str, content: bytes) -> None:
        """Load a model; raises ConversionError where it cannot be run here."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self._step = step
        try:
            self._engine = Interpreter(
                model_content=content,
                num_threads=1,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._engine.allocate_tensors()
            self.inputs: list[dict[str, Any]] = self._engine.get_input_details()
            self.outputs: list[dict[str, Any]] = self._engine.get_output_details()
        except (RuntimeError, ValueError) as error:
            raise self._refused(error) from error

    def run(self, values: Sequence[Array]) -> list[Array]:
        """Give the outputs; raises ConversionError where it fails."""
        try:
            for port, one in zip(self.inputs, values, strict=True):
                self._engine.set_tensor(port["index"], one)
            self._engine.invoke()
            return [self._engine.get_tensor(port["index"]) for port in self.outputs]
        except (RuntimeError, ValueError) as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> ConversionError:
        return ConversionError(
            f"{self._step}: the model cannot be run here, so that a change to it cannot be checked: "
            f"{engine_text(error, _LONGEST)}"
        )


def drawn(generator: np.random.Generator, port: dict[str, Any]) -> Array:
    """Draw values over the whole range of an 8-bit input; floats standard normal."""
    shape, dtype = tuple(port["shape"]), np.dtype(port["dtype"])
    if dtype in {np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.int16)}:
        info = np.iinfo(dtype)
        return generator.integers(info.min, info.max, shape, dtype, endpoint=True)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)


def _as(before: dict[str, Any], after: dict[str, Any], values: Array) -> Array:
    """Give the values that stood for ``values`` before an input became 8-bit."""
    if before["dtype"] == after["dtype"]:
        return values
    return dequantize(values, _quantization(after))


def _quantization(port: dict[str, Any]) -> Quantization:
    scale, zero_point = port["quantization"]
    return Quantization((float(scale),), (int(zero_point),))


def difference(expected: Array, found: Array, port: dict[str, Any]) -> str | None:
    """Say how an output differs from what it should be; ``None``: it does not."""
    if expected.shape != found.shape:
        return f"has the shape {list(found.shape)}; it was {list(expected.shape)}"
    if expected.dtype != found.dtype:
        scale = float(port["quantization"][0])
        away = np.abs(expected - dequantize(found, _quantization(port))).max(initial=0.0) / scale
        return f"is off by {away:.1f} steps" if not away <= _STEPS + FLOAT_LIMIT else None
    if expected.dtype.kind != "f":
        away = np.abs(expected.astype(np.int64) - found).max(initial=0)
        return f"is off by {away} steps" if away else None
    limit = FLOAT_LIMIT * float(np.nanmax(np.abs(expected), initial=0.0))
    if np.allclose(found, expected, rtol=0.0, atol=limit, equal_nan=True):
        return None
    return f"is off by {float(np.nanmax(np.abs(found - expected))):.3g}"


def _far(expected: Array, found: Array) -> str | None:
    """Say whether an output of unchanged dtype is further away than another rounding takes it."""
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return "changed its shape or dtype"
    left, right = expected.astype(np.float64), found.astype(np.float64)
    noise = float(np.square(right - left).sum())
    # of integers the spread counts, not where their zero point lies
    signal = float(np.square(left - (np.median(left) if expected.dtype.kind != "f" else 0.0)).sum())
    decibel = 10.0 * np.log10(signal / noise) if signal and noise else float("inf" if not noise else "-inf")
    return (
        f"is {decibel:.1f} dB from what it was, at least {LEAST_DB:g} are kept"
        if decibel < LEAST_DB
        else None
    )
