"""``edgeml.load``: a bundle, a model file or an installed model, ready to call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from edgeml import plugins
from edgeml.artifact_cache import artifact
from edgeml.bundle import Bundle, is_bundle, open_bundle
from edgeml.choice import Choice, choose, options_here
from edgeml.engines import engine, version_fits
from edgeml.errors import BundleError, EngineMissingError, InputNameError, ModelFileError, UsageError
from edgeml.formats import TITLE, identify
from edgeml.manifest import Manifest, Variant
from edgeml.pipeline import Prediction, finish, prepare
from edgeml.preprocess import Postprocess, Preprocess
from edgeml.runtime import Runtime, Session
from edgeml.settings import settings
from edgeml.targets import host
from edgeml.tensors import Array, TensorSpec, dequantize, reject_names
from edgeml.words import RUNTIME_OF_FORMAT

CURRENT: Final = "current"
_RunCall = Callable[[Mapping[str, Array]], dict[str, Array]]


class OtherMachineWarning(UserWarning):
    """The variant that was loaded was made for another kind of machine."""


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


def load(
    source: str | Path,
    *,
    runtime: str | None = None,
    variant: str | None = None,
    threads: int | None = None,
    options: Mapping[str, str] | None = None,
) -> Model:
    """Load a model to run on this machine.

    Args:
        source: a bundle, an extracted bundle, a model file (ONNX, TFLite, OpenVINO), or the name of an
            installed model (its current release).
        runtime: use this one; by default the variant decides, or the file's format.
        variant: use this one of the bundle; by default what suits this machine best.
        threads: engine threads; by default as many as the variant was measured with, else 1.
        options: engine options as texts, over those that the variant was measured with.

    Warns:
        OtherMachineWarning: nothing in the bundle was made for this kind of machine.

    Raises:
        UsageError: no such name, variant or runtime.
        BundleError: the bundle is damaged.
        ModelFileError: the file is missing, damaged, or of a format that no runtime reads.
        EngineMissingError: no engine that could run it is installed; says how to install one.
        InferenceError: the engine refuses the model.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads={threads}: use 1 or more")
    texts = dict(options or {}) | ({} if threads is None else {"threads": str(threads)})
    path = _locate(source)
    if is_bundle(path):
        return _load_bundle(open_bundle(path), runtime, variant, texts)
    if variant is not None:
        raise UsageError(f"{path} is a model file, not a bundle: it has no variant {variant!r}")
    return _load_file(path, runtime, texts)


def _locate(source: str | Path) -> Path:
    path = Path(source)
    if isinstance(source, Path) or path.exists() or path.suffix or len(path.parts) != 1:
        return path
    installed = settings().home / "models" / source
    if not (installed / CURRENT).exists():
        folder = installed.parent
        names = sorted(place.parent.name for place in folder.glob(f"*/{CURRENT}"))
        known = ", ".join(names) or "none"
        raise UsageError(f"no file and no installed model {source!r}; installed in {folder}: {known}")
    # one release, even if `current` is switched while it loads
    return (installed / CURRENT).resolve()


# --- model files


def _load_file(path: Path, runtime: str | None, texts: Mapping[str, str]) -> Model:
    found = identify(path)
    readers = [name for name in plugins.names(plugins.RUNTIME_GROUP) if _reads(name) in {found, None}]
    if runtime is not None and runtime not in readers and runtime in plugins.names(plugins.RUNTIME_GROUP):
        raise ModelFileError(f"{path} is {TITLE[found]}, which {runtime} does not read; convert it first")
    fitting = [runtime] if runtime is not None else [name for name in readers if _reads(name) == found]
    if not fitting and found in RUNTIME_OF_FORMAT:
        raise EngineMissingError(
            f"no runtime here reads {TITLE[found]}. Install it: pip install 'edgeml-core[device]'"
        )
    if not fitting:
        raise ModelFileError(f"{path} is {TITLE[found]}, which no runtime reads: run edgeml convert {path}")
    driver = _driver(fitting[0])
    session = driver.load(path, driver.options(texts))
    spec = ModelSpec(session.inputs, session.outputs)
    return Model(session, spec, name=path.stem, runtime=fitting[0])


