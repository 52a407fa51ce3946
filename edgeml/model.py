"""A model that is loaded: called with arrays, or with raw samples."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import numpy as np

from edgeml.arrays import Array, dequantize
from edgeml.errors import InputError, InputNameError
from edgeml.fallback import reason_of
from edgeml.pipeline import Prediction, finish, prepare
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.runtime import Session
from edgeml.tensors import TensorSpec, reject_names

if TYPE_CHECKING:
    from edgeml.telemetry.features import InputFeatures

RunCall = Callable[[Mapping[str, Array]], dict[str, Array]]
_clock: Final = time.monotonic
"""As of :mod:`edgeml.telemetry.recording`."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a model takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess = Preprocess()
    postprocess: Postprocess = Postprocess()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Watched:
    """How predictions are recorded, whose runs are not recorded by themselves."""

    run: RunCall
    predicted: Callable[[Prediction, Mapping[str, Array], tuple[float, float, float, float]], None]
    """Takes the inputs as prepared, and when it began, was prepared, had run, and ended."""
    failed: Callable[[float, Exception, Mapping[str, Array]], None]
    """Takes when it began, and the inputs as prepared."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One artifact that an engine holds, and how it is called: what a model is at one moment."""

    session: Session
    spec: ModelSpec
    name: str
    runtime: str
    release: int | None
    variant: str | None
    run: RunCall
    """Takes and gives the model's own names."""
    call: Callable[[Array], Any]
    """Takes the only input, gives the only output or all of them by name."""
    features: tuple[InputFeatures, ...] = ()
    """What is recorded of inputs, where the bundle has a reference to hold them against."""
    watched: Watched | None = None
    """Where calls are recorded."""


def loaded(
    session: Session,
    spec: ModelSpec,
    *,
    name: str,
    runtime: str,
    release: int | None = None,
    variant: str | None = None,
    features: tuple[InputFeatures, ...] = (),
) -> Loaded:
    """Bind the calls of a session under the names of ``spec``."""
    run = _renamed(session, spec)
    call = _positional(run, session, spec)
    return Loaded(session, spec, name, runtime, release, variant, run, call, features)


class Follower(Protocol):
    """What exchanges the loaded release of a model that follows an installed one."""

    def defer(self, seconds: float) -> None:
        """Ask the device's agent to begin no switch for so long."""
        ...

    def stop(self) -> None:
        """Follow no more. Idempotent."""
        ...


