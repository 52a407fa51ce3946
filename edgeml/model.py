"""A model that is loaded: called with arrays, or with raw samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edgeml.arrays import Array, dequantize
from edgeml.errors import InputNameError
from edgeml.pipeline import Prediction, finish, prepare
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.runtime import Session
from edgeml.tensors import TensorSpec, reject_names

_RunCall = Callable[[Mapping[str, Array]], dict[str, Array]]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess = Preprocess()
    postprocess: Postprocess = Postprocess()
    labels: tuple[str, ...] = ()


class Model:
    """A model that is loaded. As safe to share between threads as its runtime's session.

    ``model(x)`` and ``model.run({...})`` take arrays as the model's inputs are; ``model.predict(sample)``
    takes a raw sample and does what the bundle declares before and after.
    """

    __slots__ = ("_call", "_session", "name", "release", "run", "runtime", "spec", "variant")

    run: _RunCall
    """Run once: input name to array, gives output name to array; arrays returned belong to the caller.

    Raises InputError for what does not fit, InferenceError if the engine fails or the model is closed.
    """
    spec: ModelSpec
    name: str
    """The bundle's name, or the file's."""
    release: int | None
    """The bundle's release; ``None`` for a raw file."""
    variant: str | None
    """Name of the variant in use; ``None`` for a raw file."""
    runtime: str

    def __init__(
        self,
        session: Session,
        spec: ModelSpec,
        *,
        name: str,
        runtime: str,
        release: int | None = None,
        variant: str | None = None,
    ) -> None:
        self._session = session
        self.spec = spec
        self.name, self.runtime, self.release, self.variant = name, runtime, release, variant
        self.run = _renamed(session, spec)
        self._call = _positional(self.run, session, spec)

    def __call__(self, x: Array | None = None, /, **inputs: Array) -> Any:
        """Run once.

        Args:
            x: the value of a model's only input, batch dimension included.
            inputs: or each input by its name.

        Returns:
            The array of a model's only output, or a dict of output name to array.
        """
        if inputs or x is None:
            return self._named(x, inputs)
        return self._call(x)

    def predict(self, sample: Any) -> Prediction:
        """Make a raw sample the model's input, run, and make the outputs a prediction.

        Args:
            sample: an image or array, with or without the batch dimension, a Pillow image, or the path of
                an image; for a model of several inputs a mapping of input name to such.

        Raises:
            InputError: the sample does not fit what the bundle declares.
            InferenceError: the engine failed.
        """
        inputs = self.spec.inputs
        given = sample if isinstance(sample, Mapping) else {inputs[0].name: sample}
        if given.keys() != {spec.name for spec in inputs}:
            reject_names(inputs, dict(given))
        outputs = self.run(
            {spec.name: prepare(_array(given[spec.name]), self.spec.preprocess, spec) for spec in inputs}
        )
        return finish(self.dequantized(outputs), self.spec.postprocess, self.spec.labels)

    def dequantized(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Give what ``run`` returned as real numbers: who passes stored integers gets such back."""
        quantizations = [spec.quantization for spec in self._session.outputs]
        return {
            spec.name: dequantize(outputs[spec.name], quantization)
            if quantization is not None and outputs[spec.name].dtype.kind in "iu"
            else outputs[spec.name]
            for spec, quantization in zip(self.spec.outputs, quantizations, strict=True)
        }

    def close(self) -> None:
        """Free the engine's memory; calls fail afterwards. Idempotent."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self.spec.inputs))
        outputs = ", ".join(map(str, self.spec.outputs))
        what = self.name if self.release is None else f"{self.name} release {self.release}, {self.variant}"
        return f"<edgeml.Model {what} on {self.runtime}: {inputs} -> {outputs}>"

    def _named(self, x: Array | None, inputs: dict[str, Array]) -> Any:
        if x is not None:
            raise InputNameError("pass one array, or every input by its name, not both")
        outputs = self.run(inputs)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


# --- calls, bound once so that each costs next to nothing


def _renamed(session: Session, spec: ModelSpec) -> _RunCall:
    """Give the session's own ``run`` where the names agree, else one that translates."""
    run = session.run
    pairs = list(zip(spec.inputs, session.inputs, strict=True))
    outputs = {own.name: named.name for named, own in zip(spec.outputs, session.outputs, strict=True)}
    if all(named.name == own.name for named, own in pairs) and all(a == b for a, b in outputs.items()):
        return run
    inputs = {named.name: own.name for named, own in pairs}

    def renamed(given: Mapping[str, Array]) -> dict[str, Array]:
        if not isinstance(given, Mapping) or given.keys() != inputs.keys():
            reject_names(spec.inputs, given)
        results = run({inputs[name]: value for name, value in given.items()})
        return {outputs[name]: value for name, value in results.items()}

    return renamed


def _positional(run: _RunCall, session: Session, spec: ModelSpec) -> Callable[[Array], Any]:
    """Give the call for one array."""
    if len(spec.inputs) != 1:
        names = ", ".join(one.name for one in spec.inputs)

        def refuse(_: Array) -> Any:
            raise InputNameError(f"this model has several inputs, pass each by its name: {names}")

        return refuse
    name = spec.inputs[0].name
    if len(spec.outputs) != 1:
        return lambda x: run({name: x})
    own_run, own_name, own_output = session.run, session.inputs[0].name, session.outputs[0].name
    return lambda x: own_run({own_name: x})[own_output]


def _array(sample: Any) -> Array:
    if isinstance(sample, np.ndarray):
        return sample
    if isinstance(sample, (str, Path)):
        from edgeml.data.images import decode

        return decode(Path(sample))
    if hasattr(sample, "convert") and getattr(sample, "mode", "RGB") not in {"RGB", "L"}:
        sample = sample.convert("RGB")
    return np.asarray(sample)