def _reads(runtime: str) -> str | None:
    """Give the format that a runtime of ours reads; ``None`` for another's."""
    return next((format_ for format_, reader in RUNTIME_OF_FORMAT.items() if reader == runtime), None)


def _driver(runtime: str) -> Runtime:
    found = engine(runtime)
    if found is not None and found.version is None:
        raise EngineMissingError(f"runtime {runtime} needs an engine: {found.lacking}")
    return plugins.runtime(runtime)


# --- bundles


def _load_bundle(bundle: Bundle, runtime: str | None, variant: str | None, texts: Mapping[str, str]) -> Model:
    manifest = bundle.manifest
    chosen, driver = _first_loadable(choose(manifest, host(), _lacking, runtime=runtime, variant=variant))
    if chosen.warning is not None:
        warnings.warn(chosen.warning, OtherMachineWarning, stacklevel=3)
    one = chosen.variant
    labels = () if manifest.labels is None else _labels(bundle, manifest.labels)
    file = artifact(bundle, one)
    session = driver.load(file, driver.options(options_here(one) | dict(texts)))
    try:
        spec = _spec(manifest, one, session, labels)
        return Model(
            session, spec, name=manifest.name, runtime=one.runtime, release=manifest.release, variant=one.name
        )
    except BaseException:
        session.close()
        raise


def _first_loadable(choices: Sequence[Choice]) -> tuple[Choice, Runtime]:
    """Import the engine of the first choice whose engine can be imported."""
    for choice in choices[:-1]:
        with suppress(EngineMissingError):
            return choice, plugins.runtime(choice.variant.runtime)
    return choices[-1], plugins.runtime(choices[-1].variant.runtime)


def _lacking(variant: Variant) -> str | None:
    """Say why a variant's engine cannot be used here."""
    if variant.runtime not in plugins.names(plugins.RUNTIME_GROUP):
        return f"no runtime {variant.runtime} is installed: pip install 'edgeml-runtimes[{variant.runtime}]'"
    found = engine(variant.runtime)
    if found is None or found.lacking is not None:
        return None if found is None else found.lacking
    if found.version is not None and not version_fits(found.version, variant.runtime_version):
        wanted = variant.runtime_version
        return f"{variant.name} needs {found.distribution} {wanted}, {found.version} is here: {found.install}"
    return None


def _labels(bundle: Bundle, path: str) -> tuple[str, ...]:
    try:
        return tuple(bundle.read(path).decode().splitlines())
    except UnicodeDecodeError as error:
        raise BundleError(f"{bundle.path}: {path} is not UTF-8 text") from error


def _spec(manifest: Manifest, variant: Variant, session: Session, labels: tuple[str, ...]) -> ModelSpec:
    for side, ours, theirs in (
        ("input", manifest.inputs, session.inputs),
        ("output", manifest.outputs, session.outputs),
    ):
        if len(ours) != len(theirs):
            raise BundleError(
                f"{manifest.name}: the manifest has {len(ours)} {side}s, variant {variant.name} has "
                f"{len(theirs)}; make the bundle again"
            )
    return ModelSpec(
        _in_order(manifest.inputs, session.inputs),
        _in_order(manifest.outputs, session.outputs),
        manifest.preprocess,
        manifest.postprocess,
        labels,
    )


def _in_order(ours: tuple[TensorSpec, ...], theirs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Give the bundle's tensors in the session's order: by name, or by place where a variant renamed them."""
    by_name = {spec.name: spec for spec in ours}
    if all(spec.name in by_name for spec in theirs):
        return tuple(by_name[spec.name] for spec in theirs)
    return ours


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