class Model:
    """A model that is loaded. As safe to share between threads as its runtime's session.

    ``model(x)`` and ``model.run({...})`` take arrays as the model's inputs are; ``model.predict(sample)``
    takes a raw sample and does what the bundle declares before and after.

    An installed model that was loaded by its name goes over to a new release between two calls. Each call
    sees one release, from its inputs to its outputs.
    """

    __slots__ = ("__weakref__", "_follower", "_loaded")

    def __init__(self, loaded: Loaded, follower: Follower | None = None) -> None:
        # all that a call needs stands behind one reference, which a follower exchanges
        self._loaded = loaded
        self._follower = follower

    @property
    def run(self) -> RunCall:
        """Run once: input name to array, gives output name to array; arrays returned belong to the caller.

        Raises InputError for what does not fit, InferenceError if the engine fails or the model is closed.
        """
        return self._loaded.run

    @property
    def spec(self) -> ModelSpec:
        """What the model takes and gives."""
        return self._loaded.spec

    @property
    def name(self) -> str:
        """The bundle's name, or the file's."""
        return self._loaded.name

    @property
    def release(self) -> int | None:
        """The bundle's release; ``None`` for a raw file."""
        return self._loaded.release

    @property
    def variant(self) -> str | None:
        """Name of the variant in use; ``None`` for a raw file."""
        return self._loaded.variant

    @property
    def runtime(self) -> str:
        """The runtime in use."""
        return self._loaded.runtime

    @property
    def fallback(self) -> str | None:
        """Why the model runs on the CPU in place of its accelerator; ``None``: it does not."""
        return reason_of(self._loaded.session)

    def __call__(self, x: Array | None = None, /, **inputs: Array) -> Any:
        """Run once.

        Args:
            x: the value of a model's only input, batch dimension included.
            inputs: or each input by its name.

        Returns:
            The array of a model's only output, or a dict of output name to array.
        """
        if inputs or x is None:
            return _named(self._loaded, x, inputs)
        call = self._loaded.call  # an attribute of a slot is found faster than it is called as a method
        return call(x)

    def predict(self, sample: Any) -> Prediction:
        """Make a raw sample the model's input, run, and make the outputs a prediction.

        Args:
            sample: an image or array, with or without the batch dimension, a Pillow image, or the path of
                an image; for a model of several inputs a mapping of input name to such.

        Raises:
            InputError: the sample does not fit what the bundle declares.
            InferenceError: the engine failed.
        """
        now = self._loaded
        spec = now.spec
        given = sample if isinstance(sample, Mapping) else {spec.inputs[0].name: sample}
        if given.keys() != {one.name for one in spec.inputs}:
            reject_names(spec.inputs, dict(given))
        if now.watched is not None:
            return _watched(now, now.watched, given)
        outputs = now.run(_prepared(spec, given))
        return finish(_dequantized(now, outputs), spec.postprocess, spec.labels)

    def dequantized(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Give what ``run`` returned as real numbers: who passes stored integers gets such back."""
        return _dequantized(self._loaded, outputs)

    def defer(self, seconds: float) -> None:
        """Ask the device's agent to begin no switch of this model for so long; 0 asks no more.

        The agent may wait no longer than its policy says. Nothing happens for a model that does not follow.
        """
        if self._follower is not None:
            self._follower.defer(seconds)

    def close(self) -> None:
        """Free the engine's memory; calls fail afterwards. Idempotent."""
        if self._follower is not None:
            self._follower.stop()
        self._loaded.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        now = self._loaded
        inputs = ", ".join(map(str, now.spec.inputs))
        outputs = ", ".join(map(str, now.spec.outputs))
        what = now.name if now.release is None else f"{now.name} release {now.release}, {now.variant}"
        return f"<edgeml.Model {what} on {now.runtime}: {inputs} -> {outputs}>"


def _prepared(spec: ModelSpec, given: Mapping[str, Any]) -> dict[str, Array]:
    return {one.name: prepare(_array(given[one.name]), spec.preprocess, one) for one in spec.inputs}


def _watched(now: Loaded, watched: Watched, given: Mapping[str, Any]) -> Prediction:
    begin = _clock()
    inputs = _prepared(now.spec, given)
    ready = _clock()
    try:
        outputs = watched.run(inputs)
        done = _clock()
        prediction = finish(_dequantized(now, outputs), now.spec.postprocess, now.spec.labels)
    except InputError:
        raise
    except Exception as error:
        watched.failed(begin, error, inputs)
        raise
    watched.predicted(prediction, inputs, (begin, ready, done, _clock()))
    return prediction


def _named(now: Loaded, x: Array | None, inputs: dict[str, Array]) -> Any:
    if x is not None:
        raise InputNameError("pass one array, or every input by its name, not both")
    outputs = now.run(inputs)
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _dequantized(now: Loaded, outputs: Mapping[str, Array]) -> dict[str, Array]:
    quantizations = [spec.quantization for spec in now.session.outputs]
    return {
        spec.name: dequantize(outputs[spec.name], quantization)
        if quantization is not None and outputs[spec.name].dtype.kind in "iu"
        else outputs[spec.name]
        for spec, quantization in zip(now.spec.outputs, quantizations, strict=True)
    }


# --- calls, bound once so that each costs next to nothing


def _renamed(session: Session, spec: ModelSpec) -> RunCall:
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


def _positional(run: RunCall, session: Session, spec: ModelSpec) -> Callable[[Array], Any]:
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
